"""Damaged and unusual corpora: no traceback, and a rejection for everything that is not used."""

import io
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.corpora import (
    ALIGNMENT,
    EVALUATION,
    IDS,
    LABELS,
    TRANSCRIPT,
    TRANSCRIPTS,
    WAV,
    WDSEG,
    write_iemocap,
)
from helpers.small_corpus import RATE, noise, sine, write_ravdess
from jaxser.data import dataset
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep.corpora import ravdess
from jaxser.features import audio
from jaxser.types import InputError


def prepare(root: Path, recipe: str = "can", corpus: str = "iemocap", max_rejected: float = 1.0):
    """Return the prepared dataset, and the reasons of rejections by location."""
    folder = preparation.prepare(
        corpus, root, recipe, root.parent / "data", workers=1, max_rejected=max_rejected, quiet=True
    )
    return dataset.load_prepared(folder), reasons(folder / "rejected.jsonl")


def reasons(path: Path) -> dict[str, str]:
    """Return the reasons in a file of rejections by location."""
    return {line["where"]: line["reason"] for line in map(json.loads, path.read_text().splitlines())}


def release(tmp_path: Path, files: dict[str, str | bytes | None]) -> Path:
    root = write_iemocap(tmp_path / "release", files)
    for number, name in enumerate(IDS):
        if WAV.format(name) not in files:
            soundfile.write(root / WAV.format(name), noise(1.5, seed=number), RATE)
    return root


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (ALIGNMENT.replace("   76    88", "   70    88"), "frames 70 to 88 do not follow frame 75"),
        (ALIGNMENT.replace("   52    75", "  -52    75"), "frames -52 to 75 do not follow frame 51"),
        (ALIGNMENT.replace("  140   147", "  140   900"), "ends at 9.01 s, but the recording at 1.50 s"),
        (ALIGNMENT.replace("   76    88", "   76 99999999999"), "frames 76 to 88 are missing"),
        ("", "no rows"),
    ],
)
def test_invalid_alignments_are_listed_as_ignored_and_lead_to_equal_segments(tmp_path, content, reason):
    data, rejected = prepare(release(tmp_path, {WDSEG.format(IDS[0]): content}))
    assert len(data.utterances) == 3
    assert data.utterances[0].words is None
    assert data.utterances[0].flags == ("bad_alignment", "equal_segments")
    assert data.manifest["flags"]["bad_alignment"] == 1
    lengths = data.arrays["segment_lengths"][0]
    assert len(lengths) == len(data.arrays["words"][0]) == 3  # I like cafés
    assert lengths.max() - lengths.min() <= 1
    [path] = tmp_path.rglob("ignored.jsonl")
    ignored = reasons(path)
    assert list(ignored) == [WDSEG.format(IDS[0])]
    assert reason in ignored[WDSEG.format(IDS[0])]
    assert not rejected


def test_transcripts_with_latin1_html_or_no_text(tmp_path):
    texts = TRANSCRIPTS.replace("Note: it's 5 o'clock.", "").replace(
        "No!", "<b>No</b> &amp; <script>x()</script>"
    )
    data, rejected = prepare(release(tmp_path, {TRANSCRIPT: texts}), "mcsan")
    assert data.column("transcript").tolist() == ["I like cafés.", "", "<b>No</b> &amp; <script>x()</script>"]
    assert [len(data.arrays["words"][row]) for row in range(3)] == [4, 1, 21]
    assert data.vocabulary[data.arrays["words"][1][0]] == "<none>"
    assert data.manifest["flags"]["no_words"] == 1
    assert rejected == {}


def test_unknown_labels_are_kept_and_counted_when_loading(tmp_path):
    labels = LABELS.replace("\tang\t", "\tbliss\t")
    root = release(tmp_path, {EVALUATION: labels})
    data, _ = prepare(root, "mcsan")
    assert data.manifest["labels"]["found"] == {"bliss": 1, "neu": 1, "xxx": 1}
    seven = dataset.load_prepared(tmp_path / "data" / "iemocap", "mcsan", classes="seven")
    assert [utterance.label for utterance in seven.utterances] == ["neu"]
    assert seven.left_out == {"bliss": 1, "xxx": 1}


