"""Recordings and attention plots that are embedded in a page as data URLs."""

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
from jaxser.features.audio import SAMPLE_RATE, read_audio
from jaxser.types import InputError, UsageError

if TYPE_CHECKING:
    import jaxser

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".au"}


def find_recordings(root: Path, utterances: Iterable[str]) -> dict[str, Path]:
    """Find the recording of each utterance by its id.

    It is the file whose path in the folder, or whose name, is the id.

    Raises:
        InputError: if the folder does not exist, or has none of the recordings.
    """
    wanted = set(utterances)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the folder of the corpus's recordings")
    paths = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in SUFFIXES]
    files = {path.stem: path for path in paths}
    files |= {path.relative_to(root).with_suffix("").as_posix(): path for path in paths}
    found = {name: files[name] for name in sorted(wanted & files.keys())}
    if wanted and not found:
        raise InputError(
            f"{root} has no recording that is named after an utterance, such as {min(wanted)}.wav"
        )
    return found


def players(root: Path | None, utterances: Iterable[str]) -> dict[str, Markup]:
    """Return the recordings of utterances as data URLs; empty without a folder."""
    if root is None:
        return {}
    return {name: recording_url(path) for name, path in find_recordings(root, utterances).items()}


def recording_url(path: Path) -> Markup:
    """Return a recording as a data URL of mono FLAC at 16 kHz, which every browser plays.

    Raises:
        InputError: if the file cannot be read.
    """
    file = io.BytesIO()
    soundfile.write(file, read_audio(path).samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return Markup("data:audio/flac;base64," + base64.b64encode(file.getvalue()).decode())


DPI = 110


@dataclass(frozen=True)
class AttentionPlot:
    """The attention of one utterance; the picture and the recording are data URLs."""

    utterance: str
    true: str
    predicted: str
    transcript: str
    picture: Markup
    recording: Markup


def attention(run: Run, root: Path | None, number: int, encoder: Path | None = None) -> list[AttentionPlot]:
    """Return the mean attention of the first fold's replicas for some test utterances.

    Args:
        run: the run.
        root: the folder of the recordings.
        number: the number of utterances, which are evenly spaced.
        encoder: the folder of the pretrained encoder, if the run reads its frames.

    Raises:
        UsageError: if no folder of recordings is given, or not the encoder of the run.
        InputError: if the run's model is missing, or a recording cannot be used.
    """
    if not number:
        return []
    if root is None:
        raise UsageError("--attention needs the recordings of the corpus: add --audio=ROOT")
    import jaxser  # compiles programs, which a report without attention does not need

    fold = run.folds[0]
    chosen = [fold.test[row] for row in np.linspace(0, len(fold.test) - 1, number).round().astype(int)]
    ensemble = jaxser.load(run.folder, fold=fold.name, encoder=encoder)
    plots = []
    for name, path in find_recordings(root, dict.fromkeys(chosen)).items():
        row = run.utterances[name]
        text = row.transcript
        plots.append(
            AttentionPlot(
                utterance=name,
                true=row.label or "no label",
                predicted=ensemble.predict(path, text=text, encoder=encoder)[0].summary,
                transcript=text,
                picture=_picture(ensemble.attention(path, text=text, encoder=encoder)[0]),
                recording=recording_url(path),
            )
        )
    return plots


def _picture(found: jaxser.Attention) -> Markup:
    file = io.BytesIO()
    found.figure().savefig(file, format="png", dpi=DPI)
    return Markup("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
