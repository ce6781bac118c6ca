"""Folds of whole speakers: parts share none, and keep their sizes as nearly as possible."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import tiny
from jaxser.data.folds import Protocol, fold_ids, make_folds
from jaxser.data.leaks import FoldIds, heard_speakers, leaks
from jaxser.data.strata import assign_groups
from jaxser.types import UsageError


def with_columns(number, speakers=12, sentences=10):
    """A dataset of speakers of different sizes, who all speak the same sentences."""
    base = tiny.dataset(number)
    rng = np.random.default_rng(0)
    speaker = rng.choice(speakers, number, p=np.arange(1, speakers + 1) / sum(range(1, speakers + 1)))
    utterances = tuple(
        dataclasses.replace(
            u, speaker=f"s{speaker[n]}", transcript=f"this is sentence number {n % sentences}"
        )
        for n, u in enumerate(base.utterances)
    )
    return dataclasses.replace(base, utterances=utterances)


@pytest.fixture(scope="module")
def data():
    return with_columns(300)


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=3, max_size=6),
    st.integers(2, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_part_gets_a_group_and_the_assignment_is_reproducible(counts, parts):
    counts = np.array(counts)
    targets = np.tile(counts.sum(axis=0) / parts, (parts, 1))

    found = assign_groups(counts, targets)
    assert set(found.tolist()) == set(range(parts))
    np.testing.assert_array_equal(found, assign_groups(counts, targets))


def test_no_move_or_exchange_of_two_groups_comes_nearer_to_the_targets():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 20, (14, 3))
    targets = np.array([0.5, 0.3, 0.2])[:, None] * counts.sum(axis=0)

    def deviation(part):
        sums = np.stack([counts[part == k].sum(axis=0) for k in range(3)]) - targets
        return (sums**2).sum() + (sums.sum(axis=1) ** 2).sum()

    part = assign_groups(counts, targets)
    best = deviation(part)
    for row, k in itertools.product(range(14), range(3)):
        assert deviation(np.where(np.arange(14) == row, k, part)) >= best - 1e-9
    for one, other in itertools.combinations(range(14), 2):
        swapped = part.copy()
        swapped[[one, other]] = part[[other, one]]
        assert deviation(swapped) >= best - 1e-9


def test_a_division_into_exactly_the_targets_is_found():
    sizes = np.array([9, 8, 7, 6, 5, 4, 3, 2])  # 9 + 2, 8 + 3, 7 + 4, 6 + 5, each class in turn
    counts = np.zeros((8, 2), dtype=int)
    counts[np.arange(8), np.arange(8) % 2] = sizes
    targets = np.stack([counts[part].sum(axis=0) for part in ([0, 7], [1, 6], [2, 5], [3, 4])]).astype(float)
    part = assign_groups(counts, targets)
    np.testing.assert_array_equal([counts[part == k].sum(axis=0) for k in range(4)], targets)


@pytest.mark.parametrize(
    "protocol", [Protocol("random", folds=5), Protocol("random", folds=4, validation_share=0.2)]
)
def test_the_twin_has_the_same_utterances_and_sizes_without_shared_speakers(data, protocol):
    published, twin = (
        make_folds(data, protocol),
        make_folds(data, dataclasses.replace(protocol, twin="speaker")),
    )
    assert [fold.name for fold in twin] == [fold.name for fold in published]
    assert sorted(n for fold in twin for n in fold.test) == list(range(300))
    speakers = data.column("speaker")
    for fold, own in zip(twin, published, strict=True):
        parts = [set(speakers[rows]) for rows in (fold.train, fold.validation, fold.test)]
        assert len(set.union(*parts)) == sum(map(len, parts)) == 12
        assert sorted([*fold.train, *fold.validation, *fold.test]) == list(range(300))
        assert abs(len(fold.test) - len(own.test)) <= 8
        assert abs(len(fold.validation) - len(own.validation)) <= 16
        np.testing.assert_allclose(np.bincount(data.label[fold.test]), len(fold.test) / 3, atol=6)
    again = make_folds(data, dataclasses.replace(protocol, twin="speaker"))
    assert fold_ids(data, twin) == fold_ids(data, again)


def test_the_twin_of_a_single_fold_leaves_the_other_speakers_in_training(data):
    utterances = tuple(
        dataclasses.replace(u, split=("train", "train", "validation", "test")[n % 4])
        for n, u in enumerate(data.utterances)
    )
    split = dataclasses.replace(data, utterances=utterances)
    (fold,) = make_folds(split, Protocol("official", twin="speaker"))
    speakers = data.column("speaker")
    assert not set(speakers[fold.test]) & set(speakers[[*fold.train, *fold.validation]])
    assert abs(len(fold.test) - 75) <= 4
    assert abs(len(fold.validation) - 75) <= 8


def test_disjoint_test_parts_are_kept(data):
    by_speaker = make_folds(data, Protocol("speaker", folds=4))
    for fold, twin in zip(
        by_speaker, make_folds(data, Protocol("speaker", folds=4, twin="speaker")), strict=True
    ):
        np.testing.assert_array_equal(fold.test, twin.test)


def test_two_speakers_validate_on_utterances_of_the_training_speaker(data):
    """As TESS, which has two speakers and one fold."""
    utterances = tuple(
        dataclasses.replace(u, speaker="OA" if n % 2 else "YA", split="test" if n % 4 == 0 else "train")
        for n, u in enumerate(data.utterances)
    )
    both = dataclasses.replace(data, utterances=utterances)
    (fold,) = make_folds(both, Protocol("official", validation_share=0.2, twin="speaker"))
    speakers = both.column("speaker")
    assert set(speakers[fold.train]) == set(speakers[fold.validation]) != set(speakers[fold.test])
    assert len(fold.validation) == 30


def test_twins_that_cannot_be_made(data):
    nameless = dataclasses.replace(
        data, utterances=tuple(dataclasses.replace(u, speaker="") for u in data.utterances)
    )
    with pytest.raises(UsageError, match="no utterance of tiny has a known speaker"):
        make_folds(nameless, Protocol("random", folds=5, twin="speaker"))
    few = with_columns(60, speakers=4)
    with pytest.raises(UsageError, match="tiny has 4 speakers for 5 parts"):
        make_folds(few, Protocol("random", folds=5, twin="speaker"))
    with pytest.raises(
        UsageError, match=r"protocol\.twin='speaker' moves utterances that protocol\.group_by='transcript'"
    ):
        make_folds(data, Protocol("random", twin="speaker", group_by="transcript"))
    with pytest.raises(UsageError, match=r"protocol\.twin='sentence' is not one of speaker"):
        make_folds(data, Protocol("random", twin="sentence"))


def test_utterances_of_unknown_speakers_are_left_out_of_the_twin(data):
    some = dataclasses.replace(
        data,
        utterances=tuple(
            dataclasses.replace(u, speaker=u.speaker * (n > 6)) for n, u in enumerate(data.utterances)
        ),
    )
    with pytest.warns(
        UserWarning, match="7 utterances of tiny without a known speaker, such as utt000, are left out"
    ):
        folds = make_folds(some, Protocol("random", folds=5, twin="speaker"))
    assert sorted(n for fold in folds for n in fold.test) == list(range(7, 300))


@pytest.mark.parametrize("sentences", [2, 10])
def test_neither_speakers_nor_sentences_of_training_are_tested(sentences):
    data = with_columns(400, sentences=sentences)
    folds = make_folds(data, Protocol("random", folds=4, group_by="speaker+transcript"))
    assert len(folds) == 4
    found = leaks(
        [FoldIds.of(fold, data.column("id").tolist()) for fold in folds],
        dict(zip(data.column("id").tolist(), data.utterances, strict=True)),
    )
    assert not [one for one in found if one.parts[1] == "test" and one.kind in ("speaker", "transcript")]
    assert not [one for one in found if one.parts == ("train", "validation") and one.kind == "speaker"]
    speakers = data.column("speaker")
    assert set(speakers) == set().union(*(speakers[fold.test] for fold in folds))
    share = {2: 1 / 2, 10: 3 / 4}[sentences]
    for fold in folds:
        assert len(fold.train) == pytest.approx(400 * share / 2, rel=0.2)


def test_too_few_speakers_or_sentences_for_both(data):
    both = Protocol("random", folds=13, group_by="speaker+transcript")
    with pytest.raises(UsageError, match=r"protocol\.folds=13 must be from 3 to the 12 speakers"):
        make_folds(data, both)
    with pytest.raises(UsageError, match="tiny has only one sentence"):
        make_folds(with_columns(300, sentences=1), dataclasses.replace(both, folds=3))
    with pytest.raises(UsageError, match=r"is for protocol\.name=random, not official"):
        make_folds(data, dataclasses.replace(both, name="official"))


def test_speakers_heard_in_training_are_counted(data):
    ids, utterances = data.column("id").tolist(), data.utterances
    by_id = dict(zip(ids, utterances, strict=True))
    folds = [FoldIds.of(fold, ids) for fold in make_folds(data, Protocol("random", folds=5))]
    heard, tested = heard_speakers(folds, by_id)
    assert len(heard) == len(tested) == 12
    folds = [FoldIds.of(fold, ids) for fold in make_folds(data, Protocol("random", folds=5, twin="speaker"))]
    heard, tested = heard_speakers(folds, by_id)
    assert (len(heard), len(tested)) == (0, 12)
