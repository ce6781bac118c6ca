"""Files of a folder: writing, removing and locking, and reading with a check."""

from jaxser.files.checking import (
    CheckedFolder,
    decode_array,
    decode_json,
    digests_in,
    is_intact,
    sealed,
    sha256,
)
from jaxser.files.locking import LOCK, lock
from jaxser.files.writing import (
    Name,
    make_folder,
    open_appending,
    open_binary,
    open_text,
    remove,
    remove_folder,
    remove_leftovers,
    write,
    write_csv,
    write_json,
)

__all__ = [
    "LOCK",
    "CheckedFolder",
    "Name",
    "decode_array",
    "decode_json",
    "digests_in",
    "is_intact",
    "lock",
    "make_folder",
    "open_appending",
    "open_binary",
    "open_text",
    "remove",
    "remove_folder",
    "remove_leftovers",
    "sealed",
    "sha256",
    "write",
    "write_csv",
    "write_json",
]
