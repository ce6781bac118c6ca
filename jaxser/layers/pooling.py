"""Pools over time that see valid steps only; a fully masked row pools to zero."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked_mean(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """Mean over valid steps."""
    count = jnp.maximum(mask.sum(1, keepdims=True), 1).astype(x.dtype)
    return jnp.where(mask[..., None], x, 0).sum(1) / count


def masked_max(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """Maximum over valid steps."""
    lowest = jnp.finfo(x.dtype).min
    highest = jnp.where(mask[..., None], x, lowest).max(1, initial=lowest)
    return jnp.where(mask.any(1, keepdims=True), highest, 0)
