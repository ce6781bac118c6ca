"""Masked multi-head attention, encoder layers, position encodings (Vaswani et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxser.types import AnyArray, FieldError


def masked_softmax(scores: Float[Array, "*rows T"], mask: Bool[Array, "*#rows T"]) -> Float[Array, "*rows T"]:
    """Compute the softmax over the valid positions of the last axis.

    A row without a valid position is zero, and so is its gradient.
    """
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(mask, jax.nn.softmax(scores, axis=-1), 0)


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(d / heads)) V of each head, concatenated and projected.

    Attributes:
        num_heads: the number of heads, which must divide the features.
        use_bias: whether the projections have biases.
    """

    num_heads: int
    use_bias: bool = False

    @nn.compact
    def __call__(
        self, query: Float[Array, "B Tq D"], memory: Float[Array, "B Tk D"], memory_mask: Bool[Array, "B Tk"]
    ) -> tuple[Float[Array, "B Tq D"], Float[Array, "B K Tq Tk"]]:
        """Return the attended values for each query position, and the attention weights.

        Raises:
            FieldError: if `num_heads` does not divide the features.
        """
        size = query.shape[-1]
        if size % self.num_heads:
            raise FieldError(f"num_heads={self.num_heads} does not divide the {size} features")

        def project(name, x):
            heads = nn.Dense(size, use_bias=self.use_bias, name=name)(x)
            return heads.reshape(*x.shape[:2], self.num_heads, -1)  # [B, T, K, D/K]

        q, k, v = project("query", query), project("key", memory), project("value", memory)
        scores = jnp.einsum("bqkd,btkd->bkqt", q, k) * (size // self.num_heads) ** -0.5
        weights = masked_softmax(scores, memory_mask[:, None, None, :])
        attended = jnp.einsum("bkqt,btkd->bqkd", weights, v).reshape(query.shape)
        return nn.Dense(size, use_bias=self.use_bias, name="out")(attended), weights


class FeedForward(nn.Module):
    """The feed-forward network of Vaswani et al. 2017, section 3.3, with `size` hidden units."""

    size: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        hidden = jax.nn.relu(nn.Dense(self.size)(x))
        return nn.Dense(x.shape[-1])(hidden)


def encoder_layer(
    query: Float[Array, "B Tq D"],
    memory: Float[Array, "B Tk D"],
    memory_mask: Bool[Array, "B Tk"],
    *,
    num_heads: int,
    feed_forward_size: int,
    dropped: Callable[[Array], Array],
    named: str,
    skipped: Callable[[Array], Array] = lambda x: x,
) -> tuple[Float[Array, "B Tq D"], Float[Array, "B K Tq Tk"]]:
    """Apply attention and a feed-forward network, as in an encoder of Vaswani et al.

    Each has dropout, a residual connection and post-normalisation. This is section 3.1 of Vaswani et al. 2017. The
    layers become children of the compact module that calls the function.

    Args:
        query: the sequence that attends.
        memory: the sequence that is attended to; the same as `query` for self-attention.
        memory_mask: the valid steps of `memory`.
        num_heads: heads of the attention.
        feed_forward_size: hidden units of the feed-forward network.
        dropped: applies dropout.
        named: a format string for the names of the layers, such as "audio_{}_0".
        skipped: applies stochastic depth to the output of a sub-layer.

    Returns:
        The output and the attention weights.
    """
    attend = MultiHeadAttention(num_heads, name=named.format("attention"))
    attended, weights = attend(query, memory, memory_mask)
    hidden = nn.LayerNorm(name=named.format("attention_norm"))(query + skipped(dropped(attended)))
    forward = FeedForward(feed_forward_size, name=named.format("feed_forward"))
    return nn.LayerNorm(name=named.format("norm"))(hidden + skipped(dropped(forward(hidden)))), weights


def sinusoidal_positions(length: int, size: int) -> Float[AnyArray, "T D"]:
    """Return the position encodings of Vaswani et al. 2017, section 3.5.

    Even features are sines, and odd ones cosines.
    """
    numpy = np if isinstance(length, int) else jnp  # lengths are symbolic during export
    angle = numpy.arange(length, dtype=np.float32)[:, None] / 10000 ** (np.arange(0, size, 2) / size)
    waves = numpy.stack([numpy.sin(angle), numpy.cos(angle)], axis=-1)
    return waves.reshape(length, -1)[:, :size].astype(np.float32)
