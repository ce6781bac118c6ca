"""A dataset that does not fit on the devices: an epoch in parts.

Each part has the frames of its own utterances. Schedules, steps and results are those of a resident dataset. While the
devices work on a part, a Grain thread gathers the next one from host memory. Labels, lengths and word vectors stay on
the devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree

from jaxser.data.batch_schedule import BatchSchedule, Buckets
from jaxser.data.device import DeviceData, Sequences, on_host
from jaxser.training import memory
from jaxser.training.data_source import DataSource, EpochSchedules, put_schedules
from jaxser.training.mesh import AXIS, fetch, put
from jaxser.training.programs import ProgramCache, Programs
from jaxser.training.replica import EpochResult, ReplicaTrainer, StepResult, if_running
from jaxser.training.resident import ResidentData
from jaxser.types import Dataset, ReplicaState, Trained

MEMORY_FRACTION = 0.5
"""Fraction of the free memory that a dataset may take."""

PARTS_ON_DEVICES = 2
"""The part that is being worked on, and the next one."""

Arrays = Mapping[str, Sequences]


class Part(NamedTuple):
    """Consecutive steps of every row's schedule, with the frames and words that they read."""

    begin: int
    schedules: list[BatchSchedule]
    arrays: Arrays


def choose_data_source(
    trainer: ReplicaTrainer,
    dataset: Dataset,
    buckets: Buckets,
    programs: ProgramCache,
    normalise: str = "train",
    budget: int = 0,
) -> DataSource:
    """Return a data source that keeps a dataset on the devices if it fits, or else streams it.

    Args:
        trainer: the programs of a replica.
        dataset: the dataset.
        buckets: its buckets.
        programs: a cache that the sweep shares.
        normalise: one of `jaxser.data.normalisation.NORMALISATIONS`.
        budget: bytes of a device's memory that the dataset may take; 0 allows half of what is free.
    """
    if fits(dataset, trainer.model.needs, programs.mesh, budget):
        return ResidentData(trainer, dataset, programs, normalise)
    return StreamedData(trainer, dataset, buckets, programs, normalise, budget)


def fits(dataset: Dataset, needs: tuple[str, ...], mesh: Mesh, budget: int) -> bool:
    """Return whether a dataset may stay on the devices.

    Args:
        dataset: the dataset.
        needs: the arrays that the model reads.
        mesh: the devices.
        budget: bytes allowed per device; 0 allows half of the free memory.
    """
    size = sum(x.nbytes for x in jax.tree.leaves(on_host(dataset, needs)))
    if budget:
        return size <= budget
    devices = mesh.local_devices
    copies = len(devices) if devices[0].platform == "cpu" else 1
    return size * copies <= MEMORY_FRACTION * memory.available(devices)


