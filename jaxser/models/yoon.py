"""MDRE, MHA and AMH: the systems of Yoon et al. that the papers compare with.

- MDRE: Yoon, Byun & Jung, "Multimodal Speech Emotion Recognition using Audio and Text", SLT 2018.
- MHA: Yoon, Byun, Dey & Jung, "Speech Emotion Recognition using Multi-hop Attention Mechanism", ICASSP 2019.
- AMH: Yoon, Dey, Lee & Jung, "Attentive Modality Hopping Mechanism for Speech Emotion Recognition", ICASSP 2020.

MDRE and AMH follow the published code (github.com/david-yoon/multimodal-speech-emotion at 44d05d5 and
attentive-modality-hopping-for-SER at fed3ece): TensorFlow 1's GRU, 750 frames of audio and 25 of video, dropout on
what the cell reads. MDRE's code drops the cell's outputs too, but classifies its last state, which that leaves alone,
and has no video: it is as in AMH. MHA has no code: it is described by Lee et al. 2020, the rest is as in AMH. In all,
weights begin as this project's layers begin, and each unit of a layer has a bias (in MDRE's code all share one).
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
from jaxser.types import Batch, FieldError, Hyper, Output

DROPOUT_PLACES = ("input", "output")


class Encoded(NamedTuple):
    """A modality's states at each step, and the last one: of both directions where there are two."""

    states: Float[Array, "B T H"]
    last: Float[Array, "B H"]
    mask: Bool[Array, "B T"]


class EncoderNetwork(Network):
    """What the three have in common: a recurrent encoder for each modality."""

    modalities: tuple[str, ...] = ("audio", "text")
    hidden_size: int = 200  # of audio and text, in each direction
    video_hidden_size: int = 128
    cell: str = "gru_tf1"
    bidirectional: bool = False
    dropout_on: tuple[str, ...] = ("input",)  # what the encoder reads, "output": what it gives, or both
    audio_length: int = 750  # steps that are read, from the first; 0: all
    video_length: int = 25
    prosody: bool = False  # functionals of the whole utterance too, as they are; few recipes have them
    train_embeddings: bool = True

    hyper: ClassVar[tuple[str, ...]] = ("audio_dropout_rate", "text_dropout_rate", "video_dropout_rate")

    @property
    def needs(self) -> tuple[str, ...]:
        """The recipe's arrays that the model reads."""
        arrays = tuple(ARRAYS[m] for m in self.modalities)
        return (*arrays, "prosody") if self.prosody else arrays

    def encode(self, batch: Batch, hyper: Hyper, *, train: bool) -> dict[str, Encoded]:
        """Each modality's states, in the order of `modalities`.

        Raises ValueError where `dropout_on` names another place or there is prosody without audio.
        """
        if self.prosody and "audio" not in self.modalities:
            raise FieldError(f"prosody=True needs audio in modalities={self.modalities}")
        if unknown := set(self.dropout_on) - set(DROPOUT_PLACES):
            raise FieldError(f"dropout_on has {', '.join(unknown)}, not of {', '.join(DROPOUT_PLACES)}")

        def dropped(x, modality, place):
            rate = hyper[f"{modality}_dropout_rate"]
            return Dropout()(x, rate, train=train) if place in self.dropout_on else x

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

    def classify(
        self, vectors: list[Float[Array, "B _"]], attention: dict[str, Float[Array, "B _"]]
    ) -> Output:
        """The last layer of all three."""
        logits = nn.Dense(self.num_classes, name="classifier")(jnp.concatenate(vectors, axis=1))
        return Output(jax.nn.log_softmax(logits), {"fused": logits}, attention)

    def functionals(self, batch: Batch) -> list[Float[Array, "B Dp"]]:
        """The utterances' prosody, where the model reads it; zero where an utterance has none."""
        return [jnp.where(batch.prosody_mask, batch.prosody[:, 0], 0)] if self.prosody else []


