"""data2vec for speech (Baevski et al. 2022).

The architecture is that of wav2vec 2.0 with deeper position embeddings. Every convolution of the feature encoder is
normalised, and five smaller convolutions replace the positional one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.encoders.configuration import Fields
from jaxser.encoders.convolution import ConvolutionConfig, same_convolution
from jaxser.encoders.transformer import ACTIVATIONS
from jaxser.encoders.wav2vec2 import Wav2Vec2, position_groups


class StackedPositionalConvolution(nn.Module):
    """Grouped convolutions, each followed by a normalisation and an activation function.

    The layer normalisation has no parameters.
    """

    layers: int
    kernel_size: int
    groups: int
    activation: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B F D"], mask: Bool[Array, "B F"]) -> Float[Array, "B F D"]:
        for index in range(self.layers):
            x = jnp.where(mask[..., None], x, 0)
            x = same_convolution(x.shape[-1], self.kernel_size, self.groups, self.dtype, f"conv_{index}")(x)
            x = nn.LayerNorm(1e-5, use_bias=False, use_scale=False, dtype=self.dtype)(x)
            x = ACTIVATIONS[self.activation](x)
        return x


class Data2Vec(Wav2Vec2):
    """data2vec-audio.

    With `padding="as_published"`, the convolutions after the first see what the ones before them computed beyond the
    end of a padded recording.

    Attributes:
        position_layers: the number of positional convolutions.
    """

    position_layers: int

    prefixes: ClassVar[tuple[str, ...]] = ("data2vec_audio.", "")
    tensor_names: ClassVar[Mapping[str, str]] = {
        **{name: tensor for name, tensor in Wav2Vec2.tensor_names.items() if name != "positions/conv"},
        "positions/conv_{}": "encoder.pos_conv_embed.layers.{}.conv",
    }

    @classmethod
    def convolution_config(cls, config: Fields) -> ConvolutionConfig:
        """Return the sizes of the feature encoder, which always normalises every convolution."""
        return replace(super().convolution_config(config), norm="layer")

    @classmethod
    def family_fields(cls, config: Fields) -> dict[str, Any]:
        """Return the fields of the stacked positional convolution."""
        return {
            "position_layers": config.layers("num_conv_pos_embeddings", 5),
            "position_kernel": config.count("conv_pos_kernel_size", 19),
            "position_groups": position_groups(config),
        }

    def position_embeddings(self) -> nn.Module:
        """Return the stacked positional convolution."""
        return StackedPositionalConvolution(
            self.position_layers,
            self.position_kernel,
            self.position_groups,
            self.convolution.activation,
            self.dtype,
        )
