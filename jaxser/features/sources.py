"""Sources of precomputed arrays: one file per utterance, or one HDF5 file.

With them, features of WavLM, emotion2vec, Whisper or of faces can be used with every model. Nothing is unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from jaxser.types import InputError, UsageError

FILES = {"frames": "audio", "video": "video", "prosody": "prosody"}
"""The flags for files of precomputed features, and the array that each one provides."""

_HDF5 = (".h5", ".hdf5", ".hdf")


@runtime_checkable
class Source(Protocol):
    """A source of one array per utterance. It is sent to worker processes, so it must not hold open files."""

    @property
    def width(self) -> int:
        """The number of columns."""

    @property
    def described(self) -> Mapping[str, Any]:
        """The entry in the manifest: everything that affects the numbers of all utterances."""

    def read(self, identity: str) -> Float[np.ndarray, "rows width"]:
        """Read the array of an utterance, which has at least one row.

        Raises:
            InputError: if there is none, or if it is unusable.
        """

    def stamp(self, identity: str) -> list[Any]:
        """Return JSON values that change whenever the array of an utterance changes."""

    def only(self, identities: Iterable[str]) -> Source:
        """Return the source restricted to some utterances, as one job needs it."""


@dataclass(frozen=True)
class ArrayFiles:
    """Files `<id>.npy` in a folder, or an HDF5 file with one dataset per id, of shape `[rows, width]` or `[width]`."""

    path: Path
    width: int

    @property
    def described(self) -> Mapping[str, Any]:
        """The entry in the manifest."""
        return {"made": "elsewhere", "width": self.width}  # a value of the manifest's format

    def read(self, identity: str) -> Float[np.ndarray, "rows width"]:
        """Read the array of an utterance; see `Source.read`."""
        found = _read(self.path, identity)
        if found.shape[1] != self.width:
            raise InputError(
                f"{_location(self.path, identity)}: rows of {found.shape[1]} numbers, "
                f"but {self.width} in the first file"
            )
        return found

    def stamp(self, identity: str) -> list[Any]:
        """Return size and modification time of the file that contains the array."""
        return file_stamp(self.path if self.path.is_file() else self.path / f"{identity}.npy")

    def only(self, identities: Iterable[str]) -> ArrayFiles:
        """Return the source itself, which does not list utterances."""
        return self


def open_arrays(path: str | Path, identities: Iterable[str], flag: str) -> ArrayFiles:
    """Open a folder or an HDF5 file of arrays. The first readable array determines the width.

    Args:
        path: the folder or file.
        identities: the ids of the utterances.
        flag: the command-line flag, for messages.

    Raises:
        UsageError: if `path` is neither a folder nor an HDF5 file, or if h5py is not installed.
        InputError: if no utterance has a readable array.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() in _HDF5:
        _h5py()
    elif not path.is_dir():
        raise UsageError(
            f"--{flag}={path}: must be a folder of <id>.npy files, or one HDF5 file ({', '.join(_HDF5)})"
        )
    first = ""
    for identity in identities:
        try:
            return ArrayFiles(path, _read(path, identity).shape[1])
        except InputError as error:
            first = first or str(error)
    if not first:
        return ArrayFiles(path, 0)  # without utterances; preparation reports this
    raise InputError(f"--{flag}={path}: no utterance has a readable array; the first: {first}")


def file_stamp(path: Path) -> list[int]:
    """Return size and modification time of a file, or an empty list if it does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]


def _read(path: Path, identity: str) -> Float[np.ndarray, "rows width"]:
    where = _location(path, identity)
    try:
        found = _read_hdf5(path, identity) if path.is_file() else _read_npy(path / f"{identity}.npy")
    except KeyError:
        raise InputError(f"{where}: no such dataset") from None
    except FileNotFoundError:
        raise InputError(f"{where}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{where}: not a readable array ({' '.join(str(error).split())})") from None
    if found.ndim not in (1, 2) or found.dtype.kind not in "fiu":
        raise InputError(
            f"{where}: expected numbers of shape [frames, width], found {found.dtype}{list(found.shape)}"
        )
    rows = np.atleast_2d(found).astype(np.float32)
    if not rows.size:
        raise InputError(f"{where}: empty, {list(found.shape)}")
    if not np.isfinite(rows).all():
        raise InputError(f"{where}: NaN or infinite numbers")
    return rows


def _read_npy(path: Path) -> np.ndarray:
    """Map the file, so that a header that announces too much data fails without allocating it. Never unpickles."""
    return np.lib.format.open_memmap(path, mode="r")


def _read_hdf5(path: Path, identity: str) -> np.ndarray:
    h5py = _h5py()
    with h5py.File(path, "r") as file:
        found = file[identity]
        if not isinstance(found, h5py.Dataset):
            raise ValueError("a group, not a dataset")
        return np.asarray(found[()])


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UsageError('HDF5 files need h5py: pip install "jaxser[frames]"') from None
    return h5py


def _location(path: Path, identity: str) -> str:
    """The location of an utterance's array in messages, without the folder, which is the same for all."""
    return f"{path.name}/{identity}" if path.is_file() else f"{identity}.npy"
