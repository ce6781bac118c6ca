"""Functions of one replica, compiled for all replicas on a mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from jaxser.training.mesh import AXIS, STRATEGIES


@dataclass(frozen=True)
class Programs:
    """A function compiled for a mesh.

    It is one program sharded over the mesh, or one program per device. XLA optimises a sharded program differently from
    a single-device program, which changes the last bits. The "map" strategy promises the same bits on any number of
    devices, so each device runs a program of its own.
    """

    compiled: tuple[jax.stages.Compiled, ...]
    mesh: Mesh
    per_device: bool

    def __call__(self, *arguments: PyTree) -> PyTree:
        if not self.per_device:
            return self.compiled[0](*arguments)
        # All shards are taken before the first program runs, as it may donate its arguments.
        shards = [_shard(arguments, device) for device in range(len(self.compiled))]
        outputs = [program(*own) for program, own in zip(self.compiled, shards, strict=True)]
        sharding = NamedSharding(self.mesh, P(AXIS))
        return jax.tree.map(lambda *own: _joined(own, sharding), *outputs)

    def as_text(self) -> str:
        """Return the optimised HLO of all programs."""
        return "\n".join(program.as_text() or "" for program in self.compiled)


@dataclass(frozen=True, eq=False)
class ProgramCache:
    """Compiles functions of one replica for a mesh and a strategy, each only once."""

    mesh: Mesh
    strategy: str
    _programs: dict[tuple[Any, ...], Programs] = field(default_factory=dict, init=False, repr=False)

    def compile(
        self,
        key: tuple[Any, ...],
        function: Callable[..., PyTree],
        arguments: Callable[[], Sequence[PyTree]],
        *,
        num_shared: int,
        donate: bool = False,
        strategy: str | None = None,
    ) -> Programs:
        """Return the compiled function, from the cache if it has the key.

        Args:
            key: identifies the function and the shapes of its arguments.
            function: see `compile_over_replicas`, as for `num_shared` and `donate`.
            arguments: returns the arguments or their shapes; called only if the function must be compiled.
            num_shared: number of trailing arguments that all replicas share.
            donate: whether the first argument is donated.
            strategy: replaces the strategy of the cache.
        """
        if key not in self._programs:
            shapes = jax.tree.map(_shape, tuple(arguments()))
            self._programs[key] = compile_over_replicas(
                function, shapes, self.mesh, strategy or self.strategy, num_shared=num_shared, donate=donate
            )
        return self._programs[key]


def compile_over_replicas(
    function: Callable[..., PyTree],
    arguments: Sequence[PyTree],
    mesh: Mesh,
    strategy: str,
    *,
    num_shared: int,
    donate: bool = False,
) -> Programs:
    """Compile a function of one replica for all replicas on a mesh.

    Args:
        function: takes the arrays of one replica, then arrays that all replicas share.
        arguments: arrays on the mesh, or their shapes; those of replicas are stacked along their first axis.
        mesh: the devices.
        strategy: one of `STRATEGIES`.
        num_shared: number of trailing arguments that all replicas share.
        donate: whether the first argument is donated.
    """

    def of_device(*arguments):
        own, shared = arguments[:-num_shared], arguments[-num_shared:]
        return STRATEGIES[strategy](lambda one: function(*one, *shared), own)

    donated = (0,) if donate else ()
    if strategy == "map":
        program = jax.jit(of_device, donate_argnums=donated)
        lowered = [program.lower(*_shard(arguments, device)) for device in range(mesh.local_mesh.size)]
        with ThreadPoolExecutor() as pool:
            compiled = tuple(pool.map(lambda one: one.compile(), lowered))
        return Programs(compiled, mesh, per_device=True)
    sharded = of_device
    if strategy == "vmap":
        specs = (P(AXIS),) * (len(arguments) - num_shared) + (P(),) * num_shared
        # check_vma=False: nothing is reduced over replicas, and recurrent carries start from unvarying zeros
        sharded = jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)
    program = jax.jit(sharded, donate_argnums=donated, out_shardings=NamedSharding(mesh, P(AXIS)))
    return Programs((program.lower(*arguments).compile(),), mesh, per_device=False)


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _shard(tree: PyTree, device: int) -> PyTree:
    """Return the shards, or their shapes, of arrays on this process's device of that index."""

    def shard(x: Any):
        if isinstance(x, jax.Array):
            return x.addressable_shards[device].data
        sharding = SingleDeviceSharding(x.sharding.mesh.local_mesh.devices.flat[device])
        return jax.ShapeDtypeStruct(x.sharding.shard_shape(x.shape), x.dtype, sharding=sharding)

    return jax.tree.map(shard, tree)


def _joined(shards: Sequence[jax.Array], sharding: NamedSharding) -> jax.Array:
    shape = (sharding.mesh.shape[AXIS] * shards[0].shape[0], *shards[0].shape[1:])
    return jax.make_array_from_single_device_arrays(shape, sharding, list(shards))
