"""Log-mel spectra and mel-frequency cepstral coefficients (MFCC) of many signals at once.

The front end of every recipe with log-mel spectra or MFCC. The reference is `librosa.feature.mfcc`: centred frames with
zeros at the edges, Slaney's mel scale, decibels limited to 80 dB below the maximum of the signal, and an orthonormal
DCT-II. Window and mel filters come from librosa, and the DCT from scipy, which librosa uses. Only the batching is
implemented here: the frames of all signals are transformed together, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import fft

from jaxser.features.audio import HOP, SAMPLE_RATE, WINDOW, num_frames

N_FFT = 512
N_MELS = 40
TOP_DB = 80.0
AMIN = 1e-10  # lower limit of power, as in librosa
DELTA_WIDTH = 9  # frames


class FrontEnd(NamedTuple):
    """The transform of frames of 25 ms to spectra.

    Attributes:
        window: the name of a window function, "hamming" or "hann".
        n_fft: the length of the FFT; the windowed frame is centred in it.
    """

    window: str = "hamming"
    n_fft: int = N_FFT


STANDARD = FrontEnd()
LIBROSA = FrontEnd(window="hann", n_fft=WINDOW)
"""librosa's default window, and an FFT as long as the window (He et al. 2021 name librosa, but no window)."""


def log_mel(
    signals: Sequence[Float[np.ndarray, " _samples"]], front_end: FrontEnd = STANDARD
) -> list[Float[np.ndarray, "_frames bands"]]:
    """Compute log-mel spectra in dB, as librosa's `power_to_db(melspectrogram(y))`."""
    layout = _Layout.of(signals)
    return layout.split(_limited_decibels(layout, front_end))


def mfcc(
    signals: Sequence[Float[np.ndarray, " _samples"]],
) -> list[Float[np.ndarray, "_frames coefficients"]]:
    """Compute 40 MFCC per frame of each signal: `librosa.feature.mfcc` of each signal alone.

    Which other signals are in the batch can change the last bits: a BLAS library may choose its kernel by the number
    of rows.
    """
    layout = _Layout.of(signals)
    return layout.split(_limited_decibels(layout, STANDARD) @ _dct_matrix())


def deltas(
    frames: Float[np.ndarray, "frames coefficients"], order: int = 1
) -> Float[np.ndarray, "frames coefficients"]:
    """Compute derivatives of order 1 or 2 over nine frames, as `librosa.feature.delta`.

    A polynomial of degree `order` is fitted to nine frames (Savitzky-Golay). Its derivative of that order is constant,
    so the first and last four frames repeat the value of the first and last full window. A signal of fewer than nine
    frames is extended by its first and last frame, which is librosa's `mode="nearest"`; its default mode rejects such
    a signal.
    """
    half = DELTA_WIDTH // 2
    is_short = len(frames) < DELTA_WIDTH
    padded = np.pad(frames, ((half, half), (0, 0)), mode="edge") if is_short else frames
    windows = np.lib.stride_tricks.sliding_window_view(padded, DELTA_WIDTH, axis=0)  # [T - 8, D, 9]
    inner = windows @ _derivative_weights(order)
    return inner if is_short else np.pad(inner, ((half, half), (0, 0)), mode="edge")


@cache
def mel_matrix(n_fft: int = N_FFT) -> Float[np.ndarray, "bins bands"]:
    """Return librosa's mel filters, transposed.

    They are Slaney's triangles of unit area from 0 to 8 kHz. They are computed in float64 and rounded once, which
    librosa's own float32 filters are not.
    """
    import librosa.filters  # takes about a second

    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=n_fft, n_mels=N_MELS, dtype=np.float64)
    return filters.T.astype(np.float32)


_BLOCK = 192  # frames whose windows and spectra fit into a core's L2 cache
_BAND_GROUPS = (
    4  # neighbouring mel bands cover a part of the spectrum: this saves three quarters of the products
)


@dataclass(frozen=True, eq=False)
class _Layout:
    """Signals in one array of samples, separated by zeros, so that frame t of the array starts at sample t * HOP.

    The frames between two signals are computed and dropped, which costs less than skipping them.
    """

    first: list[int]  # index of each signal's first frame
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
        """All frames as a view, without the samples of the FFT for which the window is zero."""
        size, total = self.padded.itemsize, (len(self.padded) - WINDOW) // HOP
        return np.ndarray((total, WINDOW), np.float32, self.padded, strides=(HOP * size, size))

    def split(self, rows: Float[np.ndarray, "frames width"]) -> list[np.ndarray]:
        return [rows[start : start + count] for start, count in zip(self.first, self.count, strict=True)]


def _limited_decibels(layout: _Layout, front_end: FrontEnd) -> Float[np.ndarray, "frames bands"]:
    """Mel bands of all frames in dB, limited to 80 dB below the maximum of each signal."""
    decibels = _band_decibels(layout.frames, front_end)
    if layout.first:
        spans = zip(layout.first, layout.count, strict=True)
        borders = [border for first, count in spans for border in (first, first + count)]
        values = np.multiply(borders, N_MELS)
        peaks = np.maximum.reduceat(decibels.ravel(), values)  # of each signal, and of the frames after it
        rows = np.diff([*borders, len(decibels)])
        np.maximum(decibels, np.repeat(peaks - np.float32(TOP_DB), rows)[:, None], out=decibels)
    return decibels


def _band_decibels(
    frames: Float[np.ndarray, "frames 400"], front_end: FrontEnd
) -> Float[np.ndarray, "frames bands"]:
    """Mel bands in dB without the limit."""
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
    np.log(power, out=power)  # numpy vectorises log of float32, but not log10
    power *= np.float32(10 / np.log(10))
    return power


@cache
def _band_groups(n_fft: int) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """Columns of a squared spectrum (re², im² interleaved), the bands they contribute to, and their weights."""
    groups = []
    for bands in np.array_split(np.arange(N_MELS), _BAND_GROUPS):
        bins = np.flatnonzero(mel_matrix(n_fft)[:, bands].any(axis=1))
        first, last = int(bins[0]), int(bins[-1]) + 1
        weights = np.repeat(mel_matrix(n_fft)[first:last, bands], 2, axis=0)
        groups.append((slice(2 * first, 2 * last), slice(int(bands[0]), int(bands[-1]) + 1), weights))
    return tuple(groups)


@cache
def _window(name: str) -> Float[np.ndarray, " window"]:
    import librosa.filters

    return librosa.filters.get_window(name, WINDOW, fftbins=True).astype(np.float32)


@cache
def _dct_matrix() -> Float[np.ndarray, "bands coefficients"]:
    return fft.dct(np.eye(N_MELS), type=2, norm="ortho", axis=1).astype(np.float32)


@cache
def _derivative_weights(order: int) -> Float[np.ndarray, " width"]:
    """Return the weights of nine frames in the derivative of order `order` of their least-squares polynomial."""
    powers = (np.arange(DELTA_WIDTH) - DELTA_WIDTH // 2)[:, None] ** np.arange(order + 1)
    return (math.factorial(order) * np.linalg.pinv(powers)[order]).astype(np.float32)
