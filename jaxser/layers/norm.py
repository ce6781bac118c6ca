"""Batch normalisation over masked sequences."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.layers.conv import mask_steps


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) of the last axis, over valid steps.

    Padded steps and padding rows are left out. Running averages are kept in `batch_stats` and used if `train` is False;
    they have PyTorch's momentum. A batch without a valid step leaves them unchanged, while Flax's layer returns NaN.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T *bands C"], mask: Bool[Array, "B T"], *, train: bool
    ) -> Float[Array, "B T *bands C"]:
        dtype, x = x.dtype, x.astype(jnp.float32)  # lower precision is not enough for variances
        features = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, x.dtype)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, features, x.dtype)
        scale = self.param("scale", nn.initializers.ones, (features,)).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (features,)).astype(x.dtype)
        mean, variance = running_mean.value, running_variance.value
        if train:
            mean, variance = masked_moments(x, mask)
            kept = jnp.where(mask.any(), self.momentum, 1)
            running_mean.value = kept * running_mean.value + (1 - kept) * mean
            running_variance.value = kept * running_variance.value + (1 - kept) * variance
        slope = scale * jax.lax.rsqrt(variance + self.epsilon)
        return (x * slope + (bias - mean * slope)).astype(dtype)


def masked_moments(
    x: Float[Array, "B T *bands C"], mask: Bool[Array, "B T"]
) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    """Return the mean and biased variance over valid steps; zero without valid steps."""
    axes = tuple(range(x.ndim - 1))
    count = jnp.maximum(mask.sum() * (x[0, 0].size // x.shape[-1]), 1).astype(x.dtype)
    x = mask_steps(x, mask)
    mean = x.sum(axes) / count
    return mean, jnp.maximum(jnp.square(x).sum(axes) / count - jnp.square(mean), 0)  # reads x once
