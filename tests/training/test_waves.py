"""Waves, memory that runs out, and compaction: how replicas are put together changes no bit of their results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.training import loop, memory
from jaxser.training.loop import predict, train
from jaxser.training.sweep import Replica
from jaxser.training.waves import OutOfMemory, Wave, attempt, cut, in_waves, is_worth_compacting
from jaxser.types import Status, UsageError
from training.test_sweep import SILENT, Killed, assert_same, kill, log


@pytest.fixture(scope="module")
def data():
    return tiny.dataset()


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Six replicas in one wave; the first four of them stop early."""
    folder = tmp_path_factory.mktemp("whole")
    return train(sweep_of(data), folder, **SILENT), folder


def sweep_of(data, **fields):
    """Two folds x three settings; at a learning rate of 0 no epoch is better than the first, and the third the last."""
    settings = [
        {"learning_rate": rate, "dropout_rate": drop} for rate, drop in ((0, 0.1), (0, 0.2), (3e-2, 0.1))
    ]
    replicas = tuple(Replica(fold, 0, setting) for setting in settings for fold in range(2))
    return tiny.sweep(data, **({"replicas": replicas, "epochs": 5, "patience": 2} | fields))


def spied(sweep, does=lambda rows: None):
    """A sweep that notes how many rows each epoch has, after `does` has seen them."""
    run_epoch, seen = sweep.run_epoch, []

    def noting(state, plans):
        does(len(plans[0]))
        seen.append(len(plans[0]))
        return run_epoch(state, plans)

    object.__setattr__(sweep, "run_epoch", noting)
    return sweep, seen


def room_for(monkeypatch, sweep, number):
    """Memory in which so many replicas fit, and no more."""
    need = memory.needed(sweep.compile_epoch(sweep.rows(number)), sweep.data)
    monkeypatch.setattr(memory, "available", lambda devices: need / 0.9 + 1)


def test_waves_are_chosen_by_memory(whole, data, tmp_path, monkeypatch):
    trained, folder = whole
    sweep, seen = spied(sweep_of(data))
    together = predict(sweep, trained, sweep.folds)
    room_for(monkeypatch, sweep, 2)
    said = []
    found = train(sweep, tmp_path, said.append)
    assert "3 waves of at most 2 replicas, as memory allows" in said
    assert set(seen) == {2}
    assert_same(found, trained)
    assert log(tmp_path) == log(folder)
    monkeypatch.setattr(memory, "available", lambda devices: 1)
    cut_in: list[int] = []
    monkeypatch.setattr(loop, "cut", lambda wave, size: cut_in.append(size) or cut(wave, size))
    for one, other in zip(together, predict(sweep, trained, sweep.folds), strict=True):
        np.testing.assert_array_equal(one.log_probs, other.log_probs)
    assert cut_in == [1]


def exhausted(most):
    """Memory that runs out where an epoch has more than so many rows."""

    def check(rows):
        if rows > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")

    return check


def test_a_wave_is_halved_where_memory_runs_out(whole, data, tmp_path):
    trained, folder = whole
    sweep, seen = spied(sweep_of(data), exhausted(3))
    with pytest.warns(UserWarning, match="6 replicas do not fit into memory; going on with half of them"):
        found = train(sweep, tmp_path, **SILENT)
    assert set(seen) == {3}
    assert_same(found, trained)
    assert log(tmp_path) == log(folder)


def test_memory_that_runs_out_later_costs_no_epoch_that_is_saved(whole, data, tmp_path, monkeypatch):
    trained, folder = whole
    monkeypatch.setattr(
        "jaxser.training.loop.checkpoint.SHARE", 1e-9
    )  # the first epoch's checkpoint is the only one
    seen: list[int] = []
    sweep, _ = spied(
        sweep_of(data), lambda rows: exhausted(6 if len(seen) < 2 else 3)(rows) or seen.append(rows)
    )
    with pytest.warns(UserWarning, match="going on with half"):
        found = train(sweep, tmp_path, **SILENT)
    assert seen == [6, 6, 3, 3, 3, 3, 3, 3]  # the first half stops after its third epoch, the other goes on
    assert_same(found, trained)
    assert log(tmp_path) == log(folder)


def test_a_replica_that_does_not_fit_at_all_is_said(data, tmp_path):
    sweep, _ = spied(sweep_of(data), exhausted(0))
    with pytest.warns(UserWarning, match="half"), pytest.raises(UsageError, match="lower config"):
        train(sweep, tmp_path, **SILENT)


