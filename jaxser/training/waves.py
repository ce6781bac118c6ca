"""Waves of replicas that are trained together because more would not fit into memory."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, PyTree

from jaxser.training import memory
from jaxser.training.multihost import any_process, min_over_processes
from jaxser.training.programs import Programs
from jaxser.types import UsageError

MEMORY_FRACTION = 0.9
"""Fraction of the free memory that a wave may take."""

T = TypeVar("T")


class Wave(NamedTuple):
    """Replicas that are trained together.

    Attributes:
        indices: the replicas' indices in the grid.
        number: identifies the wave in the log.
        epoch: the number of finished epochs.
        state: the stacked replicas on the host; None before the first epoch.
    """

    indices: tuple[int, ...]
    number: int
    epoch: int = 0
    state: Any = None

    def halves(self) -> list[Wave]:
        """Split the wave in two.

        Raises:
            UsageError: if it has a single replica.
        """
        if len(self.indices) == 1:
            raise UsageError(
                "a single replica does not fit into memory; lower config.batch_size or raise config.buckets"
            )
        return split(self, -(-len(self.indices) // 2))


def split(wave: Wave, size: int) -> list[Wave]:
    """Split a wave into waves of at most `size` replicas."""
    return [
        Wave(
            wave.indices[begin : begin + size],
            wave.number if begin == 0 else wave.indices[begin],
            wave.epoch,
            jax.tree.map(lambda x, begin=begin: x[begin : begin + size], wave.state),
        )
        for begin in range(0, len(wave.indices), size)
    ]


class OutOfMemory(Exception):
    """A program ran out of memory, on this process or another."""


def run_waves(
    waves: Sequence[Wave],
    work: Callable[[Wave], object],
    halve: Callable[[Wave], Sequence[Wave]] = Wave.halves,
) -> None:
    """Call `work` on each wave, and on the halves of a wave that runs out of memory."""
    waiting = deque(waves)
    while waiting:
        wave = waiting.popleft()
        try:
            work(wave)
            continue
        except OutOfMemory:
            pass  # the exception holds on to the wave's arrays, so halve it after this block
        waiting.extendleft(reversed(halve(wave)))
        warnings.warn(
            f"{len(wave.indices)} replicas do not fit into memory; continuing with half as many at a time",
            stacklevel=2,
        )


def attempt(work: Callable[[], T]) -> T:
    """Return the result of `work` once it is computed.

    Raises:
        OutOfMemory: if a process runs out of memory; it is raised on every process.
    """
    result: Any = None
    try:
        result, failed = jax.block_until_ready(work()), False
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not memory.is_exhausted(error):
            raise
        failed = True
    if any_process(failed):
        raise OutOfMemory
    return result


def wave_size(
    number: int, devices: Sequence[jax.Device], compile_for: Callable[[int], Programs], allocated: PyTree
) -> int:
    """Return how many replicas to train at once, so that they fit into memory.

    All waves have about the same size, so that they share a program.

    Args:
        number: the number of replicas to train.
        devices: the devices of this process.
        compile_for: compiles the program for a number of replicas.
        allocated: arguments of the program that are on the devices already.
    """
    size = number
    while size > 1:
        allowed = MEMORY_FRACTION * memory.available(devices)
        needed = memory.needed(compile_for(size), allocated)
        if (ratio := min_over_processes(allowed / max(needed, 1))) >= 1:
            break
        size = max(min(int(size * ratio), size - 1), 1)
    waves = -(-number // size)
    return -(-number // waves)


def is_worth_compacting(running: Bool[np.ndarray, " rows"], devices: int, strategy: str) -> bool:
    """Return whether the running replicas alone would take half the time.

    They would be spread evenly over the devices. Under "vmap", a stopped replica costs as much as a running one; under
    other strategies it costs nothing. The decision depends only on the status of the replicas, so an interrupted run
    decides in the same way.
    """
    by_device = running.reshape(devices, -1)
    work = by_device.shape[1] if strategy == "vmap" else by_device.sum(1).max()
    compacted = -(-running.sum() // devices)
    return bool(0 < 2 * compacted <= work)
