"""The fold x seed x setting grid of a run as one program, sharded over the devices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree

from jaxser.data.batch_schedule import Buckets, Plan
from jaxser.data.device import DeviceData, on_host
from jaxser.data.normalisation import fold_normalisations
from jaxser.evaluation import run_folder
from jaxser.models.losses import class_weights
from jaxser.training.mesh import (
    AXIS,
    BATCHES,
    Programs,
    abstract,
    compile_over_replicas,
    fetch,
    put,
    rows_for,
)
from jaxser.training.replica import EpochResult, Trainer
from jaxser.types import Dataset, Fold, ReplicaState, Status, Trained


class Replica(NamedTuple):
    """A point of the grid."""

    fold: int
    seed: int
    setting: Mapping[str, float]


def grid(folds: int, seeds: Sequence[int], swept: Mapping[str, Sequence[float]]) -> tuple[Replica, ...]:
    """Every fold with every seed and every combination of the swept scalars."""
    settings = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    return tuple(Replica(*point) for point in itertools.product(range(folds), seeds, settings))


@dataclass(frozen=True, eq=False)
class Sweep:
    """A grid of replicas over a dataset and its folds, and the programs that train any of them together.

    `places` are those of replicas in the grid. On the devices they make the first rows of stacked arrays; the last one
    is repeated, and stands still, until the devices divide the rows.
    """

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
    _compiled: dict[Any, Programs] = field(default_factory=dict, init=False, repr=False)

    def shapes(self) -> ReplicaState:
        """A replica's shapes, without computing it. Raises ValueError where the network cannot be built."""
        own = jax.tree.map(lambda x: x[0], self._beginnings(self.replicas[:1]))
        return jax.eval_shape(self._begin_one, *own, on_host(self.dataset, self.trainer.model.needs))

    def rows(self, number: int) -> int:
        """The rows on the devices for so many replicas."""
        return rows_for(number, self.mesh, self.strategy)

    def begin(self, places: Sequence[int] | None = None) -> ReplicaState:
        """Replicas before their first epoch. Initialised one by one: batched orthogonal kernels hang on a CPU."""
        places = self._all(places)
        arguments = (*put(self._beginnings(self._filled(places)), self.mesh, P(AXIS)), self.data)
        key = ("begin", self.rows(len(places)))
        program = self._once(key, lambda: self._compile(self._begin_one, arguments, "map", num_shared=1))
        return self.with_fillers_stopped(program(*arguments), len(places))

    def with_fillers_stopped(self, state: ReplicaState, number: int) -> ReplicaState:
        """The state with every row beyond the first `number` at rest."""
        status = np.array(fetch(state.status))
        status[number:] = Status.STOPPED
        return state._replace(status=put(status, self.mesh, P(AXIS)))

    def compile_epoch(self, rows: int) -> Programs:
        """An epoch of so many rows: (state, their plans, order of buckets, data) to (state, `EpochResult`)."""

        def make():
            state = abstract(self.shapes(), rows, self.mesh)
            plans = self._put_plans(*self.plans(0, [0] * rows))
            arguments = (state, *plans, self.data)
            return self._compile(self._epoch_of_one, arguments, self.strategy, num_shared=2, donate=True)

        return self._once(("epoch", rows), make)

    def run_epoch(
        self, state: ReplicaState, plans: tuple[list[Plan], list[Plan]]
    ) -> tuple[ReplicaState, EpochResult]:
        """Train and validate all rows for an epoch; the state that is given is used up."""
        program = self.compile_epoch(len(plans[0]))
        own, order = self._put_plans(*plans)
        data = self.data
        with jax.transfer_guard("disallow"):
            return program(state, own, order, data)

    def plans(self, epoch: int, places: Sequence[int] | None = None) -> tuple[list[Plan], list[Plan]]:
        """What each row trains on and validates on in an epoch; all have the same order of buckets."""
        replicas = self._filled(self._all(places))
        train = [
            self.buckets.train_plan(
                self.folds[fold].train, self._train_batches, (self.split_seed, fold, seed), epoch
            )
            for fold, seed, _ in replicas
        ]
        validation = [
            self._joined.evaluation_plan(self.folds[replica.fold].validation, self._validation_batches)
            for replica in replicas
        ]
        return train, validation

    def compile_predict(self, rows: int, parts: Sequence[Int[np.ndarray, _]]) -> Programs:
        """Predictions on parts of the dataset, one a fold: (trained, plans, order of buckets, data) to log p."""

        def make():
            trained = abstract(Trained.of(self.shapes()), rows, self.mesh)
            plans = self._put_plans(self.prediction_plans([0] * rows, parts))
            arguments = (trained, *plans, self.data)
            return self._compile(self._predict_of_one, arguments, self.strategy, num_shared=2)

        return self._once(("predict", rows, *self._joined.batches(parts)), make)

    def predict(
        self, trained: Trained, places: Sequence[int], parts: Sequence[Int[np.ndarray, _]]
    ) -> Float[Array, "R steps B C"]:
        """Log-probabilities of the replicas at some places on their folds' parts, in the plans' order."""
        plans = self.prediction_plans(places, parts)
        program = self.compile_predict(len(plans), parts)
        return program(self.stack(trained), *self._put_plans(plans), self.data)

    def prediction_plans(self, places: Sequence[int], parts: Sequence[Int[np.ndarray, _]]) -> list[Plan]:
        """Each row's plan that goes once through its fold's part."""
        batches = self._joined.batches(parts)
        return [
            self._joined.evaluation_plan(parts[replica.fold], batches) for replica in self._filled(places)
        ]

    def stack(self, tree: PyTree) -> PyTree:
        """Arrays of some replicas on the devices, the last replica repeated to fill them up."""
        number = len(jax.tree.leaves(tree)[0])
        chosen = np.minimum(np.arange(self.rows(number)), number - 1)
        return put(jax.tree.map(lambda x: x[chosen], tree), self.mesh, P(AXIS))

    @cached_property
    def data(self) -> DeviceData:
        """The dataset on the devices."""
        return put(on_host(self.dataset, self.trainer.model.needs, self.normalise), self.mesh, P())

    def name(self, replica: Replica) -> str:
        """A replica in words."""
        name = f"fold {self.folds[replica.fold].name} seed {replica.seed}"
        return " ".join(filter(None, (name, run_folder.setting_name(replica.setting))))

    @cached_property
    def _joined(self) -> Buckets:
        return self.buckets.joined()

    @cached_property
    def _train_batches(self) -> list[int]:
        return self.buckets.batches([fold.train for fold in self.folds])

    @cached_property
    def _validation_batches(self) -> list[int]:
        return self._joined.batches([fold.validation for fold in self.folds])

    @cached_property
    def _statistics(self) -> tuple[list, list]:
        """Normalisation and class weights of every fold."""
        train = [fold.train for fold in self.folds]
        normalisation = fold_normalisations(self.dataset, train, self.trainer.model.needs, self.normalise)
        number = len(self.dataset.classes)
        return normalisation, [
            class_weights(self.dataset.label[rows], number, self.balanced) for rows in train
        ]

    def _all(self, places: Sequence[int] | None) -> Sequence[int]:
        return range(len(self.replicas)) if places is None else places

    def _filled(self, places: Sequence[int]) -> list[Replica]:
        chosen = [self.replicas[place] for place in places]
        return chosen + chosen[-1:] * (self.rows(len(chosen)) - len(chosen))

    def _beginnings(self, replicas: Sequence[Replica]) -> tuple[PyTree, ...]:
        """Key data, hyper-parameters, normalisation and class weights of replicas."""
        normalisation, weights = self._statistics
        keys = [jax.random.fold_in(jax.random.key(replica.seed), replica.fold) for replica in replicas]
        hyper = [
            {name: np.float32(value) for name, value in {**self.hyper, **replica.setting}.items()}
            for replica in replicas
        ]
        return (
            np.stack([jax.random.key_data(key) for key in keys]),
            _stack(hyper),
            _stack([normalisation[replica.fold] for replica in replicas]),
            np.stack([weights[replica.fold] for replica in replicas]),
        )

    def _begin_one(self, key, hyper, normalisation, weights, data) -> ReplicaState:
        return self.trainer.init(jax.random.wrap_key_data(key), hyper, normalisation, weights, data)

    def _epoch_of_one(self, state, own, order, data) -> tuple[ReplicaState, EpochResult]:
        train, validation = (Plan(bucket, *one) for bucket, one in zip(order, own, strict=True))
        return self.trainer.epoch(state, train, validation, data)

    def _predict_of_one(self, trained, own, order, data) -> Float[Array, "steps B C"]:
        return self.trainer.predict(trained, Plan(*order, *own[0]), data)

    def _put_plans(self, *parts: Sequence[Plan]) -> tuple[PyTree, PyTree]:
        """Plans on the devices: each row's own (rows, weight), and the shared order of buckets."""
        own = [(np.stack([p.rows for p in plans]), np.stack([p.weight for p in plans])) for plans in parts]
        return put(own, self.mesh, BATCHES), put([plans[0].bucket for plans in parts], self.mesh, P())

    def _compile(self, function: Callable, arguments: Sequence[PyTree], strategy: str, **options) -> Programs:
        return compile_over_replicas(function, arguments, self.mesh, strategy, **options)

    def _once(self, key: tuple, make: Callable[[], Programs]) -> Programs:
        if key not in self._compiled:
            self._compiled[key] = make()
        return self._compiled[key]


def status(of: ReplicaState | Trained) -> Int[np.ndarray, " R"]:
    """Every replica's status."""
    return fetch(of.status) if isinstance(of.status, jax.Array) else of.status


def _stack(trees: Sequence[PyTree]) -> PyTree:
    """Trees of arrays as one tree with a leading replica axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
