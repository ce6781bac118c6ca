"""MDRE, MHA and AMH: the systems of Yoon et al. that later papers compare with.

- MDRE: Yoon, Byun & Jung, "Multimodal Speech Emotion Recognition using Audio and Text", SLT 2018.
- MHA: Yoon, Byun, Dey & Jung, "Speech Emotion Recognition using Multi-hop Attention Mechanism", ICASSP 2019.
- AMH: Yoon, Dey, Lee & Jung, "Attentive Modality Hopping Mechanism for Speech Emotion Recognition", ICASSP 2020.

MDRE and AMH follow the published code (github.com/david-yoon/multimodal-speech-emotion at 44d05d5 and
attentive-modality-hopping-for-SER at fed3ece): the GRU of TensorFlow 1, 750 frames of audio and 25 of video, and
dropout on the inputs of the encoders. MDRE's code also applies dropout to the cells' outputs, but classifies the last
state, which that leaves unchanged; it has no video, for which we follow AMH. MHA has no published code: we follow the
description of Lee et al. 2020, and AMH otherwise. Weights are initialised as in the other networks here, and every unit
of a layer has its own bias (in MDRE's code, all units share one).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jaxser.layers.attention import masked_softmax
from jaxser.layers.dropout import Dropout
from jaxser.layers.embedding import WordEmbedding
from jaxser.layers.recurrent import Recurrent
from jaxser.models.losses import sigmoid_cross_entropy
from jaxser.models.network import Network
from jaxser.models.self_cross import ARRAYS
from jaxser.types import AttentionMap, Axis, Batch, FieldError, Hyper, Output

DROPOUT_SIDES = ("input", "output")
"""Where dropout can be applied: to the inputs of the encoders, and to their outputs."""


class Encoded(NamedTuple):
    """The states of a modality, and the last state; both directions are concatenated."""

    states: Float[Array, "B T H"]
    last: Float[Array, "B H"]
    mask: Bool[Array, "B T"]


class EncoderNetwork(Network):
    """The common base of the three networks: one recurrent encoder per modality.

    Attributes:
        modalities: the modalities, of "audio", "text" and "video".
        hidden_size: units of the audio and text encoders, per direction.
        video_hidden_size: units of the video encoder, per direction.
        cell: the recurrent cell, of `jaxser.layers.recurrent.CELLS`.
        bidirectional: whether the encoders read both directions.
        dropout_on: where dropout is applied, of `DROPOUT_SIDES`.
        audio_length: audio frames that are read, from the first one on; 0 for all.
        video_length: video frames that are read, from the first one on; 0 for all.
        prosody: whether to read functionals of the whole utterance, unnormalised; few recipes provide them.
        train_embeddings: whether the word vectors are trained.
    """

    modalities: tuple[str, ...] = ("audio", "text")
    hidden_size: int = 200
    video_hidden_size: int = 128
    cell: str = "gru_tf1"
    bidirectional: bool = False
    dropout_on: tuple[str, ...] = ("input",)
    audio_length: int = 750
    video_length: int = 25
    prosody: bool = False
    train_embeddings: bool = True

    hyper: ClassVar[tuple[str, ...]] = ("audio_dropout_rate", "text_dropout_rate", "video_dropout_rate")

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        arrays = tuple(ARRAYS[m] for m in self.modalities)
        return (*arrays, "prosody") if self.prosody else arrays

    def encode(self, batch: Batch, hyper: Hyper, *, train: bool) -> dict[str, Encoded]:
        """Encode each modality, in the order of `modalities`.

        Raises:
            FieldError: if `dropout_on` has an unknown value, or `prosody` is read without audio.
        """
        if self.prosody and "audio" not in self.modalities:
            raise FieldError(f"prosody=True needs audio in modalities={self.modalities}")
        if not set(self.dropout_on) <= set(DROPOUT_SIDES):
            raise FieldError(f"dropout_on={self.dropout_on} may contain only {', '.join(DROPOUT_SIDES)}")

        def dropped(x, modality, side):
            rate = hyper[f"{modality}_dropout_rate"]
            return Dropout()(x, rate, train=train) if side in self.dropout_on else x

        encoded = {}
        for m, (x, mask) in self._sequences(batch).items():
            size = self.video_hidden_size if m == "video" else self.hidden_size
            encoder = Recurrent(size, self.cell, self.bidirectional, name=f"{m}_encoder")
            states = dropped(encoder(dropped(x, m, "input"), mask), m, "output")  # [B, T, directions, H]
            encoded[m] = Encoded(states.reshape(*mask.shape, -1), last_state(states, mask), mask)
        return encoded

    def _sequences(self, batch: Batch) -> dict[str, tuple[Float[Array, "B T D"], Bool[Array, "B T"]]]:
        sequences = {}
        for m in self.modalities:
            x, mask = getattr(batch, ARRAYS[m]), getattr(batch, f"{ARRAYS[m]}_mask")
            if m == "text":
                sequences[m] = WordEmbedding(self.train_embeddings)(batch), mask
            else:
                steps = getattr(self, f"{m}_length") or mask.shape[1]
                sequences[m] = x[:, :steps], mask[:, :steps]
        return sequences

    def classify(self, vectors: list[Float[Array, "B _"]], attention: dict[str, AttentionMap]) -> Output:
        """Apply the classifier to the concatenated vectors."""
        logits = nn.Dense(self.num_classes, name="classifier")(jnp.concatenate(vectors, axis=1))
        return Output(jax.nn.log_softmax(logits), {"fused": logits}, attention)

    def functionals(self, batch: Batch) -> list[Float[Array, "B Dp"]]:
        """Return the prosody of the utterances, if the network reads it.

        An utterance without prosody has zeros.
        """
        return [jnp.where(batch.prosody_mask, batch.prosody[:, 0], 0)] if self.prosody else []


class MDRE(EncoderNetwork):
    """MDRE: the projected last states of the encoders, concatenated and classified.

    Each state is projected to half its size. Prosody is concatenated with the audio state before its projection. As in
    the published code, the loss is the sigmoid cross-entropy of each class, and the class with the highest logit is
    predicted.
    """

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch."""
        halves = []
        for m, encoded in self.encode(batch, hyper, train=train).items():
            functionals = self.functionals(batch) if m == "audio" else []
            vector = jnp.concatenate([encoded.last, *functionals], axis=1)
            halves.append(nn.Dense(vector.shape[1] // 2, name=f"{m}_projection")(vector))
        return self.classify(halves, {})

    def loss(
        self, output: Output, batch: Batch, class_weights: Float[Array, " C"], params: PyTree, hyper: Hyper
    ) -> Float[Array, ""]:
        """Return the sigmoid cross-entropy of each class."""
        return sigmoid_cross_entropy(output.logits["fused"], batch, class_weights, hyper)


class MHA(EncoderNetwork):
    """MHA: multi-hop attention between two modalities.

    The last state of the first modality attends to the states of the second, the resulting context to those of the
    first, and so on. The latest context of each modality is classified; after one hop, the first modality still has its
    last state. Lee et al. 2020 leave open the number of hops, here two as in the abstract of Yoon et al. 2019, and what
    happens to prosody, here concatenated with the two contexts.

    Attributes:
        num_hops: the number of attention hops.
    """

    cell: str = "lstm"
    bidirectional: bool = True
    video_hidden_size: int = 200  # dot products need states of equal size
    num_hops: int = 2

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        Raises:
            FieldError: if there are not exactly two modalities with states of equal size, or there is no hop.
        """
        if len(self.modalities) != 2:
            raise FieldError(f"modalities={self.modalities} must be two modalities")
        if self.num_hops < 1:
            raise FieldError(f"num_hops={self.num_hops} must be at least 1")
        if "video" in self.modalities and self.video_hidden_size != self.hidden_size:
            raise FieldError(
                f"video_hidden_size={self.video_hidden_size} must equal hidden_size={self.hidden_size}"
            )
        encoded = self.encode(batch, hyper, train=train)
        first, second = self.modalities
        query = encoded[first].last
        vectors, attention = {first: query}, {}
        for n in range(self.num_hops):
            m = first if n % 2 else second
            query, weights = luong_attention(query, encoded[m])
            vectors[m], attention[f"hop_{n + 1}_{m}"] = query, AttentionMap(weights, (Axis(ARRAYS[m]),))
        return self.classify([*vectors.values(), *self.functionals(batch)], attention)


class AMH(EncoderNetwork):
    """AMH: hops onto video, audio and text in turn.

    In each, the vectors of two modalities attend to the third. The vector of a modality is its last state until a hop
    replaces it. Prosody is not read by default: the published code has a function that concatenates it with the three
    vectors, but never calls it.

    Attributes:
        num_hops: the number of attention hops.
    """

    modalities: tuple[str, ...] = ("audio", "text", "video")
    num_hops: int = 7

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        Raises:
            FieldError: if a modality is missing.
        """
        if set(self.modalities) != set(ARRAYS):
            raise FieldError(f"modalities={self.modalities} must be {', '.join(ARRAYS)}")
        encoded = self.encode(batch, hyper, train=train)
        vectors, attention = {m: one.last for m, one in encoded.items()}, {}
        for n in range(self.num_hops):
            m = ("video", "audio", "text")[n % 3]
            others = jnp.concatenate([vector for other, vector in vectors.items() if other != m], axis=1)
            query = nn.Dense(vectors[m].shape[1], name=f"query_{n + 1}")(others)
            vectors[m], weights = luong_attention(query, encoded[m])
            attention[f"hop_{n + 1}_{m}"] = AttentionMap(weights, (Axis(ARRAYS[m]),))
        return self.classify([*vectors.values(), *self.functionals(batch)], attention)


def last_state(states: Float[Array, "B T directions H"], mask: Bool[Array, "B T"]) -> Float[Array, "B F"]:
    """Return the last state of each direction; zero without a valid step.

    Forward, it is at the last valid step, and backward at the first.
    """
    ends = [mask.shape[1] - 1 - mask[:, ::-1].argmax(1), mask.argmax(1)][: states.shape[2]]
    return jnp.concatenate([states[jnp.arange(mask.shape[0]), end, d] for d, end in enumerate(ends)], axis=1)


def luong_attention(
    query: Float[Array, "B H"], memory: Encoded
) -> tuple[Float[Array, "B H"], Float[Array, "B T"]]:
    """Return a context vector and its weights by dot products (Luong et al. 2015, "dot")."""
    weights = masked_softmax(jnp.einsum("bh,bth->bt", query, memory.states), memory.mask)
    return jnp.einsum("bt,bth->bh", weights, memory.states), weights
