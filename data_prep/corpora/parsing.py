"""Helpers of the corpus readers: files, encodings, and Sphinx's word alignments."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from jaxser.features.audio import split_span
from jaxser.features.paths import LFS_POINTER, LFS_REASON
from jaxser.types import Utterance, Word

FRAMES_PER_SECOND = 100  # of a Sphinx alignment
ALIGNMENT_TOLERANCE = 0.05  # s by which an alignment may exceed its recording

_BLOCK_BYTES = 2**20
_BYTE_ORDER_MARKS = {  # UTF-32 first, whose mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_FRAME = re.compile(r"-?[0-9]{1,9}", re.ASCII)
_PRONUNCIATION_VARIANT = re.compile(r"\([0-9]+\)$", re.ASCII)
_NOT_A_WORD = re.compile(r"<.*>|\+\+.*\+\+|\[.*\]")


def find_audio(root: Path, suffixes: Collection[str] = (".wav", ".flac")) -> list[Path]:
    """Find the audio files below `root`, sorted by path, without AppleDouble files (`._name`)."""
    paths = (path for path in root.rglob("*") if path.suffix.lower() in suffixes)
    return sorted(path for path in paths if not is_apple_double(path))


def is_apple_double(path: Path) -> bool:
    """Return whether a file holds macOS metadata.

    Several releases have one next to every file.
    """
    return path.name.startswith("._")


def decode(content: bytes, fallback: str = "latin-1") -> str:
    """Decode UTF-8, with or without a byte order mark, or else the fallback encoding."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode(fallback, "replace")


def printable(text: str) -> str:
    """Escape what cannot be encoded as UTF-8, such as undecodable bytes of a file name."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def decode_text(content: bytes) -> tuple[str, str]:
    """Decode what spreadsheets and editors write; return the text and its encoding's name.

    This is UTF-8, UTF-16 or UTF-32, with or without a byte order mark, or else Windows' Latin-1 ("cp1252").

    Raises:
        ValueError: if it begins as UTF-16 or UTF-32 and contains anything else.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return _strictly(content, encoding), encoding
    even, odd = content[:4096:2], content[1:4096:2]
    if len(content) % 2 == 0 and odd:
        for nul, other, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
            if nul.count(0) > len(nul) / 2 and not other.count(0):
                return _strictly(content, encoding), encoding
    try:
        return content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace"), "cp1252"


def _strictly(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"damaged: byte {error.start} is not {encoding.upper()}") from None


MAX_TEXT_BYTES = 2**26
"""The size of the largest file of labels, transcripts or word times that is read."""


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of limited size.

    Raises:
        ValueError: if it is missing, something else, too large or a git-lfs pointer. The message does not name it.
    """
    try:
        if not path.is_file():
            raise ValueError("no such file" if not path.exists() else "cannot be read (not a regular file)")
        if (size := path.stat().st_size) > max_bytes:
            raise ValueError(f"{size} bytes are more than the {max_bytes} allowed")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from None
    if content.startswith(LFS_POINTER):
        raise ValueError(LFS_REASON)
    return content


def find_file(root: Path, relative: str) -> str:
    """Return a path as it is spelled on the disk.

    Its letters with accents may be composed there (NFC) or not (NFD). A path that does not exist in either spelling is
    returned unchanged.
    """
    if relative.isascii():
        return relative
    try:
        return _as_spelled(root, relative)
    except (OSError, ValueError):  # such as a name that is too long
        return relative


def _as_spelled(root: Path, relative: str) -> str:
    if (root / relative).exists():
        return relative
    folder, found = root, []
    for part in Path(relative).parts:
        spelled = part if (folder / part).exists() else _spelling(folder, part)
        if spelled is None:
            return relative
        found.append(spelled)
        folder = folder / spelled
    return Path(*found).as_posix()


def _spelling(folder: Path, name: str) -> str | None:
    names = _names(folder, os.stat(folder).st_mtime_ns)
    return names.get(unicodedata.normalize("NFC", name))


@lru_cache(64)
def _names(folder: Path, changed: int) -> dict[str, str]:
    """Return the names in a folder by their composed form.

    `changed`, its time of modification, keeps the cache valid.
    """
    return {unicodedata.normalize("NFC", name): name for name in os.listdir(folder)}


def is_copy(root: Path, first: Utterance, second: Utterance) -> bool:
    """Return whether two utterances are equal but for the paths of byte-identical files."""
    if replace(second, wav=first.wav) != first:
        return False
    files = []
    for utterance in (first, second):
        path, span = split_span(utterance.wav)
        files.append((root / path, span))
    (one, span), (other, other_span) = files
    return span == other_span and same_bytes(one, other)


def same_bytes(one: Path, other: Path) -> bool:
    """Return whether two paths lead to files of the same content; False if one cannot be read."""
    if one == other:
        return True
    try:
        if not (one.is_file() and other.is_file()) or one.stat().st_size != other.stat().st_size:
            return False
        with one.open("rb") as first, other.open("rb") as second:
            while block := first.read(_BLOCK_BYTES):
                if block != second.read(_BLOCK_BYTES):
                    return False
    except (OSError, ValueError):
        return False
    return True


def parse_wdseg(lines: Sequence[str], duration: float | None = None) -> tuple[Word, ...]:
    """Parse a `.wdseg` file of Sphinx: first frame, last frame, score and word per row.

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
