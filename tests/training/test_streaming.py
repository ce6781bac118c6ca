"""A streamed dataset gives the results of a resident one."""

import dataclasses

import jax
import numpy as np
import pytest

from helpers import tiny
from helpers.sweeps import SILENT, Killed, assert_same, kill, log
from jaxser.training.loop import predict_sweep, train_sweep
from jaxser.training.resident import ResidentData
from jaxser.training.streaming import StreamedData, choose_data_source, fits
from jaxser.training.sweep import GridPoint

BUDGET = 60_000  # bytes: parts of a few steps


def assert_same_log(folder, expected):
    """Assert that logs are the same, except for rounding of the losses and scores."""
    actual, expected = log(folder), log(expected)
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.validation == pytest.approx(other.validation, rel=1e-5)
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-5)
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        scores = {name: getattr(other, name) for name in ("validation", "validation_loss", "train_loss")}
        assert dataclasses.replace(one, **scores) == other


@pytest.mark.parametrize("devices", [1, 4])
def test_streamed_equals_resident(reference, data, tmp_path, devices):
    resident, trained, folder = reference
    sweep = tiny.sweep(data, budget=BUDGET, devices=devices)
    assert sweep.source.is_streamed
    assert not resident.source.is_streamed
    assert [part.begin for part in sweep.source.parts(sweep.schedules(0).train)] == [0, 2]  # of three steps
    actual = train_sweep(sweep, tmp_path, **SILENT)
    assert_same(actual, trained)
    assert_same_log(tmp_path, folder)
    predicted = predict_sweep(resident, trained)
    for one, other in zip(predict_sweep(sweep, actual), predicted, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_allclose(one.estimates, other.estimates, rtol=1e-6, atol=1e-7)


def test_a_learning_rate_schedule_continues_from_part_to_part(data, tmp_path):
    options = {"schedule": "cosine", "epochs": 1, "replicas": (GridPoint(0, 0, {}),)}
    resident = train_sweep(tiny.sweep(data, **options), tmp_path / "resident", **SILENT)
    streamed = train_sweep(tiny.sweep(data, budget=10_000, **options), tmp_path / "streamed", **SILENT)
    assert_same(streamed, resident)


def test_interrupted_while_streaming(reference, data, tmp_path):
    _, trained, folder = reference
    with pytest.raises(Killed):
        train_sweep(kill(tiny.sweep(data, budget=BUDGET), 2), tmp_path, **SILENT)
    assert_same(train_sweep(tiny.sweep(data, budget=BUDGET), tmp_path, **SILENT), trained)
    assert_same_log(tmp_path, folder)


def test_a_part_has_the_frames_that_its_steps_read(data):
    """Every frame of the utterances in a part's steps, and no frames of other utterances."""
    sweep = tiny.sweep(data, budget=BUDGET)
    for part in sweep.source.parts(sweep.schedules(1).train):
        read = np.unique(np.concatenate([own.rows[own.weight > 0] for own in part.schedules]))
        for name, (values, offset, length) in part.arrays.items():
            resident = data.arrays[name]
            for row in read:
                own = values[offset[row] : offset[row] + length[row]]
                np.testing.assert_array_equal(own, resident[row])
            assert (values[length[read].sum() :] == 0).all()


def test_a_dataset_over_the_budget_is_streamed():
    data = tiny.dataset()
    sweep = tiny.sweep(data)
    size = sum(x.nbytes for x in jax.tree.leaves(sweep.source.on_devices))
    needs = sweep.trainer.model.needs
    assert fits(data, needs, sweep.mesh, 0)
    assert fits(data, needs, sweep.mesh, size)
    assert not fits(data, needs, sweep.mesh, size - 1)
    for budget, kind in ((0, ResidentData), (size, ResidentData), (size - 1, StreamedData)):
        source = choose_data_source(sweep.trainer, data, sweep.buckets, sweep.programs, budget=budget)
        assert isinstance(source, kind)
