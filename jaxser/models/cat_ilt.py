"""ILT and CAT: a transformer with a CNN and an LSTM (He, Minematsu & Saito, 2021).

"Effective Integration of Transformer for Network-based Speech Emotion Recognition". Equation numbers are the paper's.
Details that the paper leaves open:

- A ReLU lies between batch normalisation and average pooling. The channels and bands of each CNN step are flattened and
  projected to the width of the BiLSTM's output, which is also that of the transformers.
- Transformers are those of Vaswani et al. 2017, without biases in the projections (eq. 2). Their outputs are averaged
  over time, so that eqs. 12-14 combine vectors, and CAT can add branches of different lengths.
- In cross attention, every layer takes its keys and values from the input of the other branch. Positions are added to
  both branches.
- CAT's 1-D convolution has no activation, and the classifier is one linear layer.

Padding is masked; recipe `cat_padded` pads recordings to 7.5 s of audio, as the paper does.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.layers.attention import encoder_layer, masked_softmax, sinusoidal_positions
from jaxser.layers.conv import Conv1D, Conv2D, average_pool, mask_steps
from jaxser.layers.dropout import Dropout, Rate, StochasticDepth
from jaxser.layers.norm import BatchNorm
from jaxser.layers.pooling import masked_mean
from jaxser.layers.recurrent import Recurrent
from jaxser.models.network import Network
from jaxser.types import HEADS, AttentionMap, Axis, Batch, FieldError, Hyper, Output

Attention = dict[str, AttentionMap]

LSTMS = ("parallel", "before", "none")
"""Where the LSTM of Fig. 1 is: beside the transformer, before it (baseline 2), or left out (baseline 1)."""

FUSIONS = ("concatenation", "plus", "trainable_plus")
"""How ILT combines its branches: eq. 12, eq. 13, and eqs. 14-16."""

DIRECTIONS = {
    "cnn_to_lstm": ("cnn", "lstm"),
    "lstm_to_cnn": ("lstm", "cnn"),
    "lstm_to_lstm": ("lstm", "lstm"),
}
"""The branches of Fig. 2 that give a transformer its queries, and its keys and values."""


class Stream(NamedTuple):
    """The states of a branch, their mask, and what their steps run over."""

    states: Float[Array, "B T D"]
    mask: Bool[Array, "B T"]
    axis: Axis


class Integration(Network):
    """The common base of ILT and CAT.

    Attributes:
        positions: whether positions are added to the transformers' inputs (eqs. 3, 4).
        blocks: channels, pooled steps and pooled frequency bands of each CNN block.
        kernel_size: size of the CNN's square kernels.
        hidden_size: LSTM units per direction; transformers are twice as wide.
        num_layers: layers of each transformer.
        num_heads: heads of each transformer.
        feed_forward_size: hidden units of each transformer's feed-forward network.
    """

    positions: bool = True
    blocks: tuple[tuple[int, int, int], ...] = ((32, 2, 2), (64, 2, 2), (128, 2, 2), (128, 2, 1))
    kernel_size: int = 3
    hidden_size: int = 128
    num_layers: int = 2
    num_heads: int = 8
    feed_forward_size: int = 512

    hyper: ClassVar[tuple[str, ...]] = ("conv_dropout_rate", "dropout_rate")
    optional_hyper: ClassVar[tuple[str, ...]] = ("stochastic_depth_rate",)

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return ("audio",)

    def _cnn(self, batch: Batch, hyper: Hyper, train: bool) -> Stream:
        layer = CNN(self.blocks, self.kernel_size, 2 * self.hidden_size, name="cnn")
        states, mask = layer(batch.audio, batch.audio_mask, hyper["conv_dropout_rate"], train=train)
        return Stream(states, mask, Axis("audio", stride=math.prod(steps for _, steps, _ in self.blocks)))

    def _bilstm(self, stream: Stream) -> Stream:
        """Return forward and backward outputs, concatenated (eqs. 6-8)."""
        outputs = Recurrent(self.hidden_size, name="bilstm")(stream.states, stream.mask)
        return stream._replace(states=outputs.reshape(*stream.mask.shape, 2 * self.hidden_size))

    def _transformer(
        self, name: str, query: Stream, memory: Stream | None, hyper: Hyper, train: bool
    ) -> tuple[Float[Array, "B D"], Attention]:
        """Return the mean of a transformer's outputs over time, and its attention by layer."""
        layer = Transformer(
            self.num_layers, self.num_heads, self.feed_forward_size, self.positions, name=name
        )
        outputs, weights = layer(query, memory, hyper, train=train)
        axes = HEADS, query.axis, (query if memory is None else memory).axis
        attention = {f"{name}_{n}": AttentionMap(each, axes) for n, each in enumerate(weights)}
        return masked_mean(outputs, query.mask), attention

    def _classify(self, pooled: Float[Array, "B D"], attention: Attention) -> Output:
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return Output(jax.nn.log_softmax(logits), {"fused": logits}, attention)


