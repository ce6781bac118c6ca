"""Multi-head attention, the encoder layer and the position encoding of Vaswani et al. 2017, over masked sequences."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxser.types import AnyArray, FieldError


def masked_softmax(scores: Float[Array, "*rows T"], mask: Bool[Array, "*#rows T"]) -> Float[Array, "*rows T"]:
    """Softmax over the last axis's valid positions; zero, with a finite gradient, where none is valid."""
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(mask, jax.nn.softmax(scores, axis=-1), 0)


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(d / heads)) V of each head, concatenated and projected."""

    num_heads: int
    use_bias: bool = False

    @nn.compact
    def __call__(
        self, query: Float[Array, "B Tq D"], memory: Float[Array, "B Tk D"], memory_mask: Bool[Array, "B Tk"]
    ) -> tuple[Float[Array, "B Tq D"], Float[Array, "B K Tq Tk"]]:
        """Returns what `query` gathers from `memory`, and the weights by which it does.

        Raises ValueError where the heads do not divide the features.
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
        gathered = jnp.einsum("bkqt,btkd->bqkd", weights, v).reshape(query.shape)
        return nn.Dense(size, use_bias=self.use_bias, name="out")(gathered), weights


class FeedForward(nn.Module):
    """Vaswani et al. 2017, section 3.3."""

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
) -> tuple[Float[Array, "B Tq D"], Float[Array, "B K Tq Tk"]]:
    """Attention and feed-forward network, each dropped out, added to its input and normalised after (section 3.1).

    Returns its output and the attention's weights. It is self-attention where `memory` is `query`. Its layers become
    those of the compact module that calls it; `named` makes their names, as in "audio_{}_0".
    """
    attend = MultiHeadAttention(num_heads, name=named.format("attention"))
    gathered, weights = attend(query, memory, memory_mask)
    hidden = nn.LayerNorm(name=named.format("attention_norm"))(query + dropped(gathered))
    forward = FeedForward(feed_forward_size, name=named.format("feed_forward"))
    return nn.LayerNorm(name=named.format("norm"))(hidden + dropped(forward(hidden))), weights


def sinusoidal_positions(length: int, size: int) -> Float[AnyArray, "T D"]:
    """Vaswani et al. 2017, section 3.5: sines in the even features, cosines in the odd ones."""
    numpy = np if isinstance(length, int) else jnp  # a length is symbolic while a network is exported
    angle = numpy.arange(length, dtype=np.float32)[:, None] / 10000 ** (np.arange(0, size, 2) / size)
    waves = numpy.stack([numpy.sin(angle), numpy.cos(angle)], axis=-1)
    return waves.reshape(length, -1)[:, :size].astype(np.float32)
