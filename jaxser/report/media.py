"""Recordings and pictures of attention for a report's page, embedded as data URLs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from markupsafe import Markup

from jaxser.evaluation.run_folder import Run
from jaxser.types import InputError, UsageError

if TYPE_CHECKING:
    import jaxser

KINDS = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".au"}


def find(root: Path, utterances: Iterable[str]) -> dict[str, Path]:
    """The file of each utterance below a corpus's folder: the one whose path there, or whose name, is its id.

    Raises:
        InputError: there is no such folder, or nothing of what is wanted in it.
    """
    wanted = set(utterances)
    if not root.is_dir():
        raise InputError(f"{root} is no folder: give the corpus's own folder, where its recordings are")
    paths = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in KINDS]
    files = {path.stem: path for path in paths}
    files |= {path.relative_to(root).with_suffix("").as_posix(): path for path in paths}
    found = {name: files[name] for name in sorted(wanted & files.keys())}
    if wanted and not found:
        raise InputError(f"{root} has no recording named by an utterance ({min(wanted)}.wav, say)")
    return found


def players(root: Path | None, utterances: Iterable[str]) -> dict[str, Markup]:
    """The recording of each utterance as a data address; none without a folder."""
    return {} if root is None else {name: player(path) for name, path in find(root, utterances).items()}


def player(path: Path) -> Markup:
    """A recording as FLAC of one channel, which every browser plays.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    file = io.BytesIO()
    soundfile.write(file, samples.mean(axis=1), rate, format="FLAC", subtype="PCM_16")
    return Markup("data:audio/flac;base64," + base64.b64encode(file.getvalue()).decode())


DOTS = 110  # an inch


@dataclass(frozen=True)
class Shown:
    """A picture of an utterance's attention; addresses are data."""

    utterance: str
    true: str
    predicted: str
    transcript: str
    picture: Markup
    player: Markup


def attention(run: Run, root: Path | None, number: int) -> list[Shown]:
    """`number` utterances, evenly over those that the first fold tests, as its replicas (the mean) see them.

    Raises:
        UsageError: there is no folder of recordings to look at.
        InputError: the run's model is not there, or a recording cannot be used.
    """
    if not number:
        return []
    if root is None:
        raise UsageError("--attention needs --audio=ROOT: the recordings of the corpus")
    import jaxser  # JAX's compiled programs, only where a model is asked

    fold = run.folds[0]
    chosen = [fold.test[row] for row in np.linspace(0, len(fold.test) - 1, number).round().astype(int)]
    ensemble = jaxser.load(run.folder, fold=fold.name)
    return [
        Shown(
            utterance=name,
            true=run.utterances[name]["label"],
            predicted=ensemble.predict(path, text=run.utterances[name]["transcript"])[0].label,
            transcript=run.utterances[name]["transcript"],
            picture=_picture(ensemble.attention(path, text=run.utterances[name]["transcript"])[0]),
            player=player(path),
        )
        for name, path in find(root, dict.fromkeys(chosen)).items()
    ]


def _picture(found: jaxser.Attention) -> Markup:
    file = io.BytesIO()
    found.figure().savefig(file, format="png", dpi=DOTS)
    return Markup("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
