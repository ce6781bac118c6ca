"""HuBERT (Hsu et al. 2021, section II-E): the architecture of wav2vec 2.0.

It was trained to predict cluster assignments. The projection and the code embeddings after the transformer are used in
pretraining only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn

from jaxser.encoders.configuration import Fields
from jaxser.encoders.wav2vec2 import Wav2Vec2


class HuBERT(Wav2Vec2):
    """HuBERT.

    Attributes:
        normalise_features: whether the output of the feature encoder is normalised before the projection.
        batch_norm: whether the positional convolution has batch normalisation instead of weight norm (mHuBERT-147).
    """

    normalise_features: bool
    batch_norm: bool

    prefixes: ClassVar[tuple[str, ...]] = ("hubert.", "")
    tensor_names: ClassVar[Mapping[str, str]] = {
        **Wav2Vec2.tensor_names,
        "positions/norm/scale": "encoder.pos_conv_embed.batch_norm.weight",
        "positions/norm/bias": "encoder.pos_conv_embed.batch_norm.bias",
        "positions/norm/mean": "encoder.pos_conv_embed.batch_norm.running_mean",
        "positions/norm/variance": "encoder.pos_conv_embed.batch_norm.running_var",
    }

    @classmethod
    def family_fields(cls, config: Fields) -> dict[str, Any]:
        """Return the fields that HuBERT adds to those of wav2vec 2.0."""
        return {
            **super().family_fields(config),
            "normalise_features": config.flag("feat_proj_layer_norm", True),
            "batch_norm": config.flag("conv_pos_batch_norm", False),
        }

    def feature_norm(self) -> nn.Module | None:
        """Return the normalisation before the projection, if there is one."""
        return super().feature_norm() if self.normalise_features else None

    def position_embeddings(self) -> nn.Module:
        """Return the positional convolution of wav2vec 2.0, with batch normalisation in mHuBERT."""
        return super().position_embeddings().clone(batch_norm=self.batch_norm)
