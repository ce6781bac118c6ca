"""Checks that recordings are complete: the container's sizes against the bytes present.

Most decoders read half a file without an error. Programs that write to a pipe or crash leave headers that state no
size, or a wrong one; such recordings are complete as far as anyone can tell, and are read with a flag.
"""

from __future__ import annotations

import io
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jaxser.features.ogg import has_all_pages
from jaxser.types import InputError

FFMPEG_OPTIONS = {
    "protocol_whitelist": "",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,aac,amr,mp3,flac",
}
"""Options of FFmpeg's demuxer: a playlist or a reference within a file must not open other files or addresses."""


class Container(NamedTuple):
    """The outcome of a check.

    Attributes:
        states_size: whether the header states the size of the audio, and rightly.
        patches: bytes of the header to replace, by position, so that libsndfile reads all that is there.
        needs_ffmpeg: whether libsndfile cannot decode it, or not all of it.
    """

    states_size: bool = True
    patches: tuple[tuple[int, bytes], ...] = ()
    needs_ffmpeg: bool = False


def check_container(file: io.BufferedIOBase) -> Container:
    """Compare the sizes in a file's header with the file.

    Files of an unknown format pass, since their decoder has to reject them.

    Raises:
        InputError: if a part of the audio is missing. The message does not name the file.
    """
    size = file.seek(0, io.SEEK_END)
    head = _read(file, 0, 16)
    for magic, check in _CHECKS.items():
        if re.match(magic, head, re.DOTALL):
            return check(file, size)
    return Container()


_SLACK = 128  # bytes that a size may be too large by, as if it included headers
_PADDING = 2**16  # bytes between the tags of an MP3 file and its audio
_MAX_CHUNKS = 100_000
_MAX_FRAMES = 5_000_000  # more than a day of audio
_RIFF_HEADER = 12

