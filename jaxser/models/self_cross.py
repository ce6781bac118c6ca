"""Self and Cross: self- against cross-attention (Rajan, Brutti & Cavallaro, ICASSP 2022).

"Is Cross-Attention Preferable to Self-Attention for Multi-Modal Emotion Recognition?". Equation numbers are the
paper's. The convolutions treat time as channels: each of their output steps is a learned mixture of all steps of the
padded utterance rather than a moment in time. The network therefore requires fixed lengths, and padding cannot be
masked after a convolution. Details that the paper leaves open:

- From the published code (github.com/smartcameras/SelfCrossAttn at df62166): no masks, no activation in the classifier,
  and dropout on the embedded words.
- Standard deviations are unbiased (over two vectors if there are two modalities), and a single vector is classified
  without statistics.
- Cross+Self shares the encoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.layers.attention import masked_softmax
from jaxser.layers.conv import mask_steps
from jaxser.layers.dropout import Dropout, Rate, dropped
from jaxser.layers.embedding import WordEmbedding
from jaxser.layers.pooling import masked_mean
from jaxser.layers.recurrent import Recurrent
from jaxser.models.network import Network
from jaxser.types import HEADS, AttentionMap, Axis, Batch, FieldError, Hyper, Output

ARRAYS = {"text": "words", "video": "video", "audio": "audio"}
"""The batch field of each modality."""


class Encoded(NamedTuple):
    """The states of a modality, their mask, and what their steps run over."""

    states: Float[Array, "B T D"]
    mask: Bool[Array, "B T"]
    axis: Axis


class SelfCross(Network):
    """The networks of Figs. 1 and 2, and those of Table 2.

    Attributes:
        modalities: the modalities, of "text", "video" and "audio".
        attention: ("self",), ("cross",) or both.
        statistics: whether statistical pooling combines the vectors of the attention modules (eq. 7).
        hidden_size: GRU units per direction.
        num_heads: heads of each attention module.
        classifier_size: hidden units of the classifier.
        relu_in_classifier: whether a ReLU follows the hidden layer of the classifier.
        audio_length: padded audio frames.
        audio_steps: steps after the audio convolution.
        video_length: padded video frames.
        video_steps: steps after the video convolution.
        words_length: padded words.
        train_embeddings: whether the word vectors are trained.
        as_published: whether padded words take part, as in the published code: the GRU reads them as zeros, attention
            weighs them, and the temporal average counts them. Standard deviations then precede the means; otherwise the
            order is that of eq. 7. The order makes no difference to training.
    """

    modalities: tuple[str, ...] = ("text", "video", "audio")
    attention: tuple[str, ...] = ("self",)
    statistics: bool = True
    hidden_size: int = 60
    num_heads: int = 6
    classifier_size: int = 60
    relu_in_classifier: bool = False
    audio_length: int = 1000
    audio_steps: int = 500
    video_length: int = 32
    video_steps: int = 25
    words_length: int = 128
    train_embeddings: bool = False
    as_published: bool = True

    hyper: ClassVar[tuple[str, ...]] = ("dropout_rate", "text_dropout_rate")

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return tuple(ARRAYS[m] for m in self.modalities)

    @property
    def lengths(self) -> Mapping[str, int]:
        """The padded length of each array, which the convolutions require."""
        return {name: getattr(self, f"{name}_length") for name in self.needs}

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        Raises:
            FieldError: if `attention` has an unknown kind, or "cross" with one modality.
        """
        encoded = self._encode(batch, hyper["text_dropout_rate"], train=train)
        pooled: list[Array] = []
        attention: dict[str, AttentionMap] = {}
        for kind in self.attention:
            vectors = []
            for source, target in self._pairs(kind):
                name = f"self_{target}" if source == target else f"{source}_to_{target}"
                attend = AveragedAttention(self.num_heads, name=name)
                vector, weights = attend(encoded[target], encoded[source], hyper["dropout_rate"], train=train)
                vectors.append(vector)
                attention[name] = AttentionMap(weights, (HEADS, encoded[source].axis))
            pooled += self._pool(vectors)
        hidden = nn.Dense(self.classifier_size, name="hidden")(jnp.concatenate(pooled, axis=-1))
        hidden = jax.nn.relu(hidden) if self.relu_in_classifier else hidden
        logits = nn.Dense(self.num_classes, name="classifier")(hidden)
        return Output(jax.nn.log_softmax(logits), {"fused": logits}, attention)  # eq. 7

    def _pairs(self, kind: str) -> list[tuple[str, str]]:
        """Return source (keys and values) and target (query) of each attention module."""
        if kind == "self":
            return [(m, m) for m in self.modalities]
        if kind != "cross" or len(self.modalities) == 1:
            raise FieldError(
                f"attention={self.attention} may contain only self, and cross if there are several modalities"
            )
        return [
            (source, target) for target in self.modalities for source in self.modalities if source != target
        ]

    def _encode(self, batch: Batch, text_rate: Rate, *, train: bool) -> dict[str, Encoded]:
        encoded = {}
        for m, name in zip(self.modalities, self.needs, strict=True):
            mask = getattr(batch, f"{name}_mask")
            axis = Axis("")  # learned mixtures of all steps
            if m == "text":
                axis = Axis("words")
                x = Dropout()(WordEmbedding(self.train_embeddings)(batch), text_rate, train=train)
                mask = jnp.ones_like(mask) if self.as_published else mask
            else:
                steps = {"audio": self.audio_steps, "video": self.video_steps}[m]
                x = mask_steps(getattr(batch, name), mask).swapaxes(1, 2)
                x = nn.Dense(steps, name=f"{m}_conv")(x).swapaxes(1, 2)  # eq. 1
                mask = jnp.ones(x.shape[:2], bool)
            states = Recurrent(self.hidden_size, cell="gru", name=f"{m}_encoder")(x, mask)  # eq. 2
            encoded[m] = Encoded(states.reshape(*mask.shape, -1), mask, axis)
        return encoded

    def _pool(self, vectors: list[Float[Array, "B D"]]) -> list[Float[Array, "B D"]]:
        if not self.statistics or len(vectors) == 1:
            return vectors
        mean, deviation = statistical_pooling(jnp.stack(vectors, axis=1))
        return [deviation, mean] if self.as_published else [mean, deviation]


