"""Audio files and the sound of videos, as mono waveforms at 16 kHz."""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from jaxser.features.containers import FFMPEG_OPTIONS, Container, check_container
from jaxser.features.paths import LFS_POINTER, LFS_REASON, open_regular
from jaxser.types import InputError

SAMPLE_RATE = 16_000
WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms

MAX_SECONDS = 1_800.0
"""The longest utterance, as a recording or a part of one, that is decoded; longer ones are rejected."""

Span = tuple[float, float]
"""Start and end in seconds; the end may be infinite."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A decoded recording.

    Attributes:
        samples: mono samples at 16 kHz, in [-1, 1].
        sha256: the digest of the file, and of the selected part if there is one, in hexadecimal.
        flags: the quality flag `header_size` if the file does not state the size of its audio, or states a wrong one.
    """

    samples: Float[np.ndarray, " samples"]
    sha256: str
    flags: tuple[str, ...] = ()


NO_RECORDING = Recording(np.zeros(0, np.float32), sha256="")
"""What recipes without sound read instead of a recording."""


def read_audio(path: str | Path, max_seconds: float = MAX_SECONDS) -> Recording:
    """Read a file as mono samples at 16 kHz, and compute the SHA-256 of its content.

    Channels are averaged, and other sampling rates are converted by soxr. The file is decoded in blocks, and not beyond
    the end of the selected part.

    Args:
        path: an audio or video file. A suffix `#t=1.5,3` or `#t=1.5` (seconds, as in W3C media fragments) selects a
            part of the file; the digest then covers the selection as well.
        max_seconds: the duration of the longest file, or part, that is decoded.

    Raises:
        InputError: if the file is not a regular one or cannot be decoded, if a part of it is missing, if its samples
            are unusable, or if it is too large, too long or takes too long to decode.
    """
    file, span = split_span(path)
    try:
        with open_regular(file) as opened:
            samples, flags = decode_audio(opened, span, max_seconds)
            opened.seek(0)
            digest = hashlib.file_digest(opened, "sha256")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if span:
        digest.update(repr(span).encode())
    return Recording(samples, digest.hexdigest(), flags)


def split_span(path: str | Path) -> tuple[Path, Span | None]:
    """Split a path such as `a.mp4#t=1.5,3` into the file and the part; None is the whole file."""
    parts = _SPAN.fullmatch(str(path))
    if parts is None:
        return Path(path), None
    return Path(parts[1]), (float(parts[2]), float(parts[3] or "inf"))


def decode_audio(
    file: io.BufferedIOBase, span: Span | None = None, max_seconds: float = MAX_SECONDS
) -> tuple[Float[np.ndarray, " samples"], tuple[str, ...]]:
    """Decode an audio or video file; return its samples and quality flags, see `read_audio`.

    Raises:
        InputError: if the file cannot be decoded or its samples are unusable. The message does not name the file.
    """
    head = file.read(64)
    if not head:
        raise InputError("the file is empty")
    if head.startswith(LFS_POINTER):
        raise InputError(LFS_REASON)
    container = check_container(file)
    file.seek(0)
    blocks = _video_blocks(file) if container.needs_ffmpeg else _sound_blocks(file, container)
    mono, rate = _mono(blocks, span, max_seconds)
    if rate != SAMPLE_RATE and len(mono):
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    if len(mono) < WINDOW:
        raise InputError(f"{len(mono)} samples at 16 kHz: shorter than one window of 25 ms")
    flags = () if container.states_size else ("header_size",)
    return np.ascontiguousarray(mono, dtype=np.float32), flags


def audio_duration(path: str | Path) -> float | None:
    """Return the duration in seconds, or None if the file is not readable audio.

    Such a file is reported when it is read.
    """
    try:
        with open_regular(path) as file:
            patched = _PatchedFile(file, check_container(file).patches)
            patched.seek(0)
            with soundfile.SoundFile(patched) as sound:
                return float(sound.frames / sound.samplerate)
    except (InputError, soundfile.SoundFileError, OSError, RuntimeError, ZeroDivisionError):
        return None


def num_frames(num_samples: int) -> int:
    """Return the number of centred frames of a signal, one every 10 ms."""
    return 1 + num_samples // HOP


_LARGEST = 2.0**31  # of 32-bit integers that were stored as floats; squares of larger values overflow
_LOWEST_RATE, _HIGHEST_RATE = (
    1_000,
    1_000_000,
)  # Hz; a rate outside is damage, and resampling could exhaust memory
_MOST_CHANNELS = 64
_FULL_RATE = 48_000  # recordings of higher rates must be shorter, as they take more memory
_MAX_DECODING = 600.0  # s
_SPAN = re.compile(r"(.+)#t=([0-9]+(?:\.[0-9]+)?)(?:,([0-9]+(?:\.[0-9]+)?))?", re.ASCII | re.DOTALL)
_BLOCK_SAMPLES = 2**20
_MIN_DECODED = 0.9  # of the duration in a container's header, which includes the encoder's padding
_FORMATS = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "NIST"}
"""libsndfile's names of the formats whose completeness can be checked."""

Block = tuple[int, Float[np.ndarray, "samples channels"]]
"""Sampling rate and the next samples."""


