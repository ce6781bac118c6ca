"""Audio players: recordings of a corpus as data that stands in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import soundfile
from markupsafe import Markup

from jaxser.types import InputError

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
