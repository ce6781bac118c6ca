"""The trained networks of a run: from padded arrays to predictions and attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, NamedTuple

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxser.data.normalisation import is_standardised, normalised, utterance_statistics
from jaxser.evaluation.targets import Target
from jaxser.features.recipes import ArraySpec
from jaxser.models.encoded import Encoded
from jaxser.models.network import Network
from jaxser.training.mesh import STRATEGIES
from jaxser.types import (
    ABSENT,
    AnyArray,
    AttentionMap,
    Batch,
    FieldError,
    Hyper,
    InputError,
    Normalisation,
    Output,
)

_TRACED_STEPS = 1000
"""The length of the sequences over which a network is traced for its attention axes; longer than any pooling window."""


class ReplicaParameters(NamedTuple):
    """The arrays that one replica predicts with.

    For several replicas, the leaves are stacked along the first axis.
    """

    params: PyTree
    batch_stats: PyTree
    normalisation: Mapping[str, Normalisation]
    hyper: Hyper


@dataclass(frozen=True, eq=False)
class TrainedNetworks:
    """Replicas of one network, with the statistics that normalise what they read.

    Attributes:
        folder: the folder of the run.
        model: the network that all replicas share.
        target: what the networks predict.
        arrays: dtype and shape of the arrays that the network reads.
        normalise: the config's `normalise`.
        embeddings: the word vectors, [V, E]; None if the network reads no words.
        replicas: the parameters of all replicas, stacked.
    """

    folder: Path
    model: Network
    target: Target
    arrays: Mapping[str, ArraySpec]
    normalise: str
    embeddings: Any
    replicas: ReplicaParameters

    def predictions(
        self, arrays: Mapping[str, np.ndarray], lengths: Mapping[str, np.ndarray]
    ) -> Float[np.ndarray, "R B K"]:
        """Compute the class probabilities, or the attributes, of a padded batch by every replica."""
        estimates = np.asarray(self._estimates(self.replicas, arrays, lengths, self.encoder))
        return np.asarray(self.target.readable(estimates.astype(np.float64)))

    def mean_attention(
        self, arrays: Mapping[str, np.ndarray], lengths: Mapping[str, np.ndarray]
    ) -> dict[str, AttentionMap]:
        """Compute the attention weights of a padded batch, averaged over the replicas."""
        return jax.device_get(self._mean_attention(self.replicas, arrays, lengths, self.encoder))

    @cached_property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """What the axes of each attention layer run over: an array of the recipe, or "" (heads)."""
        trace = self._reporting_misfits(lambda *inputs: jax.eval_shape(self.forward, *inputs))
        attention: dict[str, AttentionMap] = trace(
            self.replica_shapes(), *self.input_shapes(), self.encoder
        ).attention
        return {name: tuple(axis.array for axis in one.axes) for name, one in attention.items()}

    def input_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], dict[str, jax.ShapeDtypeStruct]]:
        """Return the shapes of a long recording's arrays and lengths, for tracing the network."""
        steps = {name: self.model.lengths.get(name, _TRACED_STEPS) for name in self.model.needs}
        steps |= {"prosody": 1} if "prosody" in steps else {}
        if isinstance(self.model, Encoded):
            steps["waveform"] *= self.model.base.hop
        arrays = {
            name: jax.ShapeDtypeStruct((1, length, *self.arrays[name].shape[1:]), self.arrays[name].dtype)
            for name, length in steps.items()
        }
        return arrays, dict.fromkeys(steps, jax.ShapeDtypeStruct((1,), jnp.int32))

    def replica_shapes(self) -> ReplicaParameters:
        """Return the shapes of the parameters of one replica."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.replicas)

    @property
    def encoder(self) -> PyTree:
        """The pretrained parameters of the encoder in front of the network, or None."""
        return self.model.base.params if isinstance(self.model, Encoded) else None

    def forward(
        self,
        replica: ReplicaParameters,
        arrays: Mapping[str, AnyArray],
        lengths: Mapping[str, AnyArray],
        encoder: PyTree = ABSENT,
    ) -> Output:
        """Apply one replica to padded features, before normalisation, and their lengths."""
        variables = {"params": replica.params, "batch_stats": replica.batch_stats}
        batch = self.batch(arrays, lengths, replica.normalisation, encoder)
        output, _ = self.model.apply(variables, batch, replica.hyper, train=False, mutable=[])
        return output

    def estimates(
        self,
        replica: ReplicaParameters,
        arrays: Mapping[str, AnyArray],
        lengths: Mapping[str, AnyArray],
        encoder: PyTree = ABSENT,
    ) -> Float[Array, "B K"]:
        """Return one replica's log-probabilities, or attributes; arguments as of `forward`."""
        output = self.forward(replica, arrays, lengths, encoder)
        return self.target.estimates(self.model, output, replica.hyper)

    def batch(
        self,
        arrays: Mapping[str, AnyArray],
        lengths: Mapping[str, AnyArray],
        normalisation: Mapping[str, Normalisation],
        encoder: PyTree = ABSENT,
    ) -> Batch:
        """Return the batch that the network reads: padded features with their masks, normalised."""
        fields: dict[str, Array] = {}
        for name, x in arrays.items():
            mask = jnp.arange(x.shape[1]) < lengths[name][:, None]
            statistics, pads_first = normalisation.get(name), self.model.pads_first
            if self.normalise == "utterance" and is_standardised(name, x.dtype):
                statistics, pads_first = (
                    Normalisation(*utterance_statistics(x, mask)),
                    False,
                )  # as in training
            x = normalised(x, mask, statistics, pads_first=pads_first)
            fields |= {name: x, f"{name}_mask": mask}
        size = next(iter(lengths.values()))
        weight = (size > 0).astype(jnp.float32)
        return Batch(
            label=jnp.zeros_like(size),
            weight=weight,
            embeddings=self.embeddings,
            encoder=encoder,
            **fields,
        )

    @cached_property
    def _estimates(self) -> Callable[..., Any]:
        """The compiled program from all replicas and a batch to log-probabilities, or attributes."""
        strategy = STRATEGIES["map" if jax.default_backend() == "cpu" else "vmap"]

        def estimates(replicas, arrays, lengths, encoder) -> Float[Array, "R B K"]:
            return strategy(lambda one: self.estimates(one, arrays, lengths, encoder), replicas)

        return self._reporting_misfits(jax.jit(estimates))

    @cached_property
    def _mean_attention(self) -> Callable[..., Any]:
        """The compiled program from all replicas and a batch to attention maps; replicas are added up one by one."""

        def mean_attention(replicas, arrays, lengths, encoder):
            def add(total, one):
                return jax.tree.map(
                    jnp.add, total, self.forward(one, arrays, lengths, encoder).attention
                ), None

            first = jax.tree.map(lambda x: x[0], replicas)
            shapes = jax.eval_shape(lambda: self.forward(first, arrays, lengths, encoder).attention)
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            total, _ = jax.lax.scan(add, zeros, replicas)
            number = len(jax.tree.leaves(replicas)[0])
            return jax.tree.map(lambda x: x / number, total)

        return self._reporting_misfits(jax.jit(mean_attention))

    def _reporting_misfits(self, program: Callable[..., Any]) -> Callable[..., Any]:
        """Return the program, with a one-line error if the saved parameters or fields do not fit the network."""

        @wraps(program)
        def run(*arguments):
            try:
                return program(*arguments)
            except FieldError as error:
                raise InputError(f"{self.folder}: its network cannot be built ({error})") from None
            except flax.errors.FlaxError as error:
                raise misfit(self.folder, " ".join(str(error).split())[:120] + "...") from None

        return run


def misfit(folder: Path, reason: str) -> InputError:
    """Return the error about saved parameters that are not those of the network."""
    return InputError(
        f"{folder}: its parameters do not fit the network of this version ({reason}); train again"
    )
