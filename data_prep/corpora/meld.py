"""MELD (Poria et al. 2019): utterances of a television series, with an official split.

There are 13,708 of them, cut from its video. Labels, speakers and transcripts are in three CSV files, with one clip
`dia{D}_utt{U}.mp4` per row. Dialogue and utterance numbers restart in every split. Some clips of the test split exist
in a second cut, `final_videos_testdia{D}_utt{U}.mp4`; it is disputed which of the two is correct, so `twins` selects
one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from jaxser.types import InputError, Reading, Rejection, UsageError, Utterance

from .parsing import find_audio, printable
from .tables import csv_rows, read_text

SPLITS = {"train": "train", "dev": "validation", "test": "test"}
"""Names of the splits by the names in the release's files."""

EXPECTED_BY_SPLIT: dict[str, dict[str, int]] = {
    "train": {
        "neutral": 4710,
        "joy": 1743,
        "surprise": 1205,
        "anger": 1109,
        "sadness": 683,
        "disgust": 271,
        "fear": 268,
    },
    "dev": {
        "neutral": 470,
        "joy": 163,
        "surprise": 150,
        "anger": 153,
        "sadness": 111,
        "disgust": 22,
        "fear": 40,
    },
    "test": {
        "neutral": 1256,
        "joy": 402,
        "surprise": 281,
        "anger": 345,
        "sadness": 208,
        "disgust": 68,
        "fear": 50,
    },
}
EXPECTED = dict(sum(map(Counter, EXPECTED_BY_SPLIT.values()), Counter[str]()))
"""Utterances per label in the release."""

TWINS = ("plain", "final")

_FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
_CLIP = re.compile(r"(final_videos_test)?dia([0-9]{1,6})_utt([0-9]{1,6})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)
_TIME = re.compile(r"([0-9]{1,3}):([0-9]{1,2}):([0-9]{1,2})[,.]([0-9]{1,3})", re.ASCII)
_SUFFIXES = (".wav", ".flac", ".mp4")  # in order of preference
_SENTIMENT = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}
_CHARACTERS = {code: bytes([code]).decode("cp1252", "ignore") or " " for code in range(0x80, 0xA0)}
_CHARACTERS[0xA0] = " "

Key = tuple[str, int, int]
"""Split, dialogue number and utterance number, which together identify a row."""


def read(root: Path, twins: str = "plain", max_seconds: float | int | None = None) -> Reading:
    """Read the rows of the three CSV files, each with its clip.

    A row without a clip gets the path where the clip was expected, and is rejected later, when the audio is read. The
    tables can therefore be read without any clips. Flags: `bad_span` (a row does not end after its start),
    `cut_seconds` (the clip is cut to `max_seconds`).

    Args:
        root: the folder of the release, in any nesting.
        twins: which cut to use for test clips that exist in two, "plain" or "final".
        max_seconds: use only the beginning of clips that last longer, according to the times in the tables.

    Raises:
        InputError: if one of the CSV files is missing or malformed.
        UsageError: if an option is out of range.
    """
    if twins not in TWINS:
        raise UsageError(f"--meld_twins={twins}: must be one of {', '.join(TWINS)}")
    if max_seconds is not None and not 0 < max_seconds < float("inf"):
        raise UsageError(f"--max_seconds={max_seconds}: must be greater than 0")
    root = Path(root)
    clips = _find_clips(root, twins)
    rows: dict[Key, Utterance] = {}
    for split, path in _find_tables(root).items():
        for key, where, utterance in _rows(split, path, root, clips):
            if key in rows:
                clips.rejected.append(Rejection(utterance.id, where, "a second row with this id"))
            else:
                rows[key] = _capped(utterance, max_seconds)
    for key in sorted(clips.chosen.keys() - rows.keys()):
        clips.rejected.append(Rejection(_id(key), clips.chosen[key], "a clip, but no row in the CSV file"))
    without = sum(key not in clips.chosen for key in rows)
    facts = {
        "twins": twins,
        "max_seconds": max_seconds,
        "clips_with_twin": clips.twins,
        "clips_with_copies": clips.copies,
        "rows_without_clip": without,
    }
    return Reading(tuple(rows.values()), tuple(clips.rejected), EXPECTED, facts)


@dataclass
class _Clips:
    """The clip of each row, relative to the root; `twins` and `copies` count the rows with several."""

    chosen: dict[Key, str] = field(default_factory=dict)
    twins: int = 0
    copies: int = 0
    rejected: list[Rejection] = field(default_factory=list)


