"""A sweep over a dataset that does not fit on the devices: an epoch in parts, each with its own utterances' frames.

Plans, steps and results are those of the resident sweep. While the devices work on a part, Grain's threads gather the
next from the host's arrays. Labels, lengths and word vectors stay on the devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree

from jaxser.data.batch_schedule import Plan
from jaxser.data.device import DeviceData, Sequences, on_host
from jaxser.training import memory
from jaxser.training.mesh import AXIS, Programs, abstract, fetch, put
from jaxser.training.replica import EpochResult
from jaxser.training.sweep import Sweep
from jaxser.types import ReplicaState, Trained

SHARE = 0.5
"""Of the free memory that a resident dataset may take."""

AHEAD = 2
"""Parts that are on the devices at once: one at work, and the next."""

Arrays = Mapping[str, Sequences]


class Part(NamedTuple):
    """Consecutive steps of every row's plan, and the frames and words that they read."""

    begin: int
    plans: list[Plan]
    arrays: Arrays


def fits(sweep: Sweep, budget: int) -> bool:
    """Whether a sweep's dataset may stay on its devices, within `budget` bytes (0: what their memory allows)."""
    host = on_host(sweep.dataset, sweep.trainer.model.needs)
    size, devices = sum(x.nbytes for x in jax.tree.leaves(host)), sweep.mesh.local_devices
    if budget:
        return size <= budget
    copies = len(devices) if devices[0].platform == "cpu" else 1
    return size * copies <= SHARE * memory.available(devices)


def streamed(sweep: Sweep, budget: int) -> StreamedSweep:
    """The same sweep with its dataset brought in parts."""
    made = {field.name: getattr(sweep, field.name) for field in fields(Sweep) if field.init}
    return StreamedSweep(**made, budget=budget)


