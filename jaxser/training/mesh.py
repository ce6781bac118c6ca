"""Programs of one replica, compiled for all replicas over a mesh of devices, which may belong to several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

STRATEGIES = {"map": jax.lax.map, "vmap": lambda f, xs: jax.vmap(f)(xs), "data": jax.lax.map}
"""How replicas are worked through: a device's own one after the other, or side by side; or one after the other by all
devices together, over which each batch is spread."""

AXIS, DATA = "replica", "data"
BATCHES = P(AXIS, None, DATA)
"""How arrays lie whose first axis is replicas and whose third is the utterances of a batch."""


def replica_mesh(devices: Sequence[jax.Device], strategy: str = "map") -> Mesh:
    """The devices in a row along the replica axis, or where they share each batch along the data axis."""
    return Mesh(np.array(devices).reshape((1, -1) if strategy == "data" else (-1, 1)), (AXIS, DATA))


def rows_for(number: int, mesh: Mesh, strategy: str) -> int:
    """How many replicas the devices hold together where they hold so many and each the same number.

    XLA takes a loop over one replica apart and rounds otherwise then; so under map a device has two at least.
    """
    devices = mesh.shape[AXIS]
    return devices * max(-(-number // devices), 2 if strategy == "map" else 1)


def put(tree: PyTree, mesh: Mesh, spec: P) -> PyTree:
    """Arrays on the mesh's devices: P(AXIS) where replicas come first, P() where all replicas share them."""
    sharding = NamedSharding(mesh, spec)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def each_its_own(x):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    return jax.tree.map(each_its_own, tree)


def fetch(tree: PyTree) -> PyTree:
    """Arrays over a mesh as numpy, whole on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def abstract(tree: PyTree, rows: int, mesh: Mesh) -> PyTree:
    """What one replica's shapes are for all rows of a mesh."""
    sharding = NamedSharding(mesh, P(AXIS))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype, sharding=sharding), tree)


@dataclass(frozen=True)
class Programs:
    """What is compiled for a mesh: one program that is sharded over it, or the same one for each device.

    XLA optimises a sharded program otherwise than that of a single device, which changes the last bits. So with the
    map strategy, under which any number of devices shall give the same bits, each device runs a program of its own.
    """

    compiled: tuple[jax.stages.Compiled, ...]
    mesh: Mesh
    each: bool

    def __call__(self, *arguments: PyTree) -> PyTree:
        if not self.each:
            return self.compiled[0](*arguments)
        own = [_part(arguments, place) for place in range(len(self.compiled))]  # all, before one is donated
        parts = [program(*part) for program, part in zip(self.compiled, own, strict=True)]
        sharding = NamedSharding(self.mesh, P(AXIS))
        return jax.tree.map(lambda *shards: _whole(shards, sharding), *parts)

    def as_text(self) -> str:
        """The compiled programs, to be searched for collectives."""
        return "\n".join(program.as_text() or "" for program in self.compiled)


def compile_over_replicas(
    function: Callable,
    arguments: Sequence[PyTree],
    mesh: Mesh,
    strategy: str,
    *,
    num_shared: int,
    donate: bool = False,
) -> Programs:
    """Compile a function of one replica for all; its last `num_shared` arguments are the same for all of them.

    `arguments` are on the mesh (or their shapes are), those of replicas stacked along their first axis; the first is
    given away if `donate`.
    """

    def of_device(*arguments):
        own, shared = arguments[:-num_shared], arguments[-num_shared:]
        return STRATEGIES[strategy](lambda one: function(*one, *shared), own)

    donated = (0,) if donate else ()
    if strategy == "map":
        program = jax.jit(of_device, donate_argnums=donated)
        lowered = [program.lower(*_part(arguments, place)) for place in range(mesh.local_mesh.size)]
        with ThreadPoolExecutor() as pool:
            return Programs(tuple(pool.map(lambda one: one.compile(), lowered)), mesh, each=True)
    sharded = of_device
    if strategy == "vmap":
        specs = (P(AXIS),) * (len(arguments) - num_shared) + (P(),) * num_shared
        # check_vma=False: nothing is reduced over replicas, and zeros begin the recurrences' carries
        sharded = jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)
    program = jax.jit(sharded, donate_argnums=donated, out_shardings=NamedSharding(mesh, P(AXIS)))
    return Programs((program.lower(*arguments).compile(),), mesh, each=False)


def _part(tree: PyTree, place: int) -> PyTree:
    """What the place-th device of this process has of arrays over a mesh, or of their shapes."""

    def part(x: Any):
        if isinstance(x, jax.Array):
            return x.addressable_shards[place].data
        device = x.sharding.mesh.local_mesh.devices.flat[place]
        return jax.ShapeDtypeStruct(
            x.sharding.shard_shape(x.shape), x.dtype, sharding=SingleDeviceSharding(device)
        )

    return jax.tree.map(part, tree)


def _whole(shards: Sequence[jax.Array], sharding: NamedSharding) -> jax.Array:
    shape = (sharding.mesh.shape[AXIS] * shards[0].shape[0], *shards[0].shape[1:])
    return jax.make_array_from_single_device_arrays(shape, sharding, list(shards))
