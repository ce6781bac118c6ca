"""Probes: small networks that show what the frames of an encoder contain.

- `mean`: the head of EmoBox (Ma et al., Interspeech 2024): linear, ReLU, mean over time, linear.
- `statistics`: mean and standard deviation over time, standardised, and logistic regression.
- `attentive`: attentive statistics pooling (Okabe, Koshinaka & Shinoda, Interspeech 2018), whose equations are cited,
  and logistic regression.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.layers.attention import masked_softmax
from jaxser.layers.dropout import Dropout
from jaxser.layers.norm import BatchNorm
from jaxser.layers.pooling import masked_mean, weighted_statistics
from jaxser.models.network import Network
from jaxser.types import AttentionMap, Axis, Batch, FieldError, Hyper, Output

POOLINGS = ("mean", "statistics", "attentive")


class Probe(Network):
    """Pooling over time and a linear classifier.

    Attributes:
        pooling: how frames become one vector, of `POOLINGS`.
        hidden_size: units of the linear layer before the mean, or of the attention; `statistics` has none.
    """

    pooling: str = "statistics"
    hidden_size: int = 256

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return ("audio",)

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        Raises:
            FieldError: if `pooling` is unknown.
        """
        if self.pooling not in POOLINGS:
            raise FieldError(f"pooling={self.pooling!r} is not one of {', '.join(POOLINGS)}")
        pooled, attention = self._pool(batch.audio, batch.audio_mask)
        if self.pooling != "mean":
            pooled = self._standardised(pooled, batch, train=train)
        pooled = Dropout()(pooled, hyper["dropout_rate"], train=train)
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return Output(jax.nn.log_softmax(logits), {"audio": logits}, attention)

    def _pool(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B F"], dict[str, AttentionMap]]:
        if self.pooling == "mean":
            return masked_mean(jax.nn.relu(nn.Dense(self.hidden_size, name="hidden")(x)), mask), {}
        if self.pooling == "statistics":
            equal = mask / jnp.maximum(mask.sum(1, keepdims=True), 1)
            return weighted_statistics(x, equal.astype(x.dtype)), {}
        inner = jnp.tanh(nn.Dense(self.hidden_size, name="inner")(x))
        scores = nn.Dense(1, use_bias=False, name="score")(inner)[..., 0]  # eq. 4
        weights = masked_softmax(scores, mask)  # eq. 5
        return weighted_statistics(x, weights), {"audio": AttentionMap(weights, (Axis("audio"),))}

    def _standardised(self, pooled: Float[Array, "B F"], batch: Batch, *, train: bool) -> Float[Array, "B F"]:
        """Standardise each feature over utterances, with running averages outside of training."""
        rows = jnp.logical_and(batch.weight > 0, batch.audio_mask.any(1))
        return BatchNorm(name="standardise")(pooled[:, None], rows[:, None], train=train)[:, 0]
