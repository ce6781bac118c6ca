"""Losses over the utterances of a batch that count."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxser.types import Batch, Output

Loss = Callable[[Output, Batch, Float[Array, " C"]], Float[Array, ""]]
"""The loss of a batch, a scalar, from the output, the batch and the class weights; fillers do not count."""


def weighted_mean(values: Float[Array, " B"], batch: Batch) -> Float[Array, ""]:
    """The mean over the batch's utterances, fillers left out."""
    return (values * batch.weight).sum() / jnp.maximum(batch.weight.sum(), 1)


def cross_entropy(output: Output, batch: Batch, class_weights: Float[Array, " C"]) -> Float[Array, ""]:
    """Mean of -log p(label), each utterance weighted by its class's weight (Sun 2021, eq. 20, where all are 1)."""
    chosen = jnp.take_along_axis(output.log_probs, batch.label[:, None], axis=1)[:, 0]
    return weighted_mean(-class_weights[batch.label] * chosen, batch)
