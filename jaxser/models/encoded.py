"""A pretrained encoder in front of a network within the training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxser.encoders.encoder import Encoder
from jaxser.encoders.frames import Layers
from jaxser.encoders.masking import UNMASKED, Masking
from jaxser.encoders.tuning import Tuning
from jaxser.models.layer_mix import with_layer_weights
from jaxser.models.network import Network, Wrapper
from jaxser.types import Batch, FieldError, Hyper, Output

NORMALISATIONS = ("layer", "none")
"""How frames are normalised within the step: each frame over its features, or not at all."""

HYPER = ("encoder_learning_rate", "encoder_warmup")
"""The optional hyper-parameters of an encoder that is trained."""

_FULL_SCALE = 2.0**15


def with_waveforms(
    network: Network,
    encoder: Encoder,
    layers: Layers,
    tuning: Tuning,
    normalise: str,
    masking: Masking = UNMASKED,
) -> Network:
    """Return the network behind an encoder, with a layer mix if it has several layers.

    Raises:
        FieldError: if the network cannot read the frames of an encoder, or a field has an unsupported value.
    """
    if normalise not in NORMALISATIONS:
        raise FieldError(f"normalise={normalise!r} is not one of {', '.join(NORMALISATIONS)}")
    tuning.check(max(layers.indices))
    masking.check()
    if masking.is_on and tuning.train == "none":
        raise FieldError(
            "train='none': masks (mask_time_prob, mask_feature_prob) need an encoder that is trained"
        )
    if "segments" in network.needs:
        raise FieldError(
            f"folder: {type(network).__name__} reads word segments, which only recipe encoder cuts out of the frames"
        )
    if "audio" not in network.needs:
        raise FieldError(f"folder: {type(network).__name__} reads no audio")
    if "audio" in network.lengths:
        raise FieldError(f"folder: {type(network).__name__} needs a fixed number of frames")
    described = {"layers": layers.indices, "layers_mean": layers.mean}
    mixed = with_layer_weights(network, {"encoder": described})
    return Encoded(network.num_classes, mixed, encoder, layers, tuning, normalise, masking)


def encoder_of(network: Network, parameters: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return JSON values about the pretrained encoder whose frames a network reads, or None.

    Args:
        network: the network.
        parameters: the parameters of the recipe, as in the manifest of a dataset.
    """
    if isinstance(network, Encoded):
        return network.described
    return parameters.get("encoder") if {"audio", "segments"} & set(network.needs) else None


class Encoded(Wrapper):
    """A network that reads the hidden states of an encoder, which computes them in every step.

    The pretrained parameters come with the batch (`Batch.encoder`), so that all replicas share them. What is trained of
    the encoder is `params["encoder"]`. Padding beyond the encoder's window is cut.

    Attributes:
        network: the network behind the encoder.
        base: the pretrained encoder.
        layers: which hidden states are the frames.
        tuning: what is trained.
        normalise: one of `NORMALISATIONS`.
        masking: what is masked of the encoder's features in training.
    """

    base: Encoder
    layers: Layers
    tuning: Tuning = Tuning()
    normalise: str = "layer"
    masking: Masking = UNMASKED

    @property
    def optional_hyper(self) -> tuple[str, ...]:  # type: ignore[override]
        """The optional hyper-parameters of the network, and those of the encoder if it is trained."""
        return (*self.network.optional_hyper, *(() if self.tuning.train == "none" else HYPER))

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads, with waveforms instead of audio."""
        return tuple("waveform" if name == "audio" else name for name in self.network.needs)

    @property
    def described(self) -> Mapping[str, Any]:
        """JSON values about what is in front of the network, which they determine with the folder."""
        return {
            **self.base.described,
            "layers": self.layers.indices,
            "layers_mean": self.layers.mean,
            "normalise": self.normalise,
            "tuning": asdict(self.tuning),
        }

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch."""
        audio, mask = self._frames(batch, train)
        output = self.network(batch._replace(audio=audio, audio_mask=mask), hyper, train=train)
        attention = {
            name: replace(one, axes=tuple(self._axis(axis) for axis in one.axes))
            for name, one in output.attention.items()
        }
        return output._replace(attention=attention)

    def _frames(self, batch: Batch, train: bool) -> tuple[Float[Array, "B F D"], Bool[Array, "B F"]]:
        tuning, depth, dtype = self.tuning, max(self.layers.indices), jax.tree.leaves(batch.encoder)[0].dtype
        trained, key = {}, None
        if tuning.train != "none":
            trained = self.param("encoder", tuning.init, batch.encoder, depth)
            key = self.make_rng("dropout") if train else None
        encoder = replace(self.base, module=self.base.module.clone(dtype=dtype))
        with tuning.adapted(trained):
            states, mask = encoder.apply(
                tuning.merged(batch.encoder, trained),
                batch.waveform[:, : encoder.max_samples].astype(jnp.float32) / _FULL_SCALE,
                batch.waveform_mask[:, : encoder.max_samples].sum(1),
                layers=self.layers.indices,
                dropout_key=key,
                masking=self.masking,
            )
        if self.normalise == "layer":
            norm = nn.LayerNorm(use_bias=False, use_scale=False, dtype=dtype)
            states = tuple(norm(state) for state in states)
        stacked = jnp.stack(states, axis=2)
        frames = stacked.mean(2) if self.layers.mean else stacked.reshape(*mask.shape, -1)
        return jnp.where(mask[..., None], frames, 0), mask

    def _axis(self, axis: Any) -> Any:
        """Return the axis of an attention map, with samples instead of frames."""
        if axis.array != "audio":
            return axis
        return axis._replace(array="waveform", stride=axis.stride * self.base.hop)
