"""Waves: replicas that are trained together because no more of them fit into memory."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, PyTree

from jaxser.training import memory
from jaxser.training.mesh import Programs
from jaxser.training.multihost import anywhere, least
from jaxser.types import UsageError

SHARE = 0.9
"""Of the free memory that a wave may take."""

T = TypeVar("T")


class Wave(NamedTuple):
    """Replicas of a grid that are trained together, and where they stand."""

    places: tuple[int, ...]
    number: int  # tells waves apart in the log
    epoch: int = 0  # how many are finished
    state: Any = None  # on the host, a row for each place; None before the first epoch

    def halves(self) -> list[Wave]:
        """The wave in two. Raises UsageError where it is a single replica."""
        if len(self.places) == 1:
            raise UsageError(
                "a single replica does not fit into memory; lower config.batch_size, or raise config.buckets"
            )
        return cut(self, -(-len(self.places) // 2))


def cut(wave: Wave, size: int) -> list[Wave]:
    """A wave in parts of at most `size` replicas."""
    return [
        Wave(
            wave.places[begin : begin + size],
            wave.number if begin == 0 else wave.places[begin],
            wave.epoch,
            jax.tree.map(lambda x, begin=begin: x[begin : begin + size], wave.state),
        )
        for begin in range(0, len(wave.places), size)
    ]


class OutOfMemory(Exception):
    """A program failed for want of memory, on this process or another."""


def in_waves(
    waves: Sequence[Wave],
    work: Callable[[Wave], object],
    halved: Callable[[Wave], Sequence[Wave]] = Wave.halves,
) -> None:
    """Do the work wave by wave; one that does not fit into memory after all is cut in two."""
    waiting = deque(waves)
    while waiting:
        wave = waiting.popleft()
        try:
            work(wave)
            continue
        except OutOfMemory:
            pass  # what the wave holds is free only behind this block
        waiting.extendleft(reversed(halved(wave)))
        warnings.warn(
            f"{len(wave.places)} replicas do not fit into memory; going on with half of them", stacklevel=2
        )


def attempt(work: Callable[[], T]) -> T:
    """The result of `work`, once it is there. Raises OutOfMemory on every process where it does on one."""
    found: Any = None
    try:
        found, failed = jax.block_until_ready(work()), False
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not memory.is_exhausted(error):
            raise
        failed = True
    if anywhere(failed):
        raise OutOfMemory
    return found


def fitting(
    number: int, devices: Sequence[jax.Device], programs: Callable[[int], Programs], there: PyTree
) -> int:
    """How many of `number` replicas go through a program at once, by what it needs beside what is `there` already.

    Waves are of the same size, so that they share a program.
    """
    size = number
    while size > 1:
        allowed = SHARE * memory.available(devices)
        need = memory.needed(programs(size), there)
        if (share := least(allowed / max(need, 1))) >= 1:
            break
        size = max(min(int(size * share), size - 1), 1)
    waves = -(-number // size)
    return -(-number // waves)


def is_worth_compacting(running: Bool[np.ndarray, " rows"], devices: int, strategy: str) -> bool:
    """Whether running replicas, dealt evenly to the devices, would take half the time.

    A replica at rest costs as much as a running one where replicas run side by side, and nothing where they do not.
    It is decided by their status alone, so that an interrupted run decides alike.
    """
    by_device = running.reshape(devices, -1)
    work = by_device.shape[1] if strategy == "vmap" else by_device.sum(1).max()
    dealt = -(-running.sum() // devices)
    return bool(0 < 2 * dealt <= work)
