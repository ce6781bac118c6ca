"""Reading files with a check: of their digests, and of the types of what they contain."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from jaxtyping import Shaped

from jaxser.types import InputError

Record = TypeVar("Record")


def sha256(source: Path | bytes) -> str:
    """Return the SHA-256 digest of a file or of bytes, in hexadecimal."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the digest of its contents as its last key."""
    rest = {key: one for key, one in value.items() if key != "digest"}
    return {**rest, "digest": _digest(rest)}


def is_intact(value: Any) -> bool:
    """Return whether a JSON object has the digest that `sealed` gave it, or none.

    Those of earlier versions have none.
    """
    rest = {key: one for key, one in value.items() if key != "digest"}
    return "digest" not in value or value["digest"] == _digest(rest)


def digests_in(folder: Path) -> dict[str, str]:
    """Return the digests of the files of a run or of a dataset; empty if there are none.

    Raises:
        InputError: if the file with the digests is damaged.
    """
    source = CheckedFolder(folder, "restore it from a copy")
    if source.has("digests.json"):
        name, key, value = "digests.json", "sha256", source.read_json("digests.json", dict)
    elif source.has("manifest.json"):
        name, key = "manifest.json", "files"
        try:
            value = source.read_json(name, dict)
        except InputError:  # of another program, perhaps
            return {}
    else:
        return {}
    if not is_intact(value):
        raise source.damaged(name, "its own digest differs")
    found = value.get(key)
    return {str(one): str(digest) for one, digest in found.items()} if isinstance(found, dict) else {}


def _digest(value: Mapping[str, Any]) -> str:
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


@dataclass(frozen=True)
class CheckedFolder:
    """A folder whose files are checked when they are read.

    Attributes:
        root: the folder.
        remedy: what to do if a file is damaged, such as "prepare the dataset again".
        digests: the SHA-256 digests of its files; files that are not listed are not compared.
    """

    root: Path
    remedy: str
    digests: Mapping[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return os.path.lexists(self.root / name)

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            InputError: if it is missing, cannot be read, is not a regular file, or differs from its digest.
        """
        path = self.root / name
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise InputError(f"{path} is not a regular file; {self.remedy}")
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{path} is missing; {self.remedy}") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); {self.remedy}") from None
        expected = self.digests.get(name)
        if expected is not None and sha256(content) != expected:
            raise self.damaged(name, "its SHA-256 digest differs")
        return content

    def read_json(self, name: str, kind: type[Record]) -> Record:
        """Read a JSON file whose contents have a type, such as a dataclass; errors as in `read`."""
        return self.decode(name, self.read(name), kind)

    def read_array(self, name: str) -> Shaped[np.ndarray, ...]:
        """Read an array in NumPy's format; errors as in `read`."""
        content = self.read(name)
        try:
            return decode_array(content)
        except ValueError as error:
            raise self.damaged(name, str(error)) from None

    def read_arrays(self, name: str) -> Iterator[tuple[str, Shaped[np.ndarray, ...]]]:
        """Yield the names and arrays of an uncompressed npz file; errors as in `read`."""
        content = self.read(name)
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for member in archive.infolist():
                    if member.compress_type != zipfile.ZIP_STORED or member.file_size > len(content):
                        raise ValueError("not as NumPy writes it")
                    yield member.filename.removesuffix(".npy"), decode_array(archive.read(member))
        except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, struct.error) as error:
            raise self.damaged(name, str(error)) from None

    def decode(self, where: str, content: bytes | str, kind: type[Record]) -> Record:
        """Decode JSON whose contents have a type.

        Args:
            where: the file, which may be followed by a line number.
            content: the JSON text.
            kind: the type, such as a dataclass.

        Raises:
            InputError: if the text is not JSON, or its contents have another type.
        """
        try:
            return msgspec.convert(decode_json(content), kind)
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise self.damaged(where, str(error)) from None

    def damaged(self, where: str, reason: str) -> InputError:
        """Return the error about a damaged file."""
        reason = " ".join(reason.split())
        return InputError(f"{self.root / where} is damaged ({reason}); {self.remedy}")


def decode_json(content: bytes | str) -> Any:
    """Decode JSON.

    Raises:
        ValueError: if the text is not JSON, a key of an object is repeated, or a number is not finite.
    """
    text = content.decode("utf-8", "surrogateescape") if isinstance(content, bytes) else content
    value = _DECODER.decode(text)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")  # fails for half a character
    return value


def decode_array(content: bytes) -> Shaped[np.ndarray, ...]:
    """Decode an array in NumPy's format, which must have the size that its header promises.

    Raises:
        ValueError: if it is not such an array.
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = read(file)
    except Exception as error:  # a damaged header can make NumPy raise anything
        raise ValueError(f"not an array of NumPy: {error}") from None
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or size != len(content) - file.tell():
        raise ValueError("not an array of the size in its header")
    values = np.frombuffer(content, dtype, offset=file.tell()).copy()
    return values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is repeated")
    return value


def _not_finite(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_not_finite)
