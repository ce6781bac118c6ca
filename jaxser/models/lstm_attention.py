"""LSTM attention (Ramet, Garner, Baeriswyl & Lazaridis, SLT 2018).

"Context-aware attention mechanism for speech emotion recognition". Equation numbers are the paper's; eq. 8 lacks a plus
sign. Details that the paper leaves open:

- The second BiLSTM (Fig. 2) is as wide as the first, reads its outputs, and weighs them (`pool_from`).
- The layer of Yang et al. has 128 units and their tanh, without which it would be redundant; that of Zhou et al. has no
  tanh, as in eq. 1.
- Dropout follows the dense layers and the first BiLSTM.
- Padding is masked. With `as_published`, it is not, and the order is that of section 3: utterances are padded with
  zeros, normalised, and get noise, in all frames. The statistics are those of the frames before padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jaxser.layers.attention import masked_softmax
from jaxser.layers.dropout import Dropout
from jaxser.layers.noise import WhiteNoise
from jaxser.layers.pooling import masked_mean
from jaxser.layers.recurrent import Recurrent
from jaxser.models.losses import cross_entropy, l2
from jaxser.models.network import Network
from jaxser.types import AttentionMap, Axis, Batch, FieldError, Hyper, Output

POOLINGS = ("mean", "zhou", "yang", "lstm_attention")
"""How the BiLSTM's outputs are pooled into one vector: the rows of Table 1."""

PUBLISHED_FRAMES = 500
"""Section 3: utterances are cut or zero-padded to five seconds."""


class LSTMAttention(Network):
    """The baseline of Fig. 1 and the attention models on top of it (section 3).

    Attributes:
        pooling: the attention model, of `POOLINGS`; `lstm_attention` is Fig. 2.
        pool_from: what the weights sum up: outputs of the "main" BiLSTM or of the "attention" model.
        dense_size: units of the three dense layers.
        hidden_size: units of the BiLSTM, per direction.
        attention_hidden: units of the attention model's BiLSTM, per direction.
        yang_dense: units of Yang et al.'s layer.
        normalise_weights: whether the sigmoid weights are divided by their sum.
        as_published: whether utterances are zero-padded to a fixed number of frames before they are normalised, and the
            padding is not masked.
    """

    pooling: str = "lstm_attention"
    pool_from: str = "main"
    dense_size: int = 256
    hidden_size: int = 128
    attention_hidden: int = 128
    yang_dense: int = 128
    normalise_weights: bool = False
    as_published: bool = False

    hyper: ClassVar[tuple[str, ...]] = ("dropout_rate", "noise_variance", "l2")

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return ("audio",)

    @property
    def lengths(self) -> Mapping[str, int]:
        """The paper's fixed number of frames, if `as_published`."""
        return {"audio": PUBLISHED_FRAMES} if self.as_published else {}

    @property
    def pads_first(self) -> bool:
        """Whether features are padded before they are normalised (section 3)."""
        return self.as_published

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        Raises:
            FieldError: if `pooling` or `pool_from` is unknown.
        """
        for field, allowed in (("pooling", POOLINGS), ("pool_from", ("main", "attention"))):
            if getattr(self, field) not in allowed:
                raise FieldError(f"{field}={getattr(self, field)!r} is not one of {', '.join(allowed)}")

        def dropped(x):
            return Dropout()(x, hyper["dropout_rate"], train=train)

        mask = jnp.ones_like(batch.audio_mask) if self.as_published else batch.audio_mask
        x = WhiteNoise()(batch.audio, mask, hyper["noise_variance"], train=train)
        for n in range(3):
            x = dropped(jax.nn.relu(nn.Dense(self.dense_size, name=f"dense_{n}")(x)))
        h = dropped(bilstm(self.hidden_size, "bilstm", x, mask))
        pooled, attention = self._pool(h, mask)
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return Output(jax.nn.log_softmax(logits), {"audio": logits}, attention)

    def _pool(
        self, h: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B F"], dict[str, AttentionMap]]:
        if self.pooling == "mean":
            return masked_mean(h, mask), {}
        keys = h  # the paper's H
        if self.pooling == "yang":
            keys = jnp.tanh(nn.Dense(self.yang_dense, name="attention_dense")(h))
        if self.pooling == "lstm_attention":
            keys = bilstm(self.attention_hidden, "attention_bilstm", h, mask)  # eqs. 5-9
        scores = nn.Dense(1, use_bias=False, name="score")(keys)[..., 0]  # eq. 1
        if self.pooling == "lstm_attention":
            weights = jnp.where(mask, jax.nn.sigmoid(scores), 0)  # section 2
            if self.normalise_weights:
                total = weights.sum(1, keepdims=True)
                weights = weights / jnp.where(total > 0, total, 1)
        else:
            weights = masked_softmax(scores, mask)  # eqs. 3, 4
        values = h if self.pool_from == "main" else keys
        attention = {"pooling_audio": AttentionMap(weights, (Axis("audio"),))}
        return jnp.einsum("bt,btd->bd", weights, values), attention  # eq. 2

    def loss(
        self, output: Output, batch: Batch, class_weights: Float[Array, " C"], params: PyTree, hyper: Hyper
    ) -> Float[Array, ""]:
        """Return the cross-entropy, with L2 regularisation of all kernels (section 3)."""
        return cross_entropy(output, batch, class_weights, hyper) + self.penalty(params, hyper)

    def penalty(self, params: PyTree, hyper: Hyper) -> Float[Array, ""]:
        """Return the L2 regularisation of all kernels (section 3)."""
        return hyper["l2"] * l2(params)


def bilstm(
    hidden_size: int, name: str, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]
) -> Float[Array, "B T 2*{hidden_size}"]:
    """Return forward and backward outputs of a BiLSTM, concatenated."""
    outputs = Recurrent(hidden_size, name=name)(x, mask)  # [B, T, 2, H]
    return outputs.reshape(*mask.shape, -1)
