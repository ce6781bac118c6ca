"""Pooling over the valid time steps; a fully masked row pools to zero."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked_mean(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """Return the mean over valid steps."""
    count = jnp.maximum(mask.sum(1, keepdims=True), 1).astype(x.dtype)
    return jnp.where(mask[..., None], x, 0).sum(1) / count


def masked_max(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """Return the maximum over valid steps.

    Its gradient goes to the first step with the maximum. The step is selected by its index. The gradient of `max` finds
    it by equality, which fails if XLA recomputes `x` with another rounding.
    """
    first = jnp.where(mask[..., None], x, jnp.finfo(x.dtype).min).argmax(1, keepdims=True)
    is_first = (jnp.arange(x.shape[1])[:, None] == first) & mask[..., None]
    return jnp.where(is_first, x, 0).sum(1)


def weighted_statistics(x: Float[Array, "B T D"], weights: Float[Array, "B T"]) -> Float[Array, "B 2*D"]:
    """Return the weighted mean and standard deviation (Okabe et al. 2018, eqs. 6 and 7).

    Both are taken over time, with weights that sum to 1. A floor of 1e-6 under the variance keeps the gradient finite
    for constant frames; rows of zero weights are finite.
    """
    mean = jnp.einsum("bt,btd->bd", weights, x)
    variance = jnp.einsum("bt,btd->bd", weights, jnp.square(x - mean[:, None]))
    return jnp.concatenate([mean, jnp.sqrt(jnp.maximum(variance, 1e-6))], axis=1)
