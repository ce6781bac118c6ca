"""Checkpoints of a sweep, for resuming only: Orbax, with our own digests (it restores a flipped byte silently)."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import google_crc32c
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

SHARE = 0.02
"""The share of the time that saving may take."""


class Checkpoints:
    """The checkpoints of a run in a folder, newest first; used in a `with` block."""

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self._cost = 0.0
        self._saved_at = -np.inf

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, epoch: int, state: PyTree, *, force: bool = False) -> bool:
        """Save in the background, unless the last save was so recent that saving would take over `SHARE` of the time.

        `epoch` is the number of finished epochs. Returns whether it was saved. Raises RuntimeError where Orbax refuses.
        """
        begin = time.monotonic()
        if not force and begin - self._saved_at < self._cost / SHARE:
            return False
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), digests=ocp.args.JsonSave(digests(state))
        )
        if not self._manager.save(epoch, args=items, force=True):
            raise RuntimeError(f"the checkpoint of epoch {epoch} was not written")
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - begin
        return True

    def restore(self, abstract: PyTree) -> tuple[int, PyTree] | None:
        """The newest undamaged checkpoint as (finished epochs, state); None where there is none.

        `abstract` gives shapes, dtypes and shardings. A damaged one is deleted with a warning.
        """
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            try:
                return epoch, self._restore(epoch, abstract)
            except Exception as error:  # whatever a damaged file makes Orbax raise
                reason = str(error).strip().split("\n")[0]
                warnings.warn(
                    f"the checkpoint of epoch {epoch} is damaged ({reason}); going back to the one before it",
                    stacklevel=2,
                )
                self._manager.delete(epoch)
        return None

    def _restore(self, epoch: int, abstract: PyTree) -> PyTree:
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), digests=ocp.args.JsonRestore())
        restored = self._manager.restore(epoch, args=items)
        if wrong := differing(restored["digests"], digests(restored["state"])):
            raise ValueError(f"{wrong} does not match its digest")
        return restored["state"]


def digests(state: PyTree) -> dict[str, str]:
    """CRC-32C of every leaf's bytes, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.tree.map(_plain, state))
    host = jax.device_get([leaf for _, leaf in leaves])
    return {
        jax.tree_util.keystr(path): f"{google_crc32c.value(np.ascontiguousarray(leaf).tobytes()):08x}"
        for (path, _), leaf in zip(leaves, host, strict=True)
    }


def differing(saved: dict[str, str], found: dict[str, str]) -> str | None:
    """The first path at which two sets of digests differ."""
    return next((path for path in saved.keys() | found.keys() if saved.get(path) != found.get(path)), None)


def _plain(leaf: Any) -> jax.Array:
    """A leaf without its type of key."""
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
