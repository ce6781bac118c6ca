"""Copies of recordings with changed waveforms, which training reads as further rows.

    python -m jaxser.data_prep.prepare --corpus=ravdess --root=RAVDESS --augment=speed,noise,gain --copies=4

Changes depend on the utterance's id and the number of the copy only, so every preparation makes the same copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float, Shaped
from scipy.signal import fftconvolve

from jaxser.features.audio import SAMPLE_RATE, WINDOW
from jaxser.features.extraction import Precomputed, extract
from jaxser.features.recipes import Recipe
from jaxser.features.text import Vocabulary
from jaxser.types import UsageError, Utterance, Word

Samples = Float[np.ndarray, " _"]

PARAMETER = "augment"
"""The entry of a recipe's parameters, and so of the manifest, that describes the copies."""

RANGES: Mapping[str, tuple[float, float]] = {
    "speed": (0.85, 1.18),  # factor; the pitch changes too
    "pitch": (-2.0, 2.0),  # semitones, at the same length
    "reverb": (0.1, 0.5),  # seconds until the reverberation has fallen by 60 dB
    "noise": (15.0, 40.0),  # signal-to-noise ratio in dB
    "gain": (-6.0, 6.0),  # dB
}
"""The kinds of changes, in the order in which they are made, and the range that each is drawn from uniformly."""

DIRECT_TO_REVERBERANT_DB = 10.0

_SHARED = ("words", "audio_noisy")
"""Arrays that copies share with their recording, or do not have."""


def with_copies(recipe: Recipe, kinds: Sequence[str], copies: int) -> Recipe:
    """Add the arrays of augmented copies to a recipe, and their description to its parameters.

    Args:
        recipe: the recipe, with its precomputed arrays.
        kinds: keys of `RANGES`.
        copies: the number of copies of each recording.

    Raises:
        UsageError: if a kind is unknown, or the recipe's features are not computed from the waveform.
    """
    if unknown := [kind for kind in kinds if kind not in RANGES]:
        raise UsageError(f"--augment: {unknown[0]!r} is not one of {', '.join(RANGES)}")
    if copies < 1:
        raise UsageError(f"--copies={copies}: must be at least 1")
    changed = [name for name in recipe.arrays if name not in (*_SHARED, *recipe.precomputed)]
    if not {"audio", "waveform"} & {*changed}:
        raise UsageError(
            f"--augment: the features of recipe {recipe.name} are not computed from waveforms here"
        )
    arrays = {f"{name}_copy{copy}": recipe.arrays[name] for copy in range(1, copies + 1) for name in changed}
    ranges = {kind: RANGES[kind] for kind in RANGES if kind in kinds}
    described: dict[str, Any] = {"copies": copies, "ranges": ranges}
    if "reverb" in kinds:
        described["direct_to_reverberant_db"] = DIRECT_TO_REVERBERANT_DB
    return replace(
        recipe, arrays={**recipe.arrays, **arrays}, parameters={**recipe.parameters, PARAMETER: described}
    )


def without_copies(recipe: Recipe) -> Recipe:
    """Return the recipe without the arrays of copies, as `extract` computes it."""
    arrays = {name: spec for name, spec in recipe.arrays.items() if "_copy" not in name}
    return replace(recipe, arrays=arrays)


def extract_with_copies(
    recipe: Recipe,
    utterance: Utterance,
    samples: Samples,
    vocabulary: Vocabulary,
    precomputed: Precomputed | None = None,
) -> dict[str, Shaped[np.ndarray, ...]]:
    """Compute the arrays of an utterance and of its copies.

    See `jaxser.features.extraction.extract`.
    """
    clean = without_copies(recipe)
    arrays = extract(clean, utterance, samples, vocabulary, precomputed)
    if PARAMETER not in recipe.parameters:
        return arrays
    described = recipe.parameters[PARAMETER]
    for copy in range(1, described["copies"] + 1):
        changed, speed = augmented(samples, described["ranges"], utterance.id, copy)
        own = extract(clean, _faster(utterance, speed), changed, vocabulary, precomputed)
        arrays |= {f"{name}_copy{copy}": own[name] for name in own if f"{name}_copy{copy}" in recipe.arrays}
    return arrays


def augmented(
    samples: Samples, ranges: Mapping[str, tuple[float, float]], identity: str, copy: int
) -> tuple[Samples, float]:
    """Change a waveform.

    All kinds draw their random numbers, also those that are not used, so that a kind's numbers do not depend on others.

    Args:
        samples: the waveform at 16 kHz.
        ranges: the kinds of changes, with their ranges.
        identity: the utterance's id.
        copy: the number of the copy.

    Returns:
        The changed waveform, and the factor on the speed.
    """
    speed = 1.0
    for number, (kind, change) in enumerate(_CHANGES.items()):
        seed = hashlib.sha256(f"{identity}/{copy}/{number}".encode("utf-8", "surrogateescape")).digest()
        rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
        if kind in ranges:
            strength = rng.uniform(*ranges[kind])
            samples = change(samples, strength, rng)
            speed *= strength if kind == "speed" else 1.0
    padding = max(WINDOW - len(samples), 0)
    return np.pad(samples, (0, padding)).astype(np.float32), speed


def _change_speed(samples: Samples, factor: float, rng: np.random.Generator) -> Samples:
    return soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE)


def _shift_pitch(samples: Samples, semitones: float, rng: np.random.Generator) -> Samples:
    import librosa  # takes seconds

    return librosa.effects.pitch_shift(samples, sr=SAMPLE_RATE, n_steps=semitones, res_type="soxr_hq")


def _reverberate(samples: Samples, seconds: float, rng: np.random.Generator) -> Samples:
    """Convolve with white noise that decays exponentially; the sound itself stays as it is."""
    times = np.arange(1, round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / seconds)
    tail *= 10 ** (-DIRECT_TO_REVERBERANT_DB / 20) / np.linalg.norm(tail)
    return fftconvolve(samples, np.concatenate([[1.0], tail]))[: len(samples)]


def _add_noise(samples: Samples, decibels: float, rng: np.random.Generator) -> Samples:
    deviation = np.sqrt(np.mean(np.square(samples, dtype=np.float64)) / 10 ** (decibels / 10))
    return samples + deviation * rng.standard_normal(len(samples))


def _amplify(samples: Samples, decibels: float, rng: np.random.Generator) -> Samples:
    return samples * 10 ** (decibels / 20)


_CHANGES: Mapping[str, Callable[[Samples, float, np.random.Generator], Samples]] = {
    "speed": _change_speed,
    "pitch": _shift_pitch,
    "reverb": _reverberate,
    "noise": _add_noise,
    "gain": _amplify,
}


def _faster(utterance: Utterance, speed: float) -> Utterance:
    """Return the utterance with the times of its words divided by the speed."""
    if utterance.words is None or speed == 1:
        return utterance
    words = tuple(Word(word.text, word.start / speed, word.end / speed) for word in utterance.words)
    return replace(utterance, words=words)
