"""WavLM (Chen et al. 2022, section III-A): wav2vec 2.0 with gated relative positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxser.encoders.configuration import Fields
from jaxser.encoders.transformer import SelfAttention
from jaxser.encoders.wav2vec2 import Wav2Vec2
from jaxser.types import InputError


class GatedSelfAttention(SelfAttention):
    """Self-attention whose relative position bias is gated (section III-A).

    The gates are projected from the input of the layer, as in the published code; the paper projects the query.
    """

    def gate(self, x: Float[Array, "B F D"]) -> Float[Array, "B F K"]:
        """Return 1 + g_update + (1 - g_update) s g_reset, the factor of d in the paper's r.

        d is the bias. The stored projection is that of 1 - g_update, and each gate is the sum of four projections.
        """
        heads = x.reshape(*x.shape[:2], self.config.heads, -1)
        scores = nn.Dense(8, dtype=self.dtype, name="gate")(heads).astype(jnp.float32)
        keep, reset = jnp.moveaxis(jax.nn.sigmoid(scores.reshape(*heads.shape[:3], 2, 4).sum(-1)), -1, 0)
        scale = self.param("gate_scale", nn.initializers.ones, (1, self.config.heads, 1, 1))
        return 2 - keep + keep * scale.reshape(-1) * reset


class WavLM(Wav2Vec2):
    """WavLM.

    Attributes:
        buckets: the number of relative positions that have a bias of their own.
        max_distance: the distance from which on all positions share a bias.
    """

    buckets: int
    max_distance: int

    attention: ClassVar[type[SelfAttention]] = GatedSelfAttention
    prefixes: ClassVar[tuple[str, ...]] = ("wavlm.", "")
    tensor_names: ClassVar[Mapping[str, str]] = {
        **Wav2Vec2.tensor_names,
        "relative_positions": "encoder.layers.0.attention.rel_attn_embed.weight",
        "layer_{}/attention/gate": "encoder.layers.{}.attention.gru_rel_pos_linear",
        "layer_{}/attention/gate_scale": "encoder.layers.{}.attention.gru_rel_pos_const",
    }

    @classmethod
    def family_fields(cls, config: Fields) -> dict[str, Any]:
        """Return the fields that WavLM adds to those of wav2vec 2.0."""
        buckets = config.count("num_buckets", 320)
        max_distance = config.count("max_bucket_distance", 800)
        if not 1 <= buckets // 4 < max_distance:  # the first half of each half is linear
            raise InputError(
                f"{config.path}: num_buckets={buckets} must be at least 4, and max_bucket_distance={max_distance} "
                "greater than a quarter of it"
            )
        return {**super().family_fields(config), "buckets": buckets, "max_distance": max_distance}

    def setup(self) -> None:
        super().setup()
        shape = (self.buckets, self.transformer.heads)
        self.relative_positions = self.param("relative_positions", nn.initializers.normal(), shape)

    def pair_scores(self, frames: int) -> Float[Array, "K F F"]:
        """Return the bias d of each pair of positions, which all layers share."""
        distances = np.arange(1 - frames, frames)
        by_distance = self.relative_positions[bucket(distances, self.buckets, self.max_distance)]
        index = np.arange(frames) - np.arange(frames)[:, None] + frames - 1  # key minus query
        return by_distance.T.astype(jnp.float32)[:, index]


def bucket(distances: Int[np.ndarray, " n"], buckets: int, max_distance: int) -> Int[np.ndarray, " n"]:
    """Return the bucket of each distance (section III-A).

    Buckets are linear, and then logarithmic up to `max_distance`. Half of the buckets are for keys after the query;
    half of each half are linear.
    """
    half, exact = buckets // 2, buckets // 4
    size = np.abs(distances)
    growth = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        math.log(max_distance / exact)
    )
    large = np.minimum(exact + (growth * (half - exact)).astype(int), half - 1)
    return np.where(size < exact, size, large) + half * (distances > 0)
