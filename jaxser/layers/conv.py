"""Convolution and pooling over time, and over time and frequency."""

from __future__ import annotations

from functools import reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.types import FieldError


class Conv1D(nn.Module):
    """Convolution over time, with zero padding.

    Output t is centred on step t * stride, so that the mask of the output is `mask[:, ::stride]`. The convolution is
    one matrix product over unfolded windows, which stays a batched product under vmap over replicas; XLA's convolution
    would become a grouped one.
    """

    features: int
    kernel_size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B -(-T//{self.stride}) F"]:
        before = (self.kernel_size - 1) // 2
        padded = jnp.pad(x, ((0, 0), (before, self.kernel_size - 1 - before), (0, 0)))
        windows = [padded[:, shift : shift + x.shape[1] : self.stride] for shift in range(self.kernel_size)]
        return nn.Dense(self.features)(jnp.concatenate(windows, axis=-1))


class Conv2D(nn.Module):
    """Convolution over time and frequency with zero padding.

    The kernel is square and of odd size, with stride 1. The convolution keeps both lengths. It has no biases, since
    batch normalisation follows it.
    """

    features: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T F C"]) -> Float[Array, "B T F D"]:
        """Apply the convolution.

        Raises:
            FieldError: if `kernel_size` is even.
        """
        if self.kernel_size % 2 == 0:
            raise FieldError(f"kernel_size={self.kernel_size} must be odd")
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        return convolve(x, self.param("kernel", nn.initializers.lecun_normal(), shape, x.dtype))


@jax.custom_vjp
def convolve(x: Float[Array, "B T F C"], kernel: Float[Array, "K K C D"]) -> Float[Array, "B T F D"]:
    """Return the convolution of `Conv2D`.

    On a CPU, XLA's convolution is three times as fast as a product over unfolded windows, but its gradient takes
    seconds inside a scan. The gradient, and the convolution on other platforms, are therefore products, which stay
    batched under vmap over replicas.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return jnp.concatenate(_windows(x, len(kernel)), axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _convolve_backward(saved, dy):
    x, kernel = saved
    dx = convolve(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    products = [jnp.einsum("btfc,btfd->bcd", w, dy).sum(0) for w in _windows(x, len(kernel))]
    return dx, jnp.stack(products).reshape(kernel.shape)


convolve.defvjp(lambda x, kernel: (convolve(x, kernel), (x, kernel)), _convolve_backward)


def _windows(x, size):
    """Return the input under each kernel position, in the order of the kernel's elements."""
    _, steps, bands, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    return [padded[:, t : t + steps, f : f + bands] for t in range(size) for f in range(size)]


def max_pool(
    x: Float[Array, "B T D"], mask: Bool[Array, "B T"], size: int
) -> tuple[Float[Array, "B T//{size} D"], Bool[Array, "B T//{size}"]]:
    """Compute the maximum over adjacent windows of `size` steps.

    Windows with a padded step are masked and zero, as PyTorch's MaxPool1d drops an incomplete last window.
    """
    batch, steps, features = x.shape
    windows = x[:, : steps // size * size].reshape(batch, steps // size, size, features)
    valid = mask[:, : steps // size * size].reshape(batch, steps // size, size).all(-1)
    # Half the time of `windows.max(2)` and its gradient.
    highest = reduce(jnp.maximum, [windows[:, :, i] for i in range(size)])
    return jnp.where(valid[..., None], highest, 0), valid


def average_pool(
    x: Float[Array, "B T F C"], mask: Bool[Array, "B T"], size: tuple[int, int]
) -> tuple[Float[Array, "B T//{size[0]} F//{size[1]} C"], Bool[Array, "B T//{size[0]}"]]:
    """Compute the mean over adjacent windows of `size` (steps, frequency bands).

    Windows are masked as in `max_pool`.
    """
    time, band = size
    batch, steps, bands, channels = x.shape
    shape = (batch, steps // time, time, bands // band, band, channels)
    means = x[:, : shape[1] * time, : shape[3] * band].reshape(shape).mean((2, 4))
    valid = mask[:, : shape[1] * time].reshape(shape[:3]).all(-1)
    return mask_steps(means, valid), valid


def mask_steps(x: Float[Array, "B T *features"], mask: Bool[Array, "B T"]) -> Float[Array, "B T *features"]:
    """Set padded steps to zero, so that convolutions see them as the end of an array."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, 0)
