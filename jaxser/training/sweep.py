"""A sweep: the fold x seed x setting grid of a run, trained together on all devices."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree

from jaxser.data.batch_schedule import BatchSchedule, Buckets
from jaxser.data.device import on_host
from jaxser.data.normalisation import fold_normalisations
from jaxser.evaluation.results import setting_name
from jaxser.models.losses import weights_of_counts
from jaxser.training.data_source import DataSource, EpochSchedules
from jaxser.training.mesh import AXIS, abstract, fetch, put, rows_for
from jaxser.training.programs import ProgramCache, Programs
from jaxser.training.replica import ReplicaTrainer
from jaxser.types import Dataset, Fold, Normalisation, ReplicaState, Status, Trained


class GridPoint(NamedTuple):
    """The fold, seed and setting of a replica."""

    fold: int
    seed: int
    setting: Mapping[str, float]


def grid(folds: int, seeds: Sequence[int], swept: Mapping[str, Sequence[float]]) -> tuple[GridPoint, ...]:
    """Return every fold with every seed and every combination of the swept hyper-parameters."""
    settings = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    return tuple(GridPoint(*point) for point in itertools.product(range(folds), seeds, settings))


@dataclass(frozen=True, eq=False)
class Sweep:
    """A grid of replicas over the folds of a dataset.

    Any of the replicas, given by their indices in the grid, can be stacked along the first axis of arrays on the
    devices. The last of them is repeated, with status `STOPPED`, until the number of rows suits the devices.

    Attributes:
        folds: the parts that replicas train on and select by, which may include copies of recordings.
        original_folds: the parts without copies, which are predicted.
        replicas: the grid.
        hyper: the hyper-parameters that are not swept.
        source: provides the utterances to the programs, and runs them.
        programs: the programs compiled so far, which the data source shares.
        split_seed: the protocol's seed, which also seeds the order of utterances.
        balanced: whether the loss weights classes by their inverse frequency.
        normalise: one of `jaxser.data.normalisation.NORMALISATIONS`.
    """

    trainer: ReplicaTrainer
    dataset: Dataset
    folds: tuple[Fold, ...]
    original_folds: tuple[Fold, ...]
    buckets: Buckets
    replicas: tuple[GridPoint, ...]
    hyper: Mapping[str, float]
    source: DataSource
    programs: ProgramCache
    split_seed: int = 0
    balanced: bool = False
    normalise: str = "train"

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.programs.mesh

    @property
    def strategy(self) -> str:
        """How replicas are mapped over the devices: one of `jaxser.training.mesh.STRATEGIES`."""
        return self.programs.strategy

    def name(self, replica: GridPoint) -> str:
        """Return a replica's name for display."""
        name = f"fold {self.folds[replica.fold].name} seed {replica.seed}"
        return " ".join(filter(None, (name, setting_name(replica.setting))))

    def rows(self, number: int) -> int:
        """Return the number of rows on the devices for `number` replicas."""
        return rows_for(number, self.mesh, self.strategy)

    def shapes(self) -> ReplicaState:
        """Return the shapes of a replica's state.

        Raises:
            FieldError: if a field of the network has an unsupported value.
        """
        own = jax.tree.map(lambda x: x[0], self._initial_arguments(self.replicas[:1]))
        return jax.eval_shape(self._initial_state, *own, on_host(self.dataset, self.trainer.model.needs))

    def initial_state(self, indices: Sequence[int] | None = None) -> ReplicaState:
        """Return replicas before their first epoch, by default all of them.

        They are initialised one after the other: batched orthogonal initialisation hangs on CPUs.
        """
        indices = self._or_all(indices)
        own = put(self._initial_arguments(self._padded(indices)), self.mesh, P(AXIS))
        arguments = (*own, self.source.on_devices)
        key = ("initial state", self.rows(len(indices)))
        program = self.programs.compile(
            key, self._initial_state, lambda: arguments, num_shared=1, strategy="map"
        )
        return self.stop_padding(program(*arguments), len(indices))

    def stack(self, tree: PyTree) -> PyTree:
        """Put stacked arrays of replicas onto the devices.

        The last replica is repeated as padding.
        """
        number = len(jax.tree.leaves(tree)[0])
        chosen = np.minimum(np.arange(self.rows(number)), number - 1)
        return put(jax.tree.map(lambda x: x[chosen], tree), self.mesh, P(AXIS))

    def stop_padding(self, state: ReplicaState, number: int) -> ReplicaState:
        """Set the status of all rows after the first `number` to `STOPPED`."""
        status = np.array(fetch(state.status))
        status[number:] = Status.STOPPED
        return state._replace(status=put(status, self.mesh, P(AXIS)))

    def schedules(self, epoch: int, indices: Sequence[int] | None = None) -> EpochSchedules:
        """Return the batches of an epoch for each row; all rows share the order of buckets."""
        replicas = self._padded(self._or_all(indices))
        train = [
            self.buckets.train_schedule(
                self.folds[fold].train, self._train_batches, (self.split_seed, fold, seed), epoch
            )
            for fold, seed, _ in replicas
        ]
        validation = [
            self._evaluation_buckets.evaluation_schedule(
                self.folds[replica.fold].validation, self._validation_batches
            )
            for replica in replicas
        ]
        return EpochSchedules(train, validation)

    def prediction_schedules(
        self, indices: Sequence[int], parts: Sequence[Int[np.ndarray, _]]
    ) -> list[BatchSchedule]:
        """Return a schedule for each row that visits its fold's part of the dataset once.

        Args:
            indices: the replicas.
            parts: dataset rows, by fold.
        """
        buckets = self._evaluation_buckets
        batches = buckets.batches(parts)
        return [
            buckets.evaluation_schedule(parts[replica.fold], batches) for replica in self._padded(indices)
        ]

    def compile_epoch(self, rows: int) -> Programs:
        """Compile an epoch of `rows` rows, and return its program that needs the most memory."""
        state = abstract(self.shapes(), rows, self.mesh)
        return self.source.compile_epoch(state, self.schedules(0, [0] * rows))

    def compile_predict(self, rows: int, parts: Sequence[Int[np.ndarray, _]]) -> Programs:
        """Compile the predictions of `rows` rows on their folds' parts of the dataset."""
        trained = abstract(Trained.of(self.shapes()), rows, self.mesh)
        return self.source.compile_predict(trained, self.prediction_schedules([0] * rows, parts))

    def predict(
        self, trained: Trained, indices: Sequence[int], parts: Sequence[Int[np.ndarray, _]]
    ) -> Float[Array, "R steps B K"]:
        """Return estimates in the order of `prediction_schedules`.

        Args:
            trained: the selected epochs of the replicas, stacked on the host.
            indices: the replicas.
            parts: dataset rows, by fold.
        """
        return self.source.predict(self.stack(trained), self.prediction_schedules(indices, parts))

    @cached_property
    def _evaluation_buckets(self) -> Buckets:
        return self.buckets.joined()

    @cached_property
    def _train_batches(self) -> list[int]:
        return self.buckets.batches([fold.train for fold in self.folds])

    @cached_property
    def _validation_batches(self) -> list[int]:
        return self._evaluation_buckets.batches([fold.validation for fold in self.folds])

    @cached_property
    def _normalisations(self) -> list[dict[str, Normalisation]]:
        train = [fold.train for fold in self.folds]
        return fold_normalisations(self.dataset, train, self.trainer.model.needs, self.normalise)

    def _or_all(self, indices: Sequence[int] | None) -> Sequence[int]:
        return range(len(self.replicas)) if indices is None else indices

    def _padded(self, indices: Sequence[int]) -> list[GridPoint]:
        chosen = [self.replicas[index] for index in indices]
        return chosen + chosen[-1:] * (self.rows(len(chosen)) - len(chosen))

    def _initial_arguments(self, replicas: Sequence[GridPoint]) -> tuple[PyTree, ...]:
        """Return key data, hyper-parameters, normalisation and class weights, stacked."""
        keys = [jax.random.fold_in(jax.random.key(replica.seed), replica.fold) for replica in replicas]
        hyper = [
            {name: np.float32(value) for name, value in {**self.hyper, **replica.setting}.items()}
            for replica in replicas
        ]
        number, target = max(len(self.dataset.classes), 1), self.trainer.target
        counts = [target.class_counts(self.dataset, fold.train, number) for fold in self.folds]
        weights = [
            weights_of_counts(counts[replica.fold], self.balanced, float(own.get("class_balance", 0)))
            for replica, own in zip(replicas, hyper, strict=True)
        ]
        return (
            np.stack([jax.random.key_data(key) for key in keys]),
            _stacked(hyper),
            _stacked([self._normalisations[replica.fold] for replica in replicas]),
            np.stack(weights),
        )

    def _initial_state(self, key, hyper, normalisation, weights, data) -> ReplicaState:
        return self.trainer.init(jax.random.wrap_key_data(key), hyper, normalisation, weights, data)


def status_of(replicas: ReplicaState | Trained) -> Int[np.ndarray, " R"]:
    """Return the status of every replica."""
    return fetch(replicas.status) if isinstance(replicas.status, jax.Array) else replicas.status


def _stacked(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
