"""Recipes: named sets of features, and the one function that makes them of an utterance.

Preparation and prediction both call `extract`, so that what a network is given cannot differ between them.
Whatever changes the numbers of a recipe changes its version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from jaxser.features import audio, segments, text
from jaxser.types import Utterance


class ArraySpec(NamedTuple):
    """Kind and shape of an array of one utterance; None is the dimension whose length varies."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Recipe:
    """A named set of features: what it makes of an utterance, by which numbers, and how it is normalised."""

    name: str
    version: str  # three numbers, as TFDS asks for
    arrays: Mapping[str, ArraySpec]
    normalise: str  # "train" | "train_neutral" | "utterance" | "none": whose statistics make the z-scores
    parameters: Mapping[str, Any] = field(default_factory=dict)


FRONT_END = {
    "sample_rate": audio.SAMPLE_RATE,
    "window": "hamming",
    "window_samples": audio.WINDOW,
    "hop_samples": audio.HOP,
    "n_fft": audio.N_FFT,
    "n_mels": audio.N_MELS,
    "top_db": audio.TOP_DB,
    "preemphasis": 0.0,
}


def _can(name: str, segmentation: str) -> Recipe:
    return Recipe(
        name=name,
        version="1.0.0",
        arrays={
            "segments": ArraySpec("float32", (None, 40)),  # frames of all words, one word after the other
            "segment_lengths": ArraySpec("int32", (None,)),  # frames of each word
            "audio": ArraySpec("float32", (None, 40)),  # of the whole utterance, for the compared systems
            "words": ArraySpec("int32", (None,)),
        },
        normalise="train",
        parameters={
            **FRONT_END,
            "n_mfcc": 40,
            "max_frames": 3000,  # 30 s: only what is no utterance is longer
            "max_segment_frames": 300,  # silences are added to words, so single ones may last for seconds
            "max_words": text.MAX_WORDS,
            "tokens": "alignment",
            "segmentation": segmentation,
            "overlap": segments.OVERLAP if segmentation == "aligned" else 0.0,
        },
    )


RECIPES: dict[str, Recipe] = {
    "mcsan": Recipe(  # Sun et al. 2021, §4.2
        name="mcsan",
        version="1.0.0",
        arrays={"audio": ArraySpec("float32", (None, 40)), "words": ArraySpec("int32", (None,))},
        normalise="train",
        parameters={
            **FRONT_END,
            "n_mfcc": 40,
            "max_frames": 1000,  # cut at 10 s
            "max_words": text.MAX_WORDS,
            "tokens": "transcript",
        },
    ),
    "can": _can("can", segmentation="aligned"),  # Lee et al. 2020, §3.1.2 and §4.2
    "can_equal": _can("can_equal", segmentation="equal"),  # Table 3
}


def extract(
    recipe: Recipe,
    utterance: Utterance,
    samples: Float[np.ndarray, " samples"],
    vocabulary: text.Vocabulary,
) -> dict[str, Shaped[np.ndarray, ...]]:
    """The recipe's arrays of one utterance, from its samples at 16 kHz."""
    return _EXTRACTORS[recipe.name](recipe, utterance, samples, vocabulary)


def tokens(recipe: Recipe, utterance: Utterance) -> tuple[str, ...]:
    """The words that the recipe reads, all of them, in their own case; `<none>` where there are none."""
    found = text.tokenize(utterance.transcript)
    if recipe.parameters["tokens"] == "alignment":
        found = tuple(token for token in found if token[0].isalnum())  # a mark has no sound of its own
        if utterance.words is not None:
            found = tuple(word.text for word in utterance.words)
    return found or (text.NO_WORDS,)


def doubts(recipe: Recipe, utterance: Utterance, samples: Float[np.ndarray, " samples"]) -> tuple[str, ...]:
    """Flags for what is found only when the recipe meets the sound: silence, clipping, what had to be cut."""
    peak = np.abs(samples)
    found = {
        "silent": bool(peak.max() < _SILENCE),
        "clipped": bool((peak >= _FULL_SCALE).mean() > _CLIPPED_SHARE),
        "cut_audio": audio.num_frames(len(samples)) > recipe.parameters["max_frames"],
        "cut_words": len(tokens(recipe, utterance)) > recipe.parameters["max_words"],
        "no_words": tokens(recipe, utterance) == (text.NO_WORDS,),
    }
    if "segmentation" in recipe.parameters:
        found |= _segment_doubts(recipe, utterance, len(samples))
    return tuple(flag for flag, is_so in found.items() if is_so)


_SILENCE = 2.0**-15  # the smallest step of 16 bits
_FULL_SCALE = 0.999
_CLIPPED_SHARE = 0.001


def _mcsan(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    [cepstra] = audio.mfcc([samples])
    return {
        "audio": cepstra[: recipe.parameters["max_frames"]],
        "words": vocabulary.ids(tokens(recipe, utterance)[: recipe.parameters["max_words"]]),
    }


def _can_arrays(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    bounds, _ = _segment_bounds(recipe, utterance, len(samples))
    whole, *cepstra = audio.mfcc([samples, *(samples[start:end] for start, end in bounds)])
    cut = [frames[: recipe.parameters["max_segment_frames"]] for frames in cepstra]
    return {
        "segments": np.concatenate(cut),
        "segment_lengths": np.array([len(frames) for frames in cut], dtype=np.int32),
        "audio": whole[: recipe.parameters["max_frames"]],
        "words": vocabulary.ids(tokens(recipe, utterance)[: recipe.parameters["max_words"]]),
    }


def _segment_bounds(recipe: Recipe, utterance: Utterance, num_samples: int) -> tuple[np.ndarray, bool]:
    """The samples of each word, and whether they follow the alignment."""
    bounds = None
    if recipe.parameters["segmentation"] == "aligned" and utterance.words:
        bounds = segments.aligned_bounds(utterance.words, num_samples)
    is_aligned = bounds is not None
    if bounds is None:
        bounds = segments.equal_bounds(len(tokens(recipe, utterance)), num_samples)
    return bounds[: recipe.parameters["max_words"]], is_aligned


def _segment_doubts(recipe: Recipe, utterance: Utterance, num_samples: int) -> dict[str, bool]:
    bounds, is_aligned = _segment_bounds(recipe, utterance, num_samples)
    longest = audio.num_frames(int((bounds[:, 1] - bounds[:, 0]).max()))
    wanted = recipe.parameters["segmentation"] == "aligned" and tokens(recipe, utterance) != (text.NO_WORDS,)
    return {
        "cut_segments": longest > recipe.parameters["max_segment_frames"],
        "equal_segments": wanted and not is_aligned,
        "bad_alignment": wanted and not is_aligned and bool(utterance.words),
    }


_EXTRACTORS: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    "mcsan": _mcsan,
    "can": _can_arrays,
    "can_equal": _can_arrays,
}
