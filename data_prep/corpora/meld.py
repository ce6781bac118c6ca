"""MELD (Poria et al. 2019): 13,708 utterances of a television series, cut out of its video, with an official split.

Labels, speakers and texts are in three CSV files, the sound in one `dia{D}_utt{U}.mp4` a row. Ids begin anew in every
split. Of some clips of the test split there is a second cut, `final_videos_testdia{D}_utt{U}.mp4`; which of the two is
right is disputed, so `twins` chooses.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxser.types import InputError, Reading, Rejection, UsageError, Utterance

SPLITS = {"train": "train", "dev": "validation", "test": "test"}
"""Our names of the splits by those of the files."""

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
TWINS = ("plain", "final")

_FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
_CLIP = re.compile(r"(final_videos_test)?dia([0-9]{1,6})_utt([0-9]{1,6})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)
_TIME = re.compile(r"([0-9]{1,3}):([0-9]{1,2}):([0-9]{1,2})[,.]([0-9]{1,3})", re.ASCII)
_SUFFIXES = (".wav", ".flac", ".mp4")  # of copies of one clip the first of these is used
_SENTIMENT = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}
_CHARACTERS = {code: bytes([code]).decode("cp1252", "ignore") or " " for code in range(0x80, 0xA0)}
_CHARACTERS[0xA0] = " "

Key = tuple[str, int, int]
"""Split, dialogue, utterance: nothing less names a row."""


def read(root: Path, twins: str = "plain", max_seconds: float | None = None) -> Reading:
    """The rows of the three CSV files, each with its clip; raises `InputError` where one of the files is not there.

    A row without a clip names the path where it was expected, so that it is rejected when its sound is read; the rows
    themselves can be checked without any clips. `twins`: "plain" or "final" cuts of the test clips that have both.
    Rows that by the CSV's times last for more than `max_seconds` keep so much of their clip (flag `cut_seconds`).
    """
    if twins not in TWINS:
        raise UsageError(f"--meld_twins={twins}: must be one of {', '.join(TWINS)}")
    if max_seconds is not None and not 0 < max_seconds < float("inf"):
        raise UsageError(f"--max_seconds={max_seconds}: must be more than 0")
    root = Path(root)
    clips = _find_clips(root, twins)
    rows: dict[Key, Utterance] = {}
    for split, path in _find_tables(root).items():
        for key, utterance in _rows(split, path, root, clips):
            if key in rows:
                clips.rejected.append(
                    Rejection(utterance.id, path.relative_to(root).as_posix(), "a second row of this id")
                )
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
    """What sound there is, by row; paths are relative to the corpus root."""

    chosen: dict[Key, str] = field(default_factory=dict)
    twins: int = 0
    copies: int = 0
    rejected: list[Rejection] = field(default_factory=list)


def _find_clips(root: Path, twins: str) -> _Clips:
    """Every clip, whatever the nesting of its folders: the nearest folder named after a split tells which."""
    clips = _Clips()
    found: dict[Key, dict[bool, list[Path]]] = {}
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES):
        if path.name.startswith("._"):
            continue  # AppleDouble files
        place = path.relative_to(root)
        name, split = _CLIP.fullmatch(path.stem), _split_of(place)
        if name is None or not split:
            what = "no folder of its path is named after a split" if name else "no name such as dia0_utt0.mp4"
            clips.rejected.append(Rejection(_printable(path.stem), _printable(place.as_posix()), what))
            continue
        key = (split, int(name[2]), int(name[3]))
        found.setdefault(key, {}).setdefault(name[1] is not None, []).append(place)
    for key, cuts in found.items():
        copies = cuts.get(twins == "final") or next(iter(cuts.values()))
        copies.sort(key=lambda place: (_SUFFIXES.index(place.suffix.lower()), len(place.parts), place))
        clips.chosen[key] = copies[0].as_posix()
        clips.twins += len(cuts) == 2
        clips.copies += len(copies) > 1
    return clips


def _split_of(place: Path) -> str:
    for folder in reversed(place.parts[:-1]):
        named = [split for split in SPLITS if split in folder.lower()]
        if len(named) == 1:
            return named[0]
    return ""


def _find_tables(root: Path) -> dict[str, Path]:
    """The CSV file of each split: the least nested one of its name."""
    tables = {}
    for split in SPLITS:
        name = f"{split}_sent_emo.csv"
        copies = sorted(root.rglob(name), key=lambda path: (len(path.parts), path))
        if not copies:
            raise InputError(f"{root}: no {name} in it, so this is no release of MELD (MELD.Raw)")
        tables[split] = copies[0]
    return tables


def _rows(split: str, path: Path, root: Path, clips: _Clips) -> Iterator[tuple[Key, Utterance]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    reader = csv.DictReader(io.StringIO(_decoded(content), newline=""))
    try:
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}: no column {', '.join(missing)}; found {list(reader.fieldnames or ())}")
        for row in reader:
            where = f"{path.relative_to(root).as_posix()}:{reader.line_num}"
            cells = {name: (cell or "").strip() for name, cell in row.items() if isinstance(name, str)}
            dialogue, number, label = cells["Dialogue_ID"], cells["Utterance_ID"], cells["Emotion"].lower()
            if not _NUMBER.fullmatch(dialogue) or not _NUMBER.fullmatch(number):
                clips.rejected.append(
                    Rejection("", where, "Dialogue_ID and Utterance_ID are not two numbers")
                )
            elif not label:
                clips.rejected.append(Rejection("", where, "no emotion"))
            else:
                key = (split, int(dialogue), int(number))
                yield key, _utterance(key, label, cells, clips.chosen.get(key))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num + 1} is no CSV ({error})") from None


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


def _capped(utterance: Utterance, max_seconds: float | None) -> Utterance:
    if max_seconds is None or utterance.attributes.get("seconds", 0.0) <= max_seconds:
        return utterance
    return replace(
        utterance, wav=f"{utterance.wav}#t=0,{max_seconds:g}", flags=(*utterance.flags, "cut_seconds")
    )


def _id(key: Key) -> str:
    return f"{key[0]}_dia{key[1]}_utt{key[2]}"


def _decoded(content: bytes) -> str:
    """Text of UTF-8 that some tool had taken for Latin-1, so that quotes of Windows became C1 controls."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.translate(_CHARACTERS)


def _seconds(time: str) -> float:
    """Of `00:16:16,059`; NaN where it is something else."""
    parts = _TIME.fullmatch(time)
    if parts is None:
        return float("nan")
    return int(parts[1]) * 3600 + int(parts[2]) * 60 + int(parts[3]) + float(f"0.{parts[4]}")


def _printable(text: str) -> str:
    """Text that can be written as UTF-8, whatever bytes a file name has."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
