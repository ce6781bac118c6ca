"""Decoding of audio files: formats, sampling rates, and what is rejected."""

import io
import os
import tracemalloc

import av
import numpy as np
import pytest
import soundfile

from helpers.small_corpus import RATE, noise, sine
from jaxser.features import audio
from jaxser.features.containers import FFMPEG_OPTIONS
from jaxser.types import InputError


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_every_rate_and_sample_format_decodes_to_the_same_signal(tmp_path, subtype, rate):
    path = tmp_path / "sine.wav"
    soundfile.write(path, sine(0.5, rate), rate, subtype=subtype)
    recording = audio.read_audio(path)
    samples = recording.samples
    assert samples.dtype == np.float32
    assert abs(len(samples) - RATE // 2) <= 1
    inside = slice(400, 7_600)
    tolerance = 0.02 if subtype in ("PCM_U8", "ULAW") else 2e-3
    np.testing.assert_allclose(samples[inside], sine(0.5)[inside], atol=tolerance)
    assert len(recording.sha256) == 64


def test_channels_are_averaged(tmp_path):
    left, right = noise(0.2, seed=1), noise(0.2, seed=2)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    samples = audio.read_audio(tmp_path / "stereo.wav").samples
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-7)


def test_flac_equals_wav(tmp_path):
    for name in ("x.wav", "x.flac"):
        soundfile.write(tmp_path / name, (noise(0.2) * 2**15).astype(np.int16), RATE)
    np.testing.assert_array_equal(
        audio.read_audio(tmp_path / "x.wav").samples, audio.read_audio(tmp_path / "x.flac").samples
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
    "cut by 200 bytes": (wav(noise(0.5))[:-200], "truncated: 15800 of 16000 bytes"),
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
    """At most 4 ms may be missing, since headers are often wrong by a few bytes; this is flagged."""
    whole = wav(noise(0.05))
    for length in range(len(whole)):
        if len(whole) - length > 128:
            with pytest.raises(InputError):
                audio.decode_audio(io.BytesIO(whole[:length]))
        else:
            samples, flags = audio.decode_audio(io.BytesIO(whole[:length]))
            assert (len(samples), flags) == ((length - 44) // 2, ("header_size",))


def test_a_part_of_a_recording_that_is_too_long_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "_BLOCK_SAMPLES", 1_000)
    signal = noise(3.0)
    soundfile.write(tmp_path / "x.wav", signal, RATE, subtype="FLOAT")
    with pytest.raises(
        InputError, match="longer than 1 s, the most that is decoded: cut it, or give the start"
    ):
        audio.read_audio(tmp_path / "x.wav", max_seconds=1.0)
    part = audio.read_audio(f"{tmp_path / 'x.wav'}#t=2,2.5", max_seconds=1.0)
    np.testing.assert_array_equal(part.samples, signal[2 * RATE : 2 * RATE + RATE // 2])


def test_recordings_are_decoded_in_blocks_and_not_beyond_their_limit(tmp_path):
    """Samples of a long recording, which compresses well, must not fill the memory."""
    path = tmp_path / "silence.flac"
    with soundfile.SoundFile(path, "w", 96_000, 1, format="FLAC") as file:
        for _ in range(20):
            file.write(np.zeros(2**20, np.int16))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"longer than 20 s, the most that is decoded"):
            audio.read_audio(path, max_seconds=40.0)  # of recordings at 48 kHz
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size < 2e5
    assert peak < 0.5 * 4 * 20 * 2**20


def test_blocks_do_not_change_the_average_of_channels(tmp_path, monkeypatch):
    signal = np.stack([noise(0.2, seed=seed) for seed in range(7)], axis=1)
    soundfile.write(tmp_path / "x.wav", signal, RATE, subtype="FLOAT")
    whole = audio.read_audio(tmp_path / "x.wav").samples
    np.testing.assert_array_equal(whole, signal.mean(axis=1))
    monkeypatch.setattr(audio, "_BLOCK_SAMPLES", 70)
    np.testing.assert_array_equal(audio.read_audio(tmp_path / "x.wav").samples, whole)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, r"not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), r"not a regular file"),
        (lambda path: path.mkdir(), r"not a regular file"),
        (lambda path: path.symlink_to(path), r"Too many levels"),
    ],
)
def test_what_is_not_a_regular_file_is_rejected_without_reading_it(tmp_path, make, reason):
    make(tmp_path / "x.wav")
    with pytest.raises(InputError, match=f"x.wav: cannot be read .{reason}"):
        audio.read_audio(tmp_path / "x.wav")


def test_a_sparse_file_of_a_terabyte_is_rejected_without_reading_it(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(wav(noise(0.2)))
    with path.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(
        InputError, match="1,099,511,627,776 bytes, more than the 4,294,967,296 that are read"
    ):
        audio.read_audio(path)


def test_decoding_has_a_time_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "_MAX_DECODING", 0.0)
    soundfile.write(tmp_path / "x.wav", noise(0.2), RATE)
    with pytest.raises(InputError, match="decoding takes more than 0 s"):
        audio.read_audio(tmp_path / "x.wav")


def test_more_channels_than_any_recording_has_are_rejected(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros((500, 200), np.float32), RATE)
    with pytest.raises(InputError, match="200 channels, more than the 64 that are read"):
        audio.read_audio(tmp_path / "x.wav")


def test_a_git_lfs_pointer_is_named():
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    with pytest.raises(InputError, match="a git-lfs pointer instead of the file itself; run `git lfs pull`"):
        audio.decode_audio(io.BytesIO(pointer))


def test_ffmpeg_opens_nothing_but_the_file():
    """A playlist in a file that claims to be a video must not open addresses or other files."""
    playlist = b"ffconcat version 1.0\nfile tcp://127.0.0.1:9\n"
    with pytest.raises(av.FFmpegError), av.open(io.BytesIO(playlist), options=FFMPEG_OPTIONS):
        pass
