"""ILT and CAT: He, Minematsu & Saito, "Effective Integration of Transformer for Network-based Speech Emotion

Recognition", 2021. Equation numbers are the paper's. Where it is silent: ReLU between batch normalisation and average
pooling; the CNN's channels and bands of a step are laid out and mapped to the width of the BiLSTM's output, which is
the transformers' too; transformers as in Vaswani et al. 2017, without biases in the projections (eq. 2), their outputs
averaged over time, so that eqs. 12-14 join vectors and CAT adds outputs of different lengths; in cross attention the
keys and values of every layer are the other branch as it came; positions are added to queries and keys alike; no
activation after CAT's 1-D convolution; one linear layer classifies. Padding takes no part, but recipe `cat_padded`
fills sounds up to 7.5 s as the paper does.
"""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.layers.attention import encoder_layer, masked_softmax, sinusoidal_positions
from jaxser.layers.conv import Conv1D, Conv2D, average_pool, mask_steps
from jaxser.layers.dropout import Dropout, Rate
from jaxser.layers.norm import BatchNorm
from jaxser.layers.pooling import masked_mean
from jaxser.layers.recurrent import Recurrent
from jaxser.models.network import Network
from jaxser.types import Batch, FieldError, Hyper, Output

Stream = tuple[Float[Array, "B _T D"], Bool[Array, "B _T"]]
Weights = dict[str, Float[Array, "B ..."]]

LSTMS = ("parallel", "before", "none")
"""Where Fig. 1 has its LSTM: beside the transformer, before it (baseline 2), or nowhere (baseline 1)."""

FUSIONS = ("concatenation", "plus", "trainable_plus")
"""Eqs. 12, 13 and 14-16."""

DIRECTIONS = {
    "cnn_to_lstm": ("cnn", "lstm"),
    "lstm_to_cnn": ("lstm", "cnn"),
    "lstm_to_lstm": ("lstm", "lstm"),
}
"""Where a transformer of Fig. 2 has its queries from, and where its keys and values."""


class Integration(Network):
    """The parts of both figures."""

    positions: bool = True
    blocks: tuple[tuple[int, int, int], ...] = ((32, 2, 2), (64, 2, 2), (128, 2, 2), (128, 2, 1))
    kernel_size: int = 3
    hidden_size: int = 128  # of each direction: the transformers are twice as wide
    num_layers: int = 2
    num_heads: int = 8
    feed_forward_size: int = 512

    hyper: ClassVar[tuple[str, ...]] = ("conv_dropout_rate", "dropout_rate")

    @property
    def needs(self) -> tuple[str, ...]:
        """Frames alone."""
        return ("audio",)

    def _cnn(self, batch: Batch, hyper: Hyper, train: bool) -> Stream:
        layer = CNN(self.blocks, self.kernel_size, 2 * self.hidden_size, name="cnn")
        return layer(batch.audio, batch.audio_mask, hyper["conv_dropout_rate"], train=train)

    def _bilstm(self, x: Float[Array, "B T F"], mask: Bool[Array, "B T"]) -> Stream:
        """Eqs. 6-8: forward and backward outputs, concatenated."""
        outputs = Recurrent(self.hidden_size, name="bilstm")(x, mask)
        return outputs.reshape(*mask.shape, 2 * self.hidden_size), mask

    def _transformer(
        self, name: str, query: Stream, memory: Stream | None, hyper: Hyper, train: bool
    ) -> tuple[Float[Array, "B D"], Weights]:
        """The mean of a transformer's outputs over time, and its weights by layer."""
        layer = Transformer(
            self.num_layers, self.num_heads, self.feed_forward_size, self.positions, name=name
        )
        outputs, weights = layer(query, memory, hyper["dropout_rate"], train=train)
        return masked_mean(outputs, query[1]), {f"{name}_{n}": each for n, each in enumerate(weights)}

    def _classify(self, pooled: Float[Array, "B D"], attention: Weights) -> Output:
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return Output(jax.nn.log_softmax(logits), {"fused": logits}, attention)


