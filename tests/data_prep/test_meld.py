"""The MELD reader: tables, clips in any nesting, the audio of videos, and the real tables if available."""

import csv
import io
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.small_corpus import RATE, noise, sine
from jaxser.data import dataset
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep.corpora import meld
from jaxser.features.audio import decode_audio, read_audio, split_span
from jaxser.types import InputError, UsageError

COLUMNS = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season", "Episode",
    "StartTime", "EndTime",
)  # fmt: skip


def row(dialogue: int | str, number: int | str, text: str = "Hi.", label: str = "joy", seconds: float = 0.5):
    times = "00:00:01,000", f"00:{int(seconds) // 60:02d}:{1 + seconds % 60:06.3f}".replace(".", ",")
    return ["1", text, " Joey ", label, "positive", str(dialogue), str(number), "8", "21", *times]


def table(*rows: list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([COLUMNS, *rows])
    return text.getvalue().encode()


ROW = row(0, 0)


def write_release(root: Path, train=(ROW,), dev=(ROW,), test=(ROW,)) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", train), ("dev", dev), ("test", test)):
        content = rows if isinstance(rows, bytes) else table(*rows)
        (root / f"{split}_sent_emo.csv").write_bytes(content)
    return root


def write_clip(path: Path, samples: np.ndarray, rate: int = RATE, *, with_video: bool = True) -> Path:
    """Write an mp4 with AAC audio and, like the clips of the release, a few video frames."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as video:
        pictures = video.add_stream("mpeg4", rate=10) if with_video else None
        sound = video.add_stream("aac", rate=rate, layout="stereo" if samples.ndim == 2 else "mono")
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
            video.mux([packet for one in (frame, frame, None) for packet in pictures.encode(one)])
        for start in range(0, samples.shape[-1], 1024):
            block = np.atleast_2d(samples)[:, start : start + 1024].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", layout=sound.layout.name)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            video.mux(sound.encode(frame))
        video.mux(sound.encode(None))
    return path


def write_silent_video(path: Path) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as video:
        track = video.add_stream("mpeg4", rate=10)
        track.width, track.height, track.pix_fmt = 32, 32, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        video.mux([packet for one in (frame, frame, None) for packet in track.encode(one)])
    return path


def by_id(reading):
    return {utterance.id: utterance for utterance in reading.utterances}


def test_reads_all_fields_of_a_row(tmp_path):
    root = write_release(tmp_path, train=[row(12, 3, "Hi,\r\n\xa0there!", "Surprise")])
    (root / "clips/train_splits").mkdir(parents=True)
    (root / "clips/train_splits/dia12_utt3.mp4").touch()
    utterance = by_id(meld.read(root))["train_dia12_utt3"]
    assert utterance.wav == "clips/train_splits/dia12_utt3.mp4"
    assert (utterance.label, utterance.speaker, utterance.split) == ("surprise", "Joey", "train")
    assert (utterance.dialogue, utterance.transcript) == ("train_dia12", "Hi,\r\n there!")
    assert utterance.attributes == {"seconds": 0.5, "sentiment": 1.0}
    assert (utterance.words, utterance.gender, utterance.flags) == (None, "", ())


def test_ids_contain_the_split(tmp_path):
    found = by_id(meld.read(write_release(tmp_path)))
    assert {name: utterance.split for name, utterance in found.items()} == {
        "train_dia0_utt0": "train", "dev_dia0_utt0": "validation", "test_dia0_utt0": "test"
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        table(row(0, 0, "You\x92re\xa0a \x93genius\x94\x85")),  # C1 controls in UTF-8, as in MELD.Raw
        table(row(0, 0, "You’re a “genius”…")),
        b"\xef\xbb\xbf" + table(row(0, 0, "You’re a “genius”…")),
        table(row(0, 0, "You’re a “genius”…")).replace(b"\r\n", b"\n"),
        table(row(0, 0, "You're a")).replace(b"You're a", b"You\x92re\xa0a \x93genius\x94\x85"),  # not UTF-8
    ],
)
def test_text_encodings_and_line_ends(tmp_path, content):
    assert (
        by_id(meld.read(write_release(tmp_path, train=content)))["train_dia0_utt0"].transcript
        == "You’re a “genius”…"
    )


def test_finds_clips_in_any_nesting(tmp_path):
    paths = {
        "train_dia0_utt0": "MELD.Raw/train/train_splits/dia0_utt0.mp4",
        "dev_dia0_utt0": "dev/dev_splits_complete/dia0_utt0.MP4",
        "test_dia0_utt0": "test/output_repeated_splits_test/dia0_utt0.wav",
    }
    root = write_release(tmp_path)
    for path in (*paths.values(), "test/output_repeated_splits_test/._dia0_utt0.mp4"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    reading = meld.read(root)
    assert {name: utterance.wav for name, utterance in by_id(reading).items()} == paths
    assert reading.rejected == ()


def test_twins_option_selects_the_cut_of_test_clips(tmp_path):
    root = write_release(tmp_path, test=[row(0, 0), row(0, 1), row(0, 2)])
    for name in ("dia0_utt0", "final_videos_testdia0_utt0", "dia0_utt1", "final_videos_testdia0_utt2"):
        path = root / f"output_repeated_splits_test/{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    chosen = {}
    for twins in meld.TWINS:
        reading = meld.read(root, twins=twins)
        assert (reading.facts["twins"], reading.facts["clips_with_twin"]) == (twins, 1)
        assert reading.facts["rows_without_clip"] == 2
        chosen[twins] = [Path(u.wav).stem for u in reading.utterances if u.split == "test"]
    assert chosen["plain"] == ["dia0_utt0", "dia0_utt1", "final_videos_testdia0_utt2"]
    assert chosen["final"] == ["final_videos_testdia0_utt0", "dia0_utt1", "final_videos_testdia0_utt2"]


def test_max_seconds_cuts_long_clips(tmp_path):
    root = write_release(
        tmp_path, train=[row(0, 0, seconds=2.0), row(0, 1, seconds=0.4), row(0, 2, seconds=0)]
    )
    for number in range(3):
        write_clip(root / f"train_splits/dia0_utt{number}.mp4", noise(2.0), with_video=False)
    found = by_id(meld.read(root, max_seconds=0.5))
    assert found["train_dia0_utt0"].flags == ("cut_seconds",)
    assert found["train_dia0_utt0"].wav == "train_splits/dia0_utt0.mp4#t=0,0.5"
    assert found["train_dia0_utt1"].flags == ()
    assert found["train_dia0_utt2"].flags == ("bad_span",)
    folder = preparation.prepare(
        "meld", root, "mcsan", tmp_path / "out", workers=1, max_rejected=0.5, quiet=True,
        corpus_options={"max_seconds": 0.5},
    )  # fmt: skip
    data = dataset.load_prepared(folder)
    assert data.arrays["audio"].length.tolist() == pytest.approx([51, 203, 203], abs=3)
    assert data.manifest["cut"] == {"seconds": 1}
    assert data.manifest["facts"]["max_seconds"] == 0.5
    assert data.manifest["rejected"] == 2


@pytest.mark.parametrize(
    ("train", "where", "reason"),
    [
        ([row("x", 0), row(0, 0)], "train_sent_emo.csv:2", "are not two numbers"),
        ([row(0, 0), row(0, -1)], "train_sent_emo.csv:3", "are not two numbers"),
        ([row(0, 0, label="")], "train_sent_emo.csv:2", "no emotion"),
        ([row(0, 0), row(0, 0)], "train_sent_emo.csv:3", "a second row with this id"),
        ([row(0, 0), ["1", "cut"]], "train_sent_emo.csv:3", "2 cells, but 11 columns"),
        ([row(0, 0), [*row(0, 1), ""]], "train_sent_emo.csv:3", "12 cells, but 11 columns"),
    ],
)
def test_unusable_rows_are_rejected_with_their_line(tmp_path, train, where, reason):
    [rejection] = meld.read(write_release(tmp_path, train=train)).rejected
    assert rejection.where == where
    assert reason in rejection.reason


def test_clips_without_a_row_are_rejected(tmp_path):
    root = write_release(tmp_path)
    for path in ("train_splits/dia0_utt7.mp4", "train_splits/other.mp4", "clips/dia0_utt0.mp4"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).touch()
    reasons = {rejection.where: rejection.reason for rejection in meld.read(root).rejected}
    assert reasons == {
        "train_splits/dia0_utt7.mp4": "a clip, but no row in the CSV file",
        "train_splits/other.mp4": "not named like dia0_utt0.mp4",
        "clips/dia0_utt0.mp4": "no parent folder is named after a split",
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "dev_sent_emo.csv").unlink(), "contains no dev_sent_emo.csv"),
        (
            lambda root: (root / "dev_sent_emo.csv").write_bytes(b""),
            "no column Utterance, Speaker, Emotion, Dialogue_ID",
        ),
        (
            lambda root: (root / "dev_sent_emo.csv").write_bytes(table(row(0, 0)) + b'2,"Hi.,Joey,joy\n'),
            "line 3: a quote is not closed",
        ),
    ],
)
def test_missing_or_malformed_tables_are_errors(tmp_path, spoil, message):
    root = write_release(tmp_path)
    spoil(root)
    with pytest.raises(InputError, match=message) as caught:
        meld.read(root)
    assert "\n" not in str(caught.value)


def test_options_out_of_range_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="--meld_twins=both: must be one of plain, final"):
        meld.read(tmp_path, twins="both")
    with pytest.raises(UsageError, match="--max_seconds=0: must be greater than 0"):
        meld.read(tmp_path, max_seconds=0)


def test_tables_can_be_read_without_clips(tmp_path):
    root = write_release(tmp_path / "release")
    assert len(meld.read(root).utterances) == 3
    with pytest.raises(InputError, match=r"3 of 3 utterances were rejected, .*cannot be read"):
        preparation.prepare("meld", root, "mcsan", tmp_path, workers=1, quiet=True)


def test_decoded_audio_of_a_video_matches_its_source(tmp_path):
    samples = read_audio(write_clip(tmp_path / "a.mp4", sine(1.0))).samples
    second = samples[:RATE]
    loudest = np.argmax(np.abs(np.fft.rfft(second * np.hanning(len(second)))))
    assert loudest * RATE / len(second) == pytest.approx(440, abs=2)
    assert len(samples) == pytest.approx(16_000, abs=2_100)  # the encoder pads by up to two blocks
    assert np.abs(samples[2_000:14_000]).max() == pytest.approx(0.5, abs=0.05)


def test_stereo_videos_are_mixed_and_resampled(tmp_path):
    left, silent = sine(1.0, rate=44_100), np.zeros(44_100, np.float32)
    samples = read_audio(write_clip(tmp_path / "a.mp4", np.stack([left, silent]), rate=44_100)).samples
    assert len(samples) == pytest.approx(16_000, abs=2_100)
    assert np.abs(samples[2_000:14_000]).max() == pytest.approx(0.25, abs=0.03)


def test_unusable_videos_are_errors(tmp_path):
    with pytest.raises(InputError, match=r"silent\.mp4: a video without an audio track"):
        read_audio(write_silent_video(tmp_path / "silent.mp4"))
    whole = write_clip(tmp_path / "whole.mp4", noise(1.0)).read_bytes()
    for number, content in enumerate((whole[: len(whole) // 2], whole[:40], whole[:12] + b"\xff" * 500)):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"not a readable video|truncated") as caught:
            read_audio(path)
        assert "\n" not in str(caught.value)


def test_missing_pyav_is_an_error_that_names_it(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", noise(0.2))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"needs PyAV: pip install 'jaxser\[video\]'"):
        read_audio(path)


def test_reads_part_of_a_file(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.arange(32_000, dtype=np.int16), RATE)
    whole = read_audio(tmp_path / "a.wav")
    part = read_audio(f"{tmp_path / 'a.wav'}#t=0.5,1.25")
    assert np.array_equal(part.samples, whole.samples[8_000:20_000])
    assert part.sha256 != whole.sha256
    assert len(read_audio(f"{tmp_path / 'a.wav'}#t=1").samples) == 16_000
    assert len(read_audio(f"{tmp_path / 'a.wav'}#t=1,9").samples) == 16_000
    with pytest.raises(InputError, match=r"2 to 3 s is outside the recording, which lasts 2\.00 s"):
        read_audio(f"{tmp_path / 'a.wav'}#t=2,3")
    assert split_span("a#1.wav") == (Path("a#1.wav"), None)


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=300), head=st.booleans())
def test_arbitrary_tables_never_crash_the_reader(tmp_path_factory, content, head):
    root = tmp_path_factory.mktemp("meld")
    write_release(root, train=table(row(0, 0)) * head + content)
    try:
        reading = meld.read(root)
    except InputError as error:
        reading, message = None, str(error)
    if reading is None:
        assert "\n" not in message
    else:
        assert all(rejection.reason for rejection in reading.rejected)
        assert len(reading.utterances) >= 2


@pytest.mark.real
def test_tables_of_the_real_release(real_data):
    reading = meld.read(real_data / "meld")
    assert reading.rejected == ()
    assert len({utterance.id for utterance in reading.utterances}) == 13_708
    for split, name in meld.SPLITS.items():
        rows = [utterance for utterance in reading.utterances if utterance.split == name]
        assert Counter(utterance.label for utterance in rows) == meld.EXPECTED_BY_SPLIT[split]
        assert len(rows) == {"train": 9_989, "dev": 1_109, "test": 2_610}[split]
    assert Counter(u.label for u in reading.utterances) == reading.expected
    long = {
        u.id for u in meld.read(real_data / "meld", max_seconds=40).utterances if "cut_seconds" in u.flags
    }
    assert long == {"test_dia38_utt4", "test_dia220_utt0", "train_dia309_utt0"}
    assert [u.id for u in reading.utterances if "bad_span" in u.flags] == ["test_dia155_utt3"]
    assert not any(ord(c) in range(0x80, 0xA1) for u in reading.utterances for c in u.transcript)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", noise(0.3)).read_bytes()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.integers(1, 5))
def test_damaged_videos_never_crash_the_decoder(clip, seed, cuts):
    content, draw = bytearray(clip), random.Random(seed)
    for _ in range(cuts):
        position = draw.randrange(8, len(content))
        if draw.random() < 0.3:
            del content[position : position + draw.randrange(1, 40)]
        else:
            content[position : position + 4] = draw.randbytes(4)
    try:
        samples, _ = decode_audio(io.BytesIO(content))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert len(samples) >= 400
        assert np.isfinite(samples).all()
