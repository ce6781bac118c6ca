"""The transformer layers of all encoders (Vaswani et al. 2017), pre-norm or post-norm.

wav2vec 2.0 Base, HuBERT Base, WavLM and data2vec normalise after each residual connection, as Vaswani et al. do. The
large wav2vec 2.0 and HuBERT models, WavLM Large and Whisper normalise before attention and before the feed-forward
network (Xiong et al. 2020), and once more after the last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.encoders.attention import ScoreBias, attend
from jaxser.layers.dropout import Dropout

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_python": partial(jax.nn.gelu, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_fast": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "leaky_relu": jax.nn.leaky_relu,
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
}
"""Activation functions by their names in a config.json."""


@dataclass(frozen=True)
class DropoutRates:
    """Probabilities to drop in training; all 0 in inference.

    Attributes:
        hidden: outputs of attention and of the feed-forward network, and the input of the first layer.
        attention: attention weights.
        activation: hidden units of the feed-forward network.
        projection: projected features of the feature encoder.
        layer: whole layers (LayerDrop, Fan et al. 2020).
    """

    hidden: float = 0.0
    attention: float = 0.0
    activation: float = 0.0
    projection: float = 0.0
    layer: float = 0.0


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and choices of a transformer.

    Attributes:
        layers: number of layers.
        width: features of a frame.
        heads: attention heads, which divide the width.
        feed_forward_size: hidden units of the feed-forward network.
        activation: a name in `ACTIVATIONS`.
        pre_norm: whether to normalise before attention and the feed-forward network, rather than after.
        epsilon: added to the variance in layer normalisation.
        key_bias: whether the projection to keys has a bias.
        dropout: probabilities to drop in training.
    """

    layers: int
    width: int
    heads: int
    feed_forward_size: int
    activation: str = "gelu"
    pre_norm: bool = False
    epsilon: float = 1e-5
    key_bias: bool = True
    dropout: DropoutRates = DropoutRates()


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2).

    Relative positions are optional.
    """

    config: TransformerConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B F D"],
        mask: Bool[Array, "B F"],
        positions: Float[Array, "K F F"] | None = None,
        *,
        train: bool,
    ) -> Float[Array, "B F D"]:
        """Attend to the valid frames.

        Args:
            x: the frames.
            mask: the valid frames.
            positions: what is added to the scores of each head and each pair of positions, times `gate`.
            train: whether to drop attention weights.
        """
        config = self.config

        def project(name: str, use_bias: bool = True) -> Float[Array, "B F K d"]:
            heads = nn.Dense(config.width, use_bias=use_bias, dtype=self.dtype, name=name)(x)
            return heads.reshape(*x.shape[:2], config.heads, -1)

        query, key, value = project("query"), project("key", config.key_bias), project("value")
        rate = config.dropout.attention
        attended = attend(
            query,
            key,
            value,
            mask,
            None if positions is None else ScoreBias(positions, self.gate(x)),
            dropout=(self.make_rng("dropout"), rate) if train and rate else None,
        )
        return nn.Dense(config.width, dtype=self.dtype, name="out")(attended.reshape(x.shape))

    def gate(self, x: Float[Array, "B F D"]) -> Float[Array, "B F K"]:
        """Return the factor of the position scores for each query and head."""
        return jnp.ones((*x.shape[:2], self.config.heads), jnp.float32)


class FeedForward(nn.Module):
    """The position-wise feed-forward network (Vaswani et al. 2017, section 3.3)."""

    config: TransformerConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B F D"], *, train: bool) -> Float[Array, "B F D"]:
        config = self.config
        hidden = nn.Dense(config.feed_forward_size, dtype=self.dtype, name="in")(x)
        hidden = ACTIVATIONS[config.activation](hidden)
        hidden = Dropout()(hidden, config.dropout.activation, train=train)
        return nn.Dense(config.width, dtype=self.dtype, name="out")(hidden)


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward network.

    Each has a residual connection and layer normalisation.
    """

    config: TransformerConfig
    dtype: jnp.dtype
    attention: type[SelfAttention] = SelfAttention

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B F D"],
        mask: Bool[Array, "B F"],
        positions: Float[Array, "K F F"] | None,
        train: bool,
    ) -> Float[Array, "B F D"]:
        config = self.config

        def dropped_out(x: Array) -> Array:
            return Dropout()(x, config.dropout.hidden, train=train)

        def attend(x: Array) -> Array:
            return self.attention(config, self.dtype, name="attention")(x, mask, positions, train=train)

        forward = FeedForward(config, self.dtype, name="feed_forward")
        attention_norm = nn.LayerNorm(config.epsilon, dtype=self.dtype, name="attention_norm")
        norm = nn.LayerNorm(config.epsilon, dtype=self.dtype, name="norm")
        before = x
        if config.pre_norm:
            x = x + dropped_out(attend(attention_norm(x)))
            x = x + dropped_out(forward(norm(x), train=train))
        else:
            x = attention_norm(x + dropped_out(attend(x)))
            x = norm(x + dropped_out(forward(x, train=train)))
        if train and config.dropout.layer:
            is_dropped = jax.random.bernoulli(self.make_rng("dropout"), config.dropout.layer)
            x = jnp.where(is_dropped, before, x)
        return x
