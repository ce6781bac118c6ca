"""Agreement between the processes that run one program on several hosts.

With a single process, every function here returns at once.
"""

from __future__ import annotations

import atexit
import math
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Shaped

from jaxser import files
from jaxser.types import InputError

PROCESS = "JAXSER_PROCESS"
"""Environment variable with the index of this process and the number of processes, such as "0/4".

`JAX_COORDINATOR_ADDRESS` is the address of process 0.
"""

SILENT_SECONDS = 5.0
"""Seconds after which a process says that it waits for others."""

_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
"""The variables by which JAX recognises a task of SLURM; a batch script outside of `srun` does not have them all."""


def join(timeout: float, log: Callable[[str], None] = print) -> None:
    """Join the other processes of a launcher or cluster.

    Call it before anything touches a device. JAX detects TPU pods, SLURM and Open MPI. Without a cluster, or in one of
    a single process, this process runs alone.

    Args:
        timeout: seconds to wait for the other processes.
        log: called with a line if they have not joined after `SILENT_SECONDS`.

    Raises:
        InputError: if the other processes cannot be reached.
    """
    detected = _detect()
    if detected and detected.number == 1:
        return
    joining = _Joining(detected, timeout)
    joining.start()
    joining.join(min(SILENT_SECONDS, timeout))
    if joining.is_alive():
        log(f"{detected or 'a cluster'}: waiting up to {timeout:g} s for the other processes")
        joining.join(max(timeout - SILENT_SECONDS, 0))
    if joining.is_alive():
        atexit.register(_exit_at_once)
        raise InputError(
            _cannot_join(f"{detected or 'a cluster'}: the others did not answer within {timeout:g} s")
        )
    if joining.error is not None and (detected or not isinstance(joining.error, ValueError)):
        reason = str(joining.error).strip().split("\n")[0]
        raise InputError(_cannot_join(f"{detected}: {reason}" if detected else reason))


class _Detected(NamedTuple):
    """The place of this process in a cluster."""

    cluster: str
    process: int
    number: int

    def __str__(self) -> str:
        return f"{self.cluster}, process {self.process} of {self.number}"


def _detect() -> _Detected | None:
    """Return what the environment says about the cluster; None if it names no known one."""
    environment = os.environ
    if assigned := environment.get(PROCESS):
        _check_address(f"{PROCESS}={assigned} is set, but")
        index, _, number = assigned.partition("/")
        return _detected("launcher", index, number)
    if "JAX_COORDINATOR_ADDRESS" in environment:
        raise InputError(_cannot_join(f"JAX_COORDINATOR_ADDRESS is set, but {PROCESS} is not, such as 0/4"))
    if all(name in environment for name in _SLURM):
        # an interactive step has one task, whatever its job was allocated for
        number = environment.get("SLURM_STEP_NUM_TASKS", environment["SLURM_NTASKS"])
        return _detected("SLURM", environment["SLURM_PROCID"], number)
    if number := environment.get("OMPI_COMM_WORLD_SIZE", ""):
        return _detected("Open MPI", environment.get("OMPI_COMM_WORLD_RANK", ""), number)
    return None


def _check_address(because: str) -> None:
    host, _, port = os.environ.get("JAX_COORDINATOR_ADDRESS", "").rpartition(":")
    if not (host and port.isdecimal()):
        raise InputError(_cannot_join(f"{because} JAX_COORDINATOR_ADDRESS is not, such as host:1234"))


def _detected(cluster: str, index: str, number: str) -> _Detected:
    if not (index.isdecimal() and number.isdecimal() and int(index) < int(number)):
        raise InputError(_cannot_join(f"{cluster}: there is no process {index!r} of {number!r}"))
    return _Detected(cluster, int(index), int(number))


class _Joining(threading.Thread):
    """Joins a cluster in the background, because JAX ends the whole program if its own time limit passes.

    Attributes:
        error: why the cluster cannot be joined.
    """

    def __init__(self, detected: _Detected | None, timeout: float):
        super().__init__(daemon=True)
        self.error: Exception | None = None
        self._given: dict[str, Any] = {"initialization_timeout": math.ceil(timeout) + 60}
        if detected:
            self._given |= {"process_id": detected.process, "num_processes": detected.number}

    def run(self) -> None:
        """Join, and keep the error if there is one."""
        try:
            with warnings.catch_warnings(action="ignore"):  # about settings that only a cluster needs
                jax.distributed.initialize(**self._given)
        except Exception as error:  # it depends on the kind of cluster
            self.error = error


def _cannot_join(reason: str) -> str:
    return f"cannot join the other processes ({reason}); to run this process alone, pass --nodistributed"


def _exit_at_once() -> None:
    """End the process without waiting for a thread that is still joining, and without its messages."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)


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


@contextmanager
def locked_by_primary(folder: Path, advice: str) -> Iterator[None]:
    """Lock a folder on the primary process; if that fails, all processes stop.

    Args:
        folder: as in `jaxser.files.lock`.
        advice: as in `jaxser.files.lock`.

    Raises:
        InputError: if another program holds the lock.
    """
    with ExitStack() as stack:
        error: Exception | None = None
        if is_primary():
            try:
                stack.enter_context(files.lock(folder, advice))
            except (InputError, OSError) as raised:
                error = raised
        if broadcast_from_primary(error is not None):
            raise error or InputError(f"{folder} cannot be locked, as the message of process 0 says")
        yield
