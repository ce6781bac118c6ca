"""Waves, exhausted memory and compaction: how replicas are grouped does not change a bit of their results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from helpers.sweeps import SILENT, Killed, assert_same, kill, log, spy
from jaxser.training import checkpoint, loop, memory
from jaxser.training.loop import predict_sweep, train_sweep
from jaxser.training.sweep import GridPoint
from jaxser.training.waves import OutOfMemory, Wave, attempt, is_worth_compacting, run_waves, split
from jaxser.types import Status, UsageError


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    """Six replicas in one wave; the first four of them stop early."""
    folder = tmp_path_factory.mktemp("reference")
    return train_sweep(sweep_of(data), folder, **SILENT), folder


def sweep_of(data, **fields):
    """Two folds x three settings; replicas with a learning rate of 0 do not improve and stop after three epochs."""
    settings = [
        {"learning_rate": rate, "dropout_rate": drop} for rate, drop in ((0, 0.1), (0, 0.2), (3e-2, 0.1))
    ]
    replicas = tuple(GridPoint(fold, 0, setting) for setting in settings for fold in range(2))
    return tiny.sweep(data, **({"replicas": replicas, "epochs": 5, "patience": 2} | fields))


def limit_memory(monkeypatch, sweep, number):
    """Pretend that there is just enough memory for a number of replicas."""
    needed = memory.needed(sweep.compile_epoch(sweep.rows(number)), sweep.source.on_devices)
    monkeypatch.setattr(memory, "available", lambda devices: needed / 0.9 + 1)


def test_waves_are_chosen_by_memory(reference, data, tmp_path, monkeypatch):
    trained, folder = reference
    sweep, rows = spy(sweep_of(data))
    together = predict_sweep(sweep, trained)
    limit_memory(monkeypatch, sweep, 2)
    messages = []
    actual = train_sweep(sweep, tmp_path, messages.append)
    assert "3 waves of at most 2 replicas, as memory allows" in messages
    assert set(rows) == {2}
    assert_same(actual, trained)
    assert log(tmp_path) == log(folder)
    monkeypatch.setattr(memory, "available", lambda devices: 1)
    sizes: list[int] = []
    monkeypatch.setattr(loop, "split", lambda wave, size: sizes.append(size) or split(wave, size))
    for one, other in zip(together, predict_sweep(sweep, trained), strict=True):
        np.testing.assert_array_equal(one.estimates, other.estimates)
    assert sizes == [1]


def exhausted_above(limit):
    """Run out of memory in epochs with more rows than the limit."""

    def check(rows):
        if rows > limit:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")

    return check


def test_a_wave_is_halved_if_memory_runs_out(reference, data, tmp_path):
    trained, folder = reference
    sweep, rows = spy(sweep_of(data), exhausted_above(3))
    with pytest.warns(UserWarning, match="6 replicas do not fit into memory; continuing with half"):
        actual = train_sweep(sweep, tmp_path, **SILENT)
    assert set(rows) == {3}
    assert_same(actual, trained)
    assert log(tmp_path) == log(folder)


def test_running_out_of_memory_later_loses_no_saved_epoch(reference, data, tmp_path, monkeypatch):
    trained, folder = reference
    monkeypatch.setattr(checkpoint, "TIME_FRACTION", 1e-9)  # only the first epoch is saved
    seen: list[int] = []
    sweep, _ = spy(
        sweep_of(data), lambda rows: exhausted_above(6 if len(seen) < 2 else 3)(rows) or seen.append(rows)
    )
    with pytest.warns(UserWarning, match="continuing with half"):
        actual = train_sweep(sweep, tmp_path, **SILENT)
    assert seen == [6, 6, 3, 3, 3, 3, 3, 3]  # the first half stops after its third epoch
    assert_same(actual, trained)
    assert log(tmp_path) == log(folder)


def test_a_single_replica_that_does_not_fit_is_an_error(data, tmp_path):
    sweep, _ = spy(sweep_of(data), exhausted_above(0))
    with pytest.warns(UserWarning, match="half"), pytest.raises(UsageError, match="lower config"):
        train_sweep(sweep, tmp_path, **SILENT)


def test_only_exhausted_memory_is_caught():
    with pytest.raises(OutOfMemory):
        attempt(lambda: jax.jit(lambda: jnp.zeros(2**60, jnp.int8))())

    def fails():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        attempt(fails)


def test_split_waves_have_every_replica_once():
    state = {"x": np.arange(7)}
    parts = split(Wave(tuple(range(10, 17)), 10, 3, state), 3)
    assert [part.indices for part in parts] == [(10, 11, 12), (13, 14, 15), (16,)]
    assert [part.number for part in parts] == [10, 13, 16]
    np.testing.assert_array_equal(np.concatenate([part.state["x"] for part in parts]), state["x"])
    done = []

    def work(wave):
        if len(wave.indices) > 1:
            raise OutOfMemory
        done.append(wave.indices[0])

    with pytest.warns(UserWarning, match="replicas do not fit"):
        run_waves(parts, work)
    assert done == list(range(10, 17))


@pytest.mark.parametrize("epochs", [-1, 0, 2])
def test_killed_in_a_wave(reference, data, tmp_path, monkeypatch, epochs):
    """Finished replicas are not trained again, and waves stay the same although there is more memory now."""
    trained, folder = reference
    limit_memory(monkeypatch, sweep_of(data), 2)
    with pytest.raises(Killed):
        # the first wave ends after three epochs
        train_sweep(kill(sweep_of(data), 3 + epochs), tmp_path, **SILENT)
    monkeypatch.setattr(memory, "available", lambda devices: 2**60)
    sweep, rows = spy(sweep_of(data))
    actual = train_sweep(sweep, tmp_path, **SILENT)
    assert set(rows) == {2}
    assert len(rows) <= (10 if epochs < 0 else 3 + 5)
    assert_same(actual, trained)
    assert log(tmp_path) == log(folder)


def test_compaction_is_worth_it_if_it_halves_the_work_of_a_device():
    running = np.array([True, False, False, True, False, False])
    assert is_worth_compacting(running, 1, "vmap")
    assert not is_worth_compacting(running, 1, "map")  # a stopped replica costs nothing
    assert not is_worth_compacting(running, 2, "map")  # one per device
    assert is_worth_compacting(running, 2, "vmap")
    assert is_worth_compacting(np.array([True, True, False, False]), 2, "map")
    assert not is_worth_compacting(np.array([True, True, True, False]), 2, "map")
    assert not is_worth_compacting(np.zeros(4, bool), 2, "vmap")


def test_compaction_changes_nothing(reference, data, tmp_path, monkeypatch):
    """On two devices, one of which has only replicas that stop early."""
    trained, folder = reference
    monkeypatch.setattr(checkpoint, "TIME_FRACTION", 1e9)
    compacted = []
    compact = loop._SweepRun._compact
    monkeypatch.setattr(loop._SweepRun, "_compact", lambda *a: compacted.append(a[1]) or compact(*a))
    assert trained.status.tolist() == [Status.STOPPED] * 4 + [Status.RUNNING] * 2
    for kills in ((), (3,), (4,)):  # before compaction, with stopped replicas in the checkpoint, and after it
        folder_of_run = tmp_path / str(kills)
        compacted.clear()
        for epochs in kills:
            with pytest.raises(Killed):
                train_sweep(kill(sweep_of(data, devices=2), epochs), folder_of_run, **SILENT)
        actual = train_sweep(sweep_of(data, devices=2), folder_of_run, **SILENT)
        assert compacted[0] == tuple(range(6))
        assert_same(actual, trained)
        assert log(folder_of_run) == log(folder)


def test_a_resumed_run_compacts_in_the_same_way_under_vmap(reference, data, tmp_path, monkeypatch):
    trained, _ = reference
    sweep, rows = spy(sweep_of(data, strategy="vmap"))
    actual = train_sweep(sweep, tmp_path / "reference", **SILENT)
    assert rows == [6, 6, 6, 2, 2]
    assert actual.status.tolist() == trained.status.tolist()
    np.testing.assert_allclose(actual.best.loss, trained.best.loss, rtol=1e-3)
    monkeypatch.setattr(checkpoint, "TIME_FRACTION", 1e9)
    for epochs in (3, 1):
        with pytest.raises(Killed):
            train_sweep(kill(sweep_of(data, strategy="vmap"), epochs), tmp_path / "killed", **SILENT)
    assert_same(train_sweep(sweep_of(data, strategy="vmap"), tmp_path / "killed", **SILENT), actual)
