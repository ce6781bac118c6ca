"""LSTM attention: Ramet, Garner, Baeriswyl & Lazaridis, "Context-aware attention mechanism for speech emotion

recognition", SLT 2018. Equation numbers are the paper's; eq. 8 lacks a plus sign. Where it is silent: the second
BiLSTM (Fig. 2) is as wide as the first, reads its outputs and weighs them (`pool_from`); Yang et al.'s layer has 128
units and their tanh, without which it would change nothing; no tanh is in Zhou et al.'s, as in eq. 1; dropout is on the
outputs of the dense layers and of the first BiLSTM; padding takes no part (`as_published`: it does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jaxser.layers.attention import masked_softmax
from jaxser.layers.conv import mask_steps
from jaxser.layers.dropout import Dropout
from jaxser.layers.noise import WhiteNoise
from jaxser.layers.pooling import masked_mean
from jaxser.layers.recurrent import Recurrent
from jaxser.models.losses import cross_entropy, l2
from jaxser.models.network import Network
from jaxser.types import Batch, FieldError, Hyper, Output

POOLINGS = ("mean", "zhou", "yang", "lstm_attention")
"""How the BiLSTM's outputs become one vector: the rows of Table 1."""

PUBLISHED_FRAMES = 500
"""Section 3: five seconds; shorter utterances are padded with zeros."""


class LSTMAttention(Network):
    """The baseline of Fig. 1 and the attention models on top of it (section 3); `lstm_attention` is Fig. 2."""

    pooling: str = "lstm_attention"
    pool_from: str = (
        "main"  # what the weights sum up: the first BiLSTM's outputs, or those of the attention model
    )
    dense_size: int = 256
    hidden_size: int = 128
    attention_hidden: int = 128
    yang_dense: int = 128
    normalise_weights: bool = False  # divide the sigmoid weights by their sum
    as_published: bool = False  # zero padding up to the fixed number of frames takes part

    hyper: ClassVar[tuple[str, ...]] = ("dropout_rate", "noise_variance", "l2")

    @property
    def needs(self) -> tuple[str, ...]:
        """Frames alone."""
        return ("audio",)

    @property
    def lengths(self) -> Mapping[str, int]:
        """The paper's fixed number of frames, where padding takes part."""
        return {"audio": PUBLISHED_FRAMES} if self.as_published else {}

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Raises ValueError where `pooling` or `pool_from` is unknown."""
        for field, allowed in (("pooling", POOLINGS), ("pool_from", ("main", "attention"))):
            if getattr(self, field) not in allowed:
                raise FieldError(f"{field}={getattr(self, field)!r} is not one of {', '.join(allowed)}")

        def dropped(x):
            return Dropout()(x, hyper["dropout_rate"], train=train)

        mask = batch.audio_mask
        x = WhiteNoise()(batch.audio, mask, hyper["noise_variance"], train=train)
        if self.as_published:
            x, mask = mask_steps(x, mask), jnp.ones_like(mask)
        for n in range(3):
            x = dropped(jax.nn.relu(nn.Dense(self.dense_size, name=f"dense_{n}")(x)))
        h = dropped(bilstm(self.hidden_size, "bilstm", x, mask))
        pooled, attention = self._pool(h, mask)
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return Output(jax.nn.log_softmax(logits), {"audio": logits}, attention)

    def _pool(
        self, h: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B F"], dict[str, Float[Array, "B T"]]]:
        if self.pooling == "mean":
            return masked_mean(h, mask), {}
        read = h  # the paper's H
        if self.pooling == "yang":
            read = jnp.tanh(nn.Dense(self.yang_dense, name="attention_dense")(h))
        if self.pooling == "lstm_attention":
            read = bilstm(self.attention_hidden, "attention_bilstm", h, mask)  # eqs. 5-9
        scores = nn.Dense(1, use_bias=False, name="score")(read)[..., 0]  # eq. 1
        if self.pooling == "lstm_attention":
            weights = jnp.where(mask, jax.nn.sigmoid(scores), 0)  # section 2
            if self.normalise_weights:
                total = weights.sum(1, keepdims=True)
                weights = weights / jnp.where(total > 0, total, 1)
        else:
            weights = masked_softmax(scores, mask)  # eqs. 3, 4
        values = h if self.pool_from == "main" else read
        return jnp.einsum("bt,btd->bd", weights, values), {"pooling_audio": weights}  # eq. 2

    def loss(
        self, output: Output, batch: Batch, class_weights: Float[Array, " C"], params: PyTree, hyper: Hyper
    ) -> Float[Array, ""]:
        """Section 3: cross-entropy, and L2 on the kernels of the entire network."""
        return cross_entropy(output, batch, class_weights) + hyper["l2"] * l2(params)


def bilstm(
    hidden_size: int, name: str, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]
) -> Float[Array, "B T 2*{hidden_size}"]:
    """Forward and backward outputs, concatenated."""
    outputs = Recurrent(hidden_size, name=name)(x, mask)  # [B, T, 2, H]
    return outputs.reshape(*mask.shape, -1)
