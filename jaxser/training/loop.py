"""The host's loop over a sweep: waves of replicas, epoch by epoch; log, checkpoints, compaction, predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree

from jaxser.data.batch_schedule import Plan
from jaxser.evaluation import metrics, run_folder
from jaxser.training.checkpoint import Checkpoints, Facts
from jaxser.training.mesh import AXIS, fetch
from jaxser.training.multihost import leads
from jaxser.training.progress import EpochProgress
from jaxser.training.replica import EpochResult
from jaxser.training.sweep import Sweep, status
from jaxser.training.waves import Wave, attempt, cut, fitting, in_waves, is_worth_compacting
from jaxser.types import AnyArray, Fold, ReplicaState, Status, Trained


class Predicted(NamedTuple):
    """What a replica's selected epoch says of its validation and test parts."""

    rows: Int[np.ndarray, " n"]  # of the dataset, validation first
    validation: int  # how many of them are validation
    log_probs: Float[np.ndarray, "n C"]


def train(sweep: Sweep, folder: Path, say: Callable[[str], None] = print) -> Trained:
    """Train to the end, from the run's newest checkpoint if it has one; logs and checkpoints go into `folder`.

    Returns what is kept of all replicas, stacked on the host.
    """
    with Checkpoints(folder / run_folder.CHECKPOINTS) as checkpoints:
        training = _Training(sweep, folder, checkpoints, say)
        waves = training.begin()
        with training.progress:
            in_waves(waves, training.train, training.halved)
    return _stacked([training.ended[place] for place in range(len(sweep.replicas))])


def predict(sweep: Sweep, trained: Trained, folds: Sequence[Fold]) -> list[Predicted]:
    """Every replica's selected epoch on its fold's validation and test parts."""
    parts = [np.concatenate([fold.validation, fold.test]) for fold in folds]
    places = tuple(range(len(sweep.replicas)))
    size = fitting(
        len(places),
        sweep.mesh.local_devices,
        lambda number: sweep.compile_predict(sweep.rows(number), parts),
        sweep.data,
    )
    found: dict[int, Predicted] = {}

    def work(wave: Wave) -> None:
        plans = sweep.prediction_plans(wave.places, parts)
        log_probs = fetch(attempt(lambda: sweep.predict(wave.state, wave.places, parts)))
        for place, plan, values in zip(wave.places, plans, log_probs, strict=False):
            fold = sweep.replicas[place].fold
            by_row = np.zeros((len(sweep.dataset.label), values.shape[-1]), values.dtype)
            real = plan.weight > 0
            by_row[plan.rows[real]] = values[real]
            found[place] = Predicted(parts[fold], len(folds[fold].validation), by_row[parts[fold]])

    in_waves(cut(Wave(places, 0, state=trained), size), work)
    return [found[place] for place in places]