class ILT(Integration):
    """ILT (Fig. 1) and its two baselines.

    Attributes:
        lstm: where the LSTM is, of `LSTMS`.
        fusion: how the branches are combined, of `FUSIONS`.
        alpha: the weight of the LSTM in eq. 13.
    """

    lstm: str = "parallel"
    fusion: str = "trainable_plus"
    alpha: float = 0.5

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        Raises:
            FieldError: if `lstm` or `fusion` is unknown, or `blocks` leave no frequency band.
        """
        for field, allowed in (("lstm", LSTMS), ("fusion", FUSIONS)):
            if getattr(self, field) not in allowed:
                raise FieldError(f"{field}={getattr(self, field)!r} is not one of {', '.join(allowed)}")
        stream = self._cnn(batch, hyper, train)  # eq. 5
        if self.lstm == "before":
            stream = self._bilstm(stream)
        pooled, attention = self._transformer("transformer", stream, None, hyper, train)  # eq. 11
        if self.lstm == "parallel":
            recurrent, weights = self._attention_pool(self._bilstm(stream))
            pooled, fusion = self._fuse(recurrent, pooled)
            attention = {**weights, **attention, **fusion}
        return self._classify(pooled, attention)

    def _attention_pool(self, stream: Stream) -> tuple[Float[Array, "B D"], Attention]:
        scores = nn.Dense(1, use_bias=False, name="lstm_attention")(stream.states)[..., 0]
        weights = masked_softmax(scores, stream.mask)  # eq. 9
        pooled = jnp.einsum("bt,btd->bd", weights, stream.states)  # eq. 10
        return pooled, {"lstm": AttentionMap(weights, (stream.axis,))}

    def _fuse(
        self, recurrent: Float[Array, "B D"], transformed: Float[Array, "B D"]
    ) -> tuple[Float[Array, "B F"], Attention]:
        """Return the combined vector; if it is a sum, also the weights of LSTM and transformer in it."""
        if self.fusion == "concatenation":
            return jnp.concatenate([recurrent, transformed], axis=-1), {}  # eq. 12
        if self.fusion == "plus":
            shares = jnp.array([self.alpha, 1 - self.alpha], recurrent.dtype)  # eq. 13
        else:
            weights = self.param("fusion_weights", nn.initializers.zeros, (2,), recurrent.dtype)
            shares = jax.nn.softmax(weights)  # eqs. 15, 16
        fused = shares[0] * recurrent + shares[1] * transformed  # eq. 14
        branches = Axis("")
        return fused, {"fusion": AttentionMap(jnp.broadcast_to(shares, (fused.shape[0], 2)), (branches,))}


class CAT(Integration):
    """CAT (Fig. 2): one transformer per direction between CNN and LSTM.

    Without directions, the outputs of CNN and LSTM are averaged over time and added (CNN+LSTM in Table 2);
    `lstm_to_lstm` alone is LSTM-Transformer.

    Attributes:
        directions: the transformers, of `DIRECTIONS`.
        front_channels: channels of the convolution before the LSTM.
        front_kernel_size: its kernel size.
        front_stride: its stride.
    """

    directions: tuple[str, ...] = ("cnn_to_lstm", "lstm_to_cnn")
    front_channels: int = 128
    front_kernel_size: int = 5
    front_stride: int = 4

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        Raises:
            FieldError: if a direction is unknown, or `blocks` leave no frequency band.
        """
        streams = self._streams(batch, hyper, train)
        attention: Attention = {}
        pooled = [] if self.directions else [masked_mean(one.states, one.mask) for one in streams.values()]
        for direction in self.directions:
            query, memory = DIRECTIONS[direction]
            other = None if memory == query else streams[memory]
            vector, weights = self._transformer(direction, streams[query], other, hyper, train)
            pooled.append(vector)
            attention |= weights
        return self._classify(sum(pooled[1:], start=pooled[0]), attention)

    def _streams(self, batch: Batch, hyper: Hyper, train: bool) -> dict[str, Stream]:
        """Return H^(C) and H^(L) of section 2.3, if a direction reads them."""
        if unknown := [direction for direction in self.directions if direction not in DIRECTIONS]:
            raise FieldError(
                f"directions={self.directions!r}: {unknown[0]!r} is not one of {', '.join(DIRECTIONS)}"
            )
        read = {end for direction in self.directions for end in DIRECTIONS[direction]} or {"cnn", "lstm"}
        streams = {}
        if "cnn" in read:
            streams["cnn"] = self._cnn(batch, hyper, train)
        if "lstm" in read:
            front = Conv1D(self.front_channels, self.front_kernel_size, self.front_stride, name="front")
            shorter = front(mask_steps(batch.audio, batch.audio_mask))
            mask = batch.audio_mask[:, :: self.front_stride]
            streams["lstm"] = self._bilstm(Stream(shorter, mask, Axis("audio", stride=self.front_stride)))
        return streams


