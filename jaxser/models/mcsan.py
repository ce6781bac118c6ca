"""MCSAN: parallel cross- and self-attention (Sun, Liu, Tao & Lian, ICASSP 2021).

"Multimodal Cross- and Self-Attention Network for Speech Emotion Recognition". Equation numbers are the paper's. Details
that the paper leaves open:

- As in its reference [18] (Vaswani et al. 2017), the feed-forward layer is a ReLU network with 512 hidden units,
  dropout follows each sub-layer and the addition of positions, and scores are divided by sqrt(d / heads).
- The projections have no biases (eqs. 6-8), and the classifier f_theta has one hidden layer with 128 units.
- Convolutions keep the length and have no activation, and the stride of pooling is its size (eq. 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.layers.attention import encoder_layer, sinusoidal_positions
from jaxser.layers.conv import Conv1D, mask_steps, max_pool
from jaxser.layers.dropout import Dropout, StochasticDepth
from jaxser.layers.embedding import WordEmbedding
from jaxser.layers.pooling import masked_max
from jaxser.layers.recurrent import Recurrent
from jaxser.models.network import Network
from jaxser.types import HEADS, AttentionMap, Axis, Batch, FieldError, Hyper, Output

Sequences = dict[str, Float[Array, "B T D"]]
Masks = dict[str, Bool[Array, "B T"]]

ARRANGEMENTS = {
    "parallel": (("cross",), ("self",)),
    "cross": (("cross",),),
    "self": (("self",),),
    "cross_then_self": (("cross", "self"),),
    "self_then_cross": (("self", "cross"),),
}
"""The parallel chains of attention modules on top of the encoders."""


POOLINGS = 2
"""Blocks of convolution and pooling in the audio encoder (eq. 1)."""


class MCSAN(Network):
    """The network of Fig. 1; with one modality, its encoder and self-attention (Table 3).

    Attributes:
        modalities: "audio", "text" or both.
        arrangement: how the attention modules are arranged, of `ARRANGEMENTS`.
        hidden_size: width of the encoders and the attention modules.
        num_layers: layers of each attention module.
        num_heads: heads of each attention layer.
        feed_forward_size: hidden units of each feed-forward layer.
        kernel_size: kernel size of the convolutions.
        pool_size: size and stride of each pooling.
        relu_after_conv: whether a ReLU follows each convolution.
        classifier_size: hidden units of the classifier.
        train_embeddings: whether the word vectors are trained.
    """

    modalities: tuple[str, ...] = ("audio", "text")
    arrangement: str = "parallel"
    hidden_size: int = 128
    num_layers: int = 1
    num_heads: int = 8
    feed_forward_size: int = 512
    kernel_size: int = 3
    pool_size: int = 3
    relu_after_conv: bool = False
    classifier_size: int = 128
    train_embeddings: bool = False

    optional_hyper: ClassVar[tuple[str, ...]] = ("stochastic_depth_rate",)

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return tuple({"audio": "audio", "text": "words"}[m] for m in self.modalities)

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        Raises:
            FieldError: if `arrangement` is unknown or `num_heads` does not divide the features.
        """
        chains = self._chains()
        encoded, masks = self._encode(batch)
        pooled: list[Array] = []
        attention: dict[str, AttentionMap] = {}
        for chain in chains:
            sequences = encoded
            for kind in chain:
                module = AttentionModule(
                    kind,
                    self.num_layers,
                    self.num_heads,
                    self.feed_forward_size,
                    axes={"audio": Axis("audio", stride=self.pool_size**POOLINGS), "text": Axis("words")},
                    name=f"{kind}_attention",
                )
                sequences, weights = module(sequences, masks, hyper, train=train)
                attention |= weights
            pooled += [masked_max(sequences[m], masks[m]) for m in self.modalities]
        hidden = jnp.concatenate(pooled, axis=-1)  # eq. 18
        hidden = jax.nn.relu(nn.Dense(self.classifier_size, name="hidden")(hidden))
        logits = nn.Dense(self.num_classes, name="classifier")(hidden)
        return Output(jax.nn.log_softmax(logits), {"fused": logits}, attention)  # eq. 19

    def _chains(self) -> tuple[tuple[str, ...], ...]:
        if len(self.modalities) == 1:
            return ARRANGEMENTS["self"]
        if self.arrangement not in ARRANGEMENTS:
            raise FieldError(f"arrangement={self.arrangement!r} is not one of {', '.join(ARRANGEMENTS)}")
        return ARRANGEMENTS[self.arrangement]

    def _encode(self, batch: Batch) -> tuple[Sequences, Masks]:
        encoded, masks = {}, {}
        if "audio" in self.modalities:
            encoder = AudioEncoder(self.hidden_size, self.kernel_size, self.pool_size, self.relu_after_conv)
            encoded["audio"], masks["audio"] = encoder(batch.audio, batch.audio_mask)
        if "text" in self.modalities:
            words = WordEmbedding(self.train_embeddings)(batch)
            encoded["text"] = averaged_bilstm(self.hidden_size, "text_encoder")(words, batch.words_mask)
            masks["text"] = batch.words_mask
        return encoded, masks


