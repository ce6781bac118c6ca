"""Prepared datasets: label sets, subsets, damaged files, and messages about missing or different datasets."""

import dataclasses
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from helpers.numbers import assert_close
from helpers.small_corpus import RATE, talk, write_talks
from jaxser.data import dataset, shards
from jaxser.data_prep import prepare as preparation
from jaxser.features import spectra
from jaxser.types import InputError, UsageError

LABELS = ["ang", "hap", "exc", "sad", "neu", "fru", "sur", "xxx", "neu", "oth", "exc"]
DIALOGUES = ["Ses01F_impro01", "Ses01F_script01_1"] * 6


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A dataset of eleven utterances in `<out>/talks`; the audio files are in `<out>/release`."""
    out = tmp_path_factory.mktemp("data")
    reading = write_talks(out / "release", LABELS, DIALOGUES[: len(LABELS)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "corpus_of_this_test", SimpleNamespace(read=lambda root: reading))
        patch.setitem(preparation.READERS, "chatter", "corpus_of_this_test")
        preparation.prepare("chatter", out / "release", "mcsan", out, name="talks", workers=1, quiet=True)
    return out / "talks"


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy of the dataset that a test may damage."""
    return shutil.copytree(prepared, tmp_path / "data" / "talks")


def test_arrays_are_the_features_of_the_recordings(prepared):
    data = dataset.load_prepared(prepared)
    assert (data.name, data.recipe, data.version) == ("talks", "mcsan", "1.0.0")
    for row, utterance in enumerate(data.utterances):
        samples, rate = soundfile.read(prepared.parent / "release" / utterance.wav, dtype="float32")
        assert rate == RATE
        assert_close(data.arrays["audio"][row], spectra.mfcc([samples])[0])
        words = [data.vocabulary[word] for word in data.arrays["words"][row]]
        assert words == ["don't", "talk", ",", "please", "!"]
    assert data.embeddings.shape == (len(data.vocabulary), 300)


def test_utterances_keep_all_fields_and_are_sorted(prepared):
    data = dataset.load_prepared(prepared)
    for index, utterance in enumerate(data.utterances):
        expected = talk(index, LABELS[index], DIALOGUES[index])
        assert len(utterance.sha256) == 64
        assert utterance.duration == pytest.approx(0.3)
        assert dataclasses.replace(utterance, sha256="", duration=None) == expected
    assert data.column("speaker").tolist() == ["s0", "s1", "s2"] * 3 + ["s0", "s1"]


@pytest.mark.parametrize(
    ("classes", "names", "labels", "left_out"),
    [
        ("seven", "ang hap exc sad neu fru sur", [0, 1, 2, 3, 4, 5, 6, 4, 2], {"xxx": 1, "oth": 1}),
        ("four_merged", "ang hap sad neu", [0, 1, 1, 2, 3, 3, 1], {"fru": 1, "oth": 1, "sur": 1, "xxx": 1}),
        ("four", "ang hap neu sad", [0, 1, 3, 2, 2], {"exc": 2, "fru": 1, "oth": 1, "sur": 1, "xxx": 1}),
        ("all", "ang exc fru hap neu oth sad sur xxx", [0, 3, 1, 6, 4, 2, 7, 8, 4, 5, 1], {}),
    ],
)
def test_label_sets(prepared, classes, names, labels, left_out):
    data = dataset.load_prepared(prepared, classes=classes)
    assert data.classes == tuple(names.split())
    assert data.label.tolist() == labels
    assert data.label.dtype == np.int32
    assert data.left_out == left_out
    assert len(data.utterances) == len(labels) == len(data.arrays["audio"].length)
    assert {utterance.label for utterance in data.utterances} <= set(LABELS)


def test_utterances_keep_their_frames_if_others_are_left_out(prepared):
    whole, part = dataset.load_prepared(prepared), dataset.load_prepared(prepared, classes="four")
    rows = {utterance.id: row for row, utterance in enumerate(whole.utterances)}
    for row, utterance in enumerate(part.utterances):
        for name in ("audio", "words"):
            np.testing.assert_array_equal(part.arrays[name][row], whole.arrays[name][rows[utterance.id]])


def test_improvised_subset(prepared):
    data = dataset.load_prepared(prepared, classes="seven", subset="improvised")
    assert all("impro" in utterance.dialogue for utterance in data.utterances)
    assert [utterance.label for utterance in data.utterances] == ["ang", "exc", "neu", "sur", "neu", "exc"]
    assert data.left_out == {}


def test_directory_can_be_the_folder_of_the_manifest(prepared):
    assert len(dataset.load_prepared(prepared / "mcsan" / "1.0.0", "mcsan").utterances) == len(LABELS)


@pytest.mark.parametrize(("key", "value"), [("classes", "eight"), ("subset", "scripted"), ("recipe", "mfcc")])
def test_invalid_choices_are_rejected_with_the_valid_ones(prepared, key, value):
    with pytest.raises(UsageError, match=rf"{key}='{value}': must be one of"):
        dataset.load_prepared(prepared, **{key: value})