class ILT(Integration):
    """Fig. 1; its two baselines have the LSTM elsewhere."""

    lstm: str = "parallel"
    fusion: str = "trainable_plus"
    alpha: float = 0.5  # eq. 13

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Raises ValueError where `lstm` or `fusion` is unknown."""
        for field, allowed in (("lstm", LSTMS), ("fusion", FUSIONS)):
            if getattr(self, field) not in allowed:
                raise FieldError(f"{field}={getattr(self, field)!r} is not one of {', '.join(allowed)}")
        stream = self._cnn(batch, hyper, train)  # eq. 5
        if self.lstm == "before":
            stream = self._bilstm(*stream)
        pooled, attention = self._transformer("transformer", stream, None, hyper, train)  # eq. 11
        if self.lstm == "parallel":
            recurrent, weights = self._attention_pool(*self._bilstm(*stream))
            pooled, fusion = self._fuse(recurrent, pooled)
            attention = {"lstm": weights, **attention, **fusion}
        return self._classify(pooled, attention)

    def _attention_pool(
        self, h: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "B T"]]:
        scores = nn.Dense(1, use_bias=False, name="lstm_attention")(h)[..., 0]
        weights = masked_softmax(scores, mask)  # eq. 9
        return jnp.einsum("bt,btd->bd", weights, h), weights  # eq. 10

    def _fuse(
        self, recurrent: Float[Array, "B D"], transformed: Float[Array, "B D"]
    ) -> tuple[Float[Array, "B F"], Weights]:
        """The joined vector, and the shares of LSTM and transformer in it where it is a sum."""
        if self.fusion == "concatenation":
            return jnp.concatenate([recurrent, transformed], axis=-1), {}  # eq. 12
        if self.fusion == "plus":
            shares = jnp.array([self.alpha, 1 - self.alpha], recurrent.dtype)  # eq. 13
        else:
            weights = self.param("fusion_weights", nn.initializers.zeros, (2,), recurrent.dtype)
            shares = jax.nn.softmax(weights)  # eqs. 15, 16
        fused = shares[0] * recurrent + shares[1] * transformed  # eq. 14
        return fused, {"fusion": jnp.broadcast_to(shares, (fused.shape[0], 2))}


class CAT(Integration):
    """Fig. 2: a transformer for each direction between CNN and LSTM; without one, their outputs are added as they are

    (CNN+LSTM in Table 2). `lstm_to_lstm` alone is LSTM-Transformer.
    """

    directions: tuple[str, ...] = ("cnn_to_lstm", "lstm_to_cnn")
    front_channels: int = 128
    front_kernel_size: int = 5
    front_stride: int = 4

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Raises ValueError where a direction is unknown."""
        streams = self._streams(batch, hyper, train)
        attention: Weights = {}
        pooled = [] if self.directions else [masked_mean(*stream) for stream in streams.values()]
        for direction in self.directions:
            query, memory = DIRECTIONS[direction]
            other = None if memory == query else streams[memory]
            vector, weights = self._transformer(direction, streams[query], other, hyper, train)
            pooled.append(vector)
            attention |= weights
        return self._classify(sum(pooled[1:], start=pooled[0]), attention)

    def _streams(self, batch: Batch, hyper: Hyper, train: bool) -> dict[str, Stream]:
        """H^(C) and H^(L) of section 2.3, where a direction reads them."""
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
            streams["lstm"] = self._bilstm(shorter, batch.audio_mask[:, :: self.front_stride])
        return streams


class CNN(nn.Module):
    """Section 2.2: blocks of so many channels, averaged over so many steps and so many bands."""

    blocks: tuple[tuple[int, int, int], ...]
    kernel_size: int
    size: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T F"], mask: Bool[Array, "B T"], rate: Rate, *, train: bool
    ) -> tuple[Float[Array, "B Tc D"], Bool[Array, "B Tc"]]:
        """Raises ValueError where no frequency band is left."""
        bands = x.shape[-1]
        x = mask_steps(x, mask)[..., None]  # [B, T, F, 1]
        for channels, steps_pooled, bands_pooled in self.blocks:
            x = BatchNorm()(Conv2D(channels, self.kernel_size)(x), mask, train=train)
            x, mask = average_pool(jax.nn.relu(x), mask, (steps_pooled, bands_pooled))
            x = Dropout()(x, rate, train=train)
        if x.shape[2] == 0:
            raise FieldError(f"blocks={self.blocks!r} pool {bands} frequency bands down to none")
        return nn.Dense(self.size)(x.reshape(*mask.shape, x.shape[2] * x.shape[3])), mask


class Transformer(nn.Module):
    """Section 2.1; with a memory, the cross attention of section 2.3."""

    num_layers: int
    num_heads: int
    feed_forward_size: int
    positions: bool

    @nn.compact
    def __call__(
        self, query: Stream, memory: Stream | None, rate: Rate, *, train: bool
    ) -> tuple[Float[Array, "B T D"], list[Float[Array, "B K T Tk"]]]:
        def dropped(x):
            return Dropout()(x, rate, train=train)

        def prepared(x):
            if self.positions:
                x = x + sinusoidal_positions(*x.shape[1:]).astype(x.dtype)  # eqs. 3, 4
            return dropped(x)

        x, mask = prepared(query[0]), query[1]
        source, source_mask = (None, mask) if memory is None else (prepared(memory[0]), memory[1])
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
            )  # eqs. 1, 2
            attention.append(weights)
        return x, attention
