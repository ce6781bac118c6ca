"""Augmentation of batches within a training step, with traced strengths.

Validation and test never see it. Frames are normalised, so that zero is the mean of the training part. Only valid
frames and words are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxser.features.text import UNKNOWN_ID
from jaxser.types import Batch, Hyper

MASKS = 2
"""The number of masks along time and along frequency, as in the policy LD of SpecAugment."""

MODALITIES = (("audio", "segments", "prosody"), ("words",), ("video",))
"""The arrays of each modality."""

Strength = Float[Array, ""]
Frames = Float[Array, "B T D"]
Mask = Bool[Array, "B T"]


class Mixed(NamedTuple):
    """The partners of mixed utterances.

    Attributes:
        partner: the label of the other utterance.
        share: an utterance's own share.
        target: the other utterance's values of `Batch.target`.
    """

    partner: Int[Array, " B"]
    share: Float[Array, ""]
    target: Any = None


def augmented(batch: Batch, hyper: Hyper, key: PRNGKeyArray) -> tuple[Batch, Mixed | None]:
    """Return the batch with every augmentation that has a strength in the hyper-parameters.

    With `mixup`, the second value has the labels and shares of the mixed utterances.
    """
    mixed = None
    if "mixup" in hyper:
        batch, mixed = mixup(batch, hyper["mixup"], jax.random.fold_in(key, len(AUGMENTATIONS)))
    for number, (name, apply) in enumerate(AUGMENTATIONS.items()):
        if name in hyper:
            batch = apply(batch, hyper[name], jax.random.fold_in(key, number))
    return batch, mixed


def mixup(batch: Batch, alpha: Strength, key: PRNGKeyArray) -> tuple[Batch, Mixed]:
    """Mix the frames of each utterance with those of another (Zhang et al. 2018).

    The larger of a share drawn from Beta(alpha, alpha) and its complement is the utterance's own. The other utterance
    is cut or padded with zeros to its length.
    """
    order_key, share_key = jax.random.split(key)
    rows = jnp.arange(len(batch.weight))
    other = jax.random.permutation(order_key, rows)
    other = jnp.where(batch.weight[other] > 0, other, rows)
    drawn = jax.random.beta(share_key, jnp.maximum(alpha, 1e-3), jnp.maximum(alpha, 1e-3))
    share = jnp.where(alpha > 0, jnp.maximum(drawn, 1 - drawn), 1)

    def mix(x, mask):
        return jnp.where(mask[..., None], share * x + (1 - share) * x[other], 0)

    target = None if batch.target is None else batch.target[other]
    return _changed(batch, MIXED, mix), Mixed(batch.label[other], share, target)


def unusable(name: str, needs: Sequence[str]) -> str:
    """Return why an augmentation cannot be used by a network, or "" if it can.

    Args:
        name: an augmentation.
        needs: the arrays that the network reads.
    """
    if name == "mixup" and (fixed := [array for array in needs if array not in MIXED]):
        return f"mixes frames, and the network reads {', '.join(fixed)}"
    if name == "modality_dropout" and len(_modalities(needs)) < 2:
        return "needs a network that reads several modalities"
    if (arrays := CHANGED.get(name)) and not set(arrays) & set(needs):
        return f"changes {', '.join(arrays)}, and the network reads {', '.join(needs)}"
    return ""


def _crop(batch: Batch, strength: Strength, key: PRNGKeyArray) -> Batch:
    """Keep a random part of each utterance, which lacks up to a fraction `strength` of its frames."""
    size_key, start_key = jax.random.split(key)

    def crop(x, mask):
        length = mask.sum(1)
        lost = _up_to(size_key, strength, length)
        start = _below(start_key, lost + 1)
        steps = jnp.arange(x.shape[1])
        kept = steps < (length - lost)[:, None]
        index = jnp.minimum(start[:, None] + steps, x.shape[1] - 1)
        return jnp.where(kept[..., None], jnp.take_along_axis(x, index[..., None], 1), 0), kept

    if batch.audio is None:
        return batch
    audio, mask = crop(batch.audio, batch.audio_mask)
    return batch._replace(audio=audio, audio_mask=mask)


def _time_shift(batch: Batch, strength: Strength, key: PRNGKeyArray) -> Batch:
    """Rotate the frames of each utterance by up to a fraction `strength` of its length, forwards or backwards."""
    size_key, sign_key = jax.random.split(key)

    def shift(x, mask):
        length = mask.sum(1)[:, None]
        size = _up_to(size_key, strength, length[:, 0])
        by = jnp.where(jax.random.bernoulli(sign_key, shape=size.shape), size, -size)[:, None]
        steps = jnp.arange(x.shape[1])
        index = jnp.where(mask, (steps - by) % jnp.maximum(length, 1), steps)
        return jnp.take_along_axis(x, index[..., None], 1)

    return _changed(batch, ("audio",), shift)


def _time_mask(batch: Batch, strength: Strength, key: PRNGKeyArray) -> Batch:
    """Set blocks of frames to zero, each of up to a fraction `strength` of the utterance (Park et al. 2019)."""

    def mask_frames(x, mask):
        return jnp.where(_blocks(key, strength, mask.sum(1), x.shape[1])[..., None], 0, x)

    return _changed(batch, CHANGED["time_mask"], mask_frames)


def _frequency_mask(batch: Batch, strength: Strength, key: PRNGKeyArray) -> Batch:
    """Set blocks of neighbouring features to zero, each of up to a fraction `strength` (Park et al. 2019)."""

    def mask_features(x, mask):
        features = jnp.full(len(x), x.shape[2])
        return jnp.where(_blocks(key, strength, features, x.shape[2])[:, None], 0, x)

    return _changed(batch, CHANGED["frequency_mask"], mask_features)


def _feature_noise(batch: Batch, strength: Strength, key: PRNGKeyArray) -> Batch:
    """Add white noise with standard deviation `strength` to the frames."""

    def add_noise(x, mask):
        return jnp.where(mask[..., None], x + strength * jax.random.normal(key, x.shape), x)

    return _changed(batch, CHANGED["feature_noise"], add_noise)


def _word_dropout(batch: Batch, strength: Strength, key: PRNGKeyArray) -> Batch:
    """Replace each word by the unknown word with probability `strength`."""
    if batch.words is None:
        return batch
    is_dropped = jax.random.uniform(key, batch.words.shape) < strength
    return batch._replace(words=jnp.where(is_dropped & batch.words_mask, UNKNOWN_ID, batch.words))


def _modality_dropout(batch: Batch, strength: Strength, key: PRNGKeyArray) -> Batch:
    """With probability `strength`, hide one modality of an utterance: zero frames, or unknown words."""
    drop_key, choice_key = jax.random.split(key)
    present = _modalities([name for name in Batch._fields if getattr(batch, name) is not None])
    is_dropped = jax.random.uniform(drop_key, batch.weight.shape) < strength
    choice = jax.random.randint(choice_key, batch.weight.shape, 0, len(present))
    for number, arrays in enumerate(present):
        batch = _hidden(batch, arrays, is_dropped & (choice == number))
    return batch


def _hidden(batch: Batch, arrays: Sequence[str], rows: Bool[Array, " B"]) -> Batch:
    """Hide a modality of some utterances."""
    if "words" in arrays:
        return batch._replace(words=jnp.where(rows[:, None] & batch.words_mask, UNKNOWN_ID, batch.words))
    return _changed(batch, arrays, lambda x, mask: jnp.where(rows[:, None, None], 0, x))


AUGMENTATIONS: Mapping[str, Callable[[Batch, Strength, PRNGKeyArray], Batch]] = {
    "crop": _crop,
    "time_shift": _time_shift,
    "feature_noise": _feature_noise,
    "time_mask": _time_mask,
    "frequency_mask": _frequency_mask,
    "word_dropout": _word_dropout,
    "modality_dropout": _modality_dropout,
}
"""The augmentations of one utterance by itself, in the order in which they are applied; `mixup` comes before them."""

NAMES = frozenset((*AUGMENTATIONS, "mixup"))
"""The hyper-parameters that are strengths of augmentations."""

MIXED = ("audio", "video", "prosody")
"""The arrays that `mixup` mixes; a network that reads others cannot use it."""

CHANGED: Mapping[str, tuple[str, ...]] = {
    "crop": ("audio",),
    "time_shift": ("audio",),
    "feature_noise": ("audio", "segments", "video", "prosody"),
    "time_mask": ("audio", "segments"),
    "frequency_mask": ("audio", "segments"),
    "word_dropout": ("words",),
}
"""The arrays that an augmentation changes."""


def _changed(batch: Batch, arrays: Sequence[str], change: Callable[[Frames, Mask], Frames]) -> Batch:
    """Return the batch with those of the arrays changed that it has."""
    own = {name: getattr(batch, name) for name in arrays}
    return batch._replace(
        **{name: change(x, getattr(batch, f"{name}_mask")) for name, x in own.items() if x is not None}
    )


def _modalities(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [arrays for arrays in MODALITIES if set(arrays) & set(names)]


def _blocks(
    key: PRNGKeyArray, strength: Strength, length: Int[Array, " B"], size: int
) -> Bool[Array, "B {size}"]:
    """Return which of `size` steps are in one of `MASKS` random blocks of up to `strength` times the length."""
    steps, inside = jnp.arange(size), jnp.zeros((len(length), size), bool)
    for own in jax.random.split(key, MASKS):
        size_key, start_key = jax.random.split(own)
        width = _up_to(size_key, strength, length)
        start = _below(start_key, length - width + 1)[:, None]
        inside |= (steps >= start) & (steps < start + width[:, None])
    return inside


def _up_to(key: PRNGKeyArray, strength: Strength, length: Int[Array, " B"]) -> Int[Array, " B"]:
    """Draw an integer from 0 to `strength` times the length for each utterance, both included."""
    largest = jnp.floor(strength * length.astype(jnp.float32)).astype(jnp.int32)
    return _below(key, largest + 1)


def _below(key: PRNGKeyArray, limit: Int[Array, " B"]) -> Int[Array, " B"]:
    """Draw an integer from 0 to `limit` - 1 for each utterance."""
    drawn = jax.random.uniform(key, limit.shape) * limit.astype(jnp.float32)
    return jnp.minimum(drawn.astype(jnp.int32), jnp.maximum(limit - 1, 0))