def test_missing_dataset_gives_the_command_that_makes_it(tmp_path):
    with pytest.raises(UsageError) as caught:
        dataset.load_prepared(tmp_path / "data" / "ravdess", "mcsan")
    out = tmp_path / "data"
    command = f"python -m jaxser.data_prep.prepare --corpus=ravdess --root=FOLDER --recipe=mcsan --out={out}"
    assert str(caught.value) == (
        f"{tmp_path / 'data' / 'ravdess'}: found no prepared dataset; needed recipe mcsan, version 1.0.0. "
        f"Prepare it with: {command}"
    )
    with pytest.raises(UsageError, match="prepare --corpus=demo --recipe=mcsan --out="):
        dataset.load_prepared(tmp_path / "data" / "demo", "mcsan")
    for name, corpus in {"mine": "folder", "meld_final": "meld"}.items():
        with pytest.raises(UsageError, match=f"--corpus={corpus} --root=FOLDER .* --name={name}$"):
            dataset.load_prepared(tmp_path / "data" / name, "mcsan")


@pytest.mark.parametrize("folder", [".", "mcsan/1.0.0"])
def test_mismatch_of_version_is_one_line_with_the_command(prepared, folder):
    with pytest.raises(UsageError) as caught:
        dataset.load_prepared(prepared / folder, "mcsan", version="2.0.0")
    message = str(caught.value)
    assert "found corpus chatter, recipe mcsan, version 1.0.0; needed recipe mcsan, version 2.0.0" in message
    assert message.endswith(
        f"prepare --corpus=chatter --root=FOLDER --recipe=mcsan --out={prepared.parent} --name=talks"
    )
    assert "\n" not in message


def test_mismatch_of_corpus_is_one_line_with_the_command(prepared):
    with pytest.raises(
        UsageError, match=r"found corpus chatter, .* corpus iemocap.* --corpus=iemocap --root=FOLDER"
    ):
        dataset.load_prepared(prepared, "mcsan", corpus="iemocap")


def test_label_set_without_utterances_is_rejected(copied):
    release = copied.parent / "release"
    reading = write_talks(release, ["happy", "angry"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "corpus_of_this_test", SimpleNamespace(read=lambda root: reading))
        patch.setitem(preparation.READERS, "chatter", "corpus_of_this_test")
        preparation.prepare("chatter", release, "mcsan", copied.parent, workers=1, quiet=True)
    with pytest.raises(
        UsageError, match="classes=seven, subset=all; the dataset has the labels angry, happy"
    ):
        dataset.load_prepared(copied.parent / "chatter", classes="seven")


def shard_of(folder):
    return next((folder / "mcsan" / "1.0.0").glob("*.tfrecord-*"))


def test_flipped_bit_is_reported_with_file_and_record(copied):
    path = shard_of(copied)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path}: record 10 is damaged .* rebuild this shard"):
        dataset.load_prepared(copied)


def test_missing_records_at_the_end_are_detected(copied):
    path = shard_of(copied)
    records = list(shards.read_records(path))
    last = len(records[-1]) + 16
    path.write_bytes(path.read_bytes()[:-last])
    with pytest.raises(InputError, match=r"record 10 is missing \(11 were written\)"):
        dataset.load_prepared(copied)


def test_missing_shard_is_reported(copied):
    shard_of(copied).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        dataset.load_prepared(copied)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("manifest.json", b"{", "not a manifest"),
        ("manifest.json", b"{}", "not a manifest"),
        ("manifest.json", b"[1]", "not a manifest"),
        ("vocabulary.json", b"[]", "not a vocabulary"),
        ("embeddings.npy", b"\x93NUMPY", "not word vectors"),
        ("embeddings.npy", b"", "not word vectors"),
    ],
)
def test_damaged_auxiliary_files_are_reported(copied, name, content, reason):
    (copied / "mcsan" / "1.0.0" / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: {reason}"):
        dataset.load_prepared(copied)


def test_pickled_embeddings_are_never_loaded(copied):
    np.save(copied / "mcsan" / "1.0.0" / "embeddings.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not word vectors"):
        dataset.load_prepared(copied)


def test_manifest_counts_labels_and_flags(prepared):
    manifest = json.loads((prepared / "mcsan" / "1.0.0" / "manifest.json").read_text())
    assert manifest["labels"]["found"] == {
        "ang": 1, "exc": 2, "fru": 1, "hap": 1, "neu": 2, "oth": 1, "sad": 1, "sur": 1, "xxx": 1
    }  # fmt: skip
    assert manifest["labels"]["expected"] == {"ang": 1103}
    assert manifest["flags"] == {"no_alignment": 3}
    assert manifest["parameters"]["max_frames"] == 1000
