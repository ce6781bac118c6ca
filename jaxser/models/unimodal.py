"""TextModel and AudioModel, the unimodal baselines of CAN (Lee et al., Interspeech 2020).

They are in section 4.3.1 of the paper (Lee, Yoon & Jung). Each is a BLSTM and the global attention of Mirsamadi et al.
2017 over one modality, with CAN's other settings. The paper does not state the number of heads (one, here) or what
AudioModel reads: here it reads the frames of the whole utterance, which has no segments without its words.
"""

from __future__ import annotations

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float

from jaxser.layers.embedding import WordEmbedding
from jaxser.models.can import BLSTM, GlobalAttention, weighted_sum
from jaxser.models.network import Network
from jaxser.types import HEADS, AttentionMap, Axis, Batch, Hyper, Output


class TextModel(Network):
    """A BLSTM with attention over the words."""

    hidden_size: int = 128
    train_embeddings: bool = True

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return ("words",)

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch."""
        vectors = WordEmbedding(self.train_embeddings)(batch)
        encode = AttentiveBLSTM(self.hidden_size, name="text_encoder")
        context, weights = encode(vectors, batch.words_mask, hyper["dropout_rate"], train=train)
        attention = {"text": AttentionMap(weights, (HEADS, Axis("words")))}
        logits = nn.Dense(self.num_classes, name="classifier")(context)
        return Output(jax.nn.log_softmax(logits), {"text": logits}, attention)


class AudioModel(Network):
    """A BLSTM with attention over the audio frames."""

    hidden_size: int = 128

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return ("audio",)

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch."""
        encode = AttentiveBLSTM(self.hidden_size, name="audio_encoder")
        context, weights = encode(batch.audio, batch.audio_mask, hyper["dropout_rate"], train=train)
        attention = {"audio": AttentionMap(weights, (HEADS, Axis("audio")))}
        logits = nn.Dense(self.num_classes, name="classifier")(context)
        return Output(jax.nn.log_softmax(logits), {"audio": logits}, attention)


class AttentiveBLSTM(nn.Module):
    """A BLSTM and the sum of its states, weighted by one learned query."""

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
