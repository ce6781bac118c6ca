"""How much memory a compiled program needs, and how much there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import psutil
from jaxtyping import PyTree

from jaxser.training.mesh import Programs

CGROUP = Path("/sys/fs/cgroup")


def needed(programs: Programs, there: PyTree = ()) -> int:
    """Bytes that the programs take, of a device or on a CPU of all of them, beside arguments that are there already."""
    each, own = [], sum(x.nbytes for x in jax.tree.leaves(there))
    for program in programs.compiled:
        told: Any = program.memory_analysis()
        out = told.output_size_in_bytes - told.alias_size_in_bytes
        each.append(told.argument_size_in_bytes + told.temp_size_in_bytes + out - own)
    devices = programs.mesh.local_mesh.devices.flat
    if devices[0].platform != "cpu":
        return max(each)
    return sum(each) if programs.each else each[0] * len(devices)


def available(devices: Sequence[jax.Device]) -> int:
    """Bytes that are free: on the fullest of some devices, or for all of them where they are a CPU's."""
    if devices[0].platform == "cpu":
        return min(psutil.virtual_memory().available, _left_in_cgroup())
    told = [device.memory_stats() for device in devices]
    return min(one["bytes_limit"] - one["bytes_in_use"] for one in told)


def is_exhausted(error: Exception) -> bool:
    """Whether a program failed for want of memory."""
    return "RESOURCE_EXHAUSTED" in str(error)


def _left_in_cgroup() -> int | float:
    """What a container's limit leaves; infinity where there is none."""
    try:
        limit, used = ((CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return float("inf")
    return float("inf") if limit == "max" else int(limit) - int(used)