class AveragedAttention(nn.Module):
    """Multi-head attention, averaged over the query's steps.

    Everything after the weights is linear, so that averaging the weights over the query's steps gives the same vector
    as averaging the outputs. Weights are computed one utterance at a time, and once more in the backward pass: 500 x
    500 weights of six heads fit into the cache, while those of a whole batch would take 200 MB and most of the time.
    """

    num_heads: int

    @nn.compact
    def __call__(
        self, target: Encoded, source: Encoded, rate: Rate, *, train: bool
    ) -> tuple[Float[Array, "B D"], Float[Array, "B K Ts"]]:
        """Return the averaged vector, and the averaged weights of the source's steps.

        Raises:
            FieldError: if `num_heads` does not divide the features.
        """
        batch, _, size = target.states.shape
        if size % self.num_heads:
            raise FieldError(f"num_heads={self.num_heads} does not divide the {size} features")

        def project(name, x):
            heads = nn.Dense(size, name=name)(x)
            return heads.reshape(*x.shape[:2], self.num_heads, -1)  # [B, T, K, D/K]

        q, k = project("query", target.states), project("key", source.states)  # eqs. 3, 4
        v = project("value", source.states)  # eq. 5
        keys = jax.random.split(self.make_rng("dropout"), batch) if train else None

        @jax.checkpoint
        def averaged(one):
            q, k, target_mask, source_mask, key = one
            scores = jnp.einsum("qkd,tkd->kqt", q, k) * (size // self.num_heads) ** -0.5
            weights = masked_softmax(scores, source_mask)  # eq. 6
            weights = weights if key is None else dropped(key, weights, rate)
            return masked_mean(weights, jnp.broadcast_to(target_mask, weights.shape[:2]))

        weights = jax.lax.map(averaged, (q, k, target.mask, source.mask, keys))
        gathered = jnp.einsum("bkt,btkd->bkd", weights, v).reshape(batch, size)
        return nn.Dense(size, name="out")(gathered), weights


def statistical_pooling(x: Float[Array, "B M D"]) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
    """Return the mean and the unbiased standard deviation over the M vectors.

    The gradient is finite even if the vectors are equal.
    """
    mean = x.mean(1)
    variance = ((x - mean[:, None]) ** 2).sum(1) / (x.shape[1] - 1)
    return mean, jnp.sqrt(variance + 1e-12)