class _Training:
    """A sweep on its way."""

    def __init__(self, sweep: Sweep, folder: Path, checkpoints: Checkpoints, say: Callable[[str], None]):
        self._sweep, self._folder, self._checkpoints, self._say = sweep, folder, checkpoints, say
        self._shapes = sweep.shapes()
        self._size = 0
        self.ended: dict[int, Trained] = checkpoints.kept(len(sweep.replicas), Trained.of(self._shapes))
        self.progress = EpochProgress(
            [sweep.name(replica) for replica in sweep.replicas], sweep.trainer.epochs, speaks=leads()
        )

    def begin(self) -> list[Wave]:
        """The waves that are left: the one that was interrupted, and those of replicas that have not begun."""
        found = self._restored()
        wave, facts = found or (Wave((), 0), {})
        todo = [p for p in range(len(self._sweep.replicas)) if p not in self.ended and p not in wave.places]
        if found:
            self._say(f"going on after epoch {wave.epoch} of {self._sweep.trainer.epochs}")
        if wave.places or todo:
            self._size = self._remembered(facts) or self._measured(max(len(wave.places), len(todo)))
        waves = [part for whole in (wave, _new(todo)) if whole.places for part in cut(whole, self._size)]
        if len(waves) > 1:
            self._say(f"{len(waves)} waves of at most {self._size} replicas, as memory allows")
        self._keep_log_before(waves)
        self._show_log()
        return waves

    def halved(self, wave: Wave) -> list[Wave]:
        """A wave that did not fit, in two, from its newest checkpoint if it has one."""
        found = self._restored()
        if found and found[0].places and set(found[0].places) <= set(wave.places):
            wave = found[0]
        self._size = min(self._size, -(-len(wave.places) // 2))
        halves = wave.halves()
        self._keep_log_before(halves)
        return halves

    def train(self, wave: Wave) -> None:
        """Train a wave to its end; what is kept of its replicas is then in `ended`."""
        sweep, places, epoch = self._sweep, wave.places, wave.epoch
        state = self._on_devices(wave)
        while epoch < sweep.trainer.epochs and (running := status(state) == Status.RUNNING).any():
            if is_worth_compacting(running, sweep.mesh.shape[AXIS], sweep.strategy):
                places, state = self._compacted(places, state, running)
            begin = time.monotonic()
            plans = sweep.plans(epoch, places)
            state, told = attempt(partial(sweep.run_epoch, state, plans))
            told, codes = fetch(told), status(state)
            rows = self._rows(wave.number, epoch, places, told, codes, plans[0], time.monotonic() - begin)
            epoch += 1
            if leads():
                run_folder.append_epochs(self._folder, rows)
            self._save(wave.number, epoch, places, state)
            self._show(epoch, places, told, codes)
        self._keep(places, fetch(Trained.of(state)))

    def _restored(self) -> tuple[Wave, Facts] | None:
        """The wave of the newest checkpoint, unless all of it has ended, and the facts beside it."""
        found = self._checkpoints.restore(jax.eval_shape(_plain, self._shapes))
        if found is None:
            return None
        facts, state = found
        places = tuple(facts["places"])
        wave = Wave(places, facts["wave"], facts["epoch"], jax.tree.map(lambda x: x[: len(places)], state))
        return (Wave((), 0) if set(places) <= self.ended.keys() else wave), facts

    def _remembered(self, facts: Facts) -> int:
        """The size of waves that an interrupted run had on as many devices: with it, the same waves come."""
        return facts["size"] if facts and facts["devices"] == self._sweep.mesh.size else 0

    def _measured(self, number: int) -> int:
        begin, sweep = time.monotonic(), self._sweep
        size = fitting(
            number,
            sweep.mesh.local_devices,
            lambda size: sweep.compile_epoch(sweep.rows(size)),
            sweep.data,
        )
        self._say(f"compiled in {time.monotonic() - begin:.1f} s")
        return size

    def _on_devices(self, wave: Wave) -> ReplicaState:
        if wave.state is None:
            return attempt(lambda: self._sweep.begin(wave.places))
        state = attempt(lambda: self._sweep.stack(wave.state))
        state = state._replace(key=jax.random.wrap_key_data(state.key))
        return self._sweep.with_fillers_stopped(state, len(wave.places))

    def _compacted(
        self, places: Sequence[int], state: ReplicaState, running: Bool[np.ndarray, " rows"]
    ) -> tuple[tuple[int, ...], ReplicaState]:
        """The running replicas on as few rows as hold them; what is kept of the others is written down."""
        host = fetch(_plain(state))
        for leaf in jax.tree.leaves(state):
            leaf.delete()
        of_row = np.array(places)
        at_rest, chosen = np.flatnonzero(~running[: len(places)]), np.flatnonzero(running)
        self._keep(of_row[at_rest].tolist(), _taken(Trained.of(host), at_rest))
        left = tuple(of_row[chosen].tolist())
        return left, self._on_devices(Wave(left, 0, state=_taken(host, chosen)))

    def _keep(self, places: Sequence[int], kept: Trained) -> None:
        for row, place in enumerate(places):
            self.ended[place] = jax.tree.map(lambda x, row=row: np.array(x[row]), kept)
            self._checkpoints.keep(place, self.ended[place])

    def _save(self, number: int, epoch: int, places: Sequence[int], state: ReplicaState) -> None:
        facts = {
            "places": list(places),
            "wave": number,
            "epoch": epoch,
            "rows": self._sweep.rows(len(places)),
            "size": self._size,
            "devices": self._sweep.mesh.size,
        }
        self._checkpoints.save(_plain(state), facts)

    def _keep_log_before(self, waves: Iterable[Wave]) -> None:
        """Cut the log of the waves' replicas at the epochs that are trained (again)."""
        reached = {self._key(place): wave.epoch for wave in waves for place in wave.places}
        if leads():
            run_folder.truncate_epochs(
                self._folder,
                lambda row: row["epoch"] < reached.get((row["fold"], row["seed"], row["setting"]), np.inf),
            )

    def _show_log(self) -> None:
        """The best scores of an interrupted run are shown on."""
        places = {self._key(place): place for place in range(len(self._sweep.replicas))}
        for row in run_folder.read_epochs(self._folder):
            if (key := (row["fold"], row["seed"], row["setting"])) in places:
                self.progress.seen(places[key], row["validation"]["ua"])

    def _key(self, place: int) -> tuple[str, int, str]:
        replica = self._sweep.replicas[place]
        return self._sweep.folds[replica.fold].name, replica.seed, run_folder.setting_name(replica.setting)

    def _rows(
        self,
        number: int,
        epoch: int,
        places: Sequence[int],
        told: EpochResult,
        codes: Int[np.ndarray, " rows"],
        plans: Sequence[Plan],
        seconds: float,
    ) -> list[dict[str, Any]]:
        """An epoch's lines in the log, of the replicas that ran."""
        buckets, rows = self._sweep.buckets, []
        for row, place in enumerate(places):
            one = jax.tree.map(lambda x, row=row: x[row], told)
            if not np.isfinite(one.learning_rate):
                continue
            rows.append(
                {
                    "epoch": epoch,
                    **dict(zip(("fold", "seed", "setting"), self._key(place), strict=True)),
                    "train_loss": float(one.train_loss),
                    "validation": {"loss": float(one.validation_loss), **_scores(one.confusion)},
                    "learning_rate": float(one.learning_rate),
                    "status": Status(codes[row]).label,
                    "wave": number,
                    "seconds": round(seconds, 3),
                    "real_share": round(buckets.real_share(plans[row], buckets.main), 4),
                }
            )
        return rows

    def _show(
        self, epoch: int, places: Sequence[int], told: EpochResult, codes: Int[np.ndarray, " rows"]
    ) -> None:
        number = len(self._sweep.replicas)

        def of_all(x):
            values = np.full((number, *x.shape[1:]), np.nan, np.float64)
            values[list(places)] = x[: len(places)]
            return values

        running = int((codes == Status.RUNNING).sum())
        waiting = number - len(self.ended.keys() | set(places))
        self.progress.show(epoch, jax.tree.map(of_all, told), running, waiting)


def _new(places: Sequence[int]) -> Wave:
    return Wave(tuple(places), places[0] if places else 0)


def _plain(state: ReplicaState) -> ReplicaState:
    """The state with its keys as the numbers that they are."""
    return state._replace(key=jax.random.key_data(state.key))


def _taken(tree: PyTree, rows: Int[np.ndarray, " n"]) -> PyTree:
    return jax.tree.map(lambda x: x[rows], tree)


def _stacked(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _scores(confusion: Float[AnyArray, "C C"]) -> dict[str, float]:
    scores = metrics.scores(confusion)
    return {name: float(scores[name]) for name in ("wa", "ua", "f1_weighted")}