class MDRE(EncoderNetwork):
    """The last states of the encoders, each projected to half its size, side by side; prosody follows the audio's.

    Trained by the sigmoid cross-entropy of each class, as in the code; the class with the highest logit wins.
    """

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """The class probabilities of a batch."""
        halves = []
        for m, encoded in self.encode(batch, hyper, train=train).items():
            functionals = self.functionals(batch) if m == "audio" else []
            vector = jnp.concatenate([encoded.last, *functionals], axis=1)
            halves.append(nn.Dense(vector.shape[1] // 2, name=f"{m}_projection")(vector))
        return self.classify(halves, {})

    def loss(
        self, output: Output, batch: Batch, class_weights: Float[Array, " C"], params: PyTree, hyper: Hyper
    ) -> Float[Array, ""]:
        """The sigmoid cross-entropy."""
        return sigmoid_cross_entropy(output.logits["fused"], batch, class_weights)


class MHA(EncoderNetwork):
    """The last state of the first modality gathers states of the second; what it gathers does so from the first; ...

    Classified is what was last gathered from each modality; after one hop, of the first its last state. Where those who
    compare are silent: two hops, as the paper's abstract describes, and prosody, if any, beside the two vectors.
    """

    cell: str = "lstm"
    bidirectional: bool = True
    video_hidden_size: int = 200  # products of states need them equally wide
    num_hops: int = 2

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Raises ValueError where there are not two modalities, equally wide, and a hop or more."""
        if len(self.modalities) != 2:
            raise FieldError(f"modalities={self.modalities} must be two")
        if self.num_hops < 1:
            raise FieldError(f"num_hops={self.num_hops} must be at least 1")
        if "video" in self.modalities and self.video_hidden_size != self.hidden_size:
            raise FieldError(
                f"video_hidden_size={self.video_hidden_size} must be hidden_size={self.hidden_size}"
            )
        encoded = self.encode(batch, hyper, train=train)
        first, second = self.modalities
        query = encoded[first].last
        vectors, attention = {first: query}, {}
        for n in range(self.num_hops):
            m = first if n % 2 else second
            query, attention[f"hop_{n + 1}_{m}"] = luong_attention(query, encoded[m])
            vectors[m] = query
        return self.classify([*vectors.values(), *self.functionals(batch)], attention)


class AMH(EncoderNetwork):
    """Hops onto video, audio and text in turn: the vectors of the other two modalities gather states of the third.

    A modality's vector is its last state until a hop replaces it. As published no prosody is read: the code has a
    function that puts it beside the three vectors, and does not call it.
    """

    modalities: tuple[str, ...] = ("audio", "text", "video")
    num_hops: int = 7

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Raises ValueError where a modality is missing."""
        if set(self.modalities) != set(ARRAYS):
            raise FieldError(f"modalities={self.modalities} must be {', '.join(ARRAYS)}")
        encoded = self.encode(batch, hyper, train=train)
        vectors, attention = {m: one.last for m, one in encoded.items()}, {}
        for n in range(self.num_hops):
            m = ("video", "audio", "text")[n % 3]
            others = jnp.concatenate([vector for other, vector in vectors.items() if other != m], axis=1)
            query = nn.Dense(vectors[m].shape[1], name=f"query_{n + 1}")(others)
            vectors[m], attention[f"hop_{n + 1}_{m}"] = luong_attention(query, encoded[m])
        return self.classify([*vectors.values(), *self.functionals(batch)], attention)


def last_state(states: Float[Array, "B T directions H"], mask: Bool[Array, "B T"]) -> Float[Array, "B F"]:
    """What each direction ends with: forward at the last valid step, backward at the first; zero where none is."""
    ends = [mask.shape[1] - 1 - mask[:, ::-1].argmax(1), mask.argmax(1)][: states.shape[2]]
    return jnp.concatenate([states[jnp.arange(mask.shape[0]), end, d] for d, end in enumerate(ends)], axis=1)


def luong_attention(
    query: Float[Array, "B H"], memory: Encoded
) -> tuple[Float[Array, "B H"], Float[Array, "B T"]]:
    """What a query gathers by its products with the states (Luong et al. 2015, "dot"), and the weights."""
    weights = masked_softmax(jnp.einsum("bh,bth->bt", query, memory.states), memory.mask)
    return jnp.einsum("bt,bth->bh", weights, memory.states), weights
