"""Protocols: parts are disjoint, complete, and reproducible from the seed."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import tiny
from jaxser import corpora, files
from jaxser.data.folds import Protocol, fold_ids, make_folds
from jaxser.types import UsageError


@pytest.fixture(scope="module")
def data():
    return tiny.dataset(90)


def parts(fold):
    return {"train": set(fold.train), "validation": set(fold.validation), "test": set(fold.test)}


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol("random", folds=5),
        Protocol("random", folds=4, validation_share=0.25),
        Protocol("session"),
        Protocol("speaker"),
        Protocol("speaker", folds=3),
    ],
    ids=str,
)
def test_parts_are_disjoint_and_every_utterance_is_tested_once(data, protocol):
    folds = make_folds(data, protocol)
    for fold in folds:
        own = parts(fold)
        assert set.union(*own.values()) == set(range(90))
        assert sum(map(len, own.values())) == 90
    assert sorted(n for fold in folds for n in fold.test) == list(range(90))
    again = make_folds(data, protocol)
    assert fold_ids(data, folds) == fold_ids(data, again)


def test_random_folds_are_stratified_and_the_next_one_validates(data):
    folds = make_folds(data, Protocol("random", folds=10))
    for k, fold in enumerate(folds):
        assert np.bincount(data.label[fold.test]).tolist() == [3, 3, 3]
        np.testing.assert_array_equal(fold.validation, folds[(k + 1) % 10].test)
        assert [len(fold.train), len(fold.validation), len(fold.test)] == [72, 9, 9]  # 8:1:1
    other = make_folds(data, Protocol("random", folds=10, split_seed=1))
    assert fold_ids(data, other) != fold_ids(data, folds)


def test_validation_share_is_taken_from_the_rest(data):
    """He 2021: 0.55 : 0.25 : 0.2 in five folds."""
    for fold in make_folds(data, Protocol("random", folds=5, validation_share=0.3125)):
        assert len(fold.test) == 18
        assert len(fold.validation) == pytest.approx(0.25 * 90, abs=1)


def test_validation_share_is_taken_from_the_held_out_fold():
    """Rajan 2022: 8 : 0.5 : 1.5 in five folds, for each class, and every utterance is held out once."""
    data = tiny.dataset(300)
    split = Protocol("random", folds=5, validation_share=0.25, validation_from="test")
    held_out = [fold.test for fold in make_folds(data, Protocol("random", folds=5))]
    folds = make_folds(data, split)
    for fold, pool in zip(folds, held_out, strict=True):
        for part, number in ((fold.train, 80), (fold.validation, 5), (fold.test, 15)):
            assert np.bincount(data.label[part]).tolist() == [number] * 3
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.validation, fold.test])), pool)
        np.testing.assert_array_equal(fold.train, np.setdiff1d(np.arange(300), pool))
    np.testing.assert_array_equal(np.sort(np.concatenate(held_out)), np.arange(300))
    assert fold_ids(data, make_folds(data, split)) == fold_ids(data, folds)
    other = make_folds(data, dataclasses.replace(split, split_seed=1))
    assert not np.array_equal(other[0].validation, folds[0].validation)


@pytest.mark.parametrize(
    "protocol",
    [Protocol("session"), Protocol("random", folds=5, validation_share=0.25, validation_from="test")],
    ids=str,
)
def test_selection_on_test_trains_on_the_validation_part(data, protocol):
    """Ramet 2018: the test part selects the epoch, and everything else is trained on."""
    on_test = make_folds(data, dataclasses.replace(protocol, select="test"))
    for fold, honest in zip(on_test, make_folds(data, protocol), strict=True):
        np.testing.assert_array_equal(fold.test, honest.test)
        np.testing.assert_array_equal(fold.validation, fold.test)
        np.testing.assert_array_equal(fold.train, np.setdiff1d(np.arange(90), fold.test))


def test_a_share_that_cannot_be_stratified_is_rejected(data):
    rare = dataclasses.replace(data, label=np.where(np.arange(90) < 5, 2, np.arange(90) % 2).astype(np.int32))
    split = Protocol("random", folds=5, validation_share=0.25, validation_from="test")
    with pytest.raises(
        UsageError, match=r"protocol.validation_share=0.25 of 18 utterances cannot be stratified by class"
    ):
        make_folds(rare, split)
    with pytest.raises(
        UsageError, match=r"protocol.validation_share=1.5 of 18 utterances cannot be stratified by class"
    ):
        make_folds(data, dataclasses.replace(split, validation_share=1.5))


@pytest.mark.parametrize(("name", "field"), [("session", "session"), ("speaker", "speaker")])
def test_groups_stay_together(data, name, field):
    column = data.column(field)
    for fold in make_folds(data, Protocol(name)):
        groups = [set(column[list(rows)]) for rows in parts(fold).values()]
        assert len(set.union(*groups)) == sum(map(len, groups))
        assert groups[2] == {fold.name} or name == "speaker"


def test_named_groups_of_speakers(data):
    groups = (("s0F", "s1M"), ("s0M", "s2F"), ("s1F", "s2M"))
    folds = make_folds(data, Protocol("speaker", groups=groups))
    speakers = data.column("speaker")
    assert [set(speakers[fold.test]) for fold in folds] == [set(group) for group in groups]
    assert set(speakers[folds[0].validation]) == set(groups[1])
    with pytest.raises(UsageError, match="leaves out the speakers s1F, s2M"):
        make_folds(data, Protocol("speaker", groups=groups[:2]))


def test_emobox_groups_hold_every_actor_once():
    protocol = corpora.find("ravdess").protocol
    assert protocol is not None
    assert protocol.groups[0] == ("actor01", "actor11", "actor20", "actor21")
    actors = sorted(actor for group in protocol.groups for actor in group)
    assert actors == [f"actor{number:02}" for number in range(1, 25)]


def test_official_split(data):
    splits = np.array(["train", "validation", "test"])[np.arange(90) % 3]
    utterances = tuple(dataclasses.replace(u, split=s) for u, s in zip(data.utterances, splits, strict=True))
    (fold,) = make_folds(dataclasses.replace(data, utterances=utterances), Protocol("official"))
    np.testing.assert_array_equal(fold.test, np.arange(2, 90, 3))
    with pytest.raises(UsageError, match="tiny has no official split"):
        make_folds(data, Protocol("official"))


def with_splits(data, *splits: str):
    """The dataset with these official splits, in turn."""
    return dataclasses.replace(
        data,
        utterances=tuple(
            dataclasses.replace(u, split=splits[n % len(splits)]) for n, u in enumerate(data.utterances)
        ),
    )


@pytest.mark.parametrize("group_by", ["", "speaker"])
def test_official_split_without_a_validation_part(data, group_by):
    split = with_splits(data, "train", "train", "train", "test")
    with pytest.raises(
        UsageError, match=r"has no validation part; --config\.protocol\.validation_share=0\.1 takes"
    ):
        make_folds(split, Protocol("official"))
    (fold,) = make_folds(split, Protocol("official", validation_share=0.25, group_by=group_by))
    rows = np.arange(len(split.utterances))
    assert fold.test.tolist() == rows[rows % 4 == 3].tolist()
    assert sorted([*fold.train, *fold.validation]) == rows[rows % 4 != 3].tolist()
    assert len(fold.validation) > 0
    if group_by:
        speakers = split.column("speaker")
        assert not set(speakers[fold.train]) & set(speakers[fold.validation])


def test_official_split_without_other_parts(data):
    with pytest.raises(UsageError, match="the split of tiny has no test part"):
        make_folds(with_splits(data, "train", "validation"), Protocol("official"))
    with pytest.raises(UsageError, match="the split of tiny has no validation and no test part"):
        make_folds(with_splits(data, "train"), Protocol("official"))


def test_folds_from_a_file(data, tmp_path):
    folds = make_folds(data, Protocol("session"))
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"folds": fold_ids(data, folds)}))
    read = make_folds(data, Protocol("file", file=str(path)))
    assert fold_ids(data, read) == fold_ids(data, folds)
    path.write_text(json.dumps([{"train": ["utt000"], "validation": ["utt001"], "test": ["unknown"]}]))
    with pytest.raises(
        UsageError, match="1 utterances are not in tiny with these classes, the first 'unknown'"
    ):
        make_folds(data, Protocol("file", file=str(path)))
    for content in ("{}", "[", '[{"train": []}]', "3", '[{"train": "utt000", "validation": [], "test": []}]'):
        path.write_text(content)
        with pytest.raises(UsageError, match="is not a file of folds"):
            make_folds(data, Protocol("file", file=str(path)))


def test_a_changed_file_of_folds_is_not_read(data, tmp_path):
    path = files.write_json(
        tmp_path, "folds.json", {"folds": fold_ids(data, make_folds(data, Protocol("session")))}
    )
    files.write_json(tmp_path, "digests.json", files.sealed({"sha256": {"folds.json": files.sha256(path)}}))
    assert make_folds(data, Protocol("file", file=str(path)))
    path.write_text(path.read_text().replace("utt001", "utt002", 1))
    with pytest.raises(UsageError, match="its SHA-256 digest differs"):
        make_folds(data, Protocol("file", file=str(path)))


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (Protocol("sessions"), "protocol.name='sessions' is not one of random, session, holdout, speaker"),
        (
            Protocol("random", folds=31),
            "protocol.folds=31 must be from 3 to the 30 utterances of the rarest class",
        ),
        (Protocol(validation_from="train"), "protocol.validation_from='train' is not one of rest, test"),
        (Protocol(select="train"), "protocol.select='train' is not one of validation, test"),
        (Protocol("session", folds=5), "protocol.folds=5, but the dataset has 3 sessions"),
        (Protocol("speaker", folds=7), "protocol.folds=7 must be from 3 to the 6 speakers"),
        (Protocol("file", file="nowhere.json"), "protocol.file='nowhere.json' is not a file of folds"),
    ],
    ids=str,
)
def test_invalid_protocols_are_rejected(data, protocol, message):
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        make_folds(data, protocol)


def test_missing_classes_and_speakers_are_reported(data):
    absent = dataclasses.replace(data, classes=(*data.classes, "awe"))
    with pytest.raises(
        UsageError, match=r"at least 3 utterances of each class; tiny has 0 of awe \(config.classes"
    ):
        make_folds(absent, Protocol("random"))
    nameless = tuple(dataclasses.replace(utterance, speaker="") for utterance in data.utterances)
    with pytest.raises(UsageError, match="needs at least 3 speakers; the dataset has 0"):
        make_folds(dataclasses.replace(data, utterances=nameless), Protocol("speaker", folds=5))


@given(st.lists(st.sampled_from("abcdef"), min_size=3, max_size=40))
@settings(max_examples=50, deadline=None)
def test_any_sessions_are_split_or_rejected(sessions):
    base = tiny.dataset(len(sessions))
    utterances = tuple(
        dataclasses.replace(u, session=s) for u, s in zip(base.utterances, sessions, strict=True)
    )
    data = dataclasses.replace(base, utterances=utterances)
    if len(set(sessions)) < 3:
        with pytest.raises(UsageError, match="needs at least 3 sessions"):
            make_folds(data, Protocol("session"))
    else:
        assert sorted(n for f in make_folds(data, Protocol("session")) for n in f.test) == list(
            range(len(sessions))
        )
