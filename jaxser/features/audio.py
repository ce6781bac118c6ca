"""Waveforms, their log-mel spectra and mel-frequency cepstra: one front end for all recipes with MFCC.

16 kHz, Hamming windows of 25 ms every 10 ms, 512-point FFT, 40 mel bands, no pre-emphasis; log-mel spectra may
have another window or FFT. The reference is
`librosa.feature.mfcc` with its own defaults for the rest: zeros at the edges so that frames are centred,
Slaney's mel scale, decibels with a floor of 80 dB below the loudest band *of the signal*, orthonormal DCT-II.
Here the same is computed for many signals at once in float32, and without importing librosa, which costs each
process seconds.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float
from scipy import fft

from jaxser.types import InputError

SAMPLE_RATE = 16_000
WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
N_FFT = 512
N_MELS = 40
TOP_DB = 80.0
AMIN = 1e-10  # librosa's smallest power
DELTA_WIDTH = 9  # frames

_BLOCK = 192  # frames whose windows and spectra fit together in a core's own cache
_BAND_GROUPS = 4  # neighbouring mel bands see a part of the spectrum only: a quarter of the products


def read_audio(path: str | Path) -> tuple[Float[np.ndarray, " samples"], str]:
    """Samples in [-1, 1], mono, 16 kHz, and the SHA-256 of the file's bytes.

    Channels are averaged and any other rate is resampled by soxr. A path that ends in `#t=1.5,3` or `#t=1.5` (seconds,
    as in W3C media fragments) is that part of the file, which the digest then covers as well. Raises `InputError` where
    there is nothing to use.
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


Span = tuple[float, float]
"""Begin and end in seconds; the end may be infinite."""

_LARGEST = 2.0**31  # of 32-bit integers that were written as floats; squares of larger ones overflow
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 1_000_000  # Hz; others are damage that would fill the memory
_SPAN = re.compile(r"(.+)#t=([0-9]+(?:\.[0-9]+)?)(?:,([0-9]+(?:\.[0-9]+)?))?", re.ASCII | re.DOTALL)


def split_span(path: str | Path) -> tuple[Path, Span | None]:
    """The file of a path, and the part of it that is meant."""
    parts = _SPAN.fullmatch(str(path))
    if parts is None:
        return Path(path), None
    return Path(parts[1]), (float(parts[2]), float(parts[3] or "inf"))


def decode_audio(content: bytes, span: Span | None = None) -> Float[np.ndarray, " samples"]:
    """The samples of a sound file's bytes, as `read_audio` gives them; `InputError` says what is wrong."""
    if not content:
        raise InputError("the file is empty")
    samples, rate = _decode_video(content) if _is_for_pyav(content) else _decode_sound(content)
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise InputError(f"a sampling rate of {rate} Hz")
    if span:
        samples = samples[_rows(span, rate, len(samples))]
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
    """How many frames a signal of so many samples has."""
    return 1 + num_samples // HOP


class FrontEnd(NamedTuple):
    """How frames of 25 ms become spectra."""

    window: str = "hamming"  # or "hann"
    n_fft: int = N_FFT


STANDARD = FrontEnd()
LIBROSA = FrontEnd(window="hann", n_fft=WINDOW)
"""librosa's own window, and an FFT as long as the window (He et al. 2021 name librosa and no window)."""


def log_mel(
    signals: Sequence[Float[np.ndarray, " _samples"]], front_end: FrontEnd = STANDARD
) -> list[Float[np.ndarray, "_frames bands"]]:
    """Mel bands of each signal in dB over its own floor: librosa's `power_to_db(melspectrogram(y))`."""
    layout = _Layout.of(signals)
    return layout.split(_floored_decibels(layout, front_end))


def mfcc(
    signals: Sequence[Float[np.ndarray, " _samples"]],
) -> list[Float[np.ndarray, "_frames coefficients"]]:
    """40 cepstral coefficients of each frame of each signal, each signal as if it were alone."""
    layout = _Layout.of(signals)
    return layout.split(_floored_decibels(layout, STANDARD) @ _dct_matrix())


def deltas(
    frames: Float[np.ndarray, "frames coefficients"], order: int = 1
) -> Float[np.ndarray, "frames coefficients"]:
    """Slope (order 1) or curvature (order 2) of each coefficient over nine frames: `librosa.feature.delta`.

    A polynomial of that order is fitted to nine frames (Savitzky-Golay); its derivative of that order is the same
    everywhere, so the first and last four frames have that of the first and last nine. A signal of fewer frames
    is continued by its own first and last one: librosa's `mode="nearest"`, since its default refuses it.
    """
    half = DELTA_WIDTH // 2
    is_short = len(frames) < DELTA_WIDTH
    padded = np.pad(frames, ((half, half), (0, 0)), mode="edge") if is_short else frames
    windows = np.lib.stride_tricks.sliding_window_view(padded, DELTA_WIDTH, axis=0)  # [T - 8, D, 9]
    inner = windows @ _leading_coefficient(order)
    return inner if is_short else np.pad(inner, ((half, half), (0, 0)), mode="edge")