_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_AMR_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
_AMR_WB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)
_MP3_KILOBITS = {  # of layer III by MPEG version
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def _read(file: io.BufferedIOBase, position: int, count: int) -> bytes:
    if position >= 2**62:  # where nothing can be
        return b""
    file.seek(position)
    return file.read(count)


def _correct_size(stated: int, start: int, size: int) -> int | None:
    """Return the size of audio that begins at `start`, or None if the stated one is right.

    Raises:
        InputError: if the stated size is plausible, and a part of the audio is missing.
    """
    present = size - start
    if present <= 0:
        raise InputError("truncated: the file ends before its audio data")
    missing = stated - present
    if 0 < stated <= present:
        return None
    is_placeholder = (
        stated == 0
        or 0x7F000000 <= stated <= 0x7F000100
        or 0x7FFF0000 <= stated <= 0x80000100
        or 0xFFFF0000 <= stated <= 0xFFFFFFFF
        or stated >= 2**62
    )
    if is_placeholder or missing <= _SLACK or missing in (start, start - 8):
        return present
    raise InputError(f"truncated: {present} of {stated} bytes are present")


def _corrected(stated: int, start: int, size: int, field: int, form: str, extra: int = 0) -> Container:
    """Check a size of audio, and patch its field, which also counts `extra` bytes."""
    correct = _correct_size(stated, start, size)
    if correct is None:
        return Container()
    return Container(False, ((field, struct.pack(form, correct + extra)),))


def _chunks(file: io.BufferedIOBase, position: int, form: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, size and position of the contents of each chunk of a RIFF or IFF file."""
    for _ in range(_MAX_CHUNKS):
        header = _read(file, position, 8)
        if len(header) < 8:
            return
        name, length = header[:4], struct.unpack(form, header[4:])[0]
        yield name, length, position + 8
        position += 8 + length + length % 2


def _check_wav(file: io.BufferedIOBase, size: int) -> Container:
    """Check RIFF, RIFX, and RF64 or BW64, whose sizes are in a chunk of their own."""
    magic = _read(file, 0, 4)
    form = ">I" if magic == b"RIFX" else "<I"
    long_field = 0
    for name, stated, start in _chunks(file, _RIFF_HEADER, form):
        if name == b"ds64":
            long_field = start + 8
        if name != b"data":
            continue
        if long_field and stated == 0xFFFFFFFF:
            stated = struct.unpack("<Q", _read(file, long_field, 8).ljust(8, b"\0"))[0]
            return _corrected(stated, start, size, long_field, "<Q")
        if not stated and _is_chunk_list(file, start, size, form):
            return Container()
        container = _corrected(stated, start, size, start - 4, form)
        ends = {start + stated, start + stated + stated % 2}  # some programs write no padding byte
        if container.states_size and not any(_is_chunk_list(file, end, size, form) for end in ends):
            return Container(states_size=False)  # more audio, or other bytes, follow its stated end
        return container
    raise InputError("truncated: the file ends before its audio data")


def _is_chunk_list(file: io.BufferedIOBase, position: int, size: int, form: str) -> bool:
    """Return whether the rest of a file consists of chunks, or of padding."""
    if size - position <= _SLACK:
        return True
    end = position
    for name, length, start in _chunks(file, position, form):
        if not re.fullmatch(rb"[ -~]{4}", name):
            break
        end = start + length
    return abs(end - size) <= _SLACK


def _check_aiff(file: io.BufferedIOBase, size: int) -> Container:
    for name, stated, start in _chunks(file, _RIFF_HEADER, ">I"):
        if name == b"SSND":
            return _corrected(max(0, stated - 8), start + 8, size, start - 4, ">I", extra=8)
    raise InputError("truncated: the file ends before its audio data")


def _check_w64(file: io.BufferedIOBase, size: int) -> Container:
    for name, stated, start in _objects(file, 40, alignment=8):
        if name == _W64_DATA:
            return _corrected(stated, start, size, start - 8, "<Q", extra=24)
    raise InputError("truncated: the file ends before its audio data")


def _objects(file: io.BufferedIOBase, position: int, alignment: int = 1) -> Iterator[tuple[bytes, int, int]]:
    """Yield GUID, size and position of the contents of each object of a W64 or ASF file."""
    for _ in range(_MAX_CHUNKS):
        header = _read(file, position, 24)
        if len(header) < 24:
            return
        length = max(0, struct.unpack("<Q", header[16:])[0] - 24)
        yield header[:16], length, position + 24
        position += 24 + length + -length % alignment


def _check_au(file: io.BufferedIOBase, size: int) -> Container:
    form = ">II" if _read(file, 0, 4) == b".snd" else "<II"
    header = _read(file, 4, 8)
    if len(header) < 8:
        raise InputError("truncated: the file ends before its audio data")
    start, stated = struct.unpack(form, header)
    return _corrected(stated, start, size, 8, form[:2])


def _check_caf(file: io.BufferedIOBase, size: int) -> Container:
    position = 8
    for _ in range(_MAX_CHUNKS):
        header = _read(file, position, 12)
        if len(header) < 12:
            break
        name, stated = struct.unpack(">4sQ", header)
        if name == b"data":
            return _corrected(stated, position + 12, size, position + 4, ">Q")
        position += 12 + stated
    raise InputError("truncated: the file ends before its audio data")


def _check_sphere(file: io.BufferedIOBase, size: int) -> Container:
    header = _read(file, 0, 1024).decode("latin-1")
    numbers = dict(re.findall(r"^(\w+) -i ([0-9]{1,12})\b", header, re.MULTILINE))
    wanted = [numbers.get(name) for name in ("sample_count", "sample_n_bytes", "channel_count")]
    if wanted[0] is None or wanted[1] is None:
        return Container(states_size=False)
    stated = int(wanted[0]) * int(wanted[1]) * int(wanted[2] or 1)
    start = int(header[8:16]) if header[8:16].strip().isdecimal() else 1024
    return Container(_correct_size(stated, start, size) is None)


def _check_flac(file: io.BufferedIOBase, size: int) -> Container:
    """Leave FLAC without a number of samples, which is then zero, to FFmpeg.

    libsndfile needs the number, and compares it with the samples.
    """
    fields = _read(file, 18, 8)
    states_size = len(fields) < 8 or bool(int.from_bytes(fields) & (2**36 - 1))
    return Container(states_size, needs_ffmpeg=not states_size)


def _check_ogg(file: io.BufferedIOBase, size: int) -> Container:
    return Container(has_all_pages(file, size))


def _frame_lengths(
    file: io.BufferedIOBase, size: int, position: int, length_of: Callable[[bytes], int]
) -> Counter[int]:
    """Count the frames of a stream without a header, by their lengths in bytes.

    Raises:
        InputError: if the file ends within a frame.
    """
    lengths: Counter[int] = Counter()
    for _ in range(_MAX_FRAMES):
        length = length_of(_read(file, position, 7))
        if not length:
            return lengths
        lengths[length] += 1
        position += length
        if position > size:
            raise InputError("truncated: the file ends within a frame of its audio")
    raise InputError(f"more than {_MAX_FRAMES:,} frames of audio")


def _check_mp3(file: io.BufferedIOBase, size: int) -> Container:
    """Compare the number of MP3 frames with the stated one.

    libsndfile finds MP3 after tags only, and estimates the number of frames if the first one does not state it.
    """
    position, head = 0, _read(file, 0, 10)
    is_found = False
    if head[:3] == b"ID3" and len(head) == 10:
        end = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        position = _first_mp3_frame(file, end)
        is_found = position == end
    info = re.search(
        rb"(?:Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f](....)", _read(file, position, 192), re.DOTALL
    )
    lengths = _frame_lengths(file, size, position, _mp3_frame)
    number = lengths.total()
    stated = int.from_bytes(info[1]) if info else number
    if lengths and stated > number + 2:
        raise InputError(f"truncated: {number} of {stated} frames of audio are present")
    is_variable = bool(lengths) and max(lengths) - min(lengths) > 1
    return Container(
        number - stated <= 2, needs_ffmpeg=not is_found or number - stated > 2 or (is_variable and not info)
    )


def _first_mp3_frame(file: io.BufferedIOBase, position: int) -> int:
    """Return the position of the first frame that another one follows, after padding or further tags."""
    content = _read(file, position, _PADDING)
    for match in re.finditer(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", content):
        start = match.start()
        length = _mp3_frame(content[start : start + 4])
        if length and _mp3_frame(content[start + length : start + length + 4]):
            return position + start
    return position


def _mp3_frame(header: bytes) -> int:
    """Return the bytes of an MPEG audio frame of layer III; 0 if it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2 or header[1] & 0x18 == 0x08:
        return 0
    is_first = header[1] & 0x18 == 0x18
    rate_index, bit_rate_index = (header[2] >> 2) & 3, header[2] >> 4
    if rate_index == 3 or bit_rate_index in (0, 15):
        return 0  # reserved, or of a free bit rate
    rate = (44_100, 48_000, 32_000)[rate_index] // {0x18: 1, 0x10: 2, 0x00: 4}[header[1] & 0x18]
    bits = _MP3_KILOBITS[1 if is_first else 2][bit_rate_index] * 1000
    return (144 if is_first else 72) * bits // rate + ((header[2] >> 1) & 1)


def _for_ffmpeg(states_size: bool = True) -> Container:
    return Container(states_size, needs_ffmpeg=True)


def _check_adts(file: io.BufferedIOBase, size: int) -> Container:
    def frame(header: bytes) -> int:
        if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
            return 0
        return (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5

    _frame_lengths(file, size, 0, frame)
    return _for_ffmpeg()


def _check_amr(file: io.BufferedIOBase, size: int) -> Container:
    is_wide = _read(file, 0, 9) == b"#!AMR-WB\n"
    lengths = _AMR_WB_BYTES if is_wide else _AMR_BYTES
    _frame_lengths(
        file, size, 9 if is_wide else 6, lambda header: lengths[header[0] >> 3 & 15] if header else 0
    )
    return _for_ffmpeg()


def _check_avi(file: io.BufferedIOBase, size: int) -> Container:
    states_size = True
    for name, stated, start in _chunks(file, 0, "<I"):
        if name == b"RIFF" and _correct_size(stated, start, size) is not None:
            states_size = False
    return _for_ffmpeg(states_size)


def _check_asf(file: io.BufferedIOBase, size: int) -> Container:
    for name, stated, start in _objects(file, 0):
        if name == _ASF_DATA:
            return _for_ffmpeg(_correct_size(stated, start, size) is None)
    raise InputError("truncated: the file ends before its audio data")


def _check_mp4(file: io.BufferedIOBase, size: int) -> Container:
    """Check the boxes of MP4 and QuickTime; a file in fragments ends with an index of them."""
    position = 0
    names: set[bytes] = set()
    for _ in range(_MAX_CHUNKS):
        header = _read(file, position, 16)
        if len(header) < 8:
            break
        names.add(header[4:8])
        length, start = int.from_bytes(header[:4]), position + 8
        if length == 1:
            length, start = int.from_bytes(header[8:]), position + 16
        if length < start - position or not re.fullmatch(rb"[ -~\xa9]{4}", header[4:8]):
            return _for_ffmpeg(length == 0)
        if position + length > size and _correct_size(position + length - start, start, size) is not None:
            return _for_ffmpeg(False)
        position += length
    return _for_ffmpeg(b"moof" not in names or b"mfra" in names)


def _check_matroska(file: io.BufferedIOBase, size: int) -> Container:
    """Return the header and the segment that contains all the rest."""
    position = 4 + sum(_matroska_size(file, 4))
    if _read(file, position, 4) != b"\x18\x53\x80\x67":
        return _for_ffmpeg()
    digits, stated = _matroska_size(file, position + 4)
    start = position + 4 + digits
    if stated == 2 ** (7 * digits) - 1:
        return _for_ffmpeg(False)
    return _for_ffmpeg(_correct_size(stated, start, size) is None)


def _matroska_size(file: io.BufferedIOBase, position: int) -> tuple[int, int]:
    """Return the bytes of a size and its value."""
    content = _read(file, position, 8)
    digits = 9 - content[0].bit_length() if content else 1
    return digits, int.from_bytes(content[:digits]) & (2 ** (7 * digits) - 1)


_CHECKS: dict[bytes, Callable[[io.BufferedIOBase, int], Container]] = {
    rb"(RIFF|RIFX|RF64|BW64)....WAVE": _check_wav,
    rb"RIFF....AVI ": _check_avi,
    rb"FORM....AIF[FC]": _check_aiff,
    rb"riff\x2e\x91\xcf\x11": _check_w64,
    rb"\.snd|dns\.": _check_au,
    rb"caff": _check_caf,
    rb"NIST_1A": _check_sphere,
    rb"fLaC": _check_flac,
    rb"OggS": _check_ogg,
    rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]": _check_mp3,
    rb"\xff[\xf0\xf1\xf8\xf9]": _check_adts,
    rb"#!AMR": _check_amr,
    rb"....(ftyp|moov|mdat|wide|free|skip)": _check_mp4,
    rb"\x1a\x45\xdf\xa3": _check_matroska,
    rb"\x30\x26\xb2\x75": _check_asf,
}
"""The check of each format, by a pattern of its first bytes."""
