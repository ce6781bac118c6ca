"""wav2vec 2.0 (Baevski et al. 2020, section 2), and what other encoders share with it.

"The model is composed of a multi-layer convolutional feature encoder f: X -> Z which takes as input raw audio X and
outputs latent speech representations z_1, ..., z_T for T time-steps. They are then fed to a Transformer g: Z -> C to
build representations c_1, ..., c_T capturing information from the entire sequence."

Base models normalise the first convolution over time and the transformer's layers after each residual connection.
Large models trained on LibriVox, XLSR and later models normalise every convolution, and the transformer's layers
before attention and feed-forward networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxser.encoders.base import SpeechEncoder
from jaxser.encoders.configuration import Fields
from jaxser.encoders.convolution import ConvolutionConfig, FeatureEncoder, PositionalConvolution
from jaxser.encoders.transformer import ACTIVATIONS, DropoutRates, TransformerConfig
from jaxser.encoders.waveforms import normalised, valid_steps
from jaxser.features.audio import SAMPLE_RATE
from jaxser.types import InputError

NORMS = ("group", "layer")


class Wav2Vec2(SpeechEncoder):
    """wav2vec 2.0.

    With `padding="exact"`, the frames of a recording are those that the published model computes for it alone. With
    "as_published", they are those that the published model computes for a padded batch: the first convolution of Base
    models is normalised over the padding too, and models without `uses_mask` take zeros after the end for sound.

    Attributes:
        convolution: the sizes of the feature encoder.
        normalise: whether waveforms are scaled to mean 0 and variance 1.
        uses_mask: whether the published model masks padding; only for `padding="as_published"`.
        position_kernel: kernel size of the positional convolution.
        position_groups: groups of the positional convolution.
    """

    convolution: ConvolutionConfig
    normalise: bool
    uses_mask: bool
    position_kernel: int
    position_groups: int

    prefixes: ClassVar[tuple[str, ...]] = ("wav2vec2.", "")
    mask_tensor: ClassVar[str] = "masked_spec_embed"
    tensor_names: ClassVar[Mapping[str, str]] = {
        "feature_encoder/conv_{}": "feature_extractor.conv_layers.{}.conv",
        "feature_encoder/norm_{}": "feature_extractor.conv_layers.{}.layer_norm",
        "projection_norm": "feature_projection.layer_norm",
        "projection": "feature_projection.projection",
        "positions/conv": "encoder.pos_conv_embed.conv",
        "norm": "encoder.layer_norm",
        "layer_{}/attention/query": "encoder.layers.{}.attention.q_proj",
        "layer_{}/attention/key": "encoder.layers.{}.attention.k_proj",
        "layer_{}/attention/value": "encoder.layers.{}.attention.v_proj",
        "layer_{}/attention/out": "encoder.layers.{}.attention.out_proj",
        "layer_{}/attention_norm": "encoder.layers.{}.layer_norm",
        "layer_{}/feed_forward/in": "encoder.layers.{}.feed_forward.intermediate_dense",
        "layer_{}/feed_forward/out": "encoder.layers.{}.feed_forward.output_dense",
        "layer_{}/norm": "encoder.layers.{}.final_layer_norm",
    }

    @classmethod
    def from_config(
        cls,
        config: Fields,
        preprocessor: Fields,
        *,
        padding: str | None,
        dtype: jnp.dtype,
        remat: bool,
    ) -> Wav2Vec2:
        """Build the module that a config.json and a preprocessor_config.json describe."""
        preprocessor.require("sampling_rate", SAMPLE_RATE)
        convolution = cls.convolution_config(config)
        return cls(
            _transformer(config),
            padding or "exact",
            dtype,
            remat,
            convolution=convolution,
            normalise=preprocessor.flag("do_normalize", True),
            uses_mask=preprocessor.flag("return_attention_mask", convolution.norm == "layer"),
            **cls.family_fields(config),
        )

    @classmethod
    def convolution_config(cls, config: Fields) -> ConvolutionConfig:
        """Return the sizes of the feature encoder."""
        default = ConvolutionConfig()
        widths = config.counts("conv_dim", default.widths)
        kernels = config.counts("conv_kernel", default.kernels)
        strides = config.counts("conv_stride", default.strides)
        if not len(widths) == len(kernels) == len(strides):
            raise InputError(f"{config.path}: conv_dim, conv_kernel and conv_stride have different lengths")
        return ConvolutionConfig(
            widths,
            kernels,
            strides,
            bias=config.flag("conv_bias", False),
            norm=config.choice("feat_extract_norm", NORMS, "group"),
            activation=config.choice("feat_extract_activation", ACTIVATIONS, "gelu"),
        )

    @classmethod
    def family_fields(cls, config: Fields) -> dict[str, Any]:
        """Return the fields of the positional embeddings, and those that a family adds."""
        if (size := config.values.get("adapter_attn_dim")) is not None:
            raise InputError(
                f"{config.path}: adapter_attn_dim={size!r}: the adapters of MMS, one for each language, are not "
                "supported; use a model without them, such as facebook/mms-300m"
            )
        return {
            "position_kernel": config.count("num_conv_pos_embeddings", 128),
            "position_groups": position_groups(config),
        }

    def setup(self) -> None:
        super().setup()
        config = self.transformer
        self.feature_encoder = FeatureEncoder(self.convolution, self.dtype)
        self.projection_norm = self.feature_norm()
        self.projection = nn.Dense(config.width, dtype=self.dtype)
        self.positions = self.position_embeddings()
        if not config.pre_norm:
            self.norm = nn.LayerNorm(config.epsilon, dtype=self.dtype)

    def feature_norm(self) -> nn.Module | None:
        """Return the normalisation before the projection."""
        return nn.LayerNorm(self.transformer.epsilon, dtype=self.dtype)

    def position_embeddings(self) -> nn.Module:
        """Return the layer that computes position embeddings from features and their mask."""
        return PositionalConvolution(
            self.position_kernel, self.position_groups, self.convolution.activation, self.dtype
        )

    @property
    def hop(self) -> int:
        """320 samples in all published models."""
        return self.convolution.hop

    def num_frames(self, samples: Any) -> Any:
        """Return the number of frames whose receptive field is within a waveform."""
        return self.convolution.num_frames(samples)

    def features(
        self, waveforms: Float[Array, "B T"], lengths: Int[Array, " B"], *, train: bool
    ) -> tuple[Float[Array, "B F D"], Bool[Array, "B F"]]:
        """Compute the feature encoder's projected output z, and the mask of attended frames."""
        samples = max(waveforms.shape[1], self.convolution.receptive_field)
        waveforms = jnp.where(valid_steps(lengths, waveforms.shape[1]), waveforms, 0)
        waveforms = jnp.pad(waveforms, ((0, 0), (0, samples - waveforms.shape[1])))
        if self.padding == "as_published" and not self.uses_mask:
            lengths = jnp.full_like(lengths, samples)
        if self.normalise:
            waveforms = normalised(waveforms, lengths)
        z = self.feature_encoder(waveforms, lengths if self.padding == "exact" else None)
        mask = valid_steps(self.num_frames(lengths), z.shape[1])
        z = self.projection(z if self.projection_norm is None else self.projection_norm(z))
        return self.dropout(z, self.transformer.dropout.projection, train=train), mask

    def encode(
        self, features: Float[Array, "B F D"], mask: Bool[Array, "B F"], *, count: int, train: bool
    ) -> tuple[Float[Array, "B F D"], ...]:
        """Return the input of the first layer and the outputs c of the first `count` layers."""
        z = jnp.where(mask[..., None], features, 0)
        x = z + self.positions(z, mask if self.padding == "exact" else jnp.ones_like(mask))
        x = x if self.transformer.pre_norm else self.norm(x)
        x = self.dropout(x, self.transformer.dropout.hidden, train=train)
        return self.transform(x, mask, self.pair_scores(x.shape[1]), count=count, train=train)

    def pair_scores(self, frames: int) -> Float[Array, "K F F"] | None:
        """Return a score for each head and pair of positions, for families that have one."""
        return None


def position_groups(config: Fields) -> int:
    """Return the groups of the positional convolution."""
    width = config.count("hidden_size", 768)
    return config.divisor("num_conv_pos_embedding_groups", 16, "hidden_size", width)


def _transformer(config: Fields) -> TransformerConfig:
    rates = DropoutRates(
        hidden=config.number("hidden_dropout", 0.1),
        attention=config.number("attention_dropout", 0.1),
        activation=config.number("activation_dropout", 0.1),
        projection=config.number("feat_proj_dropout", 0.0),
        layer=config.number("layerdrop", 0.1),
    )
    width = config.count("hidden_size", 768)
    return TransformerConfig(
        layers=config.layers("num_hidden_layers", 12),
        width=width,
        heads=config.divisor("num_attention_heads", 12, "hidden_size", width),
        feed_forward_size=config.count("intermediate_size", 3072),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu"),
        pre_norm=config.flag("do_stable_layer_norm", False),
        epsilon=config.number("layer_norm_eps", 1e-5),
        dropout=rates,
    )
