"""Batch normalisation over masked sequences."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.layers.conv import mask_steps


class BatchNorm(nn.Module):
    """Ioffe & Szegedy 2015: each of the last axis's features by its statistics over the valid steps of the batch.

    Padding and fillers count for nothing. Running averages, kept in `batch_stats` with PyTorch's weights of .9 and .1
    and used where `train` is False, stay as they are by a batch without a valid step, where Flax's layer gives NaN.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T *bands C"], mask: Bool[Array, "B T"], *, train: bool
    ) -> Float[Array, "B T *bands C"]:
        dtype, x = x.dtype, x.astype(jnp.float32)  # variances of a lower precision are of no use
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
    """Mean and (biased) variance of each feature over valid steps; zero where there is none."""
    axes = tuple(range(x.ndim - 1))
    count = jnp.maximum(mask.sum() * (x[0, 0].size // x.shape[-1]), 1).astype(x.dtype)
    x = mask_steps(x, mask)
    mean = x.sum(axes) / count
    return mean, jnp.maximum(jnp.square(x).sum(axes) / count - jnp.square(mean), 0)  # x is read once
