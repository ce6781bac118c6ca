"""Inputs of the encoders: normalised waveforms, and Whisper's log-mel spectrum."""

from __future__ import annotations

from functools import cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxser.features.audio import HOP, SAMPLE_RATE, WINDOW

_HALF = WINDOW // 2
_BLOCK = 80  # samples: a divisor of the window and of the hop


def valid_steps(lengths: Int[Array, " B"], steps: int) -> Bool[Array, "B steps"]:
    """Return a mask of the first `lengths` of `steps` steps."""
    return jnp.arange(steps) < lengths[:, None]


def normalised(waveforms: Float[Array, "B T"], lengths: Int[Array, " B"]) -> Float[Array, "B T"]:
    """Scale the valid samples of each waveform to mean 0 and variance 1.

    The large models of wav2vec 2.0 expect this. The variance is biased, and 1e-7 is added to it, as in
    `Wav2Vec2FeatureExtractor`. Padding becomes zero.
    """
    mask = valid_steps(lengths, waveforms.shape[1])
    count = jnp.maximum(lengths, 1)[:, None].astype(jnp.float32)
    centred = waveforms - _sums(jnp.where(mask, waveforms, 0)) / count
    variance = _sums(jnp.where(mask, jnp.square(centred), 0)) / count
    return jnp.where(mask, centred / jnp.sqrt(variance + 1e-7), 0)


def _sums(x):
    """Return the sum of each row in two stages, which keeps the digits of long float32 sums."""
    stages = jnp.pad(x, ((0, 0), (0, -x.shape[1] % 1024))).reshape(len(x), -1, 1024)
    return stages.sum(2).sum(1, keepdims=True)


def log_mel(waveforms: Float[Array, "B T"], bands: int) -> Float[Array, "B T//160 bands"]:
    """Compute Whisper's log-mel spectra (Radford et al. 2023, section 2.2).

    Waveforms are padded with zeros. Frames of 25 ms every 10 ms, centred on multiples of 160 samples, with the signal
    reflected at both ends; periodic Hann window; power; Slaney's mel filters; log10 limited to 8 below the maximum of
    each waveform; (x + 4) / 4. The length must be a multiple of 160 and longer than half a window.
    """
    padded = jnp.pad(waveforms, ((0, 0), (_HALF, _HALF)), mode="reflect")
    blocks = padded.reshape(len(padded), -1, _BLOCK)
    count, step = waveforms.shape[1] // HOP, HOP // _BLOCK
    frames = jnp.concatenate(
        [blocks[:, i : i + step * count : step] for i in range(WINDOW // _BLOCK)], axis=-1
    )
    spectrum = jnp.fft.rfft(frames * np.hanning(WINDOW + 1)[:-1].astype(np.float32))
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    mel = jnp.matmul(power, _mel_filters(bands), precision="highest")
    decades = jnp.log10(jnp.maximum(mel, 1e-10))
    return (jnp.maximum(decades, decades.max((1, 2), keepdims=True) - 8) + 4) / 4


@cache
def _mel_filters(bands: int) -> Float[np.ndarray, "bins bands"]:
    """Return Slaney's triangles of unit area from 0 to 8 kHz.

    They are computed in float64 and rounded once.
    """
    import librosa.filters  # takes about a second

    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=WINDOW, n_mels=bands, dtype=np.float64)
    return filters.T.astype(np.float32)
