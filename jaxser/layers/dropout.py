"""Dropout with a traced rate, so that one program can train replicas with different rates."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Rate = float | Float[Array, ""]


class Dropout(nn.Module):
    """Dropout of elements with probability `rate` in training.

    What is kept is scaled by 1 / (1 - rate).
    """

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"], rate: Rate, *, train: bool) -> Float[Array, "*shape"]:
        return dropped(self.make_rng("dropout"), x, rate) if train else x


class StochasticDepth(nn.Module):
    """Dropout of a residual branch for whole utterances (Huang et al. 2016).

    As in `Dropout`, what is kept is scaled by 1 / (1 - rate). Without a rate, nothing is dropped.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "*shape"], rate: Rate | None, *, train: bool
    ) -> Float[Array, "*shape"]:
        if rate is None or not train:
            return x
        keeps = kept(self.make_rng("dropout"), (len(x),) + (1,) * (x.ndim - 1), rate)
        return jnp.where(keeps, x / (1 - jnp.asarray(rate, x.dtype)), 0)


def dropped(key: PRNGKeyArray, x: Float[Array, "*shape"], rate: Rate) -> Float[Array, "*shape"]:
    """Set dropped elements of `x` to zero and scale the others by 1 / (1 - rate)."""
    return jnp.where(kept(key, x.shape, rate), x / (1 - jnp.asarray(rate, x.dtype)), 0)


def kept(key: PRNGKeyArray, shape: tuple[int, ...], rate: Rate) -> Bool[Array, ...]:
    """Draw a mask that is True with probability 1 - rate.

    The index of each element is hashed with two random words. The hash is `lowbias32` of C. Wellons's hash-prospector.
    It takes a thirtieth of the time of threefry, which took two thirds of a training step of Rajan et al.'s attention
    over 500 steps.
    """
    offset, salt = jax.random.bits(key, (2,), jnp.uint32)
    x = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) + offset
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD) + salt
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    x = x ^ (x >> 15)
    threshold = jnp.asarray(rate, jnp.float32) * 2**24
    return (x >> 8) >= threshold.astype(jnp.uint32)
