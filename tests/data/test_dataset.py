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
from jaxser.data_prep import jobs
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
    with pytest.raises(InputError, match=rf"{path}: record 10 is damaged .* prepare the dataset again"):
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
    with pytest.raises(InputError, match="is missing; prepare"):
        dataset.load_prepared(copied)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("manifest.json", b"{", "not the manifest of a prepared dataset"),
        ("manifest.json", b"{}", "missing required field `name`"),
        ("manifest.json", b"[1]", "Expected `object`, got `array`"),
        ("vocabulary.json", b"[]", "its SHA-256 digest differs"),
        ("embeddings.npy", b"\x93NUMPY", "its SHA-256 digest differs"),
        ("embeddings.npy", b"", "its SHA-256 digest differs"),
    ],
)
def test_damaged_auxiliary_files_are_reported(copied, name, content, reason):
    (copied / "mcsan" / "1.0.0" / name).write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        dataset.load_prepared(copied)
    assert f"{name} is damaged" in str(caught.value)


def test_pickled_embeddings_are_never_loaded(copied):
    np.save(copied / "mcsan" / "1.0.0" / "embeddings.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"embeddings.npy is damaged"):
        dataset.load_prepared(copied)


def test_manifest_counts_labels_and_flags(prepared):
    manifest = json.loads((prepared / "mcsan" / "1.0.0" / "manifest.json").read_text())
    assert manifest["labels"]["found"] == {
        "ang": 1, "exc": 2, "fru": 1, "hap": 1, "neu": 2, "oth": 1, "sad": 1, "sur": 1, "xxx": 1
    }  # fmt: skip
    assert manifest["labels"]["expected"] == {"ang": 1103}
    assert manifest["flags"] == {"no_alignment": 3}
    assert manifest["parameters"]["max_frames"] == 1000


@pytest.fixture
def sharded(tmp_path):
    """A dataset of three shards with four utterances each, in the folder of its manifest, without digests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "UTTERANCES_PER_SHARD", 4)
        reading = write_talks(tmp_path / "release", ["ang", "sad", "neu"] * 4)
        patch.setitem(sys.modules, "corpus_of_this_test", SimpleNamespace(read=lambda root: reading))
        patch.setitem(preparation.READERS, "chatter", "corpus_of_this_test")
        folder = preparation.prepare(
            "chatter", tmp_path / "release", "mcsan", tmp_path / "data", workers=1, quiet=True
        )
    change(folder, lambda manifest: [manifest.pop("digest", None), manifest.pop("files")])
    return folder


def change(folder, edit):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def test_a_dataset_of_an_earlier_version_without_digests_is_loaded(sharded):
    data = dataset.load_prepared(sharded)
    assert [utterance.id for utterance in data.utterances] == [f"talk_{n:04d}" for n in range(12)]


def halve(manifest):
    del manifest["shards"][1:]


def halve_consistently(manifest):
    del manifest["shards"][1:]
    manifest.update(number_of_shards=1, utterances=4, labels={"found": {"ang": 4}})


def repeat(manifest):
    manifest["shards"][1] = manifest["shards"][0]


def exchange(manifest):
    manifest["shards"][:2] = manifest["shards"][1::-1]


def rename(manifest):
    manifest["shards"][0]["file"] = "../../../release/0001.wav"


def miscount(manifest):
    manifest["labels"]["found"]["ang"] += 1


def inflate(manifest):
    manifest["shards"][0]["rows"]["audio"] = 10**15


def widen(manifest):
    manifest["arrays"]["audio"]["dtype"] = "float64"


def as_text(manifest):
    manifest["shards"][0]["records"] = "4"


@pytest.mark.parametrize(
    "edit",
    [halve, halve_consistently, repeat, exchange, rename, miscount, inflate, widen, as_text],
    ids=lambda edit: edit.__name__,
)
def test_a_manifest_that_cannot_be_is_refused(sharded, edit):
    change(sharded, edit)
    with pytest.raises(InputError, match=r"manifest.json is damaged .*; prepare the dataset again"):
        dataset.load_prepared(sharded)


def test_a_shard_that_replaces_another_is_refused(sharded):
    first, second, _ = sorted(sharded.glob("*.tfrecord-*"))
    shutil.copy(second, first)
    with pytest.raises(InputError, match=rf"{first} is not the shard that was written"):
        dataset.load_prepared(sharded)


def test_a_vocabulary_or_vectors_of_another_dataset_are_refused(sharded):
    words = json.loads((sharded / "vocabulary.json").read_text())["words"]
    (sharded / "vocabulary.json").write_text(json.dumps({"words": words[:-2]}))
    with pytest.raises(InputError, match=r"vocabulary.json is of another dataset"):
        dataset.load_prepared(sharded)
    (sharded / "vocabulary.json").write_text(json.dumps({"words": words}))
    vectors = np.load(sharded / "embeddings.npy")
    for other in (vectors[:-1], vectors.astype(np.float64), np.where(vectors > 2, np.nan, vectors)):
        np.save(sharded / "embeddings.npy", other)
        with pytest.raises(InputError, match=r"embeddings.npy is damaged \(not a finite vector for each"):
            dataset.load_prepared(sharded)
