"""The interface between a sweep and its data, on the devices while replicas train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PyTree

from jaxser.data.batch_schedule import BatchSchedule
from jaxser.data.device import DeviceData
from jaxser.training.mesh import BATCHES, put
from jaxser.training.programs import Programs
from jaxser.training.replica import EpochResult
from jaxser.types import ReplicaState, Trained


class EpochSchedules(NamedTuple):
    """The batches of an epoch: one schedule per row for training, and one for validation."""

    train: list[BatchSchedule]
    validation: list[BatchSchedule]


class DataSource(ABC):
    """Trains and evaluates stacked replicas on a dataset.

    States and predictions have one row per schedule. All schedules of a list share the order of their buckets.
    """

    @property
    @abstractmethod
    def is_streamed(self) -> bool:
        """Whether frames and words are brought onto the devices part by part."""

    @property
    @abstractmethod
    def on_devices(self) -> DeviceData:
        """The arrays that stay on the devices.

        They have the frames and words of at least the first utterance.
        """

    @abstractmethod
    def compile_epoch(self, state: ReplicaState, schedules: EpochSchedules) -> Programs:
        """Return the program of an epoch that needs the most memory; `state` may be shapes."""

    @abstractmethod
    def run_epoch(self, state: ReplicaState, schedules: EpochSchedules) -> tuple[ReplicaState, EpochResult]:
        """Train and validate all rows for an epoch; `state` is donated."""

    @abstractmethod
    def compile_predict(self, trained: Trained, schedules: Sequence[BatchSchedule]) -> Programs:
        """Return the program that predicts; `trained` may be shapes."""

    @abstractmethod
    def predict(self, trained: Trained, schedules: Sequence[BatchSchedule]) -> Float[Array, "R steps B K"]:
        """Return the estimates of the selected epochs, in the order of the schedules."""


def put_schedules(mesh: Mesh, *lists: Sequence[BatchSchedule]) -> tuple[PyTree, PyTree]:
    """Put schedules onto the devices.

    Args:
        mesh: the devices.
        *lists: lists of one schedule per row.

    Returns:
        For each list the stacked (rows, weight) of its schedules, and for each list the order of buckets.
    """
    own = [(np.stack([s.rows for s in part]), np.stack([s.weight for s in part])) for part in lists]
    return put(own, mesh, BATCHES), put([part[0].bucket for part in lists], mesh, P())
