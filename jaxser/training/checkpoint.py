"""Checkpoints of a sweep, for resuming it.

running/  the replicas that are being trained: Orbax, with digests of our own, as it restores a flipped byte silently
ended/    the selected epochs of finished replicas: one npz file each, whose members have checksums
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from jaxser import files
from jaxser.training.multihost import broadcast_from_primary, gather, is_primary
from jaxser.types import InputError

TIME_FRACTION = 0.02
"""Largest fraction of the time that saving may take."""

Facts = Mapping[str, Any]
"""JSON saved with a state: `rows`, its number of rows, `indices` of its replicas, and other values of the caller."""

METADATA = "told"
"""Orbax item with the facts and digests; the name is part of the file format."""

_INDEX = "index"
"""The array of a finished replica's file that tells which replica it is."""


class Checkpoints:
    """The checkpoints of a run in a folder; use it in a `with` block, on all processes alike."""

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
        running = files.make_folder(folder.parent, f"{folder.name}/running")
        self._manager = ocp.CheckpointManager(running.absolute(), options=options)
        self._folder = folder
        self._cost = 0.0
        self._saved_at = -np.inf

    def __enter__(self) -> Checkpoints:
        _ignore_late_callbacks()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with _reporting(self._folder):
                self._manager.wait_until_finished()
                self._manager.close()
        except InputError:
            if kind is None:  # otherwise the first error is the cause
                raise

    def save(self, state: PyTree, facts: Facts, *, force: bool = False) -> bool:
        """Save in the background, unless it would take more than `TIME_FRACTION` of the time.

        Args:
            state: arrays stacked along `facts["rows"]` rows.
            facts: saved with the state as JSON.
            force: save in any case.

        Returns:
            Whether it was saved.

        Raises:
            InputError: if this checkpoint, or the one before it, cannot be written.
            RuntimeError: if Orbax refuses to save.
        """
        begin = time.monotonic()
        is_due = force or begin - self._saved_at >= self._cost / TIME_FRACTION
        if not broadcast_from_primary(is_due):
            return False
        metadata = files.sealed({"facts": dict(facts), "digests": digests(state, facts["rows"])})
        items = {"state": ocp.args.StandardSave(state), METADATA: ocp.args.JsonSave(metadata)}
        number = (self._manager.latest_step() or 0) + 1
        with _reporting(self._folder):
            is_saved = self._manager.save(number, args=ocp.args.Composite(**items), force=True)
        if not is_saved:
            raise RuntimeError(f"checkpoint {number} was not written")
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - begin
        return True

    def restore(self, shapes: PyTree) -> tuple[Facts, PyTree] | None:
        """Restore the newest undamaged checkpoint; a damaged one is deleted with a warning.

        Args:
            shapes: the shapes of one row.

        Returns:
            The facts, and the state on the host; None without a checkpoint.
        """
        self._manager.wait_until_finished()
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._restore(number, shapes)
            except Exception as error:  # a damaged file can make Orbax raise anything
                reason = str(error).strip().split("\n")[0]
                warnings.warn(
                    f"checkpoint {number} is damaged ({reason}); falling back to the one before it",
                    stacklevel=2,
                )
                self._manager.delete(number)
        return None

    def save_finished(self, index: int, trained: PyTree) -> None:
        """Save the selected epoch of a finished replica, given its index in the grid."""
        if not is_primary():
            return
        with files.open_binary(self._folder.parent, self._finished(index)) as file:
            np.savez(file, **{_INDEX: np.array(index), **_by_path(trained)})

    def load_finished(self, number: int, shapes: PyTree) -> dict[int, PyTree]:
        """Load the finished ones of `number` replicas, by index.

        A damaged file is ignored with a warning.
        """
        finished = {}
        source = files.CheckedFolder(self._folder.parent, "its replica is trained again")
        for index in range(number):
            name = self._finished(index)
            if not source.has(name):
                continue
            try:
                arrays = dict(source.read_arrays(name))
                if misfit := _misfit(index, arrays, _by_path(shapes)):
                    raise source.damaged(name, misfit)
            except InputError as error:
                warnings.warn(str(error), stacklevel=2)
                continue
            values = [arrays[path] for path in _by_path(shapes)]
            finished[index] = jax.tree.unflatten(jax.tree.structure(shapes), values)
        return finished

    def _finished(self, index: int) -> str:
        return f"{self._folder.name}/ended/{index:06}.npz"

    def _restore(self, number: int, shapes: PyTree) -> tuple[Facts, PyTree]:
        item = ocp.args.Composite(**{METADATA: ocp.args.JsonRestore()})
        metadata = self._manager.restore(number, args=item)[METADATA]
        if not files.is_intact(metadata):
            raise ValueError("its facts do not match their digest")
        facts = metadata["facts"]
        if "places" in facts:  # the name of `indices` up to version 0.2
            facts["indices"] = facts.pop("places")
        rows = facts["rows"]
        empty = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), (rows, *x.shape)), shapes)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(empty))
        state = self._manager.restore(number, args=items)["state"]
        if damaged := differing(metadata["digests"], digests(state, rows)):
            raise ValueError(f"{damaged} does not match its digest")
        return facts, state


def _misfit(index: int, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, Any]) -> str:
    """Return how the arrays of a file differ from a replica's, or an empty string."""
    if int(arrays.get(_INDEX, np.array(index))) != index:
        return "it is of another replica"
    for path, shape in shapes.items():
        if path not in arrays or (arrays[path].shape, arrays[path].dtype) != (shape.shape, shape.dtype):
            return f"{path} is missing or has another shape"
    return ""


@functools.cache
def _ignore_late_callbacks() -> None:
    """Print no traceback for writes that end after Orbax has given up, as hundreds do on a full disk."""
    report = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = hook


@contextlib.contextmanager
def _reporting(folder: Path) -> Iterator[None]:
    """Turn the errors of writing, which Orbax raises as various types, into one with a single line."""
    try:
        yield
    except (OSError, ValueError) as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        reason = os.strerror(int(code[1])) if code else getattr(error, "strerror", None) or str(error)[:200]
        raise InputError(
            f"{folder}: a checkpoint cannot be written ({reason}); the run can be resumed from the one before it"
        ) from None


def digests(state: PyTree, rows: int) -> dict[str, list[int]]:
    """Return the CRC-32C of every row of every leaf, by path.

    It does not depend on processes or devices.
    """
    leaves = _by_path(state)
    own = np.zeros((len(leaves), rows), np.uint32)
    for digest, leaf in zip(own, leaves.values(), strict=True):
        for begin, part in _local_parts(leaf):
            digest[begin : begin + len(part)] = [google_crc32c.value(row.tobytes()) for row in part]
    return {path: values.tolist() for path, values in zip(leaves, gather(own), strict=True)}


def differing(saved: Mapping[str, Any], restored: Mapping[str, Any]) -> str | None:
    """Return a path at which two sets of digests differ, or None."""
    paths = saved.keys() | restored.keys()
    return next((path for path in paths if saved.get(path) != restored.get(path)), None)


def _local_parts(leaf: Any) -> list[tuple[int, np.ndarray]]:
    """Return the rows of a leaf on this process, in parts with the index of their first row."""
    if not isinstance(leaf, jax.Array):
        return [(0, leaf)]
    shards = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    return list(zip(shards, jax.device_get(list(shards.values())), strict=True))


def _by_path(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
