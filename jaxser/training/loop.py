"""Training and prediction of a sweep on the host: waves, checkpoints and the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree

from jaxser.evaluation import run_folder
from jaxser.training.checkpoint import Checkpoints, Facts
from jaxser.training.epoch_log import Epoch, EpochLog
from jaxser.training.mesh import AXIS, fetch
from jaxser.training.multihost import is_primary
from jaxser.training.progress import EpochProgress
from jaxser.training.sweep import Sweep, status_of
from jaxser.training.waves import Wave, attempt, is_worth_compacting, run_waves, split, wave_size
from jaxser.types import ReplicaState, Status, Trained


class Predicted(NamedTuple):
    """Predictions of a replica's selected epoch on its validation and test parts.

    Attributes:
        rows: the rows of the dataset, those of the validation part first.
        validation: the number of rows in the validation part.
        estimates: the predictions, see `Target.estimates`.
    """

    rows: Int[np.ndarray, " n"]
    validation: int
    estimates: Float[np.ndarray, "n K"]


def train_sweep(sweep: Sweep, folder: Path, log: Callable[[str], None] = print) -> Trained:
    """Train all replicas of a sweep, from the newest checkpoint if there is one.

    Args:
        sweep: the replicas.
        folder: the run folder, for checkpoints and metrics.jsonl.
        log: called with each message.

    Returns:
        The selected epochs of all replicas, stacked on the host.
    """
    with Checkpoints(folder / run_folder.CHECKPOINTS) as checkpoints:
        run = _SweepRun(sweep, folder, checkpoints, log)
        waves = run.waves()
        with run.progress:
            run_waves(waves, run.train, run.halve)
    trained = [run.finished[index] for index in range(len(sweep.replicas))]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trained)


def predict_sweep(sweep: Sweep, trained: Trained) -> list[Predicted]:
    """Predict the validation and test parts of every replica with its selected epoch.

    Args:
        sweep: the replicas.
        trained: their selected epochs, stacked on the host.
    """
    folds = sweep.original_folds
    parts = [np.concatenate([fold.validation, fold.test]) for fold in folds]
    indices = tuple(range(len(sweep.replicas)))
    size = wave_size(
        len(indices),
        sweep.mesh.local_devices,
        lambda number: sweep.compile_predict(sweep.rows(number), parts),
        sweep.source.on_devices,
    )
    predicted: dict[int, Predicted] = {}

    def predict(wave: Wave) -> None:
        schedules = sweep.prediction_schedules(wave.indices, parts)
        estimates = fetch(attempt(lambda: sweep.predict(wave.state, wave.indices, parts)))
        for index, schedule, values in zip(wave.indices, schedules, estimates, strict=False):
            fold = sweep.replicas[index].fold
            by_row = np.zeros((len(sweep.dataset.label), values.shape[-1]), values.dtype)
            is_real = schedule.weight > 0
            by_row[schedule.rows[is_real]] = values[is_real]
            predicted[index] = Predicted(parts[fold], len(folds[fold].validation), by_row[parts[fold]])

    run_waves(split(Wave(indices, 0, state=trained), size), predict)
    return [predicted[index] for index in indices]


class _SweepRun:
    """A sweep in training. `finished` has the selected epoch of every finished replica, by its index."""

    def __init__(self, sweep: Sweep, folder: Path, checkpoints: Checkpoints, log: Callable[[str], None]):
        self._sweep, self._checkpoints, self._log = sweep, checkpoints, log
        self._epochs = EpochLog(sweep, folder)
        self._shapes = sweep.shapes()
        self._wave_size = 0
        number = len(sweep.replicas)
        self.finished: dict[int, Trained] = checkpoints.load_finished(number, Trained.of(self._shapes))
        names = [sweep.name(replica) for replica in sweep.replicas]
        self.progress = EpochProgress(
            names, sweep.trainer.epochs, target=sweep.trainer.target, enabled=is_primary()
        )

    def waves(self) -> list[Wave]:
        """Return the waves to train: the interrupted one, and those of replicas that have not started."""
        restored = self._restore()
        wave, facts = restored or (Wave((), 0), {})
        waiting = [
            index
            for index in range(len(self._sweep.replicas))
            if index not in self.finished and index not in wave.indices
        ]
        if restored:
            self._log(f"resuming after epoch {wave.epoch} of {self._sweep.trainer.epochs}")
        if wave.indices or waiting:
            largest = max(len(wave.indices), len(waiting))
            self._wave_size = self._previous_wave_size(facts) or self._choose_wave_size(largest)
        new = Wave(tuple(waiting), waiting[0] if waiting else 0)
        waves = [part for one in (wave, new) if one.indices for part in split(one, self._wave_size)]
        if len(waves) > 1:
            self._log(f"{len(waves)} waves of at most {self._wave_size} replicas, as memory allows")
        self._epochs.truncate(waves)
        for index, score in self._epochs.validation_scores():
            self.progress.restore_best(index, score)
        return waves

    def halve(self, wave: Wave) -> list[Wave]:
        """Split a wave that ran out of memory in two, from its newest checkpoint if it has one."""
        restored = self._restore()
        if restored and restored[0].indices and set(restored[0].indices) <= set(wave.indices):
            wave = restored[0]
        self._wave_size = min(self._wave_size, -(-len(wave.indices) // 2))
        halves = wave.halves()
        self._epochs.truncate(halves)
        return halves

    def train(self, wave: Wave) -> None:
        """Train a wave until all its replicas are finished."""
        sweep, indices, epoch = self._sweep, wave.indices, wave.epoch
        state = self._put(wave)
        while epoch < sweep.trainer.epochs and (running := status_of(state) == Status.RUNNING).any():
            if is_worth_compacting(running, sweep.mesh.shape[AXIS], sweep.strategy):
                indices, state = self._compact(indices, state, running)
            begin = time.monotonic()
            schedules = sweep.schedules(epoch, indices)
            state, result = attempt(partial(sweep.source.run_epoch, state, schedules))
            result, status = fetch(result), status_of(state)
            seconds = time.monotonic() - begin
            done = Epoch(wave.number, epoch, indices, result, status, schedules.train, seconds)
            self._epochs.append(done)  # before the checkpoint, so that no epoch is missing from the log
            epoch += 1
            self._save(wave.number, epoch, indices, state)
            self._show(done)
        self._finish(indices, fetch(Trained.of(state)))

    def _restore(self) -> tuple[Wave, Facts] | None:
        """Return the wave of the newest checkpoint, empty if all its replicas are finished, and its facts."""
        restored = self._checkpoints.restore(jax.eval_shape(_with_key_data, self._shapes))
        if restored is None:
            return None
        facts, state = restored
        indices = tuple(facts["indices"])
        if set(indices) <= self.finished.keys():
            return Wave((), 0), facts
        own = jax.tree.map(lambda x: x[: len(indices)], state)
        return Wave(indices, facts["wave"], facts["epoch"], own), facts

    def _previous_wave_size(self, facts: Facts) -> int:
        """Return the wave size of the interrupted run, which gives the same waves.

        It is 0 if there is none, or if the number of devices differs.
        """
        return facts["size"] if facts and facts["devices"] == self._sweep.mesh.size else 0

    def _choose_wave_size(self, number: int) -> int:
        begin, sweep = time.monotonic(), self._sweep
        size = wave_size(
            number,
            sweep.mesh.local_devices,
            lambda size: sweep.compile_epoch(sweep.rows(size)),
            sweep.source.on_devices,
        )
        self._log(f"compiled in {time.monotonic() - begin:.1f} s")
        return size

    def _put(self, wave: Wave) -> ReplicaState:
        if wave.state is None:
            return attempt(lambda: self._sweep.initial_state(wave.indices))
        state = attempt(lambda: self._sweep.stack(wave.state))
        state = state._replace(key=jax.random.wrap_key_data(state.key))
        return self._sweep.stop_padding(state, len(wave.indices))

    def _compact(
        self, indices: Sequence[int], state: ReplicaState, running: Bool[np.ndarray, " rows"]
    ) -> tuple[tuple[int, ...], ReplicaState]:
        """Finish the stopped replicas, and move the running ones to as few rows as possible."""
        host = fetch(_with_key_data(state))
        for leaf in jax.tree.leaves(state):
            leaf.delete()
        index_of_row = np.array(indices)
        stopped, running_rows = np.flatnonzero(~running[: len(indices)]), np.flatnonzero(running)
        self._finish(index_of_row[stopped].tolist(), _rows(Trained.of(host), stopped))
        left = tuple(index_of_row[running_rows].tolist())
        return left, self._put(Wave(left, 0, state=_rows(host, running_rows)))

    def _finish(self, indices: Sequence[int], trained: Trained) -> None:
        for row, index in enumerate(indices):
            self.finished[index] = jax.tree.map(lambda x, row=row: np.array(x[row]), trained)
            self._checkpoints.save_finished(index, self.finished[index])

    def _save(self, number: int, epoch: int, indices: Sequence[int], state: ReplicaState) -> None:
        facts = {
            "indices": list(indices),
            "wave": number,
            "epoch": epoch,
            "rows": self._sweep.rows(len(indices)),
            "size": self._wave_size,
            "devices": self._sweep.mesh.size,
        }
        self._checkpoints.save(_with_key_data(state), facts)

    def _show(self, epoch: Epoch) -> None:
        number = len(self._sweep.replicas)

        def of_all_replicas(x):
            values = np.full((number, *x.shape[1:]), np.nan, np.float64)
            values[list(epoch.indices)] = x[: len(epoch.indices)]
            return values

        running = int((epoch.status == Status.RUNNING).sum())
        waiting = number - len(self.finished.keys() | set(epoch.indices))
        result = jax.tree.map(of_all_replicas, epoch.result)
        self.progress.show(epoch.number + 1, result, running, waiting)


def _with_key_data(state: ReplicaState) -> ReplicaState:
    """Return the state with its typed keys as integers, which can be saved."""
    return state._replace(key=jax.random.key_data(state.key))


def _rows(tree: PyTree, rows: Int[np.ndarray, " n"]) -> PyTree:
    return jax.tree.map(lambda x: x[rows], tree)
