"""Kaldi's data folders: `wav.scp`, `text`, `utt2spk`, `segments`, and a file of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxser.types import InputError

from .parsing import MAX_TEXT_BYTES, decode_text, printable, read_file
from .tables import Row

LABELS = ("utt2emo", "utt2emotion", "utt2label", "emotion", "label", "emo")
"""Names of the file of labels, which Kaldi itself does not have."""


@dataclass(frozen=True)
class Folder:
    """The rows of a data folder and their places, and how each column was read."""

    rows: list[tuple[str, Row]]
    columns: dict[str, str]


def read_folder(folder: Path, label: str = "", split: str = "") -> Folder:
    """Read a data folder; each utterance of its `segments`, or else of `wav.scp`, is a row.

    Commands in `wav.scp` are never run; their utterances are rejected.

    Args:
        folder: the folder.
        label: the file of labels; "" searches one of `LABELS`.
        split: the part of all utterances.

    Raises:
        InputError: if a file cannot be read, or there are no labels.
    """
    names = (label,) if label else LABELS
    found = [name for name in names if (folder / name).is_file()]
    if not found:
        raise InputError(
            f"{folder}: no file of labels, {', '.join(names)}; write one with an utterance and its label per line"
        )
    recordings = _read(folder / "wav.scp")
    labels = _read(folder / found[0])
    texts, speakers, genders, segments = (
        _read(folder / name) if (folder / name).is_file() else {}
        for name in ("text", "utt2spk", "spk2gender", "segments")
    )
    source = "segments" if segments else "wav.scp"
    rows = []
    for utterance, value in (segments or recordings).items():
        place = f"{folder.name}/{source}:{utterance}"
        cells = {
            "id": utterance,
            "label": labels.get(utterance, ""),
            "text": texts.get(utterance, ""),
            "speaker": speakers.get(utterance, ""),
            "gender": genders.get(speakers.get(utterance, ""), ""),
            "split": split,
        }
        try:
            span = _span(value) if segments else {"recording": utterance}
            cells |= {"path": _path(recordings, span.pop("recording")), **span}
            rows.append((place, Row(0, cells)))
        except ValueError as error:
            rows.append((place, Row(0, {"id": utterance}, str(error))))
    columns = {"path": "wav.scp", "label": found[0]}
    columns |= {"text": "text"} if texts else {}
    columns |= {"speaker": "utt2spk"} if speakers else {}
    columns |= {"gender": "spk2gender"} if genders else {}
    columns |= {"start": "segments", "end": "segments"} if segments else {}
    return Folder(rows, columns)


def _read(path: Path) -> dict[str, str]:
    """Return the rest of each line by its first word."""
    try:
        text = decode_text(read_file(path, MAX_TEXT_BYTES))[0]
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    pairs = (line.strip().partition(" ") for line in text.replace("\t", " ").split("\n"))
    return {printable(key): printable(value.strip()) for key, _, value in pairs if key}


def _span(line: str) -> dict[str, str]:
    parts = line.split()
    if len(parts) not in (3, 4):  # a fourth is the channel
        raise ValueError(f"segment {line[:60]!r}: not a recording, its start and its end")
    recording, start, end = parts[:3]
    return {"recording": recording, "start": start, **({} if end.startswith("-") else {"end": end})}


def _path(recordings: Mapping[str, str], recording: str) -> str:
    path = recordings.get(recording, "")
    if not path:
        raise ValueError(f"no recording {recording[:60]!r} in wav.scp")
    if path.endswith("|") or path.startswith("|"):
        raise ValueError(f"{path[:60]!r} is a command, which is not run; write the path of a recording")
    return path
