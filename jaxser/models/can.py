"""CAN: Lee, Yoon & Jung, "Multimodal Speech Emotion Recognition using Cross Attention with Aligned Audio and Text",

Interspeech 2020. Equation numbers are the paper's. Where it is silent: hidden units are counted per direction; average
pooling is over valid frames; a head's query scores its own slice of the features (`head_form="full"`: all of them),
and head k of one modality crosses to head k of the other. Without the alignment loss its two classifiers do not exist,
since nothing would train them: alpha is then 0 in eqs. 14 and 15.
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
from jaxser.models.network import Network
from jaxser.types import Batch, FieldError, Hyper, Output

Rate = Float[Array, ""] | float

CONTEXTS = (("text", "text"), ("text", "audio"), ("audio", "audio"), ("audio", "text"))
"""c(TT), c(TA), c(AA), c(AT): whose weights, and whose states they gather."""


class CAN(Network):
    """The network of Figs. 1 and 2. Without cross attention c(TT) and c(AA) remain (section 4.3.3)."""

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
        """The recipe's arrays that the model reads."""
        return "segments", "segment_lengths", "words"

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Raises ValueError where `head_form` is unknown or the heads do not divide the features."""
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
        """Eqs. 13, 14: of the three predictions, not of their product."""
        weights = _weights(hyper)
        return sum(
            weights[name] * negative_log_likelihood(jax.nn.log_softmax(scores), batch, class_weights)
            for name, scores in output.logits.items()
        )


def _weights(hyper: Hyper) -> Hyper:
    """What each prediction counts for, in the loss and in the product."""
    return {"fused": 1.0, "text": hyper["alpha"], "audio": hyper["alpha"]}


class BLSTM(nn.Module):
    """Eqs. 1-3: forward and backward states of each step side by side, then dropout (section 4.2)."""

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
        """`starts` marks the first steps of sequences that share a row."""
        states = Recurrent(self.hidden_size)(x, mask, starts)
        return Dropout()(states.reshape(*mask.shape, 2 * self.hidden_size), rate, train=train)


class AudioEncoder(nn.Module):
    """Section 3.2.2: a BLSTM within each word, its average over the word's frames, and a BLSTM over the words."""

    hidden_size: int

    @nn.compact
    def __call__(
        self, batch: Batch, rate: Rate, *, train: bool
    ) -> tuple[Float[Array, "B L H"], Bool[Array, "B L"]]:
        """Returns the words' states, and which words have frames."""
        lengths = jnp.where(batch.segment_lengths_mask, batch.segment_lengths, 0)
        word = word_of_frame(lengths, batch.segments.shape[1])
        states = BLSTM(self.hidden_size, name="within_words")(
            batch.segments, batch.segments_mask, rate, train=train, starts=first_frames(word)
        )
        pooled, mask = mean_by_word(states, batch.segments_mask, word, lengths.shape[1])
        return BLSTM(self.hidden_size, name="over_words")(pooled, mask, rate, train=train), mask


class CrossAttention(nn.Module):
    """Section 3.2.3: each modality's weights gather its own states and, `crossed`, those of the other."""

    num_heads: int
    head_form: str
    crossed: bool
    stop_gradient: bool

    @nn.compact
    def __call__(
        self, states: dict[str, Float[Array, "B L H"]], masks: dict[str, Bool[Array, "B L"]]
    ) -> tuple[dict[str, Float[Array, "B G"]], dict[str, Float[Array, "B K L"]]]:
        """Returns the contexts in the order of eq. 10, and the weights that each is gathered by."""
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
            attention[f"{by}_on_{of}"] = alpha
            contexts[f"{by}_on_{of}"] = weighted_sum(alpha, states[of], self.head_form)  # eqs. 6-9
        return contexts, attention


class GlobalAttention(nn.Module):
    """Eqs. 4, 5: learned queries, one a head, weigh the steps of a sequence (after Mirsamadi et al. 2017)."""

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
    """Each head's weighted sum of what it sees of a sequence, side by side."""
    heads = jnp.einsum("bkt,btkd->bkd", weights, views(x, weights.shape[1], head_form))
    return heads.reshape(x.shape[0], -1)


def views(x: Float[Array, "B T D"], num_heads: int, head_form: str) -> Float[Array, "B T K Dk"]:
    """What each head sees of a sequence: its own slice of the features, or all of them."""
    if head_form == "full":
        return jnp.broadcast_to(x[:, :, None], (*x.shape[:2], num_heads, x.shape[2]))
    if head_form != "slice":
        raise FieldError(f"head_form={head_form!r} is not one of slice, full")
    if x.shape[2] % num_heads:
        raise FieldError(f"num_heads={num_heads} does not divide the {x.shape[2]} features")
    return x.reshape(*x.shape[:2], num_heads, -1)
