"""Learned alignment: Xu, Zhang, Han, Wang, Peng & Li, "Learning Alignment for Multimodal Emotion Recognition from

Speech", Interspeech 2019: each word gathers frames of speech by attention, and a recurrent layer with attention reads
what they gathered. The fields' values are those of the authors' DELTA toolkit (egs/iemocap/emo/v1), which classifies
the gathered speech alone: there the words only ask; the paper joins what a word gathered with the word's own state
(`join_text`). DELTA's GRU is Keras's of TensorFlow 1, here with plain sigmoids; it drops the pooled vector twice in a
row, here once, and masks nothing: here padding takes no part.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.layers.attention import MultiHeadAttention, masked_softmax
from jaxser.layers.dropout import Dropout
from jaxser.layers.embedding import WordEmbedding
from jaxser.layers.recurrent import Recurrent
from jaxser.models.network import Network
from jaxser.types import Batch, FieldError, Hyper, Output

DROPOUT_PLACES = ("embedding", "encoders", "alignment", "fusion", "pooling")
"""After which layers there can be dropout."""


class Xu(Network):
    """Encoders of speech and text, the alignment, and the recurrent layer over the aligned words."""

    hidden_size: int = 100  # in each direction
    cell: str = "gru_tf1"
    num_heads: int = 8
    join_text: bool = False
    dropout_after: tuple[str, ...] = ("embedding", "encoders", "alignment", "pooling")
    train_embeddings: bool = True

    @property
    def needs(self) -> tuple[str, ...]:
        """The recipe's arrays that the model reads."""
        return "audio", "words"

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Raises ValueError where `dropout_after` names another layer or the heads do not divide the features."""
        if unknown := set(self.dropout_after) - set(DROPOUT_PLACES):
            raise FieldError(f"dropout_after has {', '.join(unknown)}, not of {', '.join(DROPOUT_PLACES)}")

        def dropped(x, place):
            return Dropout()(x, hyper["dropout_rate"], train=train) if place in self.dropout_after else x

        words_mask = batch.words_mask
        vectors = dropped(WordEmbedding(self.train_embeddings)(batch), "embedding")
        text = dropped(self._recurrent("text_encoder", vectors, words_mask), "encoders")
        speech = dropped(self._recurrent("audio_encoder", batch.audio, batch.audio_mask), "encoders")
        align = MultiHeadAttention(self.num_heads, use_bias=True, name="alignment")
        aligned, alignment = align(text, speech, batch.audio_mask)
        aligned = dropped(aligned, "alignment")
        if self.join_text:
            aligned = jnp.concatenate([aligned, text], axis=-1)
        fused = dropped(self._recurrent("fusion", aligned, words_mask), "fusion")
        read = jnp.tanh(nn.Dense(fused.shape[-1], name="attention_dense")(fused))
        weights = masked_softmax(nn.Dense(1, use_bias=False, name="score")(read)[..., 0], words_mask)
        pooled = dropped(jnp.einsum("bt,btd->bd", weights, fused), "pooling")
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        attention = {"alignment": alignment, "pooling_words": weights}
        return Output(jax.nn.log_softmax(logits), {"fused": logits}, attention)

    def _recurrent(
        self, name: str, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B T H"]:
        """States of both directions, side by side."""
        return Recurrent(self.hidden_size, self.cell, name=name)(x, mask).reshape(*mask.shape, -1)
