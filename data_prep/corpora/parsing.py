"""Helpers shared by the corpus readers: finding audio files, decoding text, CSV tables and word alignments."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import soundfile

from jaxser.types import InputError, Word

FRAMES_PER_SECOND = 100  # of a Sphinx alignment
ALIGNMENT_TOLERANCE = 0.05  # s by which an alignment may exceed its recording

_FRAME = re.compile(r"-?[0-9]{1,9}", re.ASCII)
_PRONUNCIATION_VARIANT = re.compile(r"\([0-9]+\)$", re.ASCII)
_NOT_A_WORD = re.compile(r"<.*>|\+\+.*\+\+|\[.*\]")


def find_audio(root: Path, suffixes: Collection[str] = (".wav", ".flac")) -> list[Path]:
    """Find the audio files below `root`, sorted by path, without macOS's AppleDouble files (`._name`)."""
    paths = (path for path in root.rglob("*") if path.suffix.lower() in suffixes)
    return sorted(path for path in paths if not is_apple_double(path))


def is_apple_double(path: Path) -> bool:
    """Whether a file holds macOS metadata, which several releases include next to every file."""
    return path.name.startswith("._")


def audio_duration(path: Path) -> float | None:
    """Return the duration in seconds, or None if the file is not readable audio (reported when it is read)."""
    try:
        return float(soundfile.info(str(path)).duration)
    except (soundfile.LibsndfileError, OSError, RuntimeError, UnicodeError, ZeroDivisionError):
        return None


def decode(content: bytes, fallback: str = "latin-1") -> str:
    """Decode UTF-8, with or without a byte order mark, or else the fallback encoding."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode(fallback, "replace")


def printable(text: str) -> str:
    """Escape what cannot be encoded as UTF-8, such as undecodable bytes of a file name."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def csv_rows(
    table: Path, text: str, column_names: Callable[[list[str]], list[str]], delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the stripped cells by column of every row of a CSV table.

    Args:
        table: the file's path, for messages.
        text: its contents.
        column_names: called with the header; returns the column names to use, or raises `InputError`.
        delimiter: the character between cells.

    Raises:
        InputError: if the text is not CSV.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        reader.fieldnames = column_names(list(reader.fieldnames or ()))
        for row in reader:
            cells = {name: (cell or "").strip() for name, cell in row.items() if isinstance(name, str)}
            yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"{table}: line {reader.line_num + 1} is not valid CSV ({error})") from None


def parse_wdseg(lines: Sequence[str], duration: float | None = None) -> tuple[Word, ...]:
    """Parse a `.wdseg` file, a word alignment by Sphinx: first frame, last frame, score and word per row.

    Words are lower-cased; silences, noises and pronunciation variants (`LIKE(2)`) are removed. A gap between two rows
    is silence. Malformed rows are ignored unless frames are missing as well.

    Args:
        lines: the lines of the file.
        duration: of the recording in seconds, if known. No row may end later.

    Raises:
        ValueError: if rows overlap, are missing, or exceed the recording.
    """
    words, frame, malformed = [], 0, ""
    has_rows = False
    for line in lines:
        cells = line.split()
        if not _is_alignment_row(cells):
            if cells and cells[0] != "SFrm" and cells[:2] != ["Total", "score:"]:
                malformed = malformed or line.strip()
            continue
        first, last, has_rows = int(cells[0]), int(cells[1]), True
        if first < frame or last < first:
            raise ValueError(f"frames {first} to {last} do not follow frame {frame - 1}")
        if first > frame and malformed:
            raise ValueError(
                f"frames {frame} to {first - 1} are missing, and row {malformed[:60]!r} is malformed"
            )
        frame = last + 1
        text = _PRONUNCIATION_VARIANT.sub("", cells[3]).lower()
        if text and not _NOT_A_WORD.fullmatch(text):
            words.append(Word(text, first / FRAMES_PER_SECOND, frame / FRAMES_PER_SECOND))
    _check_end(frame / FRAMES_PER_SECOND, duration, malformed, has_rows=has_rows)
    return tuple(words)


def _is_alignment_row(cells: list[str]) -> bool:
    return len(cells) == 4 and all(_FRAME.fullmatch(cell) for cell in cells[:2])


def _check_end(end: float, duration: float | None, malformed: str, *, has_rows: bool) -> None:
    if malformed and duration is not None and end < duration - ALIGNMENT_TOLERANCE:
        raise ValueError(f"ends at {end:.2f} s, and row {malformed[:60]!r} is malformed")
    if not has_rows:
        raise ValueError("no rows of first frame, last frame, score and word")
    if duration is not None and end > duration + ALIGNMENT_TOLERANCE:
        raise ValueError(f"ends at {end:.2f} s, but the recording at {duration:.2f} s")