@dataclass(frozen=True, eq=False)
class StreamedSweep(Sweep):
    """A sweep with so many bytes of its dataset on a device (0: half of the free memory), or two steps' at least."""

    budget: int = 0

    @cached_property
    def data(self) -> DeviceData:
        """What stays on the devices. Of frames only the first utterance's, by which replicas are begun."""
        return put(self._host._replace(arrays=self._gathered(np.array([0]), {})), self.mesh, P())

    def compile_epoch(self, rows: int) -> Programs:
        """The training steps of a part, which take the most memory."""

        def make():
            part = next(self._parts(self.plans(0, [0] * rows)[0]))
            state = abstract(self.shapes(), rows, self.mesh)
            arguments = (state, *self._put_part(part))
            return self._compile(self._train_part_of_one, arguments, self.strategy, num_shared=3, donate=True)

        return self._once(("part", rows), make)

    def run_epoch(
        self, state: ReplicaState, plans: tuple[list[Plan], list[Plan]]
    ) -> tuple[ReplicaState, EpochResult]:
        """Train and validate all rows for an epoch; the state that is given is used up."""
        train, validation = plans
        program = self.compile_epoch(len(train))

        def step(part):
            nonlocal state
            with jax.transfer_guard("disallow"):
                state, losses = program(state, *part)
            return losses

        losses = self._in_turn(train, step)
        log_probs = self._in_turn(validation, lambda part: self._validate(state, part))
        return self._judged(state, plans, losses, log_probs)

    def compile_predict(self, rows: int, parts: Sequence[Int[np.ndarray, _]]) -> Programs:
        """Predictions on a part of a plan."""
        plans = self.prediction_plans([0] * rows, parts)

        def make():
            trained = abstract(Trained.of(self.shapes()), rows, self.mesh)
            arguments = (trained, *self._put_part(next(self._parts(plans))))
            return self._compile(self._predict_part_of_one, arguments, self.strategy, num_shared=3)

        return self._once(("predict part", rows, len(plans[0].bucket)), make)

    def predict(
        self, trained: Trained, places: Sequence[int], parts: Sequence[Int[np.ndarray, _]]
    ) -> Float[Array, "R steps B C"]:
        """Log-probabilities of the replicas at some places on their folds' parts, in the plans' order."""
        plans, kept = self.prediction_plans(places, parts), self.stack(trained)
        program = self.compile_predict(len(plans), parts)
        return put(self._in_turn(plans, lambda part: program(kept, *part)), self.mesh, P(AXIS))

    def _in_turn(self, plans: Sequence[Plan], work: Callable[[PyTree], PyTree]) -> np.ndarray:
        """What `work` tells of every row's steps, part by part: a part is brought while the one before is at work."""
        done, running = [], []
        for part in self._parts(plans):
            running.append(work(self._put_part(part)))
            if len(running) == AHEAD:
                done.append(fetch(running.pop(0)))
        done += map(fetch, running)
        return np.concatenate(done, axis=1)[:, : len(plans[0].bucket)]

    @cached_property
    def _host(self) -> DeviceData:
        return on_host(self.dataset, self.trainer.model.needs, self.normalise)

    @cached_property
    def _longest(self) -> Mapping[str, int]:
        """Steps of each array that an utterance has at most."""
        return {
            name: min(int(sequences.length.max()), max(widths[name] for widths in self.buckets.widths))
            for name, sequences in self._host.arrays.items()
        }

    @cached_property
    def _budget(self) -> int:
        return self.budget or int(SHARE * memory.available(self.mesh.local_devices))

    def _size(self, rows: int) -> int:
        """Steps of a part, such that the longest utterances fit; XLA takes a loop over one step apart, so two."""
        frames = self._host.arrays.items()
        utterance = sum(self._longest[name] * x.values[:1].nbytes for name, x in frames)
        return max(self._budget // (AHEAD * rows * self.buckets.batch_size * utterance), 2)

    def _parts(self, plans: Sequence[Plan]) -> Iterator[Part]:
        """The parts of all rows' plans, gathered ahead in threads."""
        import grain  # a second, for those that stream alone

        steps = len(plans[0].bucket)
        size = min(self._size(len(plans)), steps)
        utterances = len(plans) * size * self.buckets.batch_size
        most = {
            name: min(utterances * longest, len(self._host.arrays[name].values))
            for name, longest in self._longest.items()
        }

        def gather(begin: int) -> Part:
            cut = [_cut(plan, int(begin), size) for plan in plans]
            rows = np.unique(np.concatenate([plan.rows[plan.weight > 0] for plan in cut]))
            return Part(int(begin), cut, self._gathered(rows, most))

        parts = grain.MapDataset.source(range(0, steps, size)).map(gather)
        return iter(parts.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)))

    def _gathered(self, rows: Int[np.ndarray, " n"], most: Mapping[str, int]) -> Arrays:
        """The frames and words of some utterances alone, in arrays of `most` steps, or as many as they have."""
        arrays = {}
        for name, (values, offset, length) in self._host.arrays.items():
            own = np.minimum(length[rows], self._longest[name])
            begins = np.cumsum(own) - own
            kept = np.zeros((most.get(name, int(own.sum())), *values.shape[1:]), values.dtype)
            for row, begin, number in zip(rows, begins, own, strict=True):
                kept[begin : begin + number] = values[offset[row] : offset[row] + number]
            placed = np.zeros_like(offset)
            placed[rows] = begins
            arrays[name] = Sequences(kept, placed, length)
        return arrays

    def _put_part(self, part: Part) -> tuple[PyTree, ...]:
        """A part's own (rows, weight), buckets, first step and data on the devices."""
        (own,), (order,) = self._put_plans(part.plans)
        begin, arrays = put((np.int32(part.begin), part.arrays), self.mesh, P())
        return own, order, begin, self.data._replace(arrays=arrays)

    def _validate(self, state: ReplicaState, part: PyTree) -> Float[Array, "R part B C"]:
        def make():
            return self._compile(self._validate_part_of_one, (state, *part), self.strategy, num_shared=3)

        return self._once(("validate part", len(part[0][0])), make)(state, *part)

    def _judged(self, state, plans, losses, log_probs) -> tuple[ReplicaState, EpochResult]:
        """The epoch's end, from all steps' losses and validation's log-probabilities."""
        own, (_, order) = self._put_plans(*plans)
        told = put((losses, log_probs), self.mesh, P(AXIS))
        arguments = (state, own, told, order, self.data)

        def make():
            return self._compile(self._judge_one, arguments, self.strategy, num_shared=2, donate=True)

        return self._once(("judge", len(losses)), make)(*arguments)

    def _train_part_of_one(
        self, state, own, order, begin, data
    ) -> tuple[ReplicaState, Float[Array, " part"]]:
        steps = sum(self._train_batches)
        return self.trainer.train_part(state, Plan(order, *own), begin, steps, data)

    def _validate_part_of_one(self, state, own, order, _, data) -> Float[Array, "part B C"]:
        return self.trainer.validate_part(state, Plan(order, *own), data)

    def _predict_part_of_one(self, trained, own, order, _, data) -> Float[Array, "part B C"]:
        return self.trainer.predict(trained, Plan(order, *own), data)

    def _judge_one(self, state, own, told, order, data) -> tuple[ReplicaState, EpochResult]:
        (_, weight), validation = own
        losses, log_probs = told
        return self.trainer.judge(state, losses, weight, log_probs, Plan(order, *validation), data.label)


def _cut(plan: Plan, begin: int, size: int) -> Plan:
    """So many steps of a plan, those behind its end idle."""
    own = [x[begin : begin + size] for x in plan]
    return Plan(*(np.pad(x, [(0, size - len(x))] + [(0, 0)] * (x.ndim - 1)) for x in own))