def _find_clips(root: Path, twins: str) -> _Clips:
    """Find all clips. A clip belongs to the split that the nearest of its parent folders is named after."""
    clips = _Clips()
    found: dict[Key, dict[bool, list[Path]]] = {}
    for path in find_audio(root, _SUFFIXES):
        relative = path.relative_to(root)
        name, split = _CLIP.fullmatch(path.stem), _split_of(relative)
        if name is None or not split:
            reason = "no parent folder is named after a split" if name else "not named like dia0_utt0.mp4"
            clips.rejected.append(Rejection(printable(path.stem), printable(relative.as_posix()), reason))
            continue
        key = (split, int(name[2]), int(name[3]))
        found.setdefault(key, {}).setdefault(name[1] is not None, []).append(relative)
    for key, cuts in found.items():
        copies = cuts.get(twins == "final") or next(iter(cuts.values()))
        copies.sort(key=lambda path: (_SUFFIXES.index(path.suffix.lower()), len(path.parts), path))
        clips.chosen[key] = copies[0].as_posix()
        clips.twins += len(cuts) == 2
        clips.copies += len(copies) > 1
    return clips


def _split_of(path: Path) -> str:
    for folder in reversed(path.parts[:-1]):
        named = [split for split in SPLITS if split in folder.lower()]
        if len(named) == 1:
            return named[0]
    return ""


def _find_tables(root: Path) -> dict[str, Path]:
    """Find the CSV file of each split; of several files with its name, the least nested one."""
    tables = {}
    for split in SPLITS:
        name = f"{split}_sent_emo.csv"
        copies = sorted(root.rglob(name), key=lambda path: (len(path.parts), path))
        if not copies:
            raise InputError(f"{root}: not a release of MELD (MELD.Raw): contains no {name}")
        tables[split] = copies[0]
    return tables


def _rows(split: str, path: Path, root: Path, clips: _Clips) -> Iterator[tuple[Key, str, Utterance]]:
    """Yield the key, the line and the utterance of each usable row."""
    text, _ = read_text(path)
    text = text.translate(_CHARACTERS)  # Windows quotes became C1 control characters when taken for Latin-1
    names = [column.lower() for column in _COLUMNS]
    for row in csv_rows(path, text, partial(_column_names, path), names, _looks_like_row):
        where = f"{path.relative_to(root).as_posix()}:{row.line}"
        if row.problem:
            clips.rejected.append(Rejection("", where, row.problem))
        elif not _has_numbers(row.cells):
            clips.rejected.append(Rejection("", where, "Dialogue_ID and Utterance_ID are not two numbers"))
        elif not row.cells["Emotion"]:
            clips.rejected.append(Rejection("", where, "no emotion"))
        else:
            key = (split, int(row.cells["Dialogue_ID"]), int(row.cells["Utterance_ID"]))
            label = row.cells["Emotion"].lower()
            yield key, where, _utterance(key, label, row.cells, clips.chosen.get(key))


def _has_numbers(cells: Mapping[str, str]) -> bool:
    return all(_NUMBER.fullmatch(cells[column]) for column in ("Dialogue_ID", "Utterance_ID"))


def _looks_like_row(cells: Mapping[str, str], _: Mapping[str, str]) -> bool:
    return _has_numbers(cells) and cells["Emotion"].lower() in EXPECTED


def _column_names(path: Path, header: list[str]) -> list[str]:
    if missing := [column for column in _COLUMNS if column not in header]:
        raise InputError(f"{path}: no column {', '.join(missing)}; found {', '.join(header)[:200] or 'none'}")
    return header


def _utterance(key: Key, label: str, cells: Mapping[str, str], clip: str | None) -> Utterance:
    split, dialogue, number = key
    seconds = _seconds(cells.get("EndTime", "")) - _seconds(cells.get("StartTime", ""))
    attributes = {} if math.isnan(seconds) else {"seconds": round(seconds, 3)}
    if cells.get("Sentiment") in _SENTIMENT:
        attributes["sentiment"] = _SENTIMENT[cells["Sentiment"]]
    return Utterance(
        id=_id(key),
        wav=clip or f"{_FOLDERS[split]}/dia{dialogue}_utt{number}.mp4",
        label=label,
        transcript=cells["Utterance"],
        speaker=cells["Speaker"],
        dialogue=f"{split}_dia{dialogue}",
        split=SPLITS[split],
        attributes=attributes,
        flags=("bad_span",) if seconds <= 0 else (),
    )


def _capped(utterance: Utterance, max_seconds: float | int | None) -> Utterance:
    if max_seconds is None or utterance.attributes.get("seconds", 0.0) <= max_seconds:
        return utterance
    return replace(
        utterance, wav=f"{utterance.wav}#t=0,{max_seconds:g}", flags=(*utterance.flags, "cut_seconds")
    )


def _id(key: Key) -> str:
    return f"{key[0]}_dia{key[1]}_utt{key[2]}"


def _seconds(time: str) -> float:
    """Convert a time such as `00:16:16,059`; NaN if it has another form."""
    parts = _TIME.fullmatch(time)
    if parts is None:
        return float("nan")
    return int(parts[1]) * 3600 + int(parts[2]) * 60 + int(parts[3]) + float(f"0.{parts[4]}")
