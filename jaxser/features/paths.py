"""Opening the files of a corpus: regular ones of a bounded size, below the root."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from jaxser.types import InputError

MAX_FILE_BYTES = 2**32
"""The size of the largest recording that is read: that of a WAV file whose sizes have 32 bits."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that git-lfs has not fetched."""

LFS_REASON = "a git-lfs pointer instead of the file itself; run `git lfs pull` in its repository"
"""The reason not to use such a file."""

OUTSIDE = "outside the folder of the corpus or its features; --allow_outside_root permits it"


def open_regular(path: str | Path, max_bytes: int = MAX_FILE_BYTES) -> io.BufferedIOBase:
    """Open a file for reading, without waiting for a FIFO or reading a device.

    Raises:
        InputError: if it cannot be opened, is not a regular file, is a git-lfs pointer, or is too large. The message
            does not name the file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({getattr(error, 'strerror', error)})") from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size <= max_bytes:
        file = os.fdopen(descriptor, "rb")
        if file.peek(len(LFS_POINTER)).startswith(LFS_POINTER):
            file.close()
            raise InputError(LFS_REASON)
        return file
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise InputError(f"{status.st_size:,} bytes, more than the {max_bytes:,} that are read of one file")
    raise InputError("cannot be read (not a regular file)")


def check_regular(path: str | Path) -> None:
    """Raise `InputError` unless a library may open a path: it must lead to a regular file."""
    open_regular(path, max_bytes=2**63).close()


def leaves(root: str | Path, path: str | Path) -> bool:
    """Return whether a path relative to a folder leads out of it.

    It may do so by its parts, or by symbolic links to existing files.
    """
    if os.path.isabs(path) or ".." in Path(path).parts:
        return True
    try:
        folder, target = os.path.realpath(root), os.path.realpath(os.path.join(root, path))
        return os.path.exists(target) and os.path.commonpath([folder, target]) != folder
    except (OSError, ValueError):
        return False  # not a path that can be opened
