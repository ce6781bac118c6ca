"""Learned alignment of speech and text (Xu et al., Interspeech 2019).

The paper is "Learning Alignment for Multimodal Emotion Recognition from Speech" by Xu, Zhang, Han, Wang, Peng and Li.
Each word attends to the frames of speech, and a recurrent layer with attention reads the aligned speech, concatenated
with the states of the words.

With `as_published` and the other fields of `xu` in `configs/baselines.py`, this is the network of the authors' toolkit,
`AlignClassModel` in github.com/Delta-ML/delta at 31dfebc. It has a dense layer before the encoder of speech, the GRU of
Keras in TensorFlow 1, and two dropout layers in a row after the pooling. Utterances are padded to 7 s and 100 words;
only the attention over words masks the padding. Weights are initialised as in the other networks here, and the vector
of a padded word starts at zero instead of at random.
"""

from __future__ import annotations

from collections.abc import Mapping

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

DROPOUT_LAYERS = (
    "embedding",
    "speech_dense",
    "encoders",
    "alignment",
    "fusion",
    "pooling",
    "classifier_input",
)
"""The layers that dropout can follow; `pooling` and `classifier_input` follow each other."""

PUBLISHED_LENGTHS = {"audio": 700, "words": 100}
"""The frames of 7 s and the words that utterances are cut or padded to in the published code."""


class Xu(Network):
    """Encoders of speech and text, their alignment, and a recurrent layer over words.

    Attributes:
        hidden_size: recurrent units per direction.
        cell: the recurrent cell, of `jaxser.layers.recurrent.CELLS`.
        num_heads: heads of the alignment.
        join_text: whether the states of the words are concatenated with the aligned speech.
        speech_dense: units of the ReLU layer before the encoder of speech; 0 leaves it out.
        dropout_after: the layers that dropout follows, of `DROPOUT_LAYERS`.
        train_embeddings: whether the word vectors are trained.
        as_published: whether utterances have the published lengths, and the encoders and the alignment read padding.
    """

    hidden_size: int = 100
    cell: str = "gru_keras"
    num_heads: int = 8
    join_text: bool = True
    speech_dense: int = 0
    dropout_after: tuple[str, ...] = ("embedding", "encoders", "alignment", "pooling")
    train_embeddings: bool = True
    as_published: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return "audio", "words"

    @property
    def lengths(self) -> Mapping[str, int]:
        """The published lengths, if `as_published`."""
        return PUBLISHED_LENGTHS if self.as_published else {}

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

        words_mask = batch.words_mask  # of the attention over words
        if self.as_published:
            masks = {name: jnp.ones_like(getattr(batch, name)) for name in ("audio_mask", "words_mask")}
            batch = batch._replace(**masks)
        vectors = dropped(WordEmbedding(self.train_embeddings)(batch), "embedding")
        text = dropped(self._recurrent("text_encoder", vectors, batch.words_mask), "encoders")
        speech = batch.audio
        if self.speech_dense:
            dense = nn.Dense(self.speech_dense, name="speech_dense")
            speech = dropped(jax.nn.relu(dense(speech)), "speech_dense")
        speech = dropped(self._recurrent("audio_encoder", speech, batch.audio_mask), "encoders")
        align = MultiHeadAttention(self.num_heads, use_bias=True, name="alignment")
        aligned, alignment = align(text, speech, batch.audio_mask)
        aligned = dropped(aligned, "alignment")
        if self.join_text:
            aligned = jnp.concatenate([aligned, text], axis=-1)
        fused = dropped(self._recurrent("fusion", aligned, batch.words_mask), "fusion")
        keys = jnp.tanh(nn.Dense(fused.shape[-1], name="attention_dense")(fused))
        weights = masked_softmax(nn.Dense(1, use_bias=False, name="score")(keys)[..., 0], words_mask)
        pooled = dropped(jnp.einsum("bt,btd->bd", weights, fused), "pooling")
        pooled = dropped(pooled, "classifier_input")
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
