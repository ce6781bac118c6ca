"""Sources of precomputed arrays: one file per utterance, or one HDF5 file.

With them, features of WavLM, emotion2vec, Whisper or of faces can be used with every model. Nothing is unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from jaxser.features.paths import OUTSIDE, check_regular, leaves, open_regular
from jaxser.types import InputError, UsageError

FILES = {"frames": "audio", "video": "video", "prosody": "prosody"}
"""The flags for files of precomputed features, and the array that each one provides."""

_HDF5 = (".h5", ".hdf5", ".hdf")


@runtime_checkable
class Source(Protocol):
    """A source of one array per utterance.

    It is sent to worker processes, so it must not hold open files.
    """

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
    """Files `<id>.npy` in a folder, or an HDF5 file with one dataset per id.

    The shape is `[rows, width]` or `[width]`.

    Attributes:
        path: the folder or file.
        width: the number of columns.
        max_rows: the rows that the recipe uses. One more is read, which shows that an array is longer.
        allow_outside_root: whether ids and links may lead out of the folder.
    """

    path: Path
    width: int
    max_rows: int
    allow_outside_root: bool = False

    @property
    def described(self) -> Mapping[str, Any]:
        """The entry in the manifest."""
        return {"made": "elsewhere", "width": self.width}  # a value of the manifest's format

    def read(self, identity: str) -> Float[np.ndarray, "rows width"]:
        """Read the array of an utterance; see `Source.read`."""
        found = self.rows(identity)
        if found.shape[1] != self.width:
            raise InputError(
                f"{_location(self.path, identity)}: rows of {found.shape[1]} numbers, "
                f"but {self.width} in the first file"
            )
        return found

    def rows(self, identity: str) -> Float[np.ndarray, "rows width"]:
        """Read the array of an utterance, of any width; see `Source.read`."""
        if not self.allow_outside_root and self._leaves(identity):
            raise InputError(f"{_location(self.path, identity)}: {OUTSIDE}")
        return _read(self.path, identity, self.max_rows)

    def stamp(self, identity: str) -> list[Any]:
        """Return size and modification time of the file that contains the array."""
        if not self.allow_outside_root and self._leaves(identity):
            return []
        return file_stamp(self.path if self.path.is_file() else self.path / f"{identity}.npy")

    def _leaves(self, identity: str) -> bool:
        return not self.path.is_file() and leaves(self.path, f"{identity}.npy")

    def only(self, identities: Iterable[str]) -> ArrayFiles:
        """Return the source itself, which does not list utterances."""
        return self


def open_arrays(
    path: str | Path, identities: Iterable[str], flag: str, max_rows: int, allow_outside_root: bool = False
) -> ArrayFiles:
    """Open a folder or an HDF5 file of arrays. The first readable array determines the width.

    Args:
        path: the folder or file.
        identities: the ids of the utterances.
        flag: the command-line flag, for messages.
        max_rows: the rows that the recipe uses.
        allow_outside_root: whether ids and links may lead out of the folder.

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
    source = ArrayFiles(path, 0, max_rows, allow_outside_root)
    first = ""
    for identity in identities:
        try:
            return replace(source, width=source.rows(identity).shape[1])
        except InputError as error:
            first = first or str(error)
    if not first:
        return source  # without utterances; preparation reports this
    raise InputError(f"--{flag}={path}: no utterance has a readable array; the first: {first}")


def file_stamp(path: Path) -> list[int]:
    """Return size and modification time of a file, or an empty list if it does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]


_MAX_BYTES = 2**29  # of the rows of an array that are used, and of a chunk of an HDF5 file
_MAX_NPY_HEADER = 10_000  # as numpy, which reads a longer one before it rejects it
_MAX_LINKS = 16


def _read(path: Path, identity: str, max_rows: int) -> Float[np.ndarray, "rows width"]:
    where = _location(path, identity)
    try:
        check_regular(path if path.is_file() else path / f"{identity}.npy")
        found = (
            _read_hdf5(path, identity, max_rows)
            if path.is_file()
            else _read_npy(path / f"{identity}.npy", max_rows)
        )
    except KeyError:
        raise InputError(f"{where}: no such dataset") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (*_UNREADABLE, TokenError) as error:
        raise InputError(f"{where}: not a readable array ({' '.join(str(error).split())})") from None
    with np.errstate(over="ignore"):
        rows = np.atleast_2d(found).astype(np.float32)
    if not np.isfinite(rows).all():
        raise InputError(f"{where}: NaN or infinite numbers")
    return rows


_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    TypeError,
    MemoryError,
    OverflowError,
    SyntaxError,
)


def _used_rows(array: Any, max_rows: int) -> np.ndarray:
    """Read the rows of a mapped array or of an HDF5 dataset that are used, and one more."""
    shape, dtype = tuple(array.shape or ()), array.dtype
    if len(shape) not in (1, 2) or dtype.kind not in "fiu":
        raise InputError(f"expected numbers of shape [frames, width], found {dtype}{list(shape)}")
    if 0 in shape:
        raise InputError(f"empty, {list(shape)}")
    rows = min(shape[0], max_rows + 1) if len(shape) == 2 else 1
    if (size := rows * shape[-1] * max(4, dtype.itemsize)) > _MAX_BYTES:
        raise InputError(
            f"{rows} rows of {shape[-1]:,} numbers take {size:,} bytes, more than {_MAX_BYTES:,}"
        )
    return np.asarray(array[:rows] if len(shape) == 2 else array[:])


def _read_npy(path: Path, max_rows: int) -> np.ndarray:
    """Map the file, so that only the rows that are used are read.

    Nothing is unpickled.
    """
    with open_regular(path, max_bytes=2**63) as file:
        start = file.read(12)
    length = int.from_bytes(start[8:10] if start[6:7] == b"\x01" else start[8:12], "little")
    if start.startswith(np.lib.format.MAGIC_PREFIX) and length > _MAX_NPY_HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    return _used_rows(np.lib.format.open_memmap(path, mode="r"), max_rows)


def _read_hdf5(path: Path, identity: str, max_rows: int) -> np.ndarray:
    h5py = _h5py()
    if path.exists():
        check_regular(path)
    with h5py.File(path, "r") as file:
        found = _follow(h5py, file, file, identity, _MAX_LINKS)
        if not isinstance(found, h5py.Dataset):
            raise ValueError("a group, not a dataset")
        if found.is_virtual or found.external:
            raise InputError("its numbers are in another file; copy them into this one")
        chunk = int(np.prod(found.chunks or (0,), dtype=float)) * found.dtype.itemsize
        if chunk > _MAX_BYTES:
            raise InputError(f"chunks of {chunk:,} bytes, more than {_MAX_BYTES:,}")
        return _used_rows(found, max_rows)


def _follow(h5py: Any, file: Any, group: Any, name: str, links: int) -> Any:
    """Look up a name in an HDF5 group without leaving the file, as h5py does by external links."""
    found = file if name.startswith("/") else group
    for part in filter(None, name.split("/")):
        if not isinstance(found, h5py.Group):
            raise KeyError(name)
        link = found.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise InputError("a link to another file; copy its numbers into this one")
        if isinstance(link, h5py.SoftLink):
            if not links:
                raise InputError("a chain of too many links")
            found = _follow(h5py, file, found, link.path, links - 1)
        else:
            found = found[part]
    return found


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UsageError('HDF5 files need h5py: pip install "jaxser[frames]"') from None
    return h5py


def _location(path: Path, identity: str) -> str:
    """Return the location of an utterance's array in messages, without the folder, which is the same for all."""
    return f"{path.name}/{identity}" if path.is_file() else f"{identity}.npy"
