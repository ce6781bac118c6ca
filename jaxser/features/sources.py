"""Arrays of utterances that are made elsewhere: a file an utterance, or one HDF5 file.

So that features of WavLM, emotion2vec, Whisper or of a face run under every model. Nothing is unpickled.
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
"""The array that each flag's files hold."""

_HDF5 = (".h5", ".hdf5", ".hdf")


@runtime_checkable
class Source(Protocol):
    """Where one array of each utterance comes from; it goes to worker processes, so it holds no open file."""

    @property
    def width(self) -> int:
        """Numbers in a row."""

    @property
    def described(self) -> Mapping[str, Any]:
        """What the manifest says of it: whatever changes the numbers of all utterances."""

    def read(self, identity: str) -> Float[np.ndarray, "rows width"]:
        """The array of an utterance, at least one row; `InputError` says why there is none."""

    def stamp(self, identity: str) -> list[Any]:
        """What changes when the array of an utterance changes, as JSON has it."""

    def only(self, identities: Iterable[str]) -> Source:
        """The same source for some utterances: what a job needs."""


@dataclass(frozen=True)
class ArrayFiles:
    """`<id>.npy` files of `[rows, width]` in a folder, or an HDF5 file with a dataset an id; a vector is one row."""

    path: Path
    width: int

    @property
    def described(self) -> Mapping[str, Any]:
        return {"made": "elsewhere", "width": self.width}

    def read(self, identity: str) -> Float[np.ndarray, "rows width"]:
        found = _read(self.path, identity)
        if found.shape[1] != self.width:
            raise InputError(
                f"{_place(self.path, identity)}: rows of {found.shape[1]} numbers, the first file's have {self.width}"
            )
        return found

    def stamp(self, identity: str) -> list[Any]:
        return file_stamp(self.path if self.path.is_file() else self.path / f"{identity}.npy")

    def only(self, identities: Iterable[str]) -> ArrayFiles:
        return self


def open_arrays(path: str | Path, identities: Iterable[str], flag: str) -> ArrayFiles:
    """The arrays of a folder or an HDF5 file; the first that can be read says how wide all have to be.

    Raises `UsageError` where `path` is neither or h5py is missing, `InputError` where no utterance has an array.
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
        return ArrayFiles(path, 0)  # no utterances: preparation has its own words for that
    raise InputError(f"--{flag}={path}: no array of any utterance is there; the first: {first}")


def file_stamp(path: Path) -> list[int]:
    """Size and time of change of a file, as in `make`; empty where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]


def _read(path: Path, identity: str) -> Float[np.ndarray, "rows width"]:
    where = _place(path, identity)
    try:
        found = _read_hdf5(path, identity) if path.is_file() else _read_npy(path / f"{identity}.npy")
    except KeyError:
        raise InputError(f"{where}: no such dataset") from None
    except FileNotFoundError:
        raise InputError(f"{where}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{where}: not an array that can be read ({' '.join(str(error).split())})") from None
    if found.ndim not in (1, 2) or found.dtype.kind not in "fiu":
        raise InputError(
            f"{where}: numbers [frames, width] were expected, found {found.dtype}{list(found.shape)}"
        )
    rows = np.atleast_2d(found).astype(np.float32)
    if not rows.size:
        raise InputError(f"{where}: empty, {list(found.shape)}")
    if not np.isfinite(rows).all():
        raise InputError(f"{where}: NaN or infinite numbers")
    return rows


def _read_npy(path: Path) -> np.ndarray:
    """Mapped: a header that promises more than the file holds is an error, not so much memory; no pickles."""
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


def _place(path: Path, identity: str) -> str:
    """How a message calls the array of an utterance: without the folder, which says nothing about it."""
    return f"{path.name}/{identity}" if path.is_file() else f"{identity}.npy"
