"""Recipes: named sets of features, and the one function that makes them of an utterance.

Preparation and prediction both call `extract`, so that what a network is given cannot differ between them.
Whatever changes the numbers of a recipe changes its version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from jaxser.features import audio, lld, segments, text, video
from jaxser.features.sources import Source
from jaxser.types import InputError, UsageError, Utterance


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
    elsewhere: Mapping[str, int] = field(
        default_factory=dict
    )  # arrays made elsewhere: how many rows are kept


Elsewhere = Mapping[str, Float[np.ndarray, "rows width"]]
"""Arrays of an utterance that were made elsewhere, by name."""

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
"""Of the recipes with MFCC."""


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


SNR_DB = (15.0, 30.0)
"""Of the noisy copies; He et al. 2021 say "high"."""


def _cat(padded: bool) -> Recipe:
    """He et al. 2021, §3.2: 40 x 750, clean and noisy; the paper fills shorter signals up with zeros."""
    return Recipe(
        name="cat_padded" if padded else "cat",
        version="1.0.0",
        arrays={"audio": ArraySpec("float32", (None, 40)), "audio_noisy": ArraySpec("float32", (None, 40))},
        normalise="train",
        parameters={
            **FRONT_END,
            **audio.LIBROSA._asdict(),
            "max_frames": 750,  # cut at 7.5 s
            "noise": "white",
            "snr_db": SNR_DB,
            **({"padding": "zeros"} if padded else {}),
        },
    )


WORDS = {"words": ArraySpec("int32", (None,))}
TRANSCRIPT = {"max_words": text.MAX_WORDS, "tokens": "transcript"}

RECIPES: dict[str, Recipe] = {
    "mcsan": Recipe(  # Sun et al. 2021, §3.2
        name="mcsan",
        version="1.0.0",
        arrays={"audio": ArraySpec("float32", (None, 40)), **WORDS},
        normalise="train",
        parameters={**FRONT_END, "n_mfcc": 40, "max_frames": 1000, **TRANSCRIPT},  # cut at 10 s
    ),
    "can": _can("can", segmentation="aligned"),  # Lee et al. 2020, §3.1.2 and §4.2
    "can_equal": _can("can_equal", segmentation="equal"),  # Table 3
    "cat": _cat(padded=False),
    "cat_padded": _cat(padded=True),
    "lld": Recipe(  # Ramet et al. 2018, §3
        name="lld",
        version="1.0.0",
        arrays={"audio": ArraySpec("float32", (None, 32))},
        normalise="train_neutral",
        parameters={"descriptors": lld.DESCRIPTORS, "opensmile": "IS09", "max_frames": 500},  # cut at 5 s
    ),
    "self_cross": Recipe(  # Rajan et al. 2022, §3; video and prosody where they are given
        name="self_cross",
        version="1.0.0",
        arrays={"audio": ArraySpec("float32", (None, 120)), **WORDS},
        normalise="train",
        parameters={
            **FRONT_END,
            "n_mfcc": 40,
            "delta_frames": audio.DELTA_WIDTH,
            "max_frames": 1000,
            **TRANSCRIPT,
        },
        elsewhere={"video": video.MAX_PICTURES, "prosody": 1},
    ),
    "frames": Recipe(  # made elsewhere: WavLM, emotion2vec, Whisper, ...
        name="frames",
        version="1.0.0",
        arrays=WORDS,
        normalise="train",
        parameters={"max_frames": 3000, **TRANSCRIPT},
        elsewhere={"audio": 3000},
    ),
}


def with_sources(recipe: Recipe, sources: Mapping[str, Source]) -> Recipe:
    """The recipe with the arrays that are made elsewhere, as wide as their sources are.

    Raises `UsageError` for an array that the recipe does not take, and for recipe `frames` without its frames.
    """
    for name in sources:
        if name not in recipe.elsewhere:
            taken = ", ".join(recipe.elsewhere) or "none"
            raise UsageError(f"recipe {recipe.name} takes no {name} made elsewhere; it takes {taken}")
    if "audio" not in {**recipe.arrays, **sources}:
        raise UsageError(f"recipe {recipe.name} needs --frames, a folder of <id>.npy files or one HDF5 file")
    if not sources:
        return recipe
    specs = {name: ArraySpec("float32", (None, source.width)) for name, source in sources.items()}
    described = {name: dict(source.described) for name, source in sources.items()}
    return replace(
        recipe,
        arrays={**recipe.arrays, **specs},
        parameters={**recipe.parameters, "sources": described},
    )


def extract(
    recipe: Recipe,
    utterance: Utterance,
    samples: Float[np.ndarray, " samples"],
    vocabulary: text.Vocabulary,
    elsewhere: Elsewhere | None = None,
) -> dict[str, Shaped[np.ndarray, ...]]:
    """The recipe's arrays of one utterance, from its samples at 16 kHz and what was made elsewhere.

    Copies of an utterance are arrays beside it: `audio_noisy` is the noisy copy of `audio` in recipe `cat`, and
    training says when it stands in for it. Raises `InputError` where a sound has no features.
    """
    arrays = _EXTRACTORS[recipe.name](recipe, utterance, samples, vocabulary)
    given = {name: rows[: recipe.elsewhere[name]] for name, rows in (elsewhere or {}).items()}
    if missing := recipe.arrays.keys() - {**arrays, **given}.keys():
        raise InputError(f"no {', '.join(sorted(missing))} of it is given, which was made elsewhere")
    return {**arrays, **given}


def tokens(recipe: Recipe, utterance: Utterance) -> tuple[str, ...]:
    """The words that the recipe reads, all of them, in their own case; `<none>` where there are none."""
    if "words" not in recipe.arrays:
        return ()
    found = text.tokenize(utterance.transcript)
    if recipe.parameters["tokens"] == "alignment":
        found = tuple(token for token in found if token[0].isalnum())  # a mark has no sound of its own
        if utterance.words is not None:
            found = tuple(word.text for word in utterance.words)
    return found or (text.NO_WORDS,)


def doubts(
    recipe: Recipe,
    utterance: Utterance,
    samples: Float[np.ndarray, " samples"],
    elsewhere: Elsewhere | None = None,
) -> tuple[str, ...]:
    """Flags for what is found only when the recipe meets the sound: silence, clipping, what had to be cut."""
    peak, words = np.abs(samples), tokens(recipe, utterance)
    rows = {"audio": audio.num_frames(len(samples))} | {name: len(a) for name, a in (elsewhere or {}).items()}
    limits = {"audio": recipe.parameters["max_frames"], **recipe.elsewhere}
    found = {
        "silent": bool(peak.max() < _SILENCE),
        "clipped": bool((peak >= _FULL_SCALE).mean() > _CLIPPED_SHARE),
        **{f"cut_{name}": count > limits[name] for name, count in rows.items()},
        "cut_words": len(words) > recipe.parameters.get("max_words", 0),
        "no_words": words == (text.NO_WORDS,),
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
        "words": _words(recipe, utterance, vocabulary),
    }


def _words(recipe: Recipe, utterance: Utterance, vocabulary: text.Vocabulary) -> np.ndarray:
    return vocabulary.ids(tokens(recipe, utterance)[: recipe.parameters["max_words"]])


def _cat_arrays(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    longest = recipe.parameters["max_frames"] * audio.HOP
    kept = samples[:longest]
    sounds = [kept, with_noise(kept, utterance.id, copy=1)]
    if "padding" in recipe.parameters:
        sounds = [np.pad(sound, (0, longest - len(sound))) for sound in sounds]
    clean, noisy = audio.log_mel(sounds, audio.LIBROSA)
    return {  # 7.5 s have 751 frames, of which the paper keeps 750
        "audio": clean[: recipe.parameters["max_frames"]],
        "audio_noisy": noisy[: recipe.parameters["max_frames"]],
    }


def with_noise(
    samples: Float[np.ndarray, " samples"], identity: str, copy: int
) -> Float[np.ndarray, " samples"]:
    """A signal in white noise, its signal-to-noise ratio uniform in `SNR_DB`: the same for the same id and copy."""
    seed = hashlib.sha256(f"{identity}/{copy}".encode("utf-8", "surrogateescape")).digest()
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
    decibels = rng.uniform(*SNR_DB)
    deviation = np.sqrt(np.mean(np.square(samples, dtype=np.float64)) / 10 ** (decibels / 10))
    return samples + np.float32(deviation) * rng.standard_normal(len(samples), np.float32)


def _lld(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    return {"audio": lld.low_level_descriptors(samples)[: recipe.parameters["max_frames"]]}


def _self_cross(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    [cepstra] = audio.mfcc([samples])
    frames = np.concatenate([cepstra, audio.deltas(cepstra, 1), audio.deltas(cepstra, 2)], axis=1)
    return {
        "audio": frames[: recipe.parameters["max_frames"]],
        "words": _words(recipe, utterance, vocabulary),
    }


def _frames(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    return {"words": _words(recipe, utterance, vocabulary)}


def _can_arrays(
    recipe: Recipe, utterance: Utterance, samples: np.ndarray, vocabulary: text.Vocabulary
) -> dict[str, np.ndarray]:
    bounds, _ = segment_bounds(recipe, utterance, len(samples))
    whole, *cepstra = audio.mfcc([samples, *(samples[start:end] for start, end in bounds)])
    cut = [frames[: recipe.parameters["max_segment_frames"]] for frames in cepstra]
    return {
        "segments": np.concatenate(cut),
        "segment_lengths": np.array([len(frames) for frames in cut], dtype=np.int32),
        "audio": whole[: recipe.parameters["max_frames"]],
        "words": _words(recipe, utterance, vocabulary),
    }


def segment_bounds(recipe: Recipe, utterance: Utterance, num_samples: int) -> tuple[np.ndarray, bool]:
    """The samples of each word, and whether they follow the alignment."""
    bounds = None
    if recipe.parameters["segmentation"] == "aligned" and utterance.words:
        bounds = segments.aligned_bounds(utterance.words, num_samples, recipe.parameters["overlap"])
    is_aligned = bounds is not None
    if bounds is None:
        bounds = segments.equal_bounds(len(tokens(recipe, utterance)), num_samples)
    return bounds[: recipe.parameters["max_words"]], is_aligned


def _segment_doubts(recipe: Recipe, utterance: Utterance, num_samples: int) -> dict[str, bool]:
    bounds, is_aligned = segment_bounds(recipe, utterance, num_samples)
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
    "cat": _cat_arrays,
    "cat_padded": _cat_arrays,
    "lld": _lld,
    "self_cross": _self_cross,
    "frames": _frames,
}
