"""Recordings whose container states no size, a wrong one, or more than is there."""

import io
import re
import struct
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from helpers.small_corpus import RATE, noise
from jaxser.features import audio
from jaxser.types import InputError

SIGNAL = noise(2.0)


def encoded(kind: str, subtype: str | None = None, signal: np.ndarray = SIGNAL, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, signal, RATE, format=kind, subtype=subtype, **options)
    return file.getvalue()


class Pipe:
    """A file that cannot seek."""

    def __init__(self):
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content) -> int:
        self.content += content
        return len(content)


def packets(stream, rate: int) -> list[av.Packet]:
    frame = av.AudioFrame.from_ndarray(SIGNAL[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = RATE, 0
    resampler = av.AudioResampler(stream.format or "fltp", stream.layout, rate)
    parts = (*resampler.resample(frame), *resampler.resample(None), None)
    return [packet for part in parts for packet in stream.encode(part)]


def muxed(kind: str, codec: str, rate: int = RATE, *, is_pipe: bool = False, **options: str) -> bytes:
    """Encode the signal by FFmpeg."""
    pipe = Pipe()
    with tempfile.NamedTemporaryFile() as file:
        with av.open(pipe if is_pipe else file.name, "w", format=kind, options=options) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.layout = "stereo" if codec == "wmav2" else "mono"
            stream.bit_rate = 64_000
            container.mux(packets(stream.codec_context, rate))
        return bytes(pipe.content) if is_pipe else Path(file.name).read_bytes()


def amr() -> bytes:
    codec = av.CodecContext.create("libopencore_amrnb", "w")
    codec.sample_rate, codec.layout, codec.format, codec.bit_rate = 8_000, "mono", "s16", 12_200
    return b"#!AMR\n" + b"".join(map(bytes, packets(codec, 8_000)))


FORMATS = {
    "wav": lambda: encoded("WAV"),
    "wavex": lambda: encoded("WAVEX"),
    "rifx": lambda: encoded("WAV", endian="BIG"),
    "rf64": lambda: encoded("RF64"),
    "w64": lambda: encoded("W64"),
    "aiff": lambda: encoded("AIFF"),
    "au": lambda: encoded("AU"),
    "caf": lambda: encoded("CAF"),
    "nist": lambda: encoded("NIST"),
    "flac": lambda: encoded("FLAC"),
    "vorbis": lambda: encoded("OGG", "VORBIS"),
    "opus": lambda: encoded("OGG", "OPUS"),
    "mp3": lambda: encoded("MP3"),
    "tagged mp3": lambda: muxed("mp3", "libmp3lame"),
    "mp3 without a count": lambda: muxed("mp3", "libmp3lame", write_xing="0"),
    "aac": lambda: muxed("adts", "aac"),
    "amr": amr,
    "mkv": lambda: muxed("matroska", "flac"),
    "webm": lambda: muxed("webm", "libopus", rate=48_000),
    "mp4": lambda: muxed("mp4", "aac", movflags="faststart"),
    "avi": lambda: muxed("avi", "pcm_s16le"),
    "asf": lambda: muxed("asf", "wmav2", rate=44_100),
}


def decoded(content: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    return audio.decode_audio(io.BytesIO(content))


@pytest.mark.parametrize("name", FORMATS)
def test_whole_files_have_no_flag_and_cut_ones_are_detected(name):
    whole = FORMATS[name]()
    samples, flags = decoded(whole)
    assert abs(len(samples) - len(SIGNAL)) < 0.15 * RATE
    assert flags == ()
    for part in (0.3, 0.5, 0.9):
        with pytest.raises(InputError, match=r"truncated|not a readable"):
            decoded(whole[: int(len(whole) * part) | 1])


def with_size(content: bytes, size: int, riff: int | None = None) -> bytes:
    """Replace the size of the audio in a WAV file, and the size of the whole."""
    changed = bytearray(content)
    struct.pack_into("<I", changed, content.index(b"data") + 4, size)
    if riff is not None:
        struct.pack_into("<I", changed, 4, riff)
    return bytes(changed)


PLACEHOLDERS = {
    "sox and espeak-ng": (0x7FFFF000, 0x7FFFF024),
    "arecord": (0x7FFFFFFF, 0x7FFFFFFF),
    "half of the range": (0x80000000, 0x80000024),
    "FFmpeg": (0xFFFFFFFF, 0xFFFFFFFF),
    "crashed": (0, 0),
    "crashed with the sizes of an empty file": (0, 36),
    "crashed with the size of the header": (0, 8),
    "two bytes too long": (64_002, 64_038),
    "includes the chunk's headers": (64_036, 64_036),
    "the size of the file": (64_044, 64_044),
}


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_all_of_a_wav_file_with_a_wrong_size_is_read_and_flagged(name):
    whole = encoded("WAV")
    expected, _ = decoded(whole)
    samples, flags = decoded(with_size(whole, *PLACEHOLDERS[name]))
    np.testing.assert_array_equal(samples, expected)
    assert flags == ("header_size",)


@pytest.mark.parametrize("missing", [200, 5_000, 32_000])
def test_a_plausible_size_that_promises_more_is_a_truncated_file(missing):
    with pytest.raises(InputError, match=f"truncated: 64000 of {64_000 + missing} bytes are present"):
        decoded(with_size(encoded("WAV"), 64_000 + missing))


def test_an_empty_wav_file_with_metadata_is_not_taken_for_a_crashed_one():
    tags = b"LIST" + struct.pack("<I", 200) + b"INFO" + bytes(196)
    with pytest.raises(InputError, match="0 samples at 16 kHz"):
        decoded(encoded("WAV", signal=np.zeros(0, np.float32)) + tags)


def test_chunks_after_the_audio_are_no_doubt_but_other_bytes_are():
    whole = encoded("WAV")
    expected, _ = decoded(whole)
    tags = b"LIST" + struct.pack("<I", 200) + b"INFO" + bytes(196)
    for content, flags in ((whole + tags, ()), (whole + whole[44:9_044], ("header_size",))):
        samples, found = decoded(content)
        np.testing.assert_array_equal(samples, expected)
        assert found == flags


def test_endless_chunks_are_rejected():
    with pytest.raises(InputError, match="truncated: the file ends before its audio data"):
        decoded(b"RIFF\xff\xff\xff\xffWAVE" + bytes(2_000_000))


def patched(content: bytes, marker: bytes, offset: int, form: str, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(form, changed, content.index(marker) + offset, value)
    return bytes(changed)


UNKNOWN = {
    "rf64": lambda: patched(encoded("RF64"), b"ds64", 16, "<Q", 0),
    "rf64 of the largest size": lambda: patched(encoded("RF64"), b"ds64", 16, "<Q", 2**64 - 1),
    "w64": lambda: patched(encoded("W64"), b"data\xf3\xac", 16, "<Q", 2**63 - 1),
    "aiff of sox": lambda: patched(encoded("AIFF"), b"SSND", 4, ">I", 0x7F000008),
    "aiff of FFmpeg": lambda: patched(patched(encoded("AIFF"), b"SSND", 4, ">I", 0), b"COMM", 10, ">I", 0),
    "au": lambda: patched(encoded("AU"), b".snd", 8, ">I", 0xFFFFFFFF),
    "caf": lambda: patched(encoded("CAF"), b"data", 4, ">q", -1),
    "flac": lambda: patched(encoded("FLAC"), b"fLaC", 22, ">I", 0),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_all_of_other_files_of_unknown_size_is_read_and_flagged(name):
    samples, flags = decoded(UNKNOWN[name]())
    whole = encoded("FLAC" if name == "flac" else "WAV")
    np.testing.assert_array_equal(samples, decoded(whole)[0])
    assert flags == ("header_size",)


PIPED = {
    "wav": ("wav", "pcm_s16le", RATE, {}),
    "w64": ("w64", "pcm_s16le", RATE, {}),
    "aiff": ("aiff", "pcm_s16be", RATE, {}),
    "au": ("au", "pcm_s16be", RATE, {}),
    "mkv": ("matroska", "flac", RATE, {}),
    "webm": ("webm", "libopus", 48_000, {}),
    "avi": ("avi", "pcm_s16le", RATE, {}),
    "fragments": ("mp4", "aac", RATE, {"movflags": "frag_keyframe+empty_moov+skip_trailer"}),
}


@pytest.mark.parametrize("name", PIPED)
def test_all_of_what_ffmpeg_writes_to_a_pipe_is_read_and_flagged(name):
    kind, codec, rate, options = PIPED[name]
    samples, flags = decoded(muxed(kind, codec, rate, is_pipe=True, **options))
    assert 0 <= len(samples) - len(SIGNAL) < 0.15 * RATE
    assert flags == ("header_size",)


def test_an_ogg_file_that_ends_at_a_page_is_flagged():
    whole = encoded("OGG", "OPUS")
    last = whole.rindex(b"OggS")
    samples, flags = decoded(whole[:last])
    assert len(samples) < len(SIGNAL)
    assert flags == ("header_size",)


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
def test_ogg_without_a_page_of_its_audio_is_rejected(kind):
    whole = encoded("OGG", kind, np.tile(SIGNAL, 10))
    pages = [match.start() for match in re.finditer(b"OggS", whole)]
    with pytest.raises(InputError, match=r"^truncated: page \d+ of its audio is missing$"):
        decoded(whole[: pages[-2]] + whole[pages[-1] :])


def test_ogg_of_a_running_broadcast_is_flagged():
    whole = encoded("OGG", "VORBIS", np.tile(SIGNAL, 10))
    pages = [match.start() for match in re.finditer(b"OggS", whole)]
    assert decoded(whole[: pages[2]] + whole[pages[3] :])[1] == ("header_size",)


def test_mp3_of_variable_bit_rate_without_a_count_is_read_to_its_end():
    """libsndfile estimates the length from the first frames, which are silent here."""
    signal = np.concatenate([np.zeros(4 * RATE, np.float32), noise(4.0)])
    file = io.BytesIO()
    soundfile.write(file, signal, RATE, format="MP3", bitrate_mode="VARIABLE")
    content = bytearray(file.getvalue())
    content[content.index(b"Xing") : content.index(b"Xing") + 4] = bytes(4)
    tag = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
    samples, flags = decoded(tag + bytes(content))
    assert abs(len(samples) - len(signal)) < 0.2 * RATE
    assert flags == ()


def test_padding_after_the_tags_of_mp3_does_not_hide_a_cut():
    content = muxed("mp3", "libmp3lame", write_xing="0", id3v2_version="0")
    tagged = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10 + 3_000) + content
    assert decoded(tagged)[1] == ()
    with pytest.raises(InputError, match="truncated: the file ends within a frame"):
        decoded(tagged[: len(tagged) // 2 | 1])


def test_chunks_after_audio_of_an_odd_size_without_padding_are_no_doubt():
    whole = encoded("WAV", "PCM_U8", noise(1.0)[:-1])
    tags = b"LIST" + struct.pack("<I", 200) + b"INFO" + bytes(196)
    odd = whole[: 44 + RATE - 1]
    for content in (odd + tags, odd + b"\0" + tags):
        assert decoded(content)[1] == ()


@pytest.mark.parametrize("kind", ["AU", "W64", "AIFF", "CAF", "RF64"])
def test_a_header_without_audio_is_rejected(kind):
    whole = encoded(kind)
    for length in range(4, 140):
        with pytest.raises(InputError):
            decoded(whole[:length])


def test_other_formats_of_libsndfile_are_refused():
    """Their completeness cannot be checked: a VOC file that is cut in half is read without an error."""
    with pytest.raises(InputError, match="format VOC, which is not supported: convert it to WAV or FLAC"):
        decoded(encoded("VOC"))
