"""Pooling over the valid time steps; a fully masked row pools to zero."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked_mean(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """The mean over valid steps."""
    count = jnp.maximum(mask.sum(1, keepdims=True), 1).astype(x.dtype)
    return jnp.where(mask[..., None], x, 0).sum(1) / count


def masked_max(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """The maximum over valid steps; its gradient goes to the first step with the maximum.

    The step is selected by its index. The gradient of `max` finds it by equality, which fails if XLA recomputes `x`
    with another rounding.
    """
    first = jnp.where(mask[..., None], x, jnp.finfo(x.dtype).min).argmax(1, keepdims=True)
    is_first = (jnp.arange(x.shape[1])[:, None] == first) & mask[..., None]
    return jnp.where(is_first, x, 0).sum(1)
