"""Learned alignment of speech and text (Xu, Zhang, Han, Wang, Peng & Li, Interspeech 2019).

"Learning Alignment for Multimodal Emotion Recognition from Speech": each word attends to the frames of speech, and a
recurrent layer with attention reads the aligned speech. The defaults are those of the authors' DELTA toolkit
(egs/iemocap/emo/v1), which classifies the aligned speech alone, so that the words serve as queries only; the paper
concatenates it with the states of the words (`join_text`). DELTA uses Keras's GRU of TensorFlow 1, here with plain
sigmoids; it applies dropout to the pooled vector twice in a row, here once; and it has no masks, while here padding is
masked.
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
from jaxser.types import HEADS, AttentionMap, Axis, Batch, FieldError, Hyper, Output

DROPOUT_LAYERS = ("embedding", "encoders", "alignment", "fusion", "pooling")
"""The layers that dropout can follow."""


class Xu(Network):
    """Encoders of speech and text, their alignment, and a recurrent layer over the aligned words.

    Attributes:
        hidden_size: recurrent units per direction.
        cell: the recurrent cell, of `jaxser.layers.recurrent.CELLS`.
        num_heads: heads of the alignment.
        join_text: whether the states of the words are concatenated with the aligned speech.
        dropout_after: the layers that dropout follows, of `DROPOUT_LAYERS`.
        train_embeddings: whether the word vectors are trained.
    """

    hidden_size: int = 100
    cell: str = "gru_tf1"
    num_heads: int = 8
    join_text: bool = False
    dropout_after: tuple[str, ...] = ("embedding", "encoders", "alignment", "pooling")
    train_embeddings: bool = True

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return "audio", "words"

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        Raises:
            FieldError: if `dropout_after` has an unknown layer or `num_heads` does not divide the features.
        """
        if not set(self.dropout_after) <= set(DROPOUT_LAYERS):
            raise FieldError(
                f"dropout_after={self.dropout_after} may contain only {', '.join(DROPOUT_LAYERS)}"
            )

        def dropped(x, layer):
            return Dropout()(x, hyper["dropout_rate"], train=train) if layer in self.dropout_after else x

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
        keys = jnp.tanh(nn.Dense(fused.shape[-1], name="attention_dense")(fused))
        weights = masked_softmax(nn.Dense(1, use_bias=False, name="score")(keys)[..., 0], words_mask)
        pooled = dropped(jnp.einsum("bt,btd->bd", weights, fused), "pooling")
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        attention = {
            "alignment": AttentionMap(alignment, (HEADS, Axis("words"), Axis("audio"))),
            "pooling_words": AttentionMap(weights, (Axis("words"),)),
        }
        return Output(jax.nn.log_softmax(logits), {"fused": logits}, attention)

    def _recurrent(
        self, name: str, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B T H"]:
        """Concatenate the states of both directions."""
        return Recurrent(self.hidden_size, self.cell, name=name)(x, mask).reshape(*mask.shape, -1)
