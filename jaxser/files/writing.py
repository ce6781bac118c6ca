"""Writing and removing files below a root, which is a folder that the user named.

The root itself may be a link; below it, nothing is written or removed through a link. A file gets its name when it is
complete, so that it is either the old one or the new one.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TextIO

from jaxser.types import InputError

Name = str | PurePath
"""The path of a file, relative to its root."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.tmp$")


@contextmanager
def open_binary(root: Path, name: Name) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name when the block ends.

    An error leaves the old file as it was.

    Args:
        root: a folder; created if it is missing.
        name: the path of the file below the root; missing folders are created.

    Raises:
        InputError: if `name` leads out of the root, or a part of it is a link.
    """
    with _parent(root, name, create=True) as (folder, last), naming(root / name, last):
        _check_target(root / name, last, folder)
        temporary = f"{last[:50]}.{secrets.token_hex(8)}.tmp"
        descriptor = os.open(temporary, _NEW, 0o666, dir_fd=folder)
        try:
            with open(descriptor, "wb") as file, naming(root / name, temporary):
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise


@contextmanager
def open_text(root: Path, name: Name) -> Iterator[TextIO]:
    """Open a text file in UTF-8 for writing, as `open_binary` does.

    Line ends are written as they are.
    """
    with open_binary(root, name) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        try:
            yield text
            text.flush()
        finally:
            text.detach()


def write(root: Path, name: Name, content: str | bytes) -> Path:
    """Write a file, and return its path; arguments and errors as in `open_binary`."""
    with open_binary(root, name) as file:
        file.write(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return root / name


def write_json(root: Path, name: Name, value: Any, indent: int | None = 2) -> Path:
    """Write a JSON file, and return its path; arguments and errors as in `open_binary`.

    Raises:
        TypeError: if the value is not JSON.
        ValueError: if a number is not finite.
    """
    return write(root, name, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent) + "\n")


def write_csv(root: Path, name: Name, rows: Iterable[Sequence[object]]) -> Path:
    """Write a CSV file, and return its path; arguments and errors as in `open_binary`."""
    with open_text(root, name) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return root / name


@contextmanager
def open_appending(root: Path, name: Name) -> Iterator[BinaryIO]:
    """Open a file to append to it; arguments and errors as in `open_binary`."""
    with _parent(root, name, create=True) as (folder, last), naming(root / name, last):
        _check_target(root / name, last, folder)
        with open(os.open(last, _APPEND, 0o666, dir_fd=folder), "ab") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())


def make_folder(root: Path, name: Name) -> Path:
    """Create a folder below the root, and return its path.

    Arguments and errors are those of `open_binary`.
    """
    with _parent(root, PurePath(name) / "file", create=True):
        return root / name


def create_exclusively(path: Path, content: bytes) -> None:
    """Write a new file; of several processes that try, one succeeds.

    Raises:
        FileExistsError: if the file exists.
    """
    with open(os.open(path, _NEW, 0o666), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remove(root: Path, name: Name) -> None:
    """Remove a file if it exists. Of a link, the link is removed.

    Raises:
        InputError: if `name` leads out of the root, or one of its folders is a link.
    """
    with suppress(FileNotFoundError), _parent(root, name) as (folder, last), naming(root / name, last):
        os.unlink(last, dir_fd=folder)


def remove_folder(root: Path, name: Name) -> None:
    """Remove a folder and everything in it, if it exists; errors as in `remove`."""
    with suppress(FileNotFoundError), _parent(root, name) as (folder, last), naming(root / name, last):
        if stat.S_ISLNK(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(last, dir_fd=folder)
        else:
            shutil.rmtree(last, dir_fd=folder)  # does not follow links


def remove_leftovers(root: Path, name: Name = ".") -> None:
    """Remove temporary files that killed processes left in a folder.

    Call it while the folder is locked.
    """
    with suppress(FileNotFoundError), _parent(root, PurePath(name) / "file") as (folder, _):
        for entry in os.listdir(folder):
            if _LEFTOVER.search(entry):
                with suppress(FileNotFoundError):
                    os.unlink(entry, dir_fd=folder)


@contextmanager
def _parent(root: Path, name: Name, create: bool = False) -> Iterator[tuple[int, str]]:
    """Open the folder that a file is in; yield its descriptor and the file's own name. No link is followed."""
    path, parts = root / name, PurePath(name).parts
    if PurePath(name).is_absolute() or not parts or ".." in parts or "\0" in str(name):
        raise InputError(f"{str(name)!r} does not name a file inside {root}")
    if create:
        root.mkdir(parents=True, exist_ok=True)
    folder = os.open(root, _FOLDER)
    try:
        for part in parts[:-1]:
            with naming(path.parent, part):
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=folder)
                _check_no_link(path.parent, part, folder)
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder, parts[-1]
    finally:
        os.close(folder)


def _check_target(path: Path, last: str, folder: int) -> None:
    """Check that a file may be written."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(_check_no_link(path, last, folder)):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def _check_no_link(path: Path, part: str, folder: int) -> int:
    """Check that a part of a path is not a link, and return its mode."""
    mode = os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        raise InputError(
            f"{path}: {part!r} is a link, and nothing is written or removed through links: remove the link, or "
            "name another folder"
        )
    return mode


@contextmanager
def naming(path: Path, *parts: str) -> Iterator[None]:
    """Name the path that the user knows in errors of the file system.

    It takes the place of a part of it, or of none.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, *parts):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