def _mono(
    blocks: Iterable[Block], span: Span | None, max_seconds: float
) -> tuple[Float[np.ndarray, " samples"], int]:
    """Return the selected part of a recording, with its channels averaged, and its sampling rate."""
    kept: list[np.ndarray] = []
    count = position = rate = 0
    started = time.monotonic()
    for rate, block in blocks:
        if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
            raise InputError(f"unsupported sampling rate: {rate} Hz")
        if time.monotonic() - started > _MAX_DECODING:
            raise InputError(f"decoding takes more than {_MAX_DECODING:g} s")
        start, end = (round(min(moment, 1e9) * rate) for moment in span or (0, 1e9))
        part = block[max(0, start - position) : max(0, end - position)]
        position += len(block)
        if len(part):
            kept.append(_mean_of_channels(part))
            count += len(part)
            if count > (limit := max_seconds * min(rate, _FULL_RATE)):
                raise InputError(
                    f"longer than {limit / rate:,.0f} s, the most that is decoded: cut it, or give the start and end "
                    "of a part"
                )
        if position >= end:
            break
    if span and not count:
        raise InputError(
            f"{span[0]:g} to {span[1]:g} s is outside the recording, which lasts {position / max(rate, 1):.2f} s"
        )
    return np.concatenate(kept) if kept else np.zeros(0, np.float32), rate


def _mean_of_channels(block: Float[np.ndarray, "samples channels"]) -> Float[np.ndarray, " samples"]:
    if not np.isfinite(block).all():
        raise InputError("NaN or infinite samples")
    if (peak := np.abs(block).max()) > _LARGEST:
        raise InputError(f"samples of up to {peak:.2g}, where full scale is 1")
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)


def _sound_blocks(file: io.BufferedIOBase, container: Container) -> Iterator[Block]:
    """Decode about a minute at a time by libsndfile: a damaged header may announce more than fits into memory."""
    patched = _PatchedFile(file, container.patches)
    try:
        with soundfile.SoundFile(patched) as sound:
            if sound.format not in _FORMATS:
                raise InputError(
                    f"a file in the format {sound.format}, which is not supported: convert it to WAV or FLAC"
                )
            if sound.channels > _MOST_CHANNELS:
                raise InputError(f"{sound.channels} channels, more than the {_MOST_CHANNELS} that are read")
            count, wanted = 0, _BLOCK_SAMPLES // sound.channels
            is_last = False
            while not is_last:
                block = sound.read(wanted, dtype="float32", always_2d=True)
                count, is_last = count + len(block), len(block) < wanted
                yield sound.samplerate, block
            if count < sound.frames and sound.format != "MP3":  # estimated for MP3, whose frames are checked
                raise InputError(f"truncated: {count} of {sound.frames} samples are present")
    except (soundfile.SoundFileError, RuntimeError) as error:
        patched.check()
        reason = getattr(error, "error_string", str(error))  # omits the name of the in-memory file
        raise InputError(f"not a readable sound file ({_one_line(reason)})") from None
    patched.check()


class _PatchedFile:
    """A file with other bytes in its header, as libsndfile reads it.

    It ignores invalid seeks and keeps errors of the file system, since an exception in libsndfile's callbacks would be
    printed rather than raised; for a damaged file, libsndfile may seek before its start.
    """

    def __init__(self, file: io.BufferedIOBase, patches: Iterable[tuple[int, bytes]]):
        self._file, self._patches = file, tuple(patches)
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the error of the file system, if one has occurred."""
        if self._error:
            raise self._error

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()

    def read(self, count: int) -> bytes:
        start = self._file.tell()
        try:
            content = self._file.read(count)
        except OSError as error:
            self._error = error
            return b""
        for position, patch in self._patches:
            if position < start + len(content) and start < position + len(patch):
                own = bytearray(content)
                for offset, byte in enumerate(patch, position - start):
                    if 0 <= offset < len(own):
                        own[offset] = byte
                content = bytes(own)
        return content


def _video_blocks(file: io.BufferedIOBase) -> Iterator[Block]:
    """Decode the first audio track by FFmpeg."""
    try:
        import av
    except ImportError:
        raise InputError("audio in this format needs PyAV: pip install 'jaxser[video]'") from None
    decoded = latest = 0.0
    try:
        with av.open(file, "r", metadata_errors="ignore", options=FFMPEG_OPTIONS) as container:
            if not container.streams.audio:
                raise InputError("a video without an audio track")
            track = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp")  # keeps channel layout and rate
            for packet in container.demux():
                if packet.pts is not None and packet.time_base:
                    latest = max(latest, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream is not track:
                    continue
                for frame in packet.decode():
                    for part in resampler.resample(cast(av.AudioFrame, frame)):
                        decoded += part.samples / part.sample_rate
                        yield part.sample_rate, part.to_ndarray().T
            expected, total = _stated_seconds(container, track)
    except (av.FFmpegError, ValueError, RuntimeError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not a readable video ({_one_line(error)})") from None
    if not decoded:
        raise InputError("a video with an empty audio track")
    if decoded < _MIN_DECODED * expected:
        raise InputError(f"truncated: {decoded:.1f} of {expected:.1f} s of audio are present")
    if latest < _MIN_DECODED * total:
        raise InputError(f"truncated: {latest:.1f} of {total:.1f} s are present")


def _stated_seconds(container: Any, track: Any) -> tuple[float, float]:
    """Return the duration of the track and of the whole file in the header; 0 if it has none.

    Raw AAC, AMR and MP3 have none, and FFmpeg's estimate for them is unreliable.
    """
    if container.format.name in ("aac", "amr", "mp3"):
        return 0.0, 0.0
    own = float(track.duration * track.time_base) if track.duration and track.time_base else 0.0
    return own, (container.duration or 0) / 1e6


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())
