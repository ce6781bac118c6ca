"""Audio files and the sound of videos, as mono waveforms at 16 kHz."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from jaxser.types import InputError

SAMPLE_RATE = 16_000
WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms

Span = tuple[float, float]
"""Start and end in seconds; the end may be infinite."""


def read_audio(path: str | Path) -> tuple[Float[np.ndarray, " samples"], str]:
    """Read a file as mono samples at 16 kHz, and compute the SHA-256 of its content.

    Channels are averaged, and other sampling rates are converted by soxr.

    Args:
        path: an audio or video file. A suffix `#t=1.5,3` or `#t=1.5` (seconds, as in W3C media fragments) selects a
            part of the file; the digest then covers the selection as well.

    Returns:
        Samples in [-1, 1], and the digest in hexadecimal.

    Raises:
        InputError: if the file cannot be read or decoded, or if its samples are unusable.
    """
    file, span = split_span(path)
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from None
    try:
        samples = decode_audio(content, span)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return samples, hashlib.sha256(content + (repr(span).encode() if span else b"")).hexdigest()


def split_span(path: str | Path) -> tuple[Path, Span | None]:
    """Split a path such as `a.mp4#t=1.5,3` into the file and the selected part; None selects the whole file."""
    parts = _SPAN.fullmatch(str(path))
    if parts is None:
        return Path(path), None
    return Path(parts[1]), (float(parts[2]), float(parts[3] or "inf"))


def decode_audio(content: bytes, span: Span | None = None) -> Float[np.ndarray, " samples"]:
    """Decode the content of an audio or video file; see `read_audio`.

    Raises:
        InputError: if the content cannot be decoded or the samples are unusable. The message does not name the file.
    """
    if not content:
        raise InputError("the file is empty")
    samples, rate = _decode_with_pyav(content) if _needs_pyav(content) else _decode_with_libsndfile(content)
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise InputError(f"unsupported sampling rate: {rate} Hz")
    if span:
        samples = samples[_span_rows(span, rate, len(samples))]
    if not np.isfinite(samples).all():
        raise InputError("NaN or infinite samples")
    if (peak := np.abs(samples).max(initial=0.0)) > _LARGEST:
        raise InputError(f"samples of up to {peak:.2g}, where full scale is 1")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate != SAMPLE_RATE and len(mono):
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    if len(mono) < WINDOW:
        raise InputError(f"{len(mono)} samples at 16 kHz: shorter than one window of 25 ms")
    return np.ascontiguousarray(mono, dtype=np.float32)


def num_frames(num_samples: int) -> int:
    """Return the number of centred frames of a signal, one every 10 ms."""
    return 1 + num_samples // HOP


_LARGEST = 2.0**31  # of 32-bit integers that were stored as floats; squares of larger values overflow
_LOWEST_RATE, _HIGHEST_RATE = (
    1_000,
    1_000_000,
)  # Hz; a rate outside is damage, and resampling could exhaust memory
_SPAN = re.compile(r"(.+)#t=([0-9]+(?:\.[0-9]+)?)(?:,([0-9]+(?:\.[0-9]+)?))?", re.ASCII | re.DOTALL)
_BLOCK_SAMPLES = 2**20
_MIN_DECODED = 0.9  # of the duration in a container's header, which includes the encoder's padding


def _span_rows(span: Span, rate: int, count: int) -> slice:
    start, end = (min(round(min(time, 1e9) * rate), count) for time in span)
    if start >= end:
        raise InputError(
            f"{span[0]:g} to {span[1]:g} s is outside the recording, which lasts {count / rate:.2f} s"
        )
    return slice(start, end)


def _decode_with_libsndfile(content: bytes) -> tuple[Float[np.ndarray, "samples channels"], int]:
    _check_wav_is_complete(content)
    try:
        with soundfile.SoundFile(_Bytes(content)) as file:
            frames, rate = file.frames, file.samplerate
            blocks = list(_sound_blocks(file))
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = getattr(error, "error_string", str(error))  # omits the name of the in-memory file
        raise InputError(f"not a readable sound file ({_one_line(reason)})") from None
    count = sum(map(len, blocks))
    if count < frames:
        raise InputError(f"truncated: {count} of {frames} samples are present")
    return np.concatenate(blocks), rate


class _Bytes(io.BytesIO):
    """A buffer that ignores invalid seeks.

    For a damaged file libsndfile may seek before its start, and an exception in its callback would be printed rather
    than raised.
    """

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _sound_blocks(file: soundfile.SoundFile) -> Iterator[Float[np.ndarray, "samples channels"]]:
    """Read about a minute at a time: a damaged header may announce more samples than fit into memory."""
    while True:
        block = file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)
        yield block
        if len(block) < _BLOCK_SAMPLES:
            return


def _check_wav_is_complete(content: bytes) -> None:
    """Raise InputError for a truncated WAV file, which libsndfile would read without an error."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return
    position = 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        position += 8
        if name == b"data":
            is_streamed = size == 0xFFFFFFFF  # written to a pipe, length unknown
            if not is_streamed and position + size > len(content):
                raise InputError(f"truncated: {len(content) - position} of {size} bytes of audio are present")
            return
        position += size + size % 2
    raise InputError("truncated: the file ends before its audio data")


def _needs_pyav(content: bytes) -> bool:
    """Whether it is a video (MP4, Matroska, WebM, AVI) or in a format unknown to libsndfile (WMA, AAC, AMR)."""
    return (
        content[4:8] == b"ftyp"
        or (content[:4] == b"RIFF" and content[8:12] == b"AVI ")
        or content.startswith((b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"\xff\xf1", b"\xff\xf9", b"#!AMR"))
    )


def _decode_with_pyav(content: bytes) -> tuple[Float[np.ndarray, "samples channels"], int]:
    """Decode the first audio track."""
    try:
        import av
    except ImportError:
        raise InputError("audio in this format needs PyAV: pip install 'jaxser[video]'") from None
    try:
        with av.open(io.BytesIO(content), "r", metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise InputError("a video without an audio track")
            track = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp")  # keeps channel layout and rate
            frames = [part for frame in container.decode(track) for part in resampler.resample(frame)]
            expected = _stated_seconds(container, track)
    except (av.FFmpegError, ValueError, RuntimeError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not a readable video ({_one_line(error)})") from None
    if not frames:
        raise InputError("a video with an empty audio track")
    samples, rate = np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T, frames[0].sample_rate
    if len(samples) < _MIN_DECODED * expected * rate:
        raise InputError(f"truncated: {len(samples) / rate:.1f} of {expected:.1f} s of audio are present")
    return samples, rate


def _stated_seconds(container: Any, track: Any) -> float:
    """The duration in the header; 0 if there is none. Raw AAC has none, and FFmpeg's estimate for it is unreliable."""
    if container.format.name == "aac" or not (track.duration and track.time_base):
        return 0.0
    return float(track.duration * track.time_base)


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())
