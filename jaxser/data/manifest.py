"""The manifest of a prepared dataset: its contents by type, and what they must agree on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from jaxser.data import shards
from jaxser.features.recipes import ArraySpec
from jaxser.files import CheckedFolder, decode_json, is_intact
from jaxser.types import InputError


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a prepared dataset.

    Raises:
        InputError: if the manifest is missing, damaged or contradicts itself.
    """
    checked = CheckedFolder(folder, shards.REMEDY)
    content = checked.read(shards.MANIFEST)
    try:
        known = checked.decode(shards.MANIFEST, content, _Manifest)
    except InputError as error:
        raise InputError(f"not the manifest of a prepared dataset: {error}") from None
    manifest: dict[str, Any] = decode_json(content)
    if not is_intact(manifest):
        raise checked.damaged(shards.MANIFEST, "its digest differs")
    if contradiction := known.contradiction():
        raise checked.damaged(shards.MANIFEST, contradiction)
    return manifest


def array_specs(manifest: Mapping[str, Any]) -> dict[str, ArraySpec]:
    """Return the specs of the arrays that a manifest lists."""
    return {name: ArraySpec(spec["dtype"], tuple(spec["shape"])) for name, spec in manifest["arrays"].items()}


_Size = Annotated[int, msgspec.Meta(ge=0)]
_DTYPES = ("int16", "float16", "float32", "float64", "int32", "int64")


@dataclass(frozen=True)
class _Array:
    """An array in a manifest; None is a dimension that varies in length."""

    dtype: str
    shape: tuple[_Size | None, ...]


@dataclass(frozen=True)
class _Shard:
    """A shard in a manifest."""

    file: str
    records: _Size
    bytes: _Size
    crc32c: str
    rows: Mapping[str, _Size]


@dataclass(frozen=True)
class _Labels:
    """The number of utterances by label."""

    found: Mapping[str, _Size]
    expected: Mapping[str, Any] = field(default_factory=dict)
    label_map: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, _Size] = field(default_factory=dict)


@dataclass(frozen=True)
class _Manifest:
    """The parts of a manifest that are read, with their types."""

    name: str
    corpus: str
    recipe: str
    version: str
    arrays: Mapping[str, _Array]
    shards: tuple[_Shard, ...]
    labels: _Labels
    number_of_shards: _Size | None = None
    utterances: _Size | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    embeddings: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, _Size] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def contradiction(self) -> str:
        """Return what is impossible in the manifest, or an empty string."""
        number = len(self.shards)
        names = [shards.shard_name(self.name, index, number) for index in range(number)]
        records, labelled = sum(one.records for one in self.shards), sum(self.labels.found.values())
        if self.number_of_shards not in (None, number) or [one.file for one in self.shards] != names:
            return "it does not list every shard once"
        if records != labelled or self.utterances not in (None, records):
            return f"its shards have {records} utterances, and its labels {labelled}"
        if any(one.rows.keys() != self.arrays.keys() for one in self.shards):
            return "its shards have other arrays than the dataset"
        if unknown := [one.dtype for one in self.arrays.values() if one.dtype not in _DTYPES]:
            return f"no array has the type {unknown[0]!r}"
        if any(one.shape[:1] != (None,) or None in one.shape[1:] for one in self.arrays.values()):
            return "an array has not one dimension that varies, which is the first"
        sizes = {
            name: np.dtype(array.dtype).itemsize * math.prod(size or 0 for size in array.shape[1:])
            for name, array in self.arrays.items()
        }
        if any(sum(sizes[name] * rows for name, rows in one.rows.items()) > one.bytes for one in self.shards):
            return "a shard is smaller than its arrays"
        return ""