class CNN(nn.Module):
    """Section 2.2: blocks with convolution and pooling, then a projection.

    A block is a convolution, batch normalisation, average pooling and dropout.

    Attributes:
        blocks: channels, pooled steps and pooled frequency bands of each block.
        kernel_size: size of the square kernels.
        size: width of the output.
    """

    blocks: tuple[tuple[int, int, int], ...]
    kernel_size: int
    size: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T F"], mask: Bool[Array, "B T"], rate: Rate, *, train: bool
    ) -> tuple[Float[Array, "B Tc D"], Bool[Array, "B Tc"]]:
        """Return the states and their mask.

        Raises:
            FieldError: if no frequency band is left after pooling.
        """
        bands = x.shape[-1]
        x = mask_steps(x, mask)[..., None]  # [B, T, F, 1]
        for channels, steps_pooled, bands_pooled in self.blocks:
            x = BatchNorm()(Conv2D(channels, self.kernel_size)(x), mask, train=train)
            x, mask = average_pool(jax.nn.relu(x), mask, (steps_pooled, bands_pooled))
            x = Dropout()(x, rate, train=train)
        if x.shape[2] == 0:
            raise FieldError(f"blocks={self.blocks!r} leave none of {bands} frequency bands")
        return nn.Dense(self.size)(x.reshape(*mask.shape, x.shape[2] * x.shape[3])), mask


class Transformer(nn.Module):
    """The transformer of section 2.1; with a memory, the cross attention of section 2.3."""

    num_layers: int
    num_heads: int
    feed_forward_size: int
    positions: bool

    @nn.compact
    def __call__(
        self, query: Stream, memory: Stream | None, hyper: Hyper, *, train: bool
    ) -> tuple[Float[Array, "B T D"], list[Float[Array, "B K T Tk"]]]:
        def dropped(x):
            return Dropout()(x, hyper["dropout_rate"], train=train)

        def skipped(x):
            return StochasticDepth()(x, hyper.get("stochastic_depth_rate"), train=train)

        def prepared(x):
            if self.positions:
                x = x + sinusoidal_positions(*x.shape[1:]).astype(x.dtype)  # eqs. 3, 4
            return dropped(x)

        x = prepared(query.states)
        source, source_mask = None, query.mask
        if memory is not None:
            source, source_mask = prepared(memory.states), memory.mask
        attention = []
        for n in range(self.num_layers):
            x, weights = encoder_layer(
                x,
                x if source is None else source,
                source_mask,
                num_heads=self.num_heads,
                feed_forward_size=self.feed_forward_size,
                dropped=dropped,
                named=f"{{}}_{n}",
                skipped=skipped,
            )  # eqs. 1, 2
            attention.append(weights)
        return x, attention
