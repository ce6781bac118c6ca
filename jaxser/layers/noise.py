"""White noise with a traced variance, which may differ between replicas of one program."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class WhiteNoise(nn.Module):
    """Adds independent Gaussian noise of the given variance to valid steps in training.

    The gradient with respect to the variance is finite at zero.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        variance: float | Float[Array, ""],
        *,
        train: bool,
    ) -> Float[Array, "B T D"]:
        if not train:
            return x
        is_on = jnp.asarray(variance, x.dtype) > 0
        deviation = jnp.where(is_on, jnp.sqrt(jnp.where(is_on, variance, 1)), 0)
        noise = jax.random.normal(self.make_rng("dropout"), x.shape, x.dtype)
        return x + jnp.where(mask[..., None], deviation * noise, 0)
