"""Batch schedules: every utterance once, little padding, the same order of buckets for all replicas."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxser.data.batch_schedule import best_edges, make_buckets

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=60).map(np.array)


@given(LENGTHS, st.integers(1, 4), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_each_row_occurs_once_per_epoch_in_a_bucket_long_enough(lengths, number, batch_size, epoch):
    buckets = make_buckets({"audio": lengths, "words": lengths // 9 + 1}, number, batch_size)
    rows = np.flatnonzero(np.arange(len(lengths)) % 3 > 0)
    parts = [rows, np.arange(len(lengths))]
    batches = buckets.batches(parts)
    for part in parts:
        for schedule in (
            buckets.train_schedule(part, batches, (0, 1, 2), epoch),
            buckets.evaluation_schedule(part, batches),
        ):
            real = schedule.weight > 0
            assert sorted(schedule.rows[real]) == sorted(part)
            assert np.bincount(schedule.bucket, minlength=len(batches)).tolist() == batches
            for b, own, weight in zip(schedule.bucket, schedule.rows, real, strict=True):
                for name in ("audio", "words"):
                    assert (buckets.lengths[name][own[weight]] <= buckets.widths[b][name]).all()
            padding = (schedule.weight == 0) & (schedule.weight.sum(1, keepdims=True) > 0)
            assert padding.any(1).sum() <= 1  # only the last batch of the last bucket


def test_the_order_of_buckets_depends_only_on_the_epoch():
    lengths = np.random.default_rng(0).integers(20, 300, 200)
    buckets = make_buckets({"audio": lengths}, 3, 8)
    folds = [np.arange(0, 150), np.arange(60, 200)]
    batches = buckets.batches(folds)
    schedules = {
        (f, seed, epoch): buckets.train_schedule(folds[f], batches, (0, f, seed), epoch)
        for f, seed, epoch in itertools.product(range(2), range(2), range(2))
    }
    for f, seed in itertools.product(range(2), range(2)):
        np.testing.assert_array_equal(schedules[f, seed, 0].bucket, schedules[0, 0, 0].bucket)
    assert (schedules[0, 0, 0].bucket != schedules[0, 0, 1].bucket).any()
    for other in ((0, 0, 1), (0, 1, 0)):
        assert (schedules[0, 0, 0].rows != schedules[other].rows).any()
    again = buckets.train_schedule(folds[0], batches, (0, 0, 0), 1)
    np.testing.assert_array_equal(again.rows, schedules[0, 0, 1].rows)


@given(LENGTHS, st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_edges_waste_the_least_padding(lengths, number):
    values = np.unique(lengths)
    number = min(number, len(values))

    def waste(edges):
        edges = np.sort(np.array(edges))
        return (edges[np.searchsorted(edges, lengths)] - lengths).sum()

    tried = [(*some, values[-1]) for some in itertools.combinations(values[:-1], number - 1)]
    assert waste(best_edges(lengths, number)) == min(map(waste, tried))


def test_valid_frame_fraction_counts_padding_and_padding_rows_but_no_idle_steps():
    buckets = make_buckets({"audio": np.array([9, 9, 18, 18, 18])}, 2, 2)
    assert [widths["audio"] for widths in buckets.widths] == [9, 18]
    schedule = buckets.evaluation_schedule(np.arange(5), [1, 3])  # one idle step, one padding row
    assert buckets.valid_frame_fraction(schedule, "audio") == pytest.approx(
        (9 + 9 + 3 * 18) / (2 * 9 + 4 * 18)
    )


def test_utterances_that_fill_up_a_longer_bucket_are_not_truncated():
    """Utterances with few frames and many words keep their words in a bucket of more frames."""
    lengths = {"segments": np.array([10] * 3 + [100] * 3), "words": np.array([20] * 3 + [5] * 3)}
    buckets = make_buckets(lengths, number=2, batch_size=2)
    rows = np.arange(6)
    schedule = buckets.train_schedule(rows, buckets.batches([rows]), (0,), 0)
    for name, length in lengths.items():
        width = np.array([widths[name] for widths in buckets.widths])[schedule.bucket]
        assert (length[schedule.rows] * (schedule.weight > 0) <= width[:, None]).all(), name


def test_only_the_shortest_bucket_has_padding_rows():
    lengths = np.array([9] * 4 + [18] * 3 + [27] * 6)
    buckets = make_buckets({"audio": lengths}, 3, 4)
    rows = np.random.default_rng(0).permutation(13)
    assert buckets.batches([rows]) == [1, 1, 2]  # 27s and two 18s; the other 18 and three 9s; a 9
    schedule = buckets.evaluation_schedule(rows, [1, 1, 2])
    assert schedule.bucket[(schedule.weight == 0).any(1)].tolist() == [0]
    assert sorted(schedule.rows[schedule.weight > 0]) == list(range(13))


@pytest.mark.parametrize("number", [1, 3, 4, 8])
def test_evaluation_merges_neighbouring_buckets(number):
    lengths = {"audio": np.arange(1, 91), "words": np.arange(1, 91) // 2}
    buckets = make_buckets(lengths, number, 4, multiple=1)
    joined = buckets.joined()
    rows = np.arange(90)
    schedule = joined.evaluation_schedule(rows, joined.batches([rows]))
    assert sorted(schedule.rows[schedule.weight > 0]) == rows.tolist()
    for name, own in lengths.items():
        padded = np.array([w[name] for w in joined.widths])[schedule.bucket]
        assert ((own[schedule.rows] <= padded[:, None]) | (schedule.weight == 0)).all()
    assert len(joined.widths) == min(number, 3)
    assert joined.widths[-1] == buckets.widths[-1]
