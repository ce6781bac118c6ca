"""Overfitting as the log of the epochs shows it."""

import pytest

from jaxser.evaluation.overfitting import overfits_since, overfitting
from jaxser.evaluation.records import EpochRecord


def epochs(train_losses, validation_losses, ua=None, train_ua=None):
    ua = ua or [0.5] * len(train_losses)
    train_ua = train_ua or [None] * len(train_losses)
    validation_losses = [None if loss is None else float(loss) for loss in validation_losses]
    rows = zip(map(float, train_losses), validation_losses, ua, train_ua, strict=True)
    return [
        EpochRecord(n, "1", 0, "", loss, held_out, {"ua": score}, 1e-3, "running", train_score=own)
        for n, (loss, held_out, score, own) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("train", "validation", "since"),
    [
        ([3, 2, 1, 0.5], [3, 2, 2.2, 2.5], 2),
        ([3, 2, 1, 0.5], [3, 2, 2.05, 2.09], None),  # within the tolerance of 5 %
        ([3, 2, 2.5, 2.5], [3, 2, 2.2, 2.5], None),  # training got worse too
        ([3, 2, 1, 0.5], [3, 2.5, 2.2, 2], None),
        ([3], [2], None),
        ([], [], None),
        ([3, 2, 1], [None, None, None], None),  # no validation part
    ],
)
def test_overfitting_begins_after_the_lowest_validation_loss(train, validation, since):
    assert overfits_since(epochs(train, validation)) == since


def test_the_gap_is_that_of_the_selected_epoch():
    records = epochs([3, 2, 1], [3, 2, 2.5], ua=[0.4, 0.5, 0.45], train_ua=[0.3, 0.6, 0.9])
    found = overfitting(records, best_epoch=1)
    assert found.gap == pytest.approx(0.1)
    assert (found.since, found.selected, found.last) == (2, 0.5, 0.45)
    assert overfitting(records, None).gap is None
    assert overfitting([], 3).last is None


def test_a_line_of_the_log_keeps_the_training_score():
    [record] = epochs([3], [2], train_ua=[0.75])
    assert EpochRecord.from_json(record.to_json()) == record
    old = {name: value for name, value in record.to_json().items() if name != "train_ua"}
    assert EpochRecord.from_json(old).train_score is None
    assert EpochRecord.from_json(old).gap is None
