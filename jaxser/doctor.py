"""Print what a problem report needs: versions, devices, caches and missing extras.

`python -m jaxser.doctor` computes a small product on every device and compares it with NumPy. It exits with status 1
if a device computes it wrong, or if a package that jaxser needs is missing or too old. It names no user and no folder
but the cache, so that its output can be published.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from jaxser import cli
from jaxser.cli import CACHE_DIR, run_command

with cli.importing("jaxser.doctor"):
    import jax
    import numpy as np

FEATURES = {
    "lld": "recipe lld, and SVMs on openSMILE's functionals",
    "video": "video, and audio in formats that libsndfile does not read",
    "asr": "--asr=faster-whisper: transcripts of recordings",
    "align": "--align=pocketsphinx: word times of English transcripts",
    "frames": "features in HDF5 files",
    "beam": "--runner=beam: preparation by Apache Beam",
    "tensorboard": "--tensorboard",
    "convert": "python -m jaxser.encoders.convert: encoders that are saved as pytorch_model.bin",
    "cuda": "NVIDIA GPUs",
    "tpu": "TPUs",
}
"""What users need each extra for; the other extras are for developers."""

MATRIX = 64
"""The size of the product that each device computes."""


@dataclass(frozen=True)
class Missing:
    """A requirement that is not met.

    Attributes:
        requirement: the package and its version, such as "optax>=0.2".
        found: the version that is installed; None if there is none.
    """

    requirement: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.requirement} ({f'found {self.found}' if self.found else 'not installed'})"


def missing(extra: str = "", package: str = "jaxser") -> list[Missing]:
    """Return the requirements of a package, or of one of its extras, that are not met."""
    found = []
    for requirement in map(Requirement, metadata.requires(package) or ()):
        marker = requirement.marker
        if not (marker.evaluate({"extra": extra}) if marker else not extra):
            continue
        if extra and marker and marker.evaluate({"extra": ""}):
            continue  # it is needed on this platform without the extra
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            found.append(Missing(f"{requirement.name}{requirement.specifier}", version))
        else:
            for own in requirement.extras:
                found += missing(own, requirement.name)
    return found


def device_fault(device: jax.Device) -> str:
    """Return what is wrong with a product on a device; "" if it equals NumPy's."""
    values = np.random.default_rng(0).normal(size=(MATRIX, MATRIX)).astype(np.float32)
    try:
        with jax.default_matmul_precision("highest"):
            product = jax.jit(lambda x: x @ x.T)(jax.device_put(values, device))
        difference = np.abs(
            np.asarray(product) - values.astype(np.float64) @ values.T.astype(np.float64)
        ).max()
    except RuntimeError as error:  # of XLA
        return str(error).splitlines()[0]
    return "" if difference < 1e-3 else f"a product of matrices differs from NumPy's by {difference:.2g}"


def run() -> int:
    """Run the command line, and return its exit status."""
    arguments = cli.parser("jaxser.doctor", "python -m jaxser.doctor", __doc__)
    arguments.add_argument("--cache_dir", default=CACHE_DIR, help="folder of compiled programs (%(default)s)")
    cache = arguments.parse_args().cache_dir
    return run_command("jaxser.doctor", lambda: _examine(cache), prints_result=True)


def _examine(cache: str) -> int:
    """Print all sections, and return the exit status."""
    needed, faults = missing(), {device: device_fault(device) for device in jax.devices()}
    _print("Versions", _versions())
    _print("Machine", _machine())
    _print("Devices", [_described(device, fault) for device, fault in faults.items()])
    _print("Cache of compiled programs", [_cache(cache)])
    _print("Extras", _extras())
    problems = [f"jaxser needs {one}: run pip install 'jaxser'" for one in needed]
    problems += [f"{device}: {fault}" for device, fault in faults.items() if fault]
    _print("Problems", problems or ["none found"])
    return int(bool(problems))


def _versions() -> list[str]:
    names = ("jaxser", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "librosa")
    return [f"python {platform.python_version()}", *(f"{name} {_version(name) or '-'}" for name in names)]


def _machine() -> Iterator[str]:
    yield f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    memory = psutil.virtual_memory()
    yield f"{memory.total / 1e9:.1f} GB of memory, {memory.available / 1e9:.1f} GB available"
    yield f"{shutil.disk_usage('.').free / 1e9:.1f} GB free on the disk of this folder"
    flags = {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_PLATFORMS") if os.environ.get(name)}
    yield from (f"{name}={value}" for name, value in flags.items())


def _described(device: jax.Device, fault: str) -> str:
    statistics = device.memory_stats() or {}
    size = statistics.get("bytes_limit")
    memory = f", {size / 1e9:.1f} GB" if size else ""
    return f"{device.platform} {device.id}: {device.device_kind}{memory}, {fault or 'computes as NumPy'}"


def _cache(folder: str) -> str:
    if not folder:
        return "none: the user has no home that can be written; give --cache_dir"
    sizes = [path.stat().st_size for path in Path(folder).glob("*") if path.is_file()]
    return f"{folder}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB"


def _extras() -> Iterator[str]:
    for extra, feature in FEATURES.items():
        lacks = missing(extra)
        state = f"missing: pip install 'jaxser[{extra}]'" if lacks else "installed"
        yield f"{extra}: {feature}; {state}"


def _print(title: str, lines: Sequence[str] | Iterator[str]) -> None:
    cli.log(title)
    for line in lines:
        cli.log(f"    {line}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(run())
