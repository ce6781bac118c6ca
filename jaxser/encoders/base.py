"""The base class of all encoders: features of a waveform, followed by a transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxser.encoders.configuration import Fields
from jaxser.encoders.transformer import SelfAttention, TransformerConfig, TransformerLayer
from jaxser.layers.dropout import Dropout


class SpeechEncoder(nn.Module):
    """Features of a waveform, followed by a transformer.

    The parameters are those of the features, `layer_0`, `layer_1`, ... and, if `transformer.pre_norm`, the last `norm`.

    Attributes:
        transformer: the sizes of the transformer.
        padding: "exact" or "as_published"; see the encoder of each family.
        dtype: the type to compute in.
        remat: whether to compute the activations of a layer again in the backward pass, instead of keeping them.
    """

    transformer: TransformerConfig
    padding: str
    dtype: jnp.dtype
    remat: bool

    attention: ClassVar[type[SelfAttention]] = SelfAttention
    prefixes: ClassVar[tuple[str, ...]]  # what may precede the names of the tensors
    tensor_names: ClassVar[Mapping[str, str]]  # the tensors of each module or parameter, see `checkpoint`
    mask_tensor: ClassVar[str] = ""  # the features of a masked step in pretraining, if there are any

    @classmethod
    def from_config(
        cls,
        config: Fields,
        preprocessor: Fields,
        *,
        padding: str | None,
        dtype: jnp.dtype,
        remat: bool,
    ) -> SpeechEncoder:
        """Build the module that a config.json and a preprocessor_config.json describe.

        A padding of None is the family's default.
        """
        raise NotImplementedError

    def setup(self) -> None:
        config = self.transformer
        layer = nn.remat(TransformerLayer, static_argnums=(4,)) if self.remat else TransformerLayer
        self.dropout = Dropout()
        self.layer = [layer(config, self.dtype, self.attention) for _ in range(config.layers)]
        if config.pre_norm:
            self.norm = nn.LayerNorm(config.epsilon, dtype=self.dtype)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        raise NotImplementedError

    @property
    def max_samples(self) -> int | None:
        """The longest waveform that is accepted, or None if there is no limit."""
        return None

    def num_frames(self, samples: Any) -> Any:
        """Return the number of frames of a waveform.

        `samples` is an integer or an array of integers.
        """
        raise NotImplementedError

    def features(
        self, waveforms: Float[Array, "B T"], lengths: Int[Array, " B"], *, train: bool
    ) -> tuple[Float[Array, "B M E"], Bool[Array, "B M"]]:
        """Compute the features of waveforms, and the mask of those that are attended to."""
        raise NotImplementedError

    def encode(
        self, features: Float[Array, "B M E"], mask: Bool[Array, "B M"], *, count: int, train: bool
    ) -> tuple[Float[Array, "B F D"], ...]:
        """Return the input of the first layer and the outputs of the first `count` layers."""
        raise NotImplementedError

    def transform(
        self,
        x: Float[Array, "B F D"],
        mask: Bool[Array, "B F"],
        positions: Float[Array, "K F F"] | None = None,
        *,
        count: int,
        train: bool,
    ) -> tuple[Float[Array, "B F D"], ...]:
        """Return `x` and the outputs of the first `count` layers.

        The output of the last layer of all is normalised.
        """
        states = [x]
        for layer in self.layer[:count]:
            states.append(layer(states[-1], mask, positions, train))
        if self.transformer.pre_norm and count == self.transformer.layers:
            states[-1] = self.norm(states[-1])
        return tuple(states)

    def __call__(
        self, waveforms: Float[Array, "B T"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B F D"], ...]:
        """Return all hidden states; called by `init`."""
        features, mask = self.features(waveforms, lengths, train=False)
        return self.encode(features, mask, count=self.transformer.layers, train=False)
