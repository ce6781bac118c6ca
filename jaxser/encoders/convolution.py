"""The feature encoder and the positional convolution of wav2vec 2.0.

HuBERT, WavLM and data2vec share them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxser.encoders.transformer import ACTIVATIONS
from jaxser.encoders.waveforms import valid_steps


@dataclass(frozen=True)
class ConvolutionConfig:
    """Sizes and choices of the feature encoder.

    Attributes:
        widths: features of each layer.
        kernels: kernel size of each layer.
        strides: stride of each layer.
        bias: whether the convolutions have biases.
        norm: "group" normalises each feature of the first layer over time; "layer" normalises the features of every
            layer in each frame.
        activation: a name in `ACTIVATIONS`.
    """

    widths: tuple[int, ...] = (512,) * 7
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    bias: bool = False
    norm: str = "group"
    activation: str = "gelu"

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        product = 1
        for stride in self.strides:
            product *= stride
        return product

    @property
    def receptive_field(self) -> int:
        """Samples that a frame depends on; 400 (25 ms) in all published models."""
        size = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            size = (size - 1) * stride + kernel
        return size

    def num_frames(self, samples: Any, layers: int | None = None) -> Any:
        """Return the number of frames after the first `layers` layers.

        `samples` is an integer or an array.
        """
        for kernel, stride in zip(self.kernels[:layers], self.strides[:layers], strict=True):
            samples = (samples - kernel) // stride + 1
        return samples * (samples > 0)


class FeatureEncoder(nn.Module):
    """The feature encoder f: X -> Z of wav2vec 2.0 (Baevski et al. 2020, section 2).

    "The encoder consists of several blocks containing a temporal convolution followed by layer normalization and a GELU
    activation function." A frame depends on the samples it covers, except with `norm="group"`, where the first layer
    is normalised over time: here over valid frames, and over all frames if no lengths are given.
    """

    config: ConvolutionConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, waveforms: Float[Array, "B T"], lengths: Int[Array, " B"] | None
    ) -> Float[Array, "B F C"]:
        config = self.config
        x = waveforms[..., None].astype(self.dtype)
        for index, (width, kernel, stride) in enumerate(
            zip(config.widths, config.kernels, config.strides, strict=True)
        ):
            convolve = nn.Conv(
                width,
                kernel,
                stride,
                padding="VALID",
                use_bias=config.bias,
                dtype=self.dtype,
                name=f"conv_{index}",
            )
            x = convolve(x)
            if config.norm == "layer":
                x = nn.LayerNorm(1e-5, dtype=self.dtype, name=f"norm_{index}")(x)
            elif index == 0:
                frames = x.shape[1]
                mask = None if lengths is None else valid_steps(config.num_frames(lengths, 1), frames)
                x = NormOverTime(name="norm_0")(x, mask)
            x = ACTIVATIONS[config.activation](x)
        return x


class NormOverTime(nn.Module):
    """Group normalisation with one feature per group.

    Each feature has mean 0 and variance 1 over the valid frames.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B F C"], mask: Bool[Array, "B F"] | None) -> Float[Array, "B F C"]:
        scale = self.param("scale", nn.initializers.ones, x.shape[2:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[2:])
        valid = jnp.ones((len(x), x.shape[1], 1), bool) if mask is None else mask[..., None]
        count = jnp.maximum(valid.sum(1, keepdims=True), 1).astype(jnp.float32)
        wide = x.astype(jnp.float32)
        mean = jnp.where(valid, wide, 0).sum(1, keepdims=True) / count
        variance = jnp.where(valid, jnp.square(wide - mean), 0).sum(1, keepdims=True) / count
        return ((wide - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + bias).astype(x.dtype)


class PositionalConvolution(nn.Module):
    """Convolutional relative position embeddings (Baevski et al. 2020, section 2).

    They are due to Mohamed et al. 2019. The published kernels are normalised to a learned length (weight norm); here
    the product is one kernel.

    Attributes:
        kernel_size: 128 in all published models; of an even kernel the last output is dropped.
        groups: groups of features, 16 in all published models.
        activation: a name in `ACTIVATIONS`.
        batch_norm: whether the input is normalised by stored statistics, as in mHuBERT.
    """

    kernel_size: int
    groups: int
    activation: str
    dtype: jnp.dtype
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B F D"], mask: Bool[Array, "B F"]) -> Float[Array, "B F D"]:
        if self.batch_norm:
            x = StoredNorm(name="norm")(x)
        x = jnp.where(mask[..., None], x, 0)
        return ACTIVATIONS[self.activation](
            same_convolution(x.shape[-1], self.kernel_size, self.groups, self.dtype, "conv")(x)
        )


def same_convolution(width: int, kernel_size: int, groups: int, dtype: jnp.dtype, name: str) -> nn.Conv:
    """Return a grouped convolution that keeps the number of frames."""
    half = kernel_size // 2
    padding = [(half, kernel_size - 1 - half)]
    return nn.Conv(width, kernel_size, padding=padding, feature_group_count=groups, dtype=dtype, name=name)


class StoredNorm(nn.Module):
    """Batch normalisation with fixed statistics."""

    @nn.compact
    def __call__(self, x: Float[Array, "B F D"]) -> Float[Array, "B F D"]:
        def param(name: str) -> Array:
            return self.param(name, nn.initializers.ones, x.shape[2:]).astype(jnp.float32)

        slope = param("scale") * jax.lax.rsqrt(param("variance") + 1e-5)
        return (x * slope + (param("bias") - param("mean") * slope)).astype(x.dtype)
