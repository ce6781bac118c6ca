"""CAN: cross attention over aligned audio and text (Lee, Yoon & Jung, Interspeech 2020).

"Multimodal Speech Emotion Recognition using Cross Attention with Aligned Audio and Text". Equation numbers are the
paper's. Details that the paper leaves open:

- Hidden units are counted per direction, and average pooling is over valid frames.
- The query of a head scores its own slice of the features (`head_form="full"`: all features), and the weights of head k
  of one modality are applied to head k of the other.
- Without the alignment loss, nothing would train the two unimodal classifiers, so they do not exist: alpha is 0 in
  eqs. 14 and 15.
"""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jaxser.layers.attention import masked_softmax
from jaxser.layers.dropout import Dropout
from jaxser.layers.embedding import WordEmbedding
from jaxser.layers.recurrent import Recurrent
from jaxser.layers.segments import first_frames, mean_by_word, word_of_frame
from jaxser.models.losses import negative_log_likelihood
from jaxser.models.network import Network, Weight
from jaxser.types import HEADS, AttentionMap, Axis, Batch, FieldError, Hyper, Output

Rate = Float[Array, ""] | float

CONTEXTS = (("text", "text"), ("text", "audio"), ("audio", "audio"), ("audio", "text"))
"""The contexts c(TT), c(TA), c(AA), c(AT): the modality of the weights, and that of the states they sum up."""


