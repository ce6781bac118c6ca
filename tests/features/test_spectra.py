"""Log-mel spectra, MFCC and deltas against librosa, and the independence of the signals of a batch."""

import subprocess
import sys
import warnings

import librosa
import numpy as np
import pytest

from helpers.numbers import assert_close
from helpers.small_corpus import RATE, noise, sine
from jaxser.features import audio, spectra

LIBROSA = {
    "sr": RATE, "n_mels": 40, "n_fft": 512, "hop_length": 160, "win_length": 400, "window": "hamming"
}  # fmt: skip


def signals() -> list[np.ndarray]:
    """Noise, tones and silence, with lengths around every boundary of framing."""
    lengths = [1, 159, 160, 161, 255, 256, 400, 511, 512, 513, 671, 8_000, 16_001, 45_000]
    loud_then_quiet = np.concatenate([noise(0.3), 1e-5 * noise(0.3), np.zeros(4_000, np.float32)])
    return [
        *(noise(length / RATE, seed=length) for length in lengths),
        sine(0.4),
        np.zeros(3_000, np.float32),
        1e-4 * noise(0.2),
        loud_then_quiet,
    ]


def librosa_mfcc(signal: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=512 is too large")
        return librosa.feature.mfcc(y=signal, n_mfcc=40, **LIBROSA).T


@pytest.mark.parametrize("index", range(len(signals())))
def test_mfcc_equals_librosa(index):
    signal = signals()[index]
    [found] = spectra.mfcc([signal])
    assert found.dtype == np.float32
    assert len(found) == audio.num_frames(len(signal))
    assert_close(found, librosa_mfcc(signal), rtol=1.5e-6)


def test_signals_of_a_batch_are_independent():
    batch = signals()
    for found, signal in zip(spectra.mfcc(batch), batch, strict=True):
        assert_close(found, spectra.mfcc([signal])[0])


def test_limit_is_80_db_below_the_maximum_of_each_signal():
    loud, quiet = spectra.log_mel([noise(0.5), 1e-3 * noise(0.5)])
    assert_close(loud - 60, quiet, rtol=1e-5)
    [both] = spectra.log_mel([np.concatenate([sine(0.3), np.zeros(3_200, np.float32)])])
    assert both.max() - both.min() == pytest.approx(80, rel=1e-6)


def test_log_mel_equals_librosa():
    signal = noise(0.7)
    expected = librosa.power_to_db(librosa.feature.melspectrogram(y=signal, **LIBROSA)).T
    assert_close(spectra.log_mel([signal])[0], expected, rtol=1e-5)


@pytest.mark.parametrize("n_fft", [400, 512])
def test_mel_filters_are_librosas_up_to_rounding(n_fft):
    expected = librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=40)
    np.testing.assert_array_max_ulp(spectra.mel_matrix(n_fft).T, expected, maxulp=2)


def test_no_signals_give_no_frames():
    assert spectra.mfcc([]) == []
    assert spectra.log_mel([]) == []


def test_deltas_of_a_line_and_a_parabola():
    time = np.arange(20.0, dtype=np.float32)[:, None]
    assert_close(spectra.deltas(3 * time, 1), np.full((20, 1), 3), rtol=1e-5)
    assert_close(spectra.deltas(time**2, 2), np.full((20, 1), 2), rtol=1e-4)
    np.testing.assert_allclose(spectra.deltas(time[:4] * 0 + 5, 1), 0, atol=1e-5)


def test_importing_features_is_fast():
    """librosa, which takes about a second, is imported when the first spectrum is computed."""
    code = "import sys, jaxser.features.extraction; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"librosa", "numba", "sklearn", "flax", "tensorflow"} & set(modules.split())
