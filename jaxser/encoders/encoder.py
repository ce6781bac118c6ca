"""Pretrained speech encoders: loading their folders, and hidden states of waveforms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jaxser.encoders.base import SpeechEncoder
from jaxser.encoders.checkpoint import read_optional, read_parameters
from jaxser.encoders.configuration import Fields
from jaxser.encoders.data2vec import Data2Vec
from jaxser.encoders.hubert import HuBERT
from jaxser.encoders.masking import UNMASKED, Masking
from jaxser.encoders.wav2vec2 import Wav2Vec2
from jaxser.encoders.waveforms import valid_steps
from jaxser.encoders.wavlm import WavLM
from jaxser.encoders.whisper import Whisper
from jaxser.features.audio import SAMPLE_RATE
from jaxser.types import AnyArray, InputError, UsageError

FAMILIES: dict[str, type[SpeechEncoder]] = {
    "data2vec-audio": Data2Vec,
    "hubert": HuBERT,
    "wav2vec2": Wav2Vec2,
    "wavlm": WavLM,
    "whisper": Whisper,
}
"""The encoder of each `model_type` of a config.json."""

PADDING = ("exact", "as_published")

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"


class HiddenStates(NamedTuple):
    """Hidden states of a batch of waveforms.

    Attributes:
        states: one array for each chosen layer, zero where padded.
        mask: the valid frames.
    """

    states: tuple[Float[Array, "B F D"], ...]
    mask: Bool[Array, "B F"]


@dataclass(frozen=True, eq=False)
class Encoder:
    """A pretrained speech encoder.

    `encoder(waveforms, lengths)` computes hidden states. `apply` is the pure function behind it, for other parameters
    and for training; `features` and `encode` are its two halves, for masks between them (SpecAugment).

    Attributes:
        family: the `model_type` of its config.json: "wav2vec2", "hubert", "wavlm", "data2vec-audio" or "whisper".
        module: the network.
        params: its parameters in float32, by layer: `params["layer_0"]`, ...
        digest: SHA-256 of the names, types, shapes and bytes of the encoder's tensors.
        ignored: tensors of the folder that do not belong to the encoder: heads, decoders, quantisers.
        mask_embedding: the features of a masked step in pretraining; None if there are none.
    """

    family: str
    module: SpeechEncoder
    params: PyTree = field(repr=False)
    digest: str
    ignored: tuple[str, ...] = field(default=(), repr=False)
    mask_embedding: Array | None = field(default=None, repr=False)

    sample_rate = SAMPLE_RATE

    @property
    def hop(self) -> int:
        """Samples from one frame to the next; 320 (20 ms) in all published models."""
        return self.module.hop

    @property
    def width(self) -> int:
        """Features of a frame."""
        return self.module.transformer.width

    @property
    def layers(self) -> int:
        """Transformer layers. There is one more hidden state: the input of the first layer."""
        return self.module.transformer.layers

    @property
    def max_samples(self) -> int | None:
        """The longest waveform that is accepted, or None if there is no limit."""
        return self.module.max_samples

    @property
    def num_parameters(self) -> int:
        """The number of parameters."""
        return sum(own.size for own in jax.tree.leaves(self.params))

    @property
    def described(self) -> Mapping[str, Any]:
        """JSON values about the encoder for manifests and results."""
        return {
            "family": self.family,
            "digest": self.digest,
            "padding": self.module.padding,
            "hop_samples": self.hop,
            "width": self.width,
            "num_layers": self.layers,
            "parameters": self.num_parameters,
        }

    def num_frames(self, samples: Any) -> Any:
        """Return the number of frames of a waveform.

        `samples` is an integer or an array of integers.
        """
        return self.module.num_frames(samples)

    def __call__(
        self,
        waveforms: Float[AnyArray, "B T"],
        lengths: Int[AnyArray, " B"],
        *,
        layers: Sequence[int] | None = None,
    ) -> HiddenStates:
        """Compute hidden states with the pretrained parameters; see `apply`.

        The computation is compiled once for each shape.
        """
        return _compiled(
            self.module, self.params, waveforms, lengths, None if layers is None else tuple(layers)
        )

    def apply(
        self,
        params: PyTree,
        waveforms: Float[AnyArray, "B T"],
        lengths: Int[AnyArray, " B"],
        *,
        layers: Sequence[int] | None = None,
        dropout_key: PRNGKeyArray | None = None,
        masking: Masking = UNMASKED,
    ) -> HiddenStates:
        """Compute hidden states as a pure function.

        It can be compiled and differentiated.

        Args:
            params: parameters with the structure of `self.params`.
            waveforms: mono samples in [-1, 1] at 16 kHz; what follows the valid samples of a row does not matter.
            lengths: the number of valid samples of each row. A row of 0 samples is a padding row.
            layers: which hidden states to return: 0 is the input of the first layer, i the output of layer i; negative
                numbers count from the end. None returns all. Layers above the highest are not computed.
            dropout_key: drops with the published rates if it is given.
            masking: what is masked of the features if `dropout_key` is given.

        Raises:
            UsageError: if the waveforms are longer than `max_samples`, or if a layer does not exist.
        """
        masked = None
        if dropout_key is not None and masking.is_on:
            key = jax.random.fold_in(dropout_key, 2)
            masked = partial(masking.apply, embedding=self.mask_embedding, key=key)
        return _apply(self.module, params, waveforms, lengths, layers, dropout_key, masked)

    def features(
        self,
        params: PyTree,
        waveforms: Float[AnyArray, "B T"],
        lengths: Int[AnyArray, " B"],
        *,
        dropout_key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "B M E"], Bool[Array, "B M"]]:
        """Compute what `encode` takes, and its mask.

        It is projected convolutional features, or Whisper's log-mel spectrum.
        """
        return _features(self.module, params, jnp.asarray(waveforms), jnp.asarray(lengths), dropout_key)

    def encode(
        self,
        params: PyTree,
        features: Float[Array, "B M E"],
        mask: Bool[Array, "B M"],
        *,
        layers: Sequence[int] | None = None,
        dropout_key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "B F D"], ...]:
        """Compute the hidden states of features; they are not zero where padded."""
        return _encode(self.module, params, features, mask, layers, dropout_key)


def _apply(module, params, waveforms, lengths, layers, dropout_key=None, masked=None):
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    waveforms, lengths = jnp.asarray(waveforms), jnp.asarray(lengths)
    features, mask = _features(module, params, waveforms, lengths, keys[0])
    features = features if masked is None else masked(features, mask)
    states = _encode(module, params, features, mask, layers, keys[1])
    frames = module.num_frames(waveforms.shape[1])
    mask = valid_steps(module.num_frames(lengths), frames)
    return HiddenStates(tuple(jnp.where(mask[..., None], state[:, :frames], 0) for state in states), mask)


_compiled = partial(jax.jit, static_argnums=(0, 4))(_apply)


def _features(module, params, waveforms, lengths, key):
    if module.max_samples is not None and waveforms.shape[1] > module.max_samples:
        raise UsageError(
            f"a waveform of {waveforms.shape[1] / SAMPLE_RATE:g} s is longer than the encoder's window of "
            f"{module.max_samples / SAMPLE_RATE:g} s; cut it into windows"
        )
    rngs = {} if key is None else {"dropout": key}
    return module.apply(
        {"params": params}, waveforms, lengths, train=key is not None, method="features", rngs=rngs
    )


def _encode(module, params, features, mask, layers, key):
    chosen = _chosen(layers, module.transformer.layers)
    rngs = {} if key is None else {"dropout": key}
    states = module.apply(
        {"params": params},
        features,
        mask,
        count=max(chosen),
        train=key is not None,
        method="encode",
        rngs=rngs,
    )
    return tuple(states[index] for index in chosen)


def _chosen(layers: Sequence[int] | None, count: int) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(count + 1))
    if not layers or not all(-count - 1 <= layer <= count for layer in layers):
        raise UsageError(f"layers={tuple(layers)}: the encoder has hidden states 0 to {count}")
    return tuple(layer % (count + 1) for layer in layers)


def load(
    folder: str | Path, *, padding: str | None = None, dtype: str = "float32", remat: bool = False
) -> Encoder:
    """Load an encoder from a folder in Hugging Face's layout.

    Nothing is downloaded or unpickled.

    Args:
        folder: a folder with config.json, preprocessor_config.json and model.safetensors (or its shards).
        padding: "exact" if padding must not change valid frames, "as_published" to pad as the published model does;
            by default "as_published" for Whisper, and "exact" for other families.
        dtype: the type to compute in, "float32" or "bfloat16".
        remat: whether to compute activations again in the backward pass, which saves memory.

    Raises:
        InputError: if the folder cannot be used. The message is one line.
        UsageError: if an option has an unknown value.
    """
    if padding not in (None, *PADDING):
        raise UsageError(f"padding={padding!r} is not one of {', '.join(PADDING)}")
    if dtype not in ("float32", "bfloat16"):
        raise UsageError(f"dtype={dtype!r} is not one of float32, bfloat16")
    folder = _existing(folder)
    config = Fields.read(folder / CONFIG)
    family = config.choice("model_type", FAMILIES)
    cls = FAMILIES[family]
    module = cls.from_config(
        config, _preprocessor(folder), padding=padding, dtype=jnp.dtype(dtype), remat=remat
    )
    shapes = parameter_shapes(module)
    flat, ignored, digest = read_parameters(folder, cls.tensor_names, shapes, cls.prefixes)
    params = flax.traverse_util.unflatten_dict(
        {path: jnp.asarray(value) for path, value in flat.items()}, sep="/"
    )
    masked = None
    if cls.mask_tensor:
        masked = read_optional(folder, cls.mask_tensor, (module.transformer.width,), cls.prefixes)
        ignored = tuple(name for name in ignored if not name.endswith(cls.mask_tensor))
    return Encoder(family, module, params, digest, ignored, None if masked is None else jnp.asarray(masked))


def _existing(folder: str | Path) -> Path:
    path = Path(folder)
    if not path.is_dir():
        hint = ""
        if re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder)):
            hint = f"; nothing is downloaded: hf download {folder} --local-dir {path.name}"
        raise InputError(f"{folder}: no such folder{hint}")
    if not (path / CONFIG).is_file():
        raise InputError(f"{folder}: has no {CONFIG}, so it is not a Hugging Face folder")
    return path


def _preprocessor(folder: Path) -> Fields:
    """Read the fields of the feature extractor, which processors of transformers 5 save within their own."""
    if not (folder / PREPROCESSOR).is_file() and (folder / PROCESSOR).is_file():
        values = Fields.read(folder / PROCESSOR).values.get("feature_extractor")
        if isinstance(values, dict):
            return Fields(folder / PROCESSOR, values)
    return Fields.read(folder / PREPROCESSOR)


def parameter_shapes(module: SpeechEncoder) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter, without computing any."""
    waveforms = jax.ShapeDtypeStruct((1, 4 * module.hop), jnp.float32)
    lengths = jax.ShapeDtypeStruct((1,), jnp.int32)
    variables = jax.eval_shape(module.init, jax.random.key(0), waveforms, lengths)
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    return {path: value.shape for path, value in flat.items()}