@lru_cache
def _leading_coefficient(order: int) -> Float[np.ndarray, " width"]:
    """Weights that take nine frames to the `order`-th derivative of the polynomial of that order through them."""
    powers = (np.arange(DELTA_WIDTH) - DELTA_WIDTH // 2)[:, None] ** np.arange(order + 1)
    return (math.factorial(order) * np.linalg.pinv(powers)[order]).astype(np.float32)


@lru_cache
def mel_matrix(n_fft: int = N_FFT) -> Float[np.ndarray, "bins bands"]:
    """Slaney's triangles on 0 to 8 kHz, each of unit area: `librosa.filters.mel` transposed."""
    hertz = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLE_RATE / 2), N_MELS + 2))
    ramps = hertz[:, None] - np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE)
    width = np.diff(hertz)[:, None]
    triangles = np.maximum(0, np.minimum(-ramps[:-2] / width[:-1], ramps[2:] / width[1:]))
    triangles *= 2.0 / (hertz[2:] - hertz[:-2])[:, None]
    return triangles.T.astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Layout:
    """Signals in one row of samples, zeros between them, such that every frame of each begins at a whole hop.

    The frames that lie across two signals are computed for nothing; that costs less than to skip them.
    """

    first: list[int]  # frame of each signal
    count: list[int]  # frames of each signal
    padded: Float[np.ndarray, " padded"]

    @classmethod
    def of(cls, signals: Sequence[np.ndarray]) -> _Layout:
        count = [num_frames(len(signal)) for signal in signals]
        total, first = 0, []
        for signal, frames in zip(signals, count, strict=True):
            first.append(total)
            total += frames + (1 if len(signal) % HOP <= WINDOW // 2 - HOP // 2 else 2)
        padded = np.zeros(total * HOP + WINDOW, np.float32)
        for start, signal in zip(first, signals, strict=True):
            begin = start * HOP + WINDOW // 2
            padded[begin : begin + len(signal)] = signal
        return cls(first, count, padded)

    @property
    def frames(self) -> Float[np.ndarray, "frames 400"]:
        """The parts on which the window is not zero; a view, with the spare frame after the last signal."""
        size, total = self.padded.itemsize, (len(self.padded) - WINDOW) // HOP
        return np.ndarray((total, WINDOW), np.float32, self.padded, strides=(HOP * size, size))

    def split(self, rows: Float[np.ndarray, "frames width"]) -> list[np.ndarray]:
        return [rows[start : start + count] for start, count in zip(self.first, self.count, strict=True)]


def _floored_decibels(layout: _Layout, front_end: FrontEnd) -> Float[np.ndarray, "frames bands"]:
    """Mel bands of all frames, none lower than 80 dB under its signal's peak."""
    decibels = _band_decibels(layout.frames, front_end)
    if layout.first:
        spans = zip(layout.first, layout.count, strict=True)
        borders = [border for first, count in spans for border in (first, first + count)]
        values = np.multiply(borders, N_MELS)
        peaks = np.maximum.reduceat(decibels.ravel(), values)  # of signals and of what is between them
        rows = np.diff([*borders, len(decibels)])
        np.maximum(decibels, np.repeat(peaks - np.float32(TOP_DB), rows)[:, None], out=decibels)
    return decibels


def _band_decibels(
    frames: Float[np.ndarray, "frames 400"], front_end: FrontEnd
) -> Float[np.ndarray, "frames bands"]:
    """Decibels before the floor."""
    power = np.empty((len(frames), N_MELS), np.float32)
    windows = np.zeros((min(len(frames), _BLOCK), front_end.n_fft), np.float32)
    shape, margin = _window(front_end.window), (front_end.n_fft - WINDOW) // 2
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK]
        np.multiply(block, shape, out=windows[: len(block), margin : margin + WINDOW])
        spectrum = fft.rfft(windows[: len(block)], axis=1).view(np.float32)
        np.square(spectrum, out=spectrum)
        for part, bands, weights in _band_groups(front_end.n_fft):
            np.matmul(spectrum[:, part], weights, out=power[start : start + len(block), bands])
    np.maximum(power, np.float32(AMIN), out=power)
    np.log(power, out=power)  # numpy's log of float32 is vectorised, its log10 is not
    power *= np.float32(10 / np.log(10))
    return power


@lru_cache
def _band_groups(n_fft: int) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """Which columns of a squared spectrum, (re², im²) interleaved, make which bands, and by which weights."""
    groups = []
    for bands in np.array_split(np.arange(N_MELS), _BAND_GROUPS):
        bins = np.flatnonzero(mel_matrix(n_fft)[:, bands].any(axis=1))
        first, last = int(bins[0]), int(bins[-1]) + 1
        weights = np.repeat(mel_matrix(n_fft)[first:last, bands], 2, axis=0)
        groups.append((slice(2 * first, 2 * last), slice(int(bands[0]), int(bands[-1]) + 1), weights))
    return tuple(groups)


