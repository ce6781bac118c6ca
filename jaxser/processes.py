"""Several processes that run one program: who writes, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Shaped

PROCESS = "JAXSER_PROCESS"
"""Set by the launcher: this process's number and how many there are, such as "0/4"."""


def join() -> None:
    """Join the launcher's processes, or those of a cluster that JAX detects (TPU pod, SLURM, Open MPI, Kubernetes).

    Call it before anything touches a device.
    """
    if told := os.environ.get(PROCESS):
        number, of = map(int, told.split("/"))
        jax.distributed.initialize(
            num_processes=of, process_id=number
        )  # the address is JAX_COORDINATOR_ADDRESS
        return
    try:
        jax.distributed.initialize()
    except ValueError:  # no cluster
        return


def leads() -> bool:
    """Whether this is the process that writes and speaks."""
    return jax.process_index() == 0


def first(work: Callable[[], object]) -> None:
    """Let the leading process do something that the others wait for."""
    if leads():
        work()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("first")


def anywhere(here: bool) -> bool:
    """Whether it is so on any process."""
    return (
        bool(np.any(multihost_utils.process_allgather(np.array(here)))) if jax.process_count() > 1 else here
    )


def least(number: float) -> float:
    """The smallest of all processes' numbers."""
    return (
        float(np.min(multihost_utils.process_allgather(np.array(number))))
        if jax.process_count() > 1
        else number
    )


def as_leader(here: bool) -> bool:
    """What the leading process decides."""
    return bool(multihost_utils.broadcast_one_to_all(np.array(here))) if jax.process_count() > 1 else here


def whole(own: Shaped[np.ndarray, " *shape"]) -> Shaped[np.ndarray, " *shape"]:
    """The numbers of which every process has some, and zero for the others."""
    return multihost_utils.process_allgather(own).max(axis=0) if jax.process_count() > 1 else own
