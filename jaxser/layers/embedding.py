"""Word embeddings: a fixed table that all replicas share, or a trained copy of it."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxser.types import Batch


class WordEmbedding(nn.Module):
    """Looks up the words of a batch; padding is zero.

    Attributes:
        trainable: whether the table is a parameter, initialised with the batch's table.
    """

    trainable: bool

    @nn.compact
    def __call__(self, batch: Batch) -> Float[Array, "B Tt E"]:
        table = batch.embeddings
        if self.trainable:
            table = self.param("table", lambda _: jnp.array(batch.embeddings))
        return jnp.where(batch.words_mask[..., None], table[batch.words], 0)
