"""Checks that the pages of Ogg files are complete."""

from __future__ import annotations

import io
from collections.abc import Iterator

from jaxser.types import InputError

_MAX_PAGES = 5_000_000  # more than a day of audio
_HEADER = 27


def has_all_pages(file: io.BufferedIOBase, size: int) -> bool:
    """Return whether each stream has consecutive pages, the last one marked as such.

    Recordings of a running broadcast have the stream's headers and then the pages from some later one.

    Raises:
        InputError: if the file ends within a page, or a page between others is missing.
    """
    is_broadcast = False
    open_streams: set[bytes] = set()
    latest: dict[bytes, tuple[int, bool]] = {}  # the number of the page, and whether it has audio
    for header in _headers(file, size):
        stream, number = header[14:18], int.from_bytes(header[18:22], "little")
        before, has_audio = latest.get(stream, (number - 1, False))
        if number != before + 1 and not header[5] & 2:  # not the first page of a further stream
            if has_audio:
                raise InputError(f"truncated: page {before + 1} of its audio is missing")
            is_broadcast = True
        latest[stream] = number, any(header[6:14])
        (open_streams.discard if header[5] & 4 else open_streams.add)(stream)
    return not open_streams and not is_broadcast


def _headers(file: io.BufferedIOBase, size: int) -> Iterator[bytes]:
    """Yield the header of each page, up to another program's tags."""
    position = 0
    for _ in range(_MAX_PAGES):
        header = _read(file, position, _HEADER)
        if not header or header[:4] != b"OggS"[: len(header)]:
            return
        lacing = _read(file, position + _HEADER, header[26]) if len(header) == _HEADER else b""
        end = position + _HEADER + len(lacing) + sum(lacing)
        if len(header) < _HEADER or len(lacing) < header[26] or end > size:
            raise InputError("truncated: the file ends within a page of its audio")
        yield header
        position = end


def _read(file: io.BufferedIOBase, position: int, number: int) -> bytes:
    file.seek(position)
    return file.read(number)
