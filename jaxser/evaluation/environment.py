"""How a run was made: software, hardware and command, with nothing private in them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

_PACKAGES = ("jaxser", "jax", "jaxlib", "flax", "optax", "numpy")


def environment(devices: Sequence[Any] = ()) -> dict[str, Any]:
    """Return versions, platform and devices.

    Nothing names the machine, a user or a folder.

    Args:
        devices: the devices in use, such as `jax.devices()`.
    """
    kinds = Counter(str(device.device_kind) for device in devices)
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "devices": [{"kind": kind, "number": number} for kind, number in sorted(kinds.items())],
    }


def command_line(arguments: Sequence[str]) -> str:
    """Return a command that can be published.

    Absolute paths, which may name a user, are cut to their last part.
    """
    return shlex.join(re.sub(r"(^|[=:])~?/(?:.*/)?", r"\1", argument) for argument in arguments)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
