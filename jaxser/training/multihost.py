"""Agreement between the processes that run one program on several hosts.

With a single process, every function here returns at once.
"""

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
"""Environment variable with the index of this process and the number of processes, such as "0/4".

`JAX_COORDINATOR_ADDRESS` is the address of process 0.
"""


def join() -> None:
    """Join the other processes of a launcher or cluster; call it before anything touches a device.

    JAX detects TPU pods, SLURM, Open MPI and Kubernetes. Without a cluster, this process runs alone.

    Raises:
        InputError: if the other processes cannot be reached.
    """
    assigned = os.environ.get(PROCESS, "")
    index, _, number = assigned.partition("/")
    given: dict[str, Any] = {"process_id": int(index), "num_processes": int(number)} if assigned else {}
    try:
        with warnings.catch_warnings(action="ignore"):  # about settings that only a cluster needs
            jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        if isinstance(error, ValueError) and not assigned:
            return  # no cluster
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"cannot join the other processes ({reason}); to run this process alone, pass --nodistributed"
        ) from None


def is_primary() -> bool:
    """Return whether this is the primary process, which writes files and prints."""
    return jax.process_index() == 0


def run_on_primary(work: Callable[[], object]) -> None:
    """Run `work` on the primary process while the others wait."""
    if is_primary():
        work()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("run_on_primary")


def any_process(value: bool) -> bool:
    """Return whether `value` is true on any process."""
    if jax.process_count() == 1:
        return value
    return bool(np.any(multihost_utils.process_allgather(np.array(value))))


def min_over_processes(value: float) -> float:
    """Return the smallest `value` of all processes."""
    if jax.process_count() == 1:
        return value
    return float(np.min(multihost_utils.process_allgather(np.array(value))))


def broadcast_from_primary(value: bool) -> bool:
    """Return the primary process's `value`."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def gather(own: Shaped[np.ndarray, " *shape"]) -> Shaped[np.ndarray, " *shape"]:
    """Merge arrays of which every process holds a part and zeros for the rest."""
    if jax.process_count() == 1:
        return own
    return multihost_utils.process_allgather(own).max(axis=0)