TONE = sine(1.0, rate=48_000)
KINDS = {
    "8 bit": (TONE, 48_000, "PCM_U8", 0.01),
    "16 bit": (TONE, 48_000, "PCM_16", 1e-4),
    "24 bit": (TONE, 48_000, "PCM_24", 1e-6),
    "32 bit": (TONE, 48_000, "PCM_32", 1e-6),
    "float": (TONE, 48_000, "FLOAT", 1e-6),
    "double": (TONE, 48_000, "DOUBLE", 1e-6),
    "mu-law": (TONE, 48_000, "ULAW", 0.02),
    "stereo": (np.stack([TONE, TONE], axis=1), 48_000, "PCM_24", 1e-6),
    "six channels": (np.stack([TONE] * 6, axis=1), 48_000, "PCM_24", 1e-6),
    "44.1 kHz": (sine(1.0, rate=44_100), 44_100, "FLOAT", 1e-3),
    "16 kHz": (sine(1.0), RATE, "FLOAT", 1e-3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_sample_formats_decode_to_the_same_waveform(tmp_path, kind):
    samples, rate, subtype, tolerance = KINDS[kind]
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype=subtype)
    found = audio.read_audio(tmp_path / "a.wav").samples
    assert found.dtype == np.float32
    assert len(found) == RATE
    inner = slice(800, -800)  # without the edge effects of resampling
    assert np.abs(found[inner] - sine(1.0)[inner]).max() < tolerance + 1e-3


@pytest.mark.parametrize(
    ("samples", "flag"),
    [
        (np.zeros(8_000), "silent"),
        (np.full(8_000, 1e-6), "silent"),
        (np.sign(noise(0.5)), "clipped"),
        (np.clip(40 * noise(0.5), -1, 1), "clipped"),
    ],
)
def test_silent_and_clipped_recordings_are_used_and_flagged(tmp_path, samples, flag):
    root = release(tmp_path, {})
    soundfile.write(root / WAV.format(IDS[1]), samples, RATE, subtype="FLOAT")
    data, rejected = prepare(root)
    assert flag in data.utterances[1].flags
    assert data.manifest["flags"][flag] == 1
    assert all(np.isfinite(array.values).all() for array in data.arrays.values())
    assert rejected == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_recordings_with_nonfinite_samples_are_rejected(tmp_path, bad):
    root = release(tmp_path, {})
    samples = noise(0.5)
    samples[4_000] = bad
    soundfile.write(root / WAV.format(IDS[1]), samples, RATE, subtype="FLOAT")
    data, rejected = prepare(root)
    assert len(data.utterances) == 2
    assert rejected == {WAV.format(IDS[1]): "NaN or infinite samples"}


def test_file_names_that_are_not_utf8(tmp_path):
    write_ravdess(tmp_path / "release", 3)
    strange = b"Actor_01/\xff\xfe.wav"
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path / "release"), strange))).write_bytes(b"")
    data, rejected = prepare(tmp_path / "release", "mcsan", "ravdess")
    assert len(data.utterances) == 3
    assert len(rejected) == 1


def test_folders_and_dangling_links_instead_of_recordings(tmp_path):
    [first, second, _] = write_ravdess(tmp_path / "release", 3)
    first.unlink()
    first.mkdir()
    second.unlink()
    second.symlink_to(tmp_path / "nowhere")
    data, rejected = prepare(tmp_path / "release", "mcsan", "ravdess")
    assert len(data.utterances) == 1
    assert {reason.split(" (")[0] for reason in rejected.values()} == {"cannot be read"}
    assert len(rejected) == 2


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that even root cannot write")
def test_read_only_output_is_a_one_line_error(tmp_path, capsys):
    write_ravdess(tmp_path, 1)
    assert preparation.main(["--corpus=ravdess", f"--root={tmp_path}", "--out=/proc/self/data"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("prepare: /proc/self/data")
    assert error.count("\n") == 1


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(0.1), RATE, format=kind)
    return file.getvalue()


SOUNDS = {kind: encoded(kind) for kind in ("WAV", "FLAC", "OGG", "AIFF")}


@settings(max_examples=400, deadline=None)
@given(kind=st.sampled_from(sorted(SOUNDS)), seed=st.integers(0, 2**32), cuts=st.integers(1, 6))
def test_damaged_recordings_raise_no_other_error(kind, seed, cuts):
    content, draw = bytearray(SOUNDS[kind]), random.Random(seed)
    for _ in range(cuts):
        place = draw.randrange(min(len(content), draw.choice((60, 10_000))) + 1)
        change = draw.randrange(4)
        if change == 0:
            del content[place : place + draw.randrange(1, 40)]
        elif change == 1:
            content[place:place] = draw.randbytes(draw.randrange(1, 20))
        elif change == 2:
            content[place : place + 4] = draw.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"))
        else:
            content = content[:place]
    try:
        samples, _ = audio.decode_audio(io.BytesIO(content))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert np.isfinite(samples).all()
        assert len(samples) >= audio.WINDOW


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=200), head=st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x18ftypmp42"])
)
def test_arbitrary_bytes_are_not_decoded(content, head):
    with pytest.raises(InputError) as caught:
        audio.decode_audio(io.BytesIO(head + content))
    assert "\n" not in str(caught.value)


NAMES = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20),
        st.from_regex(r"0[0-4]-0[0-3]-0[0-9]-0[0-3]-0[0-3]-0[0-3]-[0-3][0-9]", fullmatch=True),
    ).map(lambda name: name + ".wav"),
    max_size=5,
    unique=True,
)


@settings(max_examples=100, deadline=None)
@given(names=NAMES)
def test_every_recording_of_ravdess_is_accounted_for(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("ravdess")
    [kept] = write_ravdess(root, 1)
    names = [name for name in names if name != kept.name]
    for name in names:
        (root / name).touch()
    reading = ravdess.read(root)
    skipped = sum(reading.facts.get("skipped", {}).values())
    hidden = sum(name.startswith("._") for name in names)
    assert len(reading.utterances) + len(reading.rejected) + skipped + hidden == 1 + len(names)
    assert all(rejection.reason for rejection in reading.rejected)
