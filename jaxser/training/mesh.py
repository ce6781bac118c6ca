"""Meshes of devices, which may belong to several processes, and arrays on them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

STRATEGIES = {"map": jax.lax.map, "vmap": lambda f, xs: jax.vmap(f)(xs), "data": jax.lax.map}
"""How replicas are mapped.

- "map": each device runs its replicas one after the other.
- "vmap": each device runs its replicas side by side.
- "data": all devices run one replica after the other, and each batch is sharded over the devices.
"""

AXIS, DATA = "replica", "data"
BATCHES = P(AXIS, None, DATA)
"""Sharding of arrays whose first axis is replicas and whose third axis is the utterances of a batch."""


def replica_mesh(devices: Sequence[jax.Device], strategy: str = "map") -> Mesh:
    """Arrange devices along the replica axis, or along the data axis under "data"."""
    return Mesh(np.array(devices).reshape((1, -1) if strategy == "data" else (-1, 1)), (AXIS, DATA))


def rows_for(number: int, mesh: Mesh, strategy: str) -> int:
    """Return the number of rows for `number` replicas, with as many rows on every device.

    Under "map", a device has at least two rows: XLA unrolls a loop over a single row, which changes rounding.
    """
    devices = mesh.shape[AXIS]
    return devices * max(-(-number // devices), 2 if strategy == "map" else 1)


def put(tree: PyTree, mesh: Mesh, spec: P) -> PyTree:
    """Put arrays onto a mesh.

    Use P(AXIS) if their first axis is replicas, and P() if all replicas share them.
    """
    sharding = NamedSharding(mesh, spec)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put_own_shards(x):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put_own_shards, tree)


def fetch(tree: PyTree) -> PyTree:
    """Fetch complete arrays as numpy, on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def abstract(tree: PyTree, rows: int, mesh: Mesh) -> PyTree:
    """Return the shapes of `rows` stacked replicas on a mesh, given the shapes of one."""
    sharding = NamedSharding(mesh, P(AXIS))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype, sharding=sharding), tree)
