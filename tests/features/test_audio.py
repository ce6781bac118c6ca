"""Decoding of audio files: formats, sampling rates, and what is rejected."""

import io
import struct

import numpy as np
import pytest
import soundfile

from helpers.small_corpus import RATE, noise, sine
from jaxser.features import audio
from jaxser.types import InputError


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_every_rate_and_sample_format_decodes_to_the_same_signal(tmp_path, subtype, rate):
    path = tmp_path / "sine.wav"
    soundfile.write(path, sine(0.5, rate), rate, subtype=subtype)
    samples, sha256 = audio.read_audio(path)
    assert samples.dtype == np.float32
    assert abs(len(samples) - RATE // 2) <= 1
    inside = slice(400, 7_600)
    tolerance = 0.02 if subtype in ("PCM_U8", "ULAW") else 2e-3
    np.testing.assert_allclose(samples[inside], sine(0.5)[inside], atol=tolerance)
    assert len(sha256) == 64


def test_channels_are_averaged(tmp_path):
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
    "text": (b"this is not audio, only text", "not a readable sound file"),
    "zeros": (bytes(4_000), "not a readable sound file"),
    "cut in the audio data": (wav(noise(0.5))[:9_000], "truncated: 8956 of 16000 bytes"),
    "cut by one sample": (wav(noise(0.5))[:-2], "truncated: 15998 of 16000 bytes"),
    "cut in the header": (wav(noise(0.5))[:30], "truncated: the file ends before its audio data"),
    "cut flac": (flac(noise(2.0))[:9_000], "truncated|not a readable sound file"),
    "no samples": (wav(noise(0.0)), "0 samples at 16 kHz"),
    "too short": (wav(noise(0.02)), "320 samples at 16 kHz: shorter than one window"),
    "not a number": (wav(with_value(np.nan), "FLOAT"), "NaN or infinite samples"),
    "beyond any scale": (wav(with_value(1e29), "FLOAT"), "samples of up to 1e.29, where full scale is 1"),
    "infinite": (wav(with_value(np.inf), "FLOAT"), "NaN or infinite samples"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_files_are_rejected_with_a_reason(tmp_path, name):
    content, reason = BAD[name]
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        audio.read_audio(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file_is_rejected(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        audio.read_audio(tmp_path / "nowhere.wav")


def test_every_truncation_of_a_wav_is_detected():
    whole = wav(noise(0.03))
    for length in range(len(whole)):
        with pytest.raises(InputError):
            audio.decode_audio(whole[:length])


def test_wav_of_unknown_length_is_read():
    """A program that writes to a pipe does not know the length when it writes the header."""
    whole = bytearray(wav(noise(0.2)))
    struct.pack_into("<I", whole, whole.index(b"data") + 4, 0xFFFFFFFF)
    np.testing.assert_array_equal(audio.decode_audio(bytes(whole)), audio.decode_audio(wav(noise(0.2))))