class CAN(Network):
    """The network of Figs. 1 and 2.

    Attributes:
        hidden_size: LSTM units per direction.
        num_heads: heads of each attention layer.
        head_form: whether a head sees a "slice" of the features or the "full" vector.
        cross_attention: whether to use c(TA) and c(AT) (section 4.3.3).
        stop_gradient: whether the gradient of cross attention stops at the weights (eqs. 7, 9).
        align_loss: whether to train classifiers on c(TT) and c(AA) (eq. 14).
        train_embeddings: whether the word vectors are trained.
    """

    hidden_size: int = 128
    num_heads: int = 4
    head_form: str = "slice"
    cross_attention: bool = True
    stop_gradient: bool = True
    align_loss: bool = True
    train_embeddings: bool = True

    hyper: ClassVar[tuple[str, ...]] = ("dropout_rate", "alpha")

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return "segments", "segment_lengths", "words"

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        Raises:
            FieldError: if `head_form` is unknown or `num_heads` does not divide the features.
        """
        rate = hyper["dropout_rate"]
        vectors = WordEmbedding(self.train_embeddings)(batch)
        text = BLSTM(self.hidden_size, name="text_encoder")(vectors, batch.words_mask, rate, train=train)
        audio, audio_mask = AudioEncoder(self.hidden_size)(batch, rate, train=train)
        attend = CrossAttention(self.num_heads, self.head_form, self.cross_attention, self.stop_gradient)
        contexts, attention = attend(
            {"text": text, "audio": audio}, {"text": batch.words_mask, "audio": audio_mask}
        )
        logits = {"fused": nn.Dense(self.num_classes, name="fused")(jnp.concatenate([*contexts.values()], 1))}
        if self.align_loss:
            for m in ("text", "audio"):
                logits[m] = nn.Dense(self.num_classes, name=m)(contexts[f"{m}_on_{m}"])
        weights = _weights(hyper)
        product = sum(weights[name] * scores for name, scores in logits.items())  # of powers: a sum of logits
        return Output(jax.nn.log_softmax(product), logits, attention)  # eqs. 10-12, 15

    def loss(
        self, output: Output, batch: Batch, class_weights: Float[Array, " C"], params: PyTree, hyper: Hyper
    ) -> Float[Array, ""]:
        """Return the loss of the three predictions, not of their product (eqs. 13, 14)."""
        weights = _weights(hyper)
        return sum(
            weights[name] * negative_log_likelihood(jax.nn.log_softmax(scores), batch, class_weights, hyper)
            for name, scores in output.logits.items()
        )

    def heads(self, output: Output, hyper: Hyper) -> tuple[tuple[Weight, Float[Array, "B C"]], ...]:
        """Return the three predictions, weighted as in eqs. 13 and 15.

        A product of powers of normal densities of equal variance has its mean at the weighted mean of theirs.
        """
        weights = _weights(hyper)
        return tuple((weights[name], scores) for name, scores in output.logits.items())


def _weights(hyper: Hyper) -> Hyper:
    """Return the weight of each prediction, in the loss and in the product."""
    return {"fused": 1.0, "text": hyper["alpha"], "audio": hyper["alpha"]}


class BLSTM(nn.Module):
    """A BLSTM (eqs. 1-3): both directions concatenated, then dropout (section 4.2)."""

    hidden_size: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        rate: Rate,
        *,
        train: bool,
        starts: Bool[Array, "B T"] | None = None,
    ) -> Float[Array, "B T H"]:
        """Apply the BLSTM; `starts` marks the first steps of sequences that share a row."""
        states = Recurrent(self.hidden_size)(x, mask, starts)
        return Dropout()(states.reshape(*mask.shape, 2 * self.hidden_size), rate, train=train)


class AudioEncoder(nn.Module):
    """Section 3.2.2: a BLSTM within each word, the mean over it, and a BLSTM over the words."""

    hidden_size: int

    @nn.compact
    def __call__(
        self, batch: Batch, rate: Rate, *, train: bool
    ) -> tuple[Float[Array, "B L H"], Bool[Array, "B L"]]:
        """Return the states of the words, and which words have frames."""
        lengths = jnp.where(batch.segment_lengths_mask, batch.segment_lengths, 0)
        word = word_of_frame(lengths, batch.segments.shape[1])
        states = BLSTM(self.hidden_size, name="within_words")(
            batch.segments, batch.segments_mask, rate, train=train, starts=first_frames(word)
        )
        pooled, mask = mean_by_word(states, batch.segments_mask, word, lengths.shape[1])
        return BLSTM(self.hidden_size, name="over_words")(pooled, mask, rate, train=train), mask


class CrossAttention(nn.Module):
    """Section 3.2.3: attention weights of a modality, shared with the other.

    The weights of a modality sum up its own states and, if `crossed`, those of the other.
    """

    num_heads: int
    head_form: str
    crossed: bool
    stop_gradient: bool

    @nn.compact
    def __call__(
        self, states: dict[str, Float[Array, "B L H"]], masks: dict[str, Bool[Array, "B L"]]
    ) -> tuple[dict[str, Float[Array, "B G"]], dict[str, AttentionMap]]:
        """Return the contexts in the order of eq. 10, and their weights."""
        weights = {
            m: GlobalAttention(self.num_heads, self.head_form, name=f"{m}_attention")(states[m], masks[m])
            for m in states
        }
        contexts, attention = {}, {}
        for by, of in CONTEXTS:
            crosses = by != of
            if crosses and not self.crossed:
                continue
            is_cut = crosses and self.stop_gradient
            alpha = jax.lax.stop_gradient(weights[by]) if is_cut else weights[by]
            attention[f"{by}_on_{of}"] = AttentionMap(alpha, (HEADS, Axis("words")))
            contexts[f"{by}_on_{of}"] = weighted_sum(alpha, states[of], self.head_form)  # eqs. 6-9
        return contexts, attention


class GlobalAttention(nn.Module):
    """Eqs. 4, 5: one learned query per head (after Mirsamadi et al. 2017)."""

    num_heads: int
    head_form: str = "slice"

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B K T"]:
        heads = views(x, self.num_heads, self.head_form)
        init = nn.initializers.lecun_normal(in_axis=-1, out_axis=0)
        query = self.param("query", init, (self.num_heads, heads.shape[-1]), x.dtype)
        return masked_softmax(jnp.einsum("btkd,kd->bkt", heads, query), mask[:, None])


def weighted_sum(
    weights: Float[Array, "B K T"], x: Float[Array, "B T D"], head_form: str = "slice"
) -> Float[Array, "B G"]:
    """Return the weighted sums of all heads over a sequence, concatenated."""
    heads = jnp.einsum("bkt,btkd->bkd", weights, views(x, weights.shape[1], head_form))
    return heads.reshape(x.shape[0], -1)


def views(x: Float[Array, "B T D"], num_heads: int, head_form: str) -> Float[Array, "B T K Dk"]:
    """Return what each head sees of a sequence: its slice of the features, or all of them.

    Raises:
        FieldError: if `head_form` is unknown or `num_heads` does not divide the features.
    """
    if head_form == "full":
        return jnp.broadcast_to(x[:, :, None], (*x.shape[:2], num_heads, x.shape[2]))
    if head_form != "slice":
        raise FieldError(f"head_form={head_form!r} is not one of slice, full")
    if x.shape[2] % num_heads:
        raise FieldError(f"num_heads={num_heads} does not divide the {x.shape[2]} features")
    return x.reshape(*x.shape[:2], num_heads, -1)
