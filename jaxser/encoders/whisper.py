"""The encoder of Whisper (Radford et al. 2023, section 2.2).

"A small stem consisting of two convolution layers with a filter width of 3 and the GELU activation function where the
second convolution layer has a stride of two. Sinusoidal position embeddings are then added to the output of the stem
after which the encoder Transformer blocks are applied. The transformer uses pre-activation residual blocks, and a final
layer normalization is applied to the encoder output."
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxser.encoders.base import SpeechEncoder
from jaxser.encoders.configuration import Fields
from jaxser.encoders.transformer import ACTIVATIONS, DropoutRates, TransformerConfig
from jaxser.encoders.waveforms import log_mel, valid_steps
from jaxser.features.audio import HOP

_STRIDE = 2


class Whisper(SpeechEncoder):
    """The encoder of Whisper.

    With `padding="as_published"`, every recording is padded with silence to a window of 30 s, which attention sees.
    With "exact", the frames of a recording are those of a network whose window is as long as the recording.

    Attributes:
        bands: the number of mel bands.
        max_frames: the length of the window in frames of 20 ms; 1500 in all published models.
    """

    bands: int
    max_frames: int

    prefixes: ClassVar[tuple[str, ...]] = ("model.encoder.", "encoder.", "")
    tensor_names: ClassVar[Mapping[str, str]] = {
        "conv_1": "conv1",
        "conv_2": "conv2",
        "positions": "embed_positions.weight",
        "norm": "layer_norm",
        "layer_{}/attention/query": "layers.{}.self_attn.q_proj",
        "layer_{}/attention/key": "layers.{}.self_attn.k_proj",
        "layer_{}/attention/value": "layers.{}.self_attn.v_proj",
        "layer_{}/attention/out": "layers.{}.self_attn.out_proj",
        "layer_{}/attention_norm": "layers.{}.self_attn_layer_norm",
        "layer_{}/feed_forward/in": "layers.{}.fc1",
        "layer_{}/feed_forward/out": "layers.{}.fc2",
        "layer_{}/norm": "layers.{}.final_layer_norm",
    }

    @classmethod
    def from_config(
        cls, config: Fields, preprocessor: Fields, *, padding: str | None, **options: Any
    ) -> Whisper:
        """Build the module that a `config.json` of model type "whisper" describes."""
        rates = DropoutRates(
            hidden=config.number("dropout", 0.0),
            attention=config.number("attention_dropout", 0.0),
            activation=config.number("activation_dropout", 0.0),
            layer=config.number("encoder_layerdrop", 0.0),
        )
        width = config.count("d_model")
        transformer = TransformerConfig(
            layers=config.layers("encoder_layers"),
            width=width,
            heads=config.divisor("encoder_attention_heads", 1, "d_model", width),
            feed_forward_size=config.count("encoder_ffn_dim"),
            activation=config.choice("activation_function", ACTIVATIONS, "gelu"),
            pre_norm=True,
            key_bias=False,
            dropout=rates,
        )
        for name, value in {"hop_length": HOP, "n_fft": 400}.items():
            preprocessor.require(name, value)
        return cls(
            transformer,
            bands=config.count("num_mel_bins", 80),
            max_frames=config.count("max_source_positions", 1500),
            padding=padding or "as_published",
            **options,
        )

    def setup(self) -> None:
        super().setup()
        width = self.transformer.width
        self.conv_1 = nn.Conv(width, 3, padding=1, dtype=self.dtype)
        self.conv_2 = nn.Conv(width, 3, _STRIDE, padding=1, dtype=self.dtype)
        self.positions = self.param("positions", nn.initializers.normal(), (self.max_frames, width))

    @property
    def hop(self) -> int:
        """320 samples: two steps of the spectrum."""
        return HOP * _STRIDE

    @property
    def max_samples(self) -> int:
        """The longest waveform that the module accepts."""
        return self.max_frames * self.hop

    def num_frames(self, samples: Any) -> Any:
        """Return the number of frames of a waveform, or of each of several."""
        return -(-samples // self.hop)

    def features(
        self, waveforms: Float[Array, "B T"], lengths: Int[Array, " B"], *, train: bool
    ) -> tuple[Float[Array, "B M bands"], Bool[Array, "B M"]]:
        """Compute log-mel spectra in frames of 10 ms, and the mask of the frames that are seen."""
        samples = waveforms.shape[1]
        waveforms = jnp.where(valid_steps(lengths, samples), waveforms, 0)
        window = self.max_samples if self.padding == "as_published" else self.num_frames(samples) * self.hop
        padded = jnp.pad(waveforms, ((0, 0), (0, window + (self.padding == "exact") * self.hop - samples)))
        spectra = log_mel(padded.astype(jnp.float32), self.bands)[:, : window // HOP]
        if self.padding == "as_published":
            return spectra, jnp.ones(spectra.shape[:2], bool)
        return spectra, valid_steps(_STRIDE * self.num_frames(lengths), spectra.shape[1])

    def encode(
        self, features: Float[Array, "B M bands"], mask: Bool[Array, "B M"], *, count: int, train: bool
    ) -> tuple[Float[Array, "B F D"], ...]:
        """Return the input of the first layer and the outputs of the first `count` layers."""
        gelu = ACTIVATIONS["gelu"]
        x = gelu(self.conv_1(jnp.where(mask[..., None], features.astype(self.dtype), 0)))
        x = gelu(self.conv_2(jnp.where(mask[..., None], x, 0)))
        x = x + self.positions[: x.shape[1]].astype(self.dtype)
        x = self.dropout(x, self.transformer.dropout.hidden, train=train)
        return self.transform(x, mask[:, ::_STRIDE], count=count, train=train)
