"""A dataset that streams gives what the resident one gives."""

import jax
import numpy as np
import pytest

from helpers import tiny
from jaxser.training.loop import predict, train
from jaxser.training.streaming import StreamedSweep, fits
from jaxser.training.sweep import Replica
from training.test_sweep import SILENT, Killed, assert_same, data, kill, log, whole

__all__ = ["data", "whole"]

BUDGET = 60_000  # bytes: parts of a few steps


def same_log(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one["validation"] == pytest.approx(other["validation"], rel=1e-5)
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert {**one, "validation": 0, "train_loss": 0} == {**other, "validation": 0, "train_loss": 0}


@pytest.mark.parametrize("devices", [1, 4])
def test_streamed_is_resident(whole, data, tmp_path, devices):
    resident, trained, folder = whole
    sweep = tiny.sweep(data, budget=BUDGET, devices=devices)
    assert isinstance(sweep, StreamedSweep)
    assert [part.begin for part in sweep._parts(sweep.plans(0)[0])] == [0, 2]  # of three steps
    found = train(sweep, tmp_path, **SILENT)
    assert_same(found, trained)
    same_log(log(tmp_path), log(folder))
    predicted = predict(resident, trained, resident.folds)
    for one, other in zip(predict(sweep, found, sweep.folds), predicted, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_allclose(one.log_probs, other.log_probs, rtol=1e-6, atol=1e-7)


def test_a_schedule_goes_on_from_part_to_part(data, tmp_path):
    options = {"schedule": "cosine", "epochs": 1, "replicas": (Replica(0, 0, {}),)}
    resident = train(tiny.sweep(data, **options), tmp_path / "resident", **SILENT)
    assert_same(train(tiny.sweep(data, budget=10_000, **options), tmp_path / "streamed", **SILENT), resident)


def test_interrupted_while_it_streams(whole, data, tmp_path):
    _, trained, folder = whole
    with pytest.raises(Killed):
        train(kill(tiny.sweep(data, budget=BUDGET), 2), tmp_path, **SILENT)
    assert_same(train(tiny.sweep(data, budget=BUDGET), tmp_path, **SILENT), trained)
    same_log(log(tmp_path), log(folder))


def test_a_part_has_what_its_steps_read(data):
    """Every utterance of a part's steps, frame by frame, and no other's frames."""
    sweep = tiny.sweep(data, budget=BUDGET)
    for part in sweep._parts(sweep.plans(1)[0]):
        read = np.unique(np.concatenate([plan.rows[plan.weight > 0] for plan in part.plans]))
        for name, (values, offset, length) in part.arrays.items():
            whole = data.arrays[name]
            for row in read:
                np.testing.assert_array_equal(
                    values[offset[row] : offset[row] + length[row]],
                    whole.values[whole.offset[row] : whole.offset[row] + whole.length[row]],
                )
            assert (values[length[read].sum() :] == 0).all()


def test_what_streams():
    data = tiny.dataset()
    sweep = tiny.sweep(data)
    size = sum(x.nbytes for x in jax.tree.leaves(sweep.data))
    assert fits(sweep, 0)
    assert fits(sweep, size)
    assert not fits(sweep, size - 1)