@dataclass(frozen=True, eq=False)
class StreamedData(DataSource):
    """The data source of a dataset that does not fit on the devices.

    Attributes:
        budget: bytes of frames and words on a device at a time; 0 for half of the free memory. A part has at least
            two steps, whatever the budget.
    """

    trainer: ReplicaTrainer
    dataset: Dataset
    buckets: Buckets
    programs: ProgramCache
    normalise: str = "train"
    budget: int = 0

    is_streamed = True

    @cached_property
    def on_devices(self) -> DeviceData:
        """The arrays that stay on the devices.

        They have the frames and words of the first utterance only.
        """
        first = self._gather(np.array([0]), {})
        return put(self._host._replace(arrays=first), self.programs.mesh, P())

    def compile_epoch(self, state: ReplicaState, schedules: EpochSchedules) -> Programs:
        """Return the program that trains on a part, which needs the most memory.

        `state` may be shapes.
        """
        return self._compile_training(
            state, schedules.train, lambda: self._put_part(next(self.parts(schedules.train)))
        )

    def run_epoch(self, state: ReplicaState, schedules: EpochSchedules) -> tuple[ReplicaState, EpochResult]:
        """Train and validate all rows for an epoch; `state` is donated."""

        def train(part):
            nonlocal state
            program = self._compile_training(state, schedules.train, lambda: part)
            with jax.transfer_guard("disallow"):
                state, steps = program(state, *part)
            return steps

        steps = self._for_each_part(schedules.train, train)
        state = self._end_training(state)
        estimates = self._for_each_part(schedules.validation, lambda part: self._validate(state, part))
        return self._finish_epoch(state, schedules, steps, estimates)

    def compile_predict(self, trained: Trained, schedules: Sequence[BatchSchedule]) -> Programs:
        """Return the program that predicts on a part; `trained` may be shapes."""
        return self._compile_prediction(
            trained, schedules, lambda: self._put_part(next(self.parts(schedules)))
        )

    def predict(self, trained: Trained, schedules: Sequence[BatchSchedule]) -> Float[Array, "R steps B K"]:
        """Return the estimates of the selected epochs, in the order of the schedules."""

        def predict(part):
            return self._compile_prediction(trained, schedules, lambda: part)(trained, *part)

        return put(self._for_each_part(schedules, predict), self.programs.mesh, P(AXIS))

    def parts(self, schedules: Sequence[BatchSchedule]) -> Iterator[Part]:
        """Cut all rows' schedules into parts, gathered ahead in a thread."""
        import grain  # takes a second to import, and only streaming needs it

        steps = len(schedules[0].bucket)
        size = min(self._steps_per_part(len(schedules)), steps)
        utterances = len(schedules) * size * self.buckets.batch_size
        totals = {
            name: min(utterances * longest, len(self._host.arrays[name].values))
            for name, longest in self._longest.items()
        }

        def gather(begin: int) -> Part:
            cut = [_cut(schedule, int(begin), size) for schedule in schedules]
            rows = np.unique(np.concatenate([schedule.rows[schedule.weight > 0] for schedule in cut]))
            return Part(int(begin), cut, self._gather(rows, totals))

        dataset = grain.MapDataset.source(range(0, steps, size)).map(gather)
        return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)))

    def _for_each_part(self, schedules: Sequence[BatchSchedule], work: Callable[[PyTree], PyTree]) -> Any:
        """Concatenate the outputs of `work` over the parts; the next part is brought while one is worked on."""
        done, running = [], []
        for part in self.parts(schedules):
            running.append(work(self._put_part(part)))
            if len(running) == PARTS_ON_DEVICES:
                done.append(fetch(running.pop(0)))
        done += map(fetch, running)
        steps = len(schedules[0].bucket)
        return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1)[:, :steps], *done)

    @cached_property
    def _host(self) -> DeviceData:
        return on_host(self.dataset, self.trainer.model.needs, self.normalise)

    @cached_property
    def _longest(self) -> Mapping[str, int]:
        """The largest number of steps that is read of an utterance, by array."""
        return {
            name: min(int(sequences.length.max()), max(widths[name] for widths in self.buckets.widths))
            for name, sequences in self._host.arrays.items()
        }

    @cached_property
    def _bytes(self) -> int:
        return self.budget or int(MEMORY_FRACTION * memory.available(self.programs.mesh.local_devices))

    def _steps_per_part(self, rows: int) -> int:
        """Return the steps for which the longest utterances fit.

        There are at least two, as XLA unrolls a loop over a single step.
        """
        arrays = self._host.arrays.items()
        utterance = sum(self._longest[name] * x.values[:1].nbytes for name, x in arrays)
        return max(self._bytes // (PARTS_ON_DEVICES * rows * self.buckets.batch_size * utterance), 2)

    def _gather(self, rows: Int[np.ndarray, " n"], totals: Mapping[str, int]) -> Arrays:
        """Gather the frames and words of some utterances, padded to a total length by array."""
        arrays = {}
        for name, (values, offset, length) in self._host.arrays.items():
            own = np.minimum(length[rows], self._longest[name])
            begins = np.cumsum(own) - own
            gathered = np.zeros((totals.get(name, int(own.sum())), *values.shape[1:]), values.dtype)
            for row, begin, number in zip(rows, begins, own, strict=True):
                gathered[begin : begin + number] = values[offset[row] : offset[row] + number]
            new_offset = np.zeros_like(offset)
            new_offset[rows] = begins
            arrays[name] = Sequences(gathered, new_offset, length)
        return arrays

    def _put_part(self, part: Part) -> tuple[PyTree, ...]:
        """Put (rows, weight), buckets, the first step and the data of a part onto the devices."""
        (own,), (order,) = put_schedules(self.programs.mesh, part.schedules)
        begin, arrays = put((np.int32(part.begin), part.arrays), self.programs.mesh, P())
        return own, order, begin, self.on_devices._replace(arrays=arrays)

    def _compile_training(self, state, schedules, part: Callable[[], PyTree]) -> Programs:
        steps = len(schedules[0].bucket)
        return self.programs.compile(
            ("train part", len(schedules), steps),
            partial(self._train_part, steps),
            lambda: (state, *part()),
            num_shared=3,
            donate=True,
        )

    def _compile_prediction(self, trained, schedules, part: Callable[[], PyTree]) -> Programs:
        key = ("predict part", len(schedules), len(schedules[0].bucket))
        return self.programs.compile(key, self._predict_part, lambda: (trained, *part()), num_shared=3)

    def _validate(self, state: ReplicaState, part: PyTree) -> Float[Array, "R part B K"]:
        arguments = (state, *part)
        key = ("validate part", len(part[0][0]))
        return self.programs.compile(key, self._validate_part, lambda: arguments, num_shared=3)(*arguments)

    def _end_training(self, state: ReplicaState) -> ReplicaState:
        """Update the averages over epochs, if there are any."""
        if not jax.tree.leaves(state.average):
            return state
        arguments = (state, self.on_devices)
        key = ("end training", len(state.status))
        program = self.programs.compile(key, self._end, lambda: arguments, num_shared=1, donate=True)
        return program(*arguments)

    def _finish_epoch(self, state, schedules, steps, estimates) -> tuple[ReplicaState, EpochResult]:
        """Score the epoch, from the results of all steps and the estimates of the validation part."""
        own, order = put_schedules(self.programs.mesh, *schedules)
        outputs = put((steps, estimates), self.programs.mesh, P(AXIS))
        arguments = (state, own, outputs, order, self.on_devices)
        key = ("finish epoch", len(estimates))
        program = self.programs.compile(key, self._finish, lambda: arguments, num_shared=2, donate=True)
        return program(*arguments)

    def _train_part(self, steps, state, own, order, begin, data) -> tuple[ReplicaState, StepResult]:
        return self.trainer.train_part(state, BatchSchedule(order, *own), begin, steps, data)

    def _validate_part(self, state, own, order, _, data) -> Float[Array, "part B K"]:
        return self.trainer.validate_part(state, BatchSchedule(order, *own), data)

    def _predict_part(self, trained, own, order, _, data) -> Float[Array, "part B K"]:
        return self.trainer.predict(trained, BatchSchedule(order, *own), data)

    def _end(self, state, _) -> ReplicaState:
        return if_running(state, self.trainer.end_training, lambda state: state)

    def _finish(self, state, own, outputs, order, data) -> tuple[ReplicaState, EpochResult]:
        train, validation = (BatchSchedule(bucket, *one) for bucket, one in zip(order, own, strict=True))
        steps, estimates = outputs

        def finish(state):
            truth = self.trainer.target.truth(data)
            return self.trainer.finish_epoch(state, steps, train, estimates, validation, truth)

        return if_running(state, finish, self.trainer.skip_epoch)


def _cut(schedule: BatchSchedule, begin: int, size: int) -> BatchSchedule:
    """Return `size` steps of a schedule; steps beyond its end are idle."""
    own = [x[begin : begin + size] for x in schedule]
    return BatchSchedule(*(np.pad(x, [(0, size - len(x))] + [(0, 0)] * (x.ndim - 1)) for x in own))