@lru_cache
def _window(name: str) -> Float[np.ndarray, " window"]:
    phase = 2 * np.pi * np.arange(WINDOW) / WINDOW  # periodic, as for any spectral analysis
    level = {"hamming": 0.54, "hann": 0.5}[name]
    return (level - (1 - level) * np.cos(phase)).astype(np.float32)


@lru_cache
def _dct_matrix() -> Float[np.ndarray, "bands coefficients"]:
    return fft.dct(np.eye(N_MELS), type=2, norm="ortho", axis=1).astype(np.float32)


_BREAK_HERTZ = 1000.0  # Slaney's scale is linear below it and logarithmic above
_HERTZ_PER_MEL = 200.0 / 3
_LOG_STEP = np.log(6.4) / 27.0


def _hertz_to_mel(hertz: float) -> float:
    if hertz < _BREAK_HERTZ:
        return hertz / _HERTZ_PER_MEL
    return _BREAK_HERTZ / _HERTZ_PER_MEL + float(np.log(hertz / _BREAK_HERTZ)) / _LOG_STEP


def _mel_to_hertz(mels: np.ndarray) -> np.ndarray:
    above = mels - _BREAK_HERTZ / _HERTZ_PER_MEL
    return np.where(above < 0, mels * _HERTZ_PER_MEL, _BREAK_HERTZ * np.exp(_LOG_STEP * above))


def _decode_sound(content: bytes) -> tuple[Float[np.ndarray, "samples channels"], int]:
    _refuse_cut_wav(content)
    try:
        with soundfile.SoundFile(_Bytes(content)) as file:
            frames, rate = file.frames, file.samplerate
            blocks = list(_sound_blocks(file))
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = getattr(error, "error_string", str(error))  # without the name of the object that was read
        raise InputError(f"not a sound file that can be read ({_one_line(reason)})") from None
    count = sum(map(len, blocks))
    if count < frames:
        raise InputError(f"truncated: {count} of {frames} samples are there")
    return np.concatenate(blocks), rate


class _Bytes(io.BytesIO):
    """A damaged file sends libsndfile before its beginning; an error in its callback is printed and not raised."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _sound_blocks(file: soundfile.SoundFile) -> Iterator[Float[np.ndarray, "samples channels"]]:
    """A minute at a time: a damaged header may promise more samples than there is memory."""
    while True:
        block = file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)
        yield block
        if len(block) < _BLOCK_SAMPLES:
            return


_BLOCK_SAMPLES = 2**20


def _is_for_pyav(content: bytes) -> bool:
    """MP4 and its relatives, Matroska and WebM, AVI; and the sound that libsndfile does not know: WMA, AAC, AMR."""
    return (
        content[4:8] == b"ftyp"
        or (content[:4] == b"RIFF" and content[8:12] == b"AVI ")
        or content.startswith((b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"\xff\xf1", b"\xff\xf9", b"#!AMR"))
    )


def _decode_video(content: bytes) -> tuple[Float[np.ndarray, "samples channels"], int]:
    """The first sound track, of a video or alone."""
    try:
        import av
    except ImportError:
        raise InputError("sound in such a file needs PyAV: pip install 'jaxser[video]'") from None
    try:
        with av.open(io.BytesIO(content), "r", metadata_errors="ignore") as video:
            if not video.streams.audio:
                raise InputError("a video without sound")
            track = video.streams.audio[0]
            resampler = av.AudioResampler(format="fltp")  # layout and rate as they are
            frames = [part for frame in video.decode(track) for part in resampler.resample(frame)]
            is_stated = video.format.name != "aac"  # raw AAC states no length, and FFmpeg's guess is wild
            duration = track.duration * track.time_base if track.duration and track.time_base else 0
            expected = float(duration) if is_stated else 0.0
    except (av.FFmpegError, ValueError, RuntimeError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not a video that can be read ({_one_line(error)})") from None
    if not frames:
        raise InputError("a video whose sound track is empty")
    samples, rate = np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T, frames[0].sample_rate
    if len(samples) < _WHOLE * expected * rate:
        raise InputError(f"truncated: {len(samples) / rate:.1f} of {expected:.1f} s of sound are there")
    return samples, rate


_WHOLE = 0.9  # of the length that a video states, which includes its encoder's padding


def _rows(span: Span, rate: int, count: int) -> slice:
    start, end = (min(round(min(time, 1e9) * rate), count) for time in span)
    if start >= end:
        raise InputError(f"{span[0]:g} to {span[1]:g} s is no part of it: it lasts {count / rate:.2f} s")
    return slice(start, end)


def _refuse_cut_wav(content: bytes) -> None:
    """libsndfile reads a wav that ends too early without a word: its `data` chunk says what should be there."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return
    position = 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        position += 8
        if name == b"data":
            streamed = size == 0xFFFFFFFF  # written to a pipe, length unknown
            if not streamed and position + size > len(content):
                raise InputError(f"truncated: {len(content) - position} of {size} bytes of sound are there")
            return
        position += size + size % 2
    raise InputError("truncated: the file ends before its sound begins")


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())
