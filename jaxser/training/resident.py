"""A dataset that stays on the devices: an epoch is a single program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from jaxser.data.batch_schedule import BatchSchedule
from jaxser.data.device import DeviceData, on_host
from jaxser.training.data_source import DataSource, EpochSchedules, put_schedules
from jaxser.training.mesh import put
from jaxser.training.programs import ProgramCache, Programs
from jaxser.training.replica import EpochResult, ReplicaTrainer
from jaxser.types import Dataset, ReplicaState, Trained


@dataclass(frozen=True, eq=False)
class ResidentData(DataSource):
    """The data source of a dataset that fits on the devices."""

    trainer: ReplicaTrainer
    dataset: Dataset
    programs: ProgramCache
    normalise: str = "train"

    is_streamed = False

    @cached_property
    def on_devices(self) -> DeviceData:
        """The dataset on the devices."""
        return put(on_host(self.dataset, self.trainer.model.needs, self.normalise), self.programs.mesh, P())

    def compile_epoch(self, state: ReplicaState, schedules: EpochSchedules) -> Programs:
        """Return the program of an epoch; `state` may be shapes."""
        return self.programs.compile(
            ("epoch", len(schedules.train)),
            self._epoch,
            lambda: (state, *put_schedules(self.programs.mesh, *schedules), self.on_devices),
            num_shared=2,
            donate=True,
        )

    def run_epoch(self, state: ReplicaState, schedules: EpochSchedules) -> tuple[ReplicaState, EpochResult]:
        """Train and validate all rows for an epoch; `state` is donated."""
        program = self.compile_epoch(state, schedules)
        own, order = put_schedules(self.programs.mesh, *schedules)
        data = self.on_devices
        with jax.transfer_guard("disallow"):
            return program(state, own, order, data)

    def compile_predict(self, trained: Trained, schedules: Sequence[BatchSchedule]) -> Programs:
        """Return the program that predicts; `trained` may be shapes."""
        return self.programs.compile(
            ("predict", len(schedules), len(schedules[0].bucket)),
            self._predict,
            lambda: (trained, *put_schedules(self.programs.mesh, schedules), self.on_devices),
            num_shared=2,
        )

    def predict(self, trained: Trained, schedules: Sequence[BatchSchedule]) -> Float[Array, "R steps B K"]:
        """Return the estimates of the selected epochs, in the order of the schedules."""
        program = self.compile_predict(trained, schedules)
        return program(trained, *put_schedules(self.programs.mesh, schedules), self.on_devices)

    def _epoch(self, state, own, order, data) -> tuple[ReplicaState, EpochResult]:
        train, validation = (BatchSchedule(bucket, *one) for bucket, one in zip(order, own, strict=True))
        return self.trainer.epoch(state, train, validation, data)

    def _predict(self, trained, own, order, data) -> Float[Array, "steps B K"]:
        return self.trainer.predict(trained, BatchSchedule(*order, *own[0]), data)
