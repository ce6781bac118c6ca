"""The fold x seed x setting grid of a run as one program, sharded over the devices; the only file that knows R."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree

from jaxser import metrics, results
from jaxser.checkpoint import Checkpoints
from jaxser.data.plan import Buckets, Plan
from jaxser.mesh import AXIS, Programs, compile_over_replicas, put
from jaxser.progress import EpochProgress
from jaxser.train import DeviceData, EpochResult, Trainer, class_weights, fold_normalisations, on_host
from jaxser.types import NOT_FINITE, RUNNING, STOPPED, AnyArray, Dataset, Fold, ReplicaState

STATUS = {RUNNING: "running", STOPPED: "stopped", NOT_FINITE: "not finite"}


class Replica(NamedTuple):
    """A point of the grid."""

    fold: int
    seed: int
    setting: Mapping[str, float]


def grid(folds: int, seeds: Sequence[int], swept: Mapping[str, Sequence[float]]) -> tuple[Replica, ...]:
    """Every fold with every seed and every combination of the swept scalars."""
    settings = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    return tuple(Replica(*point) for point in itertools.product(range(folds), seeds, settings))


class Predicted(NamedTuple):
    """What a replica's selected epoch says of its validation and test parts."""

    rows: Int[np.ndarray, " n"]  # of the dataset, validation first
    validation: int  # how many of them are validation
    log_probs: Float[np.ndarray, "n C"]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A grid of replicas over a dataset and its folds."""

    trainer: Trainer
    dataset: Dataset
    folds: tuple[Fold, ...]
    buckets: Buckets
    replicas: tuple[Replica, ...]
    hyper: Mapping[str, float]
    mesh: Mesh
    strategy: str = "map"
    split_seed: int = 0
    balanced: bool = False
    normalise: str = "train"

    def train(self, folder: Path, say: Callable[[str], None] = print) -> ReplicaState:
        """Train to the end, from the run's newest checkpoint if it has one; logs and checkpoints go into `folder`."""
        with Checkpoints(folder / results.CHECKPOINTS) as checkpoints:
            begin = time.monotonic()
            state = self.begin()
            epoch = 0
            if restored := checkpoints.restore(jax.tree.map(_abstract, state)):
                epoch, state = restored
                say(f"going on after epoch {epoch} of {self.trainer.epochs}")
            results.truncate_epochs(folder, epoch)
            run_epoch = self.compile_epoch(state)
            say(f"compiled in {time.monotonic() - begin:.1f} s")
            names = [self._name(replica) for replica in self.replicas]
            with EpochProgress(names, self.trainer.epochs, epoch) as progress:
                while epoch < self.trainer.epochs and (status(state) == RUNNING).any():
                    state, told, rows = self._epoch(run_epoch, state, epoch)
                    epoch += 1
                    results.append_epochs(folder, rows)
                    checkpoints.save(epoch, state, force=epoch == self.trainer.epochs)
                    progress.show(epoch, told, int((status(state) == RUNNING).sum()))
        return state

    def shapes(self) -> ReplicaState:
        """A replica's shapes, without computing it. Raises ValueError where the network cannot be built."""
        key, hyper, normalisation, weights = jax.tree.map(lambda x: x[0], self._beginnings())
        data = on_host(self.dataset, self.trainer.model.needs)
        return jax.eval_shape(self.trainer.init, key, hyper, normalisation, weights, data)

    def begin(self) -> ReplicaState:
        """All replicas before their first epoch. Initialised one by one: batched orthogonal kernels hang on a CPU."""
        arguments = (*self._beginnings(), self.data)
        state = compile_over_replicas(self.trainer.init, arguments, self.mesh, "map", num_shared=1)(
            *arguments
        )
        running = np.full(len(self._padded), RUNNING, np.int32)
        running[len(self.replicas) :] = STOPPED  # what fills the devices up
        return state._replace(status=put(running, self.mesh, P(AXIS)))

    def compile_epoch(self, state: ReplicaState) -> Programs:
        """The program of one epoch of all replicas: (state, plans, data) to (state, `EpochResult`)."""
        arguments = (state, *self._put_plans(*self.plans(0)), self.data)
        one = self._epoch_of_one
        return compile_over_replicas(one, arguments, self.mesh, self.strategy, num_shared=2, donate=True)

    def plans(self, epoch: int) -> tuple[list[Plan], list[Plan]]:
        """What the replicas train on and validate on in an epoch; all have the same order of buckets."""
        train = [
            self.buckets.train_plan(
                fold.train, self._train_batches, (self.split_seed, replica.fold, replica.seed), epoch
            )
            for replica, fold in self._with_folds()
        ]
        validation = [
            self.buckets.evaluation_plan(fold.validation, self._validation_batches)
            for _, fold in self._with_folds()
        ]
        return train, validation

    def predict(self, state: ReplicaState, folds: Sequence[Fold]) -> list[Predicted]:
        """Every replica's selected epoch on its fold's validation and test parts."""
        parts = [np.concatenate([fold.validation, fold.test]) for fold in folds]
        batches = self.buckets.batches(parts)
        plans = [
            self.buckets.evaluation_plan(parts[replica.fold], batches) for replica, _ in self._with_folds()
        ]
        arguments = (state, *self._put_plans(plans), self.data)
        one = self._predict_of_one
        program = compile_over_replicas(one, arguments, self.mesh, self.strategy, num_shared=2)
        log_probs = jax.device_get(program(*arguments))
        found = []
        for replica, plan, values in zip(self.replicas, plans, log_probs, strict=False):
            rows = parts[replica.fold]
            by_row = np.zeros((len(self.dataset.label), values.shape[-1]), values.dtype)
            real = plan.weight > 0
            by_row[plan.rows[real]] = values[real]
            found.append(Predicted(rows, len(folds[replica.fold].validation), by_row[rows]))
        return found

    @cached_property
    def data(self) -> DeviceData:
        """The dataset on the devices."""
        return put(on_host(self.dataset, self.trainer.model.needs, self.normalise), self.mesh, P())

    @cached_property
    def _train_batches(self) -> list[int]:
        return self.buckets.batches([fold.train for fold in self.folds])

    @cached_property
    def _validation_batches(self) -> list[int]:
        return self.buckets.batches([fold.validation for fold in self.folds])

    @property
    def _padded(self) -> tuple[Replica, ...]:
        """The replicas, the last one repeated until the devices divide them.

        XLA takes a loop over one replica apart and rounds otherwise then; so a device maps over two at least.
        """
        number, devices = len(self.replicas), self.mesh.size
        each = max(-(-number // devices), 2 if self.strategy == "map" else 1)
        return self.replicas + self.replicas[-1:] * (each * devices - number)

    def _with_folds(self) -> list[tuple[Replica, Fold]]:
        return [(replica, self.folds[replica.fold]) for replica in self._padded]

    def _beginnings(self) -> tuple[Any, ...]:
        """Key, hyper-parameters, normalisation and class weights of every replica, on the devices."""
        train = [fold.train for fold in self.folds]
        normalisation = fold_normalisations(self.dataset, train, self.trainer.model.needs, self.normalise)
        number = len(self.dataset.classes)
        weights = [class_weights(self.dataset.label[rows], number, self.balanced) for rows in train]
        keys = [jax.random.fold_in(jax.random.key(replica.seed), replica.fold) for replica in self._padded]
        hyper = [
            {name: np.float32(value) for name, value in {**self.hyper, **replica.setting}.items()}
            for replica in self._padded
        ]
        own = (
            jnp.stack(keys),
            _stack(hyper),
            _stack([normalisation[replica.fold] for replica in self._padded]),
            np.stack([weights[replica.fold] for replica in self._padded]),
        )
        return put(own, self.mesh, P(AXIS))

    def _epoch_of_one(self, state, own, bucket, data) -> tuple[ReplicaState, EpochResult]:
        train, validation = (Plan(b, *one) for b, one in zip(bucket, own, strict=True))
        return self.trainer.epoch(state, train, validation, data)

    def _predict_of_one(self, state, own, bucket, data) -> Float[Array, "steps B C"]:
        return self.trainer.predict(state, Plan(*bucket, *own[0]), data)

    def _epoch(
        self, run_epoch, state: ReplicaState, epoch: int
    ) -> tuple[ReplicaState, EpochResult, list[dict]]:
        begin = time.monotonic()
        plans = self.plans(epoch)
        own, bucket = self._put_plans(*plans)
        data = self.data
        with jax.transfer_guard("disallow"):
            state, told = run_epoch(state, own, bucket, data)
        told = jax.tree.map(lambda x: x[: len(self.replicas)], jax.device_get(told))
        seconds = round(time.monotonic() - begin, 3)
        rows = [
            {
                "epoch": epoch,
                "fold": self.folds[replica.fold].name,
                "seed": replica.seed,
                "setting": results.setting_name(replica.setting),
                "train_loss": float(one.train_loss),
                "validation": {"loss": float(one.validation_loss), **_scores(one.confusion)},
                "learning_rate": float(one.learning_rate),
                "status": STATUS[int(code)],
                "seconds": seconds,
                "real_share": round(self.buckets.real_share(plan, self.buckets.main), 4),
            }
            for replica, one, code, plan in zip(
                self.replicas, _unstack(told), status(state), plans[0], strict=False
            )
            if np.isfinite(one.learning_rate)  # it ran
        ]
        return state, told, rows

    def _put_plans(self, *parts: Sequence[Plan]) -> tuple[PyTree, PyTree]:
        """Plans on the devices: each replica's own (rows, weight), and the shared order of buckets."""
        own = [(np.stack([p.rows for p in plans]), np.stack([p.weight for p in plans])) for plans in parts]
        return put(own, self.mesh, P(AXIS)), put([plans[0].bucket for plans in parts], self.mesh, P())

    def _name(self, replica: Replica) -> str:
        name = f"fold {self.folds[replica.fold].name} seed {replica.seed}"
        return " ".join(filter(None, (name, results.setting_name(replica.setting))))


def status(state: ReplicaState) -> Int[np.ndarray, " R"]:
    """Every replica's status."""
    return np.asarray(jax.device_get(state.status))


def _stack(trees: Sequence[PyTree]) -> PyTree:
    """Trees of arrays as one tree with a leading replica axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _unstack(told: EpochResult) -> list[EpochResult]:
    return [jax.tree.map(lambda x, r=r: x[r], told) for r in range(len(told.train_loss))]


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _scores(confusion: Float[AnyArray, "C C"]) -> dict[str, float]:
    scores = metrics.scores(confusion)
    return {name: float(scores[name]) for name in ("wa", "ua", "f1_weighted")}
