"""Dropout whose rate is traced, so that a sweep may hold replicas of different rates in one program."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Dropout(nn.Module):
    """Drops each element with probability `rate` in training and scales the others by 1 / (1 - rate)."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "*shape"], rate: float | Float[Array, ""], *, train: bool
    ) -> Float[Array, "*shape"]:
        if not train:
            return x
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, x.shape)
        return jnp.where(kept, x / (1 - jnp.asarray(rate, x.dtype)), 0)