class AudioEncoder(nn.Module):
    """Eqs. 1-3: two blocks of convolution and max-pooling, then an averaged BiLSTM."""

    hidden_size: int
    kernel_size: int
    pool_size: int
    relu: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B Ta H"], Bool[Array, "B Ta"]]:
        for _ in range(POOLINGS):
            x = Conv1D(self.hidden_size, self.kernel_size)(mask_steps(x, mask))
            x, mask = max_pool(jax.nn.relu(x) if self.relu else x, mask, self.pool_size)
        return averaged_bilstm(self.hidden_size, "bilstm")(x, mask), mask


def averaged_bilstm(hidden_size: int, name: str) -> Callable[[Array, Array], Array]:
    """Return the average of a BiLSTM's forward and backward states (eqs. 2-3 and 4-5)."""
    bilstm = Recurrent(hidden_size, name=name)
    return lambda x, mask: bilstm(x, mask).mean(axis=2)


class AttentionModule(nn.Module):
    """Positions and N layers of attention.

    Attributes:
        kind: "cross" (section 2.3) or "self" (section 2.4).
        num_layers: the number of layers.
        num_heads: heads of each layer.
        feed_forward_size: hidden units of each feed-forward layer.
        axes: what the steps of each modality run over.
    """

    kind: str
    num_layers: int
    num_heads: int
    feed_forward_size: int
    axes: Mapping[str, Axis]

    @nn.compact
    def __call__(
        self, sequences: Sequences, masks: Masks, hyper: Hyper, *, train: bool
    ) -> tuple[Sequences, dict[str, AttentionMap]]:
        def dropped(x):
            return Dropout()(x, hyper["dropout_rate"], train=train)

        def skipped(x):
            return StochasticDepth()(x, hyper.get("stochastic_depth_rate"), train=train)

        def with_positions(x):
            return dropped(x + sinusoidal_positions(*x.shape[1:]).astype(x.dtype))

        attention = {}
        sequences = {m: with_positions(h) for m, h in sequences.items()}
        for n in range(self.num_layers):
            updated = {}
            for m, h in sequences.items():
                source = self._source(m, sequences)
                updated[m], weights = encoder_layer(
                    h,
                    sequences[source],
                    masks[source],
                    num_heads=self.num_heads,
                    feed_forward_size=self.feed_forward_size,
                    dropped=dropped,
                    named=f"{m}_{{}}_{n}",
                    skipped=skipped,
                )  # eqs. 9-14, 15-17
                axes = HEADS, self.axes[m], self.axes[source]
                attention[f"{self.kind}_{m}_{n}"] = AttentionMap(weights, axes)
            sequences = updated
        return sequences, attention

    def _source(self, modality: str, sequences: Sequences) -> str:
        if self.kind == "self":
            return modality
        (other,) = (m for m in sequences if m != modality)
        return other
