"""Checkpoints of a sweep, for resuming only.

running/  the replicas that are being trained: Orbax, with our own digests (it restores a flipped byte silently)
ended/    what is kept of every replica that has ended: an npz each, whose parts have checksums
"""

from __future__ import annotations

import os
import time
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from jaxser.training.multihost import as_leader, leads, whole

SHARE = 0.02
"""The share of the time that saving may take."""

Facts = Mapping[str, Any]
"""What is saved beside a state, as JSON: `rows` (how many it has), and what the caller wants."""


class Checkpoints:
    """The checkpoints of a run in a folder; used in a `with` block, by all processes alike."""

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager((folder / "running").absolute(), options=options)
        self._ended = folder / "ended"
        self._cost = 0.0
        self._saved_at = -np.inf

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, state: PyTree, facts: Facts, *, force: bool = False) -> bool:
        """Save in the background, unless the last save was so recent that saving would take over `SHARE` of the time.

        Leaves are stacked along `facts["rows"]` rows. Returns whether it was saved. Raises RuntimeError where Orbax
        refuses.
        """
        begin = time.monotonic()
        if not as_leader(force or begin - self._saved_at >= self._cost / SHARE):
            return False
        told = {"facts": dict(facts), "digests": digests(state, facts["rows"])}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), told=ocp.args.JsonSave(told))
        number = (self._manager.latest_step() or 0) + 1
        if not self._manager.save(number, args=items, force=True):
            raise RuntimeError(f"checkpoint {number} was not written")
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - begin
        return True

    def restore(self, shapes: PyTree) -> tuple[Facts, PyTree] | None:
        """The newest undamaged facts and state, on the host; None where there is none.

        `shapes` are those of one row. A damaged checkpoint is deleted with a warning.
        """
        self._manager.wait_until_finished()
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._restore(number, shapes)
            except Exception as error:  # whatever a damaged file makes Orbax raise
                reason = str(error).strip().split("\n")[0]
                warnings.warn(
                    f"checkpoint {number} is damaged ({reason}); going back to the one before it",
                    stacklevel=2,
                )
                self._manager.delete(number)
        return None

    def keep(self, place: int, ended: PyTree) -> None:
        """Write down what is kept of the replica at a place of the grid; the leading process does."""
        if not leads():
            return
        self._ended.mkdir(parents=True, exist_ok=True)
        path = self._path(place)
        with (temporary := path.with_suffix(".tmp")).open("wb") as file:
            np.savez(file, **_by_path(ended))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def kept(self, number: int, shapes: PyTree) -> dict[int, PyTree]:
        """What is kept of those of `number` replicas that have ended, by place; a damaged file counts as none."""
        found = {}
        for place in range(number):
            path = self._path(place)
            try:
                with np.load(path, allow_pickle=False) as file:
                    values = [file[name] for name in _by_path(shapes)]
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                warnings.warn(
                    f"{path.name} is damaged ({error}); that replica is trained again", stacklevel=2
                )
                continue
            found[place] = jax.tree.unflatten(jax.tree.structure(shapes), values)
        return found

    def _path(self, place: int) -> Path:
        return self._ended / f"{place:06}.npz"

    def _restore(self, number: int, shapes: PyTree) -> tuple[Facts, PyTree]:
        told = self._manager.restore(number, args=ocp.args.Composite(told=ocp.args.JsonRestore()))["told"]
        rows = told["facts"]["rows"]
        room = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), (rows, *x.shape)), shapes)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(room))
        state = self._manager.restore(number, args=items)["state"]
        if wrong := differing(told["digests"], digests(state, rows)):
            raise ValueError(f"{wrong} does not match its digest")
        return told["facts"], state


def digests(state: PyTree, rows: int) -> dict[str, list[int]]:
    """CRC-32C of every leaf's rows, by path; the same on every process and for any number of devices."""
    leaves = _by_path(state)
    own = np.zeros((len(leaves), rows), np.uint32)
    for digest, leaf in zip(own, leaves.values(), strict=True):
        for begin, part in _parts(leaf):
            digest[begin : begin + len(part)] = [google_crc32c.value(row.tobytes()) for row in part]
    return {path: found.tolist() for path, found in zip(leaves, whole(own), strict=True)}


def differing(saved: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first path at which two sets of digests differ."""
    return next((path for path in saved.keys() | found.keys() if saved.get(path) != found.get(path)), None)


def _parts(leaf: Any) -> list[tuple[int, np.ndarray]]:
    """What of a leaf's rows is here, with the place of its first row."""
    if not isinstance(leaf, jax.Array):
        return [(0, leaf)]
    shards = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    return list(zip(shards, jax.device_get(list(shards.values())), strict=True))


def _by_path(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
