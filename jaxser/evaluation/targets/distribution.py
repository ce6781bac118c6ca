"""Targets for which a network predicts a distribution over classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.evaluation.targets.base import Target
from jaxser.models.network import Network
from jaxser.types import AnyArray, Hyper, Output


class Distribution(Target):
    """A target whose estimates are log-probabilities of classes.

    Attributes:
        names: the names of the classes.
    """

    @property
    def width(self) -> int:
        """The number of classes."""
        return len(self.names)

    def estimates(self, model: Network, output: Output, hyper: Hyper) -> Float[Array, "B C"]:
        """Return the log-probabilities under the network's own inference rule."""
        return output.log_probs

    def mean(
        self, estimates: Float[Array, "M steps B C"], is_kept: Bool[Array, " M"]
    ) -> Float[Array, "steps B C"]:
        """Return the log of the mean probabilities."""
        log_weight = jnp.where(is_kept, -jnp.log(is_kept.sum()), -jnp.inf)
        return jax.nn.logsumexp(estimates + log_weight[:, None, None, None], axis=0)

    def readable(self, estimates: Float[AnyArray, "*rows C"]) -> Float[AnyArray, "*rows C"]:
        """Return the probabilities."""
        return estimates.__array_namespace__().exp(estimates)
