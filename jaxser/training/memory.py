"""Memory that a compiled program needs, and memory that is available."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import psutil
from jaxtyping import PyTree

from jaxser.training.programs import Programs

CGROUP = Path("/sys/fs/cgroup")


def needed(programs: Programs, allocated: PyTree = ()) -> int:
    """Return the bytes that programs need per device, or on a CPU for all devices together.

    Args:
        programs: the compiled programs.
        allocated: arguments that are on the devices already, which are not counted.
    """
    per_program, present = [], sum(x.nbytes for x in jax.tree.leaves(allocated))
    for program in programs.compiled:
        stats: Any = program.memory_analysis()
        output = stats.output_size_in_bytes - stats.alias_size_in_bytes
        per_program.append(stats.argument_size_in_bytes + stats.temp_size_in_bytes + output - present)
    devices = programs.mesh.local_mesh.devices.flat
    if devices[0].platform != "cpu":
        return max(per_program)
    return sum(per_program) if programs.per_device else per_program[0] * len(devices)


def available(devices: Sequence[jax.Device]) -> int:
    """Return the free bytes on the fullest device.

    On a CPU, they are the free bytes for all devices together.
    """
    if devices[0].platform == "cpu":
        return int(min(psutil.virtual_memory().available, _available_in_cgroup()))
    stats = [device.memory_stats() for device in devices]
    return min(one["bytes_limit"] - one["bytes_in_use"] for one in stats)


def is_exhausted(error: Exception) -> bool:
    """Return whether an error of a program means that memory ran out."""
    return "RESOURCE_EXHAUSTED" in str(error)


def _available_in_cgroup() -> int | float:
    """Return the bytes below the container's limit; infinity without a limit."""
    try:
        limit, used = ((CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return float("inf")
    return float("inf") if limit == "max" else int(limit) - int(used)
