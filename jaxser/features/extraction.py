"""The arrays of a recipe for one utterance.

Preparation and prediction both call `extract`, so training and prediction see the same features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Shaped

from jaxser.features import audio, lld, segments, spectra, text
from jaxser.features.recipes import SNR_DB, Recipe, tokens
from jaxser.types import InputError, Utterance

Precomputed = Mapping[str, Float[np.ndarray, "rows width"]]
"""Precomputed arrays of an utterance by name; see `Recipe.precomputed`."""


def extract(
    recipe: Recipe,
    utterance: Utterance,
    samples: Float[np.ndarray, " samples"],
    vocabulary: text.Vocabulary,
    precomputed: Precomputed | None = None,
) -> dict[str, Shaped[np.ndarray, ...]]:
    """Compute the recipe's arrays of one utterance.

    Args:
        recipe: the recipe, with the precomputed arrays added by `with_sources`.
        utterance: transcript, word times and id, which seeds the noise of noisy copies.
        samples: the utterance's samples at 16 kHz; not read if the recipe has no sound.
        vocabulary: the ids of the words.
        precomputed: the precomputed arrays that the recipe includes.

    Returns:
        The arrays by name. The noisy copy of `audio` in recipe `cat` is an array of its own, `audio_noisy`; training
        decides when to use it.

    Raises:
        InputError: if a precomputed array is missing, or the features cannot be computed.
    """
    arrays = _EXTRACTORS[recipe.name](recipe, utterance, samples, vocabulary)
    arrays |= {name: rows[: recipe.precomputed[name]] for name, rows in (precomputed or {}).items()}
    if recipe.name == "encoder" and "audio" in arrays:
        arrays |= _frame_segments(recipe, utterance, len(samples), arrays["audio"])
    if missing := recipe.arrays.keys() - arrays.keys():
        raise InputError(f"missing precomputed features: {', '.join(sorted(missing))}")
    return arrays


def segment_bounds(
    recipe: Recipe, utterance: Utterance, num_samples: int
) -> tuple[Shaped[np.ndarray, "words 2"], bool]:
    """Return the first and last sample of each word, and whether they follow the word times.

    The last sample is exclusive. If the word times are missing or contradict the audio, the words get parts of equal
    length.
    """
    bounds, overlap = None, recipe.parameters["overlap"]
    wants_alignment = recipe.parameters["segmentation"] == "aligned"
    if wants_alignment and utterance.words:
        bounds = segments.aligned_bounds(utterance.words, num_samples, overlap)
    is_aligned = bounds is not None
    if bounds is None:
        number = len(tokens(recipe, utterance))
        bounds = segments.equal_bounds(number, num_samples, 0.0 if wants_alignment else overlap)
    return bounds[: recipe.parameters["max_words"]], is_aligned


def with_noise(
    samples: Float[np.ndarray, " samples"], identity: str, copy: int
) -> Float[np.ndarray, " samples"]:
    """Add white noise at a signal-to-noise ratio drawn uniformly from `SNR_DB`.

    Args:
        samples: the signal.
        identity: the utterance's id, which seeds the noise together with `copy`.
        copy: the number of the copy.
    """
    seed = hashlib.sha256(f"{identity}/{copy}".encode("utf-8", "surrogateescape")).digest()
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
    decibels = rng.uniform(*SNR_DB)
    deviation = np.sqrt(np.mean(np.square(samples, dtype=np.float64)) / 10 ** (decibels / 10))
    return samples + np.float32(deviation) * rng.standard_normal(len(samples), np.float32)


def _mcsan(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    [cepstra] = spectra.mfcc([samples])
    return {
        "audio": cepstra[: recipe.parameters["max_frames"]],
        "words": _words(recipe, utterance, vocabulary),
    }


def _can(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    bounds, _ = segment_bounds(recipe, utterance, len(samples))
    whole, *cepstra = spectra.mfcc([samples, *(samples[start:end] for start, end in bounds)])
    words = [frames[: recipe.parameters["max_segment_frames"]] for frames in cepstra]
    return {
        "segments": np.concatenate(words),
        "segment_lengths": np.array([len(frames) for frames in words], dtype=np.int32),
        "audio": whole[: recipe.parameters["max_frames"]],
        "words": _words(recipe, utterance, vocabulary),
    }


def _cat(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    longest = recipe.parameters["max_frames"] * audio.HOP
    kept = samples[:longest]
    signals = [kept, with_noise(kept, utterance.id, copy=1)]
    if "padding" in recipe.parameters:
        signals = [np.pad(signal, (0, longest - len(signal))) for signal in signals]
    clean, noisy = spectra.log_mel(signals, spectra.LIBROSA)
    return {  # 7.5 s have 751 frames, of which the paper keeps 750
        "audio": clean[: recipe.parameters["max_frames"]],
        "audio_noisy": noisy[: recipe.parameters["max_frames"]],
    }


def _lld(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    return {"audio": lld.low_level_descriptors(samples)[: recipe.parameters["max_frames"]]}


def _self_cross(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    [cepstra] = spectra.mfcc([samples])
    frames = np.concatenate([cepstra, spectra.deltas(cepstra, 1), spectra.deltas(cepstra, 2)], axis=1)
    return {
        "audio": frames[: recipe.parameters["max_frames"]],
        "words": _words(recipe, utterance, vocabulary),
    }


def _frames(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    return {"words": _words(recipe, utterance, vocabulary)}


def _waveform(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    """16-bit samples, exact if the recording has 16 bits at 16 kHz; very short recordings are padded with zeros."""
    limits = np.iinfo(np.int16)
    kept = np.round(samples[: recipe.parameters["max_frames"]] * 2.0**15).clip(limits.min, limits.max)
    padding = max(recipe.parameters["min_frames"] - len(kept), 0)
    return {
        "waveform": np.pad(kept, (0, padding)).astype(np.int16),
        "words": _words(recipe, utterance, vocabulary),
    }


def _frame_segments(
    recipe: Recipe, utterance: Utterance, num_samples: int, frames: Float[np.ndarray, "frames width"]
) -> dict[str, np.ndarray]:
    """Cut the frames that overlap each word out of the frames of the utterance; a word has at least one frame."""
    bounds, _ = segment_bounds(recipe, utterance, num_samples)
    first = np.minimum(bounds[:, 0] // recipe.hop, len(frames) - 1)
    end = np.minimum(-(-bounds[:, 1] // recipe.hop), first + recipe.parameters["max_segment_frames"])
    words = [frames[start:stop] for start, stop in zip(first, np.maximum(end, first + 1), strict=True)]
    return {
        "segments": np.concatenate(words),
        "segment_lengths": np.array([len(word) for word in words], dtype=np.int32),
    }


def _words(recipe: Recipe, utterance: Utterance, vocabulary: text.Vocabulary) -> np.ndarray:
    return vocabulary.ids(tokens(recipe, utterance)[: recipe.parameters["max_words"]])


_EXTRACTORS: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    "mcsan": _mcsan,
    "can": _can,
    "can_equal": _can,
    "can_equal_overlap": _can,
    "cat": _cat,
    "cat_padded": _cat,
    "lld": _lld,
    "self_cross": _self_cross,
    "frames": _frames,
    "encoder": _frames,
    "words": _frames,
    "waveform": _waveform,
}
