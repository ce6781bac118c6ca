"""TextModel and AudioModel of Lee et al. 2020 (section 4.3.1): a BLSTM and the global attention of Mirsamadi et al.

2017 on one modality, with CAN's other settings. Not stated: one head, and AudioModel reads the frames of the whole
utterance, which without its words has no segments.
"""

from __future__ import annotations

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float

from jaxser.layers.embedding import WordEmbedding
from jaxser.models.can import BLSTM, GlobalAttention, weighted_sum
from jaxser.models.network import Network
from jaxser.types import Batch, Hyper, Output


class TextModel(Network):
    """What is said."""

    hidden_size: int = 128
    train_embeddings: bool = True

    @property
    def needs(self) -> tuple[str, ...]:
        """The recipe's arrays that the model reads."""
        return ("words",)

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """The class probabilities of a batch."""
        vectors = WordEmbedding(self.train_embeddings)(batch)
        encode = AttentiveBLSTM(self.hidden_size, name="text_encoder")
        context, weights = encode(vectors, batch.words_mask, hyper["dropout_rate"], train=train)
        logits = nn.Dense(self.num_classes, name="classifier")(context)
        return Output(jax.nn.log_softmax(logits), {"text": logits}, {"text": weights})


class AudioModel(Network):
    """How it is said."""

    hidden_size: int = 128

    @property
    def needs(self) -> tuple[str, ...]:
        """The recipe's arrays that the model reads."""
        return ("audio",)

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """The class probabilities of a batch."""
        encode = AttentiveBLSTM(self.hidden_size, name="audio_encoder")
        context, weights = encode(batch.audio, batch.audio_mask, hyper["dropout_rate"], train=train)
        logits = nn.Dense(self.num_classes, name="classifier")(context)
        return Output(jax.nn.log_softmax(logits), {"audio": logits}, {"audio": weights})


class AttentiveBLSTM(nn.Module):
    """The sum of a BLSTM's states, weighted by one learned query."""

    hidden_size: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        rate: Float[Array, ""] | float,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B H"], Float[Array, "B 1 T"]]:
        states = BLSTM(self.hidden_size, name="blstm")(x, mask, rate, train=train)
        weights = GlobalAttention(num_heads=1, name="attention")(states, mask)
        return weighted_sum(weights, states), weights