def test_what_else_goes_wrong_is_not_taken_for_memory():
    with pytest.raises(OutOfMemory):
        attempt(lambda: jax.jit(lambda: jnp.zeros(2**60, jnp.int8))())

    def fails():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        attempt(fails)


def test_a_wave_in_parts_has_every_replica_once():
    state = {"x": np.arange(7)}
    parts = cut(Wave(tuple(range(10, 17)), 10, 3, state), 3)
    assert [part.places for part in parts] == [(10, 11, 12), (13, 14, 15), (16,)]
    assert [part.number for part in parts] == [10, 13, 16]
    np.testing.assert_array_equal(np.concatenate([part.state["x"] for part in parts]), state["x"])
    done = []

    def work(wave):
        if len(wave.places) > 1:
            raise OutOfMemory
        done.append(wave.places[0])

    with pytest.warns(UserWarning, match="replicas do not fit"):
        in_waves(parts, work)
    assert done == list(range(10, 17))


@pytest.mark.parametrize("epochs", [-1, 0, 2])
def test_killed_in_a_wave(whole, data, tmp_path, monkeypatch, epochs):
    """What has ended is not trained again, and waves stay as they were though there is more room now."""
    trained, folder = whole
    room_for(monkeypatch, sweep_of(data), 2)
    with pytest.raises(Killed):
        train(kill(sweep_of(data), 3 + epochs), tmp_path, **SILENT)  # the first wave ends after three epochs
    monkeypatch.setattr(memory, "available", lambda devices: 2**60)
    sweep, seen = spied(sweep_of(data))
    found = train(sweep, tmp_path, **SILENT)
    assert set(seen) == {2}
    assert len(seen) <= (10 if epochs < 0 else 3 + 5)
    assert_same(found, trained)
    assert log(tmp_path) == log(folder)


def test_compaction_pays_where_the_work_of_a_device_halves():
    running = np.array([True, False, False, True, False, False])
    assert is_worth_compacting(running, 1, "vmap")
    assert not is_worth_compacting(running, 1, "map")  # who rests costs nothing
    assert not is_worth_compacting(running, 2, "map")  # one a device
    assert is_worth_compacting(running, 2, "vmap")
    assert is_worth_compacting(np.array([True, True, False, False]), 2, "map")
    assert not is_worth_compacting(np.array([True, True, True, False]), 2, "map")
    assert not is_worth_compacting(np.zeros(4, bool), 2, "vmap")


def test_compaction_changes_nothing(whole, data, tmp_path, monkeypatch):
    """On two devices, one of which has only replicas that stop."""
    trained, folder = whole
    monkeypatch.setattr("jaxser.training.loop.checkpoint.SHARE", 1e9)
    compacted = []
    of = loop._Training._compacted
    monkeypatch.setattr(loop._Training, "_compacted", lambda *a: compacted.append(a[1]) or of(*a))
    assert trained.status.tolist() == [Status.STOPPED] * 4 + [Status.RUNNING] * 2
    for kills in ((), (3,), (4,)):  # before compaction with what has stopped in the checkpoint, and after it
        there = tmp_path / str(kills)
        compacted.clear()
        for epochs in kills:
            with pytest.raises(Killed):
                train(kill(sweep_of(data, devices=2), epochs), there, **SILENT)
        found = train(sweep_of(data, devices=2), there, **SILENT)
        assert compacted[0] == tuple(range(6))
        assert_same(found, trained)
        assert log(there) == log(folder)


def test_compaction_under_vmap_is_repeated_after_a_kill(whole, data, tmp_path, monkeypatch):
    trained, _ = whole
    sweep, seen = spied(sweep_of(data, strategy="vmap"))
    found = train(sweep, tmp_path / "whole", **SILENT)
    assert seen == [6, 6, 6, 2, 2]
    assert found.status.tolist() == trained.status.tolist()
    np.testing.assert_allclose(found.best.loss, trained.best.loss, rtol=1e-3)
    monkeypatch.setattr("jaxser.training.loop.checkpoint.SHARE", 1e9)
    for epochs in (3, 1):
        with pytest.raises(Killed):
            train(kill(sweep_of(data, strategy="vmap"), epochs), tmp_path / "killed", **SILENT)
    assert_same(train(sweep_of(data, strategy="vmap"), tmp_path / "killed", **SILENT), found)
