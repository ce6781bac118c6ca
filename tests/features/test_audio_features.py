"""The front end against librosa, and what counts as sound."""

import io
import struct
import subprocess
import sys
import warnings

import librosa
import numpy as np
import pytest
import soundfile

from helpers.small_corpus import RATE, noise, sine
from jaxser.features import audio
from jaxser.types import InputError

LIBROSA = {
    "sr": RATE, "n_mels": 40, "n_fft": 512, "hop_length": 160, "win_length": 400, "window": "hamming"
}  # fmt: skip


def signals() -> list[np.ndarray]:
    """Noise, tones and silence of lengths around every border of framing."""
    lengths = [1, 159, 160, 161, 255, 256, 400, 511, 512, 513, 671, 8_000, 16_001, 45_000]
    loud_then_quiet = np.concatenate([noise(0.3), 1e-5 * noise(0.3), np.zeros(4_000, np.float32)])
    return [
        *(noise(length / RATE, seed=length) for length in lengths),
        sine(0.4),
        np.zeros(3_000, np.float32),
        1e-4 * noise(0.2),
        loud_then_quiet,
    ]


def by_librosa(signal: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=512 is too large")
        return librosa.feature.mfcc(y=signal, n_mfcc=40, **LIBROSA).T


@pytest.mark.parametrize("index", range(len(signals())))
def test_mfcc_equals_librosa(index):
    signal = signals()[index]
    [ours] = audio.mfcc([signal])
    assert ours.dtype == np.float32
    assert len(ours) == audio.num_frames(len(signal))
    np.testing.assert_allclose(ours, by_librosa(signal), atol=1e-3, rtol=0)


def test_signals_of_a_batch_do_not_touch_each_other():
    batch = signals()
    for ours, signal in zip(audio.mfcc(batch), batch, strict=True):
        np.testing.assert_allclose(ours, audio.mfcc([signal])[0], atol=1e-4, rtol=0)


def test_floor_is_80_db_below_the_loudest_band_of_each_signal():
    loud, quiet = audio.log_mel([noise(0.5), 1e-3 * noise(0.5)])
    np.testing.assert_allclose(loud - 60, quiet, atol=1e-3)
    [both] = audio.log_mel([np.concatenate([sine(0.3), np.zeros(3_200, np.float32)])])
    assert both.max() - both.min() == pytest.approx(80, abs=1e-4)


def test_log_mel_equals_librosa():
    signal = noise(0.7)
    expected = librosa.power_to_db(librosa.feature.melspectrogram(y=signal, **LIBROSA)).T
    np.testing.assert_allclose(audio.log_mel([signal])[0], expected, atol=1e-3)


def test_mel_bands_are_librosas():
    expected = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=40)
    np.testing.assert_allclose(audio.mel_matrix().T, expected, rtol=1e-6, atol=1e-9)


def test_no_signals_no_frames():
    assert audio.mfcc([]) == []
    assert audio.log_mel([]) == []


def test_importing_features_is_light():
    code = "import sys, jaxser.features.recipes; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"librosa", "numba", "sklearn", "flax", "tensorflow"} & set(modules.split())


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_and_sample_format_gives_the_same_sound(tmp_path, subtype, rate):
    path = tmp_path / "sine.wav"
    soundfile.write(path, sine(0.5, rate), rate, subtype=subtype)
    samples, sha256 = audio.read_audio(path)
    assert samples.dtype == np.float32
    assert abs(len(samples) - RATE // 2) <= 1
    inside = slice(400, 7_600)
    tolerance = 0.02 if subtype in ("PCM_U8", "ULAW") else 2e-3
    np.testing.assert_allclose(samples[inside], sine(0.5)[inside], atol=tolerance)
    assert len(sha256) == 64


def test_stereo_is_mixed_down(tmp_path):
    left, right = noise(0.2, seed=1), noise(0.2, seed=2)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    samples, _ = audio.read_audio(tmp_path / "stereo.wav")
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-7)


def test_flac_equals_wav(tmp_path):
    for name in ("x.wav", "x.flac"):
        soundfile.write(tmp_path / name, (noise(0.2) * 2**15).astype(np.int16), RATE)
    np.testing.assert_array_equal(
        audio.read_audio(tmp_path / "x.wav")[0], audio.read_audio(tmp_path / "x.flac")[0]
    )


def wav(signal: np.ndarray, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, signal, RATE, subtype=subtype, format="WAV")
    return file.getvalue()


def flac(signal: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, signal, RATE, format="FLAC")
    return file.getvalue()


def with_value(value: float) -> np.ndarray:
    signal = noise(0.3)
    signal[1_000] = value
    return signal


BAD = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is no sound at all, only words", "not a sound file that can be read"),
    "zeros": (bytes(4_000), "not a sound file that can be read"),
    "cut in the sound": (wav(noise(0.5))[:9_000], "truncated: 8956 of 16000 bytes"),
    "cut by a sample": (wav(noise(0.5))[:-2], "truncated: 15998 of 16000 bytes"),
    "cut in the header": (wav(noise(0.5))[:30], "truncated: the file ends before its sound begins"),
    "cut flac": (flac(noise(2.0))[:9_000], "truncated|not a sound file that can be read"),
    "no samples": (wav(noise(0.0)), "0 samples at 16 kHz"),
    "too short": (wav(noise(0.02)), "320 samples at 16 kHz: shorter than one window"),
    "not a number": (wav(with_value(np.nan), "FLOAT"), "NaN or infinite samples"),
    "beyond any scale": (wav(with_value(1e29), "FLOAT"), "samples of up to 1e.29, where full scale is 1"),
    "infinite": (wav(with_value(np.inf), "FLOAT"), "NaN or infinite samples"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_is_refused_with_the_reason(tmp_path, name):
    content, reason = BAD[name]
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        audio.read_audio(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        audio.read_audio(tmp_path / "nowhere.wav")


def test_every_cut_of_a_wav_is_noticed():
    whole = wav(noise(0.03))
    for length in range(len(whole)):
        with pytest.raises(InputError):
            audio.decode_audio(whole[:length])


def test_wav_written_to_a_pipe_is_read():
    """Its length was not known when its header was written."""
    whole = bytearray(wav(noise(0.2)))
    struct.pack_into("<I", whole, whole.index(b"data") + 4, 0xFFFFFFFF)
    np.testing.assert_array_equal(audio.decode_audio(bytes(whole)), audio.decode_audio(wav(noise(0.2))))
