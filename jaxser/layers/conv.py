"""Convolution and pooling along time."""

from __future__ import annotations

from functools import reduce

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Conv1D(nn.Module):
    """Convolution over time, stride 1, zero-padded to the same length.

    One matrix product over unfolded windows: under vmap over replicas it stays a batched product, where XLA's
    convolution becomes a grouped one.
    """

    features: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T F"]:
        before = (self.kernel_size - 1) // 2
        padded = jnp.pad(x, ((0, 0), (before, self.kernel_size - 1 - before), (0, 0)))
        windows = [padded[:, shift : shift + x.shape[1]] for shift in range(self.kernel_size)]
        return nn.Dense(self.features)(jnp.concatenate(windows, axis=-1))


def max_pool(
    x: Float[Array, "B T D"], mask: Bool[Array, "B T"], size: int
) -> tuple[Float[Array, "B T//{size} D"], Bool[Array, "B T//{size}"]]:
    """Maximum over windows of `size` steps, one after the other; windows that are not wholly valid are dropped,

    as PyTorch's MaxPool1d drops an incomplete last one. Their values are zero.
    """
    batch, steps, features = x.shape
    windows = x[:, : steps // size * size].reshape(batch, steps // size, size, features)
    valid = mask[:, : steps // size * size].reshape(batch, steps // size, size).all(-1)
    highest = reduce(
        jnp.maximum, [windows[:, :, i] for i in range(size)]
    )  # half the time of windows.max(2) and its gradient
    return jnp.where(valid[..., None], highest, 0), valid


def mask_steps(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
    """Zero where padded, so that a convolution sees what it would see at a sequence's end."""
    return jnp.where(mask[..., None], x, 0)
