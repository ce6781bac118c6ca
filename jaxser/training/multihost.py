"""Several processes that run one program: who writes, and how they agree."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Shaped

from jaxser.types import InputError

PROCESS = "JAXSER_PROCESS"
"""Tells a process its number and how many there are, as in "0/4"; JAX_COORDINATOR_ADDRESS tells where the first is."""


def join() -> None:
    """Join the launcher's processes, or those of a cluster that JAX detects (TPU pod, SLURM, Open MPI, Kubernetes).

    Call it before anything touches a device. Raises InputError where there are others that cannot be reached.
    """
    told = os.environ.get(PROCESS, "")
    number, _, of = told.partition("/")
    known: dict[str, Any] = {"process_id": int(number), "num_processes": int(of)} if told else {}
    try:
        with warnings.catch_warnings(action="ignore"):  # of what would be needed in a cluster
            jax.distributed.initialize(**known)
    except (ValueError, RuntimeError) as error:
        if isinstance(error, ValueError) and not told:
            return  # no cluster
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"the other processes cannot be joined ({reason}); --nodistributed runs this one alone"
        ) from None


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
