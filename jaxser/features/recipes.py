"""Recipes: named sets of features, with the parameters that define them.

`jaxser.features.extraction` computes the arrays of a recipe. A change of a recipe's numbers changes its version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from jaxser.features import audio, lld, segments, spectra, text, video
from jaxser.features.sources import Source
from jaxser.types import UsageError, Utterance


class ArraySpec(NamedTuple):
    """The dtype and shape of one array of an utterance; None marks the variable dimension."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Recipe:
    """A named set of features of an utterance.

    Attributes:
        name: the value of `--recipe`.
        version: three numbers, as TFDS requires.
        arrays: the arrays of an utterance, without precomputed ones until `with_sources` adds them.
        normalise: the default normalisation, one of `jaxser.data.normalisation.NORMALISATIONS`.
        parameters: the settings that define the features; the manifest of a prepared dataset lists them.
        precomputed: the arrays that are read from files or made by a network, with the number of rows that are kept.
        has_sound: whether recordings are read; otherwise a table of transcripts is enough.
    """

    name: str
    version: str
    arrays: Mapping[str, ArraySpec]
    normalise: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    precomputed: Mapping[str, int] = field(default_factory=dict)
    has_sound: bool = True

    @property
    def hop(self) -> int:
        """Samples from one frame of `audio` to the next; 1 if the recipe has waveforms."""
        return int(self.parameters.get("hop_samples", audio.HOP))

    @property
    def max_samples(self) -> int:
        """Samples of the longest recording whose frames are all kept; 0 without sound."""
        return int(self.parameters["max_frames"]) * self.hop if self.has_sound else 0

    def num_frames(self, samples: int) -> int:
        """Return the number of frames of a signal.

        The frames are centred, or those of a pretrained encoder, or samples.
        """
        is_centred = "encoder" not in self.parameters and self.name != "waveform"
        return audio.num_frames(samples) if is_centred else -(-samples // self.hop)


def with_encoder(recipe: Recipe, described: Mapping[str, Any], width: int) -> Recipe:
    """Add the frames of a pretrained encoder to a recipe, and their word segments.

    Args:
        recipe: the recipe `encoder`.
        described: what determines the frames, with `hop_samples`, the samples per frame; see `FrameEncoder.described`.
        width: the features of a frame.
    """
    frames = ArraySpec("float16", (None, width))
    lengths = ArraySpec("int32", (None,))
    return replace(
        recipe,
        arrays={"audio": frames, "segments": frames, "segment_lengths": lengths, **recipe.arrays},
        parameters={
            **recipe.parameters,
            "encoder": dict(described),
            "hop_samples": described["hop_samples"],
        },
    )


def with_sources(recipe: Recipe, sources: Mapping[str, Source]) -> Recipe:
    """Add the precomputed arrays to a recipe, with the widths of their sources.

    Raises:
        UsageError: if the recipe does not accept one of the arrays, or if recipe `frames` has no frames.
    """
    for name in sources:
        if name not in recipe.precomputed:
            accepted = ", ".join(recipe.precomputed) or "none"
            raise UsageError(
                f"recipe {recipe.name} does not accept precomputed {name} (precomputed arrays it accepts: {accepted})"
            )
    if recipe.has_sound and not {"audio", "waveform"} & {*recipe.arrays, *sources}:
        if recipe.name == "encoder":
            raise UsageError("recipe encoder needs --encoder, the folder of a pretrained encoder")
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


def tokens(recipe: Recipe, utterance: Utterance) -> tuple[str, ...]:
    """Return all words that the recipe reads, in their original case.

    If there are no words, `<none>` alone is returned. A recipe without words returns an empty tuple.
    """
    if "words" not in recipe.arrays:
        return ()
    version, segmenter = _tokenizer(recipe)
    is_aligned = recipe.parameters["tokens"] == "alignment"
    if is_aligned and utterance.words is not None:
        spoken = (word.text for word in utterance.words)
        return tuple(spoken if version == 1 else map(text.normalised, spoken)) or (text.NO_WORDS,)
    found = text.tokenize(utterance.transcript, version, segmenter)
    if is_aligned:
        found = tuple(token for token in found if token[0].isalnum())  # punctuation has no sound
    return found or (text.NO_WORDS,)


def splits_characters(recipe: Recipe, utterance: Utterance) -> bool:
    """Return whether words are single characters, in a script without spaces between words."""
    version, segmenter = _tokenizer(recipe)
    has_times = recipe.parameters.get("tokens") == "alignment" and utterance.words is not None
    return (
        "words" in recipe.arrays
        and (version, segmenter) == (text.TOKENIZER, "characters")
        and not has_times
        and text.has_no_spaces(utterance.transcript)
    )


def with_segmenter(recipe: Recipe, segmenter: str) -> Recipe:
    """Choose how texts in scripts without spaces are divided into words.

    Raises:
        UsageError: if there is no such segmenter, or the recipe has no words.
    """
    if segmenter not in text.SEGMENTERS:
        raise UsageError(f"--segmenter={segmenter}: must be one of {', '.join(text.SEGMENTERS)}")
    if "words" in recipe.arrays:
        return replace(recipe, parameters={**recipe.parameters, "segmenter": segmenter})
    if segmenter != text.SEGMENTERS[0]:
        raise UsageError(f"--segmenter={segmenter}: recipe {recipe.name} has no words")
    return recipe


def _tokenizer(recipe: Recipe) -> tuple[int, str]:
    """Return the version of the tokenizer and the segmenter; datasets of earlier versions of jaxser name none."""
    return recipe.parameters.get("tokenizer", 1), recipe.parameters.get("segmenter", text.SEGMENTERS[0])


FRONT_END = {
    "sample_rate": audio.SAMPLE_RATE,
    "window": "hamming",
    "window_samples": audio.WINDOW,
    "hop_samples": audio.HOP,
    "n_fft": spectra.N_FFT,
    "n_mels": spectra.N_MELS,
    "top_db": spectra.TOP_DB,
    "preemphasis": 0.0,
}
"""Parameters that all recipes with MFCC share."""

SNR_DB = (15.0, 30.0)
"""Signal-to-noise ratio of the noisy copies; He et al. 2021 only call it "high"."""

_WORDS = {"words": ArraySpec("int32", (None,))}
_TOKENIZER = {"tokenizer": text.TOKENIZER, "segmenter": text.SEGMENTERS[0]}
_TRANSCRIPT = {"max_words": text.MAX_WORDS, "tokens": "transcript", **_TOKENIZER}


def _can(name: str, segmentation: str, overlap: float) -> Recipe:
    return Recipe(
        name=name,
        version="1.0.0",
        arrays={
            "segments": ArraySpec("float32", (None, 40)),  # the frames of all words, concatenated
            "segment_lengths": ArraySpec("int32", (None,)),  # frames per word
            "audio": ArraySpec("float32", (None, 40)),  # the whole utterance, for the baselines
            **_WORDS,
        },
        normalise="train",
        parameters={
            **FRONT_END,
            "n_mfcc": 40,
            "max_frames": 3000,  # 30 s; no real utterance is longer
            "max_segment_frames": 300,  # a word includes its share of silence, which may last for seconds
            "max_words": text.MAX_WORDS,
            "tokens": "alignment",
            **_TOKENIZER,
            "segmentation": segmentation,
            "overlap": overlap,
        },
    )


def _cat(padded: bool) -> Recipe:
    """He et al. 2021, §3.2: 40 x 750, clean and noisy. The paper pads shorter signals with zeros."""
    return Recipe(
        name="cat_padded" if padded else "cat",
        version="1.0.0",
        arrays={"audio": ArraySpec("float32", (None, 40)), "audio_noisy": ArraySpec("float32", (None, 40))},
        normalise="train",
        parameters={
            **FRONT_END,
            **spectra.LIBROSA._asdict(),
            "max_frames": 750,  # 7.5 s
            "noise": "white",
            "snr_db": SNR_DB,
            **({"padding": "zeros"} if padded else {}),
        },
    )


RECIPES: dict[str, Recipe] = {
    "mcsan": Recipe(  # Sun et al. 2021, §3.2
        name="mcsan",
        version="1.0.0",
        arrays={"audio": ArraySpec("float32", (None, 40)), **_WORDS},
        normalise="train",
        parameters={**FRONT_END, "n_mfcc": 40, "max_frames": 1000, **_TRANSCRIPT},  # 10 s
    ),
    "can": _can("can", "aligned", segments.OVERLAP),  # Lee et al. 2020, §3.1.2 and §4.2
    "can_equal": _can("can_equal", "equal", 0.0),  # Table 3; whether equal segments overlap is not stated
    "can_equal_overlap": _can("can_equal_overlap", "equal", segments.OVERLAP),
    "cat": _cat(padded=False),
    "cat_padded": _cat(padded=True),
    "lld": Recipe(  # Ramet et al. 2018, §3
        name="lld",
        version="1.0.0",
        arrays={"audio": ArraySpec("float32", (None, 32))},
        normalise="train_neutral",
        parameters={"descriptors": lld.DESCRIPTORS, "opensmile": "IS09", "max_frames": 500},  # 5 s
    ),
    "self_cross": Recipe(  # Rajan et al. 2022, §3; video and prosody are optional
        name="self_cross",
        version="1.0.0",
        arrays={"audio": ArraySpec("float32", (None, 120)), **_WORDS},
        normalise="train",
        parameters={
            **FRONT_END,
            "n_mfcc": 40,
            "delta_frames": spectra.DELTA_WIDTH,
            "max_frames": 1000,
            **_TRANSCRIPT,
        },
        precomputed={"video": video.MAX_FRAMES, "prosody": 1},
    ),
    "frames": Recipe(  # precomputed by WavLM, emotion2vec, Whisper, ...
        name="frames",
        version="1.0.0",
        arrays=_WORDS,
        normalise="train",
        parameters={"max_frames": 3000, **_TRANSCRIPT},
        precomputed={"audio": 3000},
    ),
    "encoder": Recipe(  # hidden states of a pretrained encoder; `with_encoder` adds them
        name="encoder",
        version="1.0.0",
        arrays=_WORDS,
        normalise="train",
        parameters={
            "max_frames": 3000,  # 60 s at 20 ms per frame
            "max_segment_frames": 150,
            "max_words": text.MAX_WORDS,
            "tokens": "alignment",
            **_TOKENIZER,
            "segmentation": "aligned",
            "overlap": segments.OVERLAP,
        },
        precomputed={"audio": 3000, "video": video.MAX_FRAMES, "prosody": 1},
    ),
    "waveform": Recipe(  # for an encoder within the training step
        name="waveform",
        version="1.0.0",
        arrays={"waveform": ArraySpec("int16", (None,)), **_WORDS},
        normalise="train",
        parameters={
            "sample_rate": audio.SAMPLE_RATE,
            "hop_samples": 1,
            "max_frames": 30 * audio.SAMPLE_RATE,  # Whisper's window
            "min_frames": 400,  # the window of an encoder's first frame
            "max_words": text.MAX_WORDS,
            "tokens": "alignment",
            **_TOKENIZER,
        },
        precomputed={"video": video.MAX_FRAMES, "prosody": 1},
    ),
    "words": Recipe(  # transcripts alone, without recordings
        name="words",
        version="1.0.0",
        arrays=_WORDS,
        normalise="none",
        parameters=_TRANSCRIPT,
        has_sound=False,
    ),
}
