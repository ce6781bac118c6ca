"""Word segments computed by hand, and recipe `can`, which uses them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.numbers import assert_close
from helpers.small_corpus import RATE, noise
from jaxser.features import audio, segments, spectra
from jaxser.features.extraction import extract, segment_bounds
from jaxser.features.quality import quality_flags
from jaxser.features.recipes import RECIPES, tokens
from jaxser.features.text import build_vocabulary
from jaxser.types import Utterance, Word

TABLE_1 = (Word("i", 0.52, 0.76), Word("like", 0.76, 0.89), Word("apple", 1.41, 1.44))
"""Lee et al. 2020, Table 1, in seconds: frames 52-75, 76-88, 141-143; silences 0-51, 89-140, 144-177."""


def test_table_1_by_hand():
    """The bounds of Table 1.

    With silences divided: i 0-75, like 76-114 (26 of 52 frames of silence), apple 115-177, which are 76, 39 and 63
    frames. Inner bounds move by 5 %: 3.8 frames are 608 samples, 1.95 are 312, and 3.15 are 504.
    """
    frame = 160
    bounds = segments.aligned_bounds(TABLE_1, 178 * frame)
    assert bounds.tolist() == [
        [0, 76 * frame + 608],
        [76 * frame - 312, 115 * frame + 312],
        [115 * frame - 504, 178 * frame],
    ]


def test_the_overlap_is_a_parameter_of_the_recipe():
    """Without overlap, neighbouring words meet."""
    recipe, bounds = RECIPES["can"], {}
    for overlap in (0.0, 0.2):
        changed = replace(recipe, parameters={**recipe.parameters, "overlap": overlap})
        bounds[overlap], _ = segment_bounds(changed, utterance(words=TABLE_1), 178 * 160)
    assert (bounds[0.0] / 160).tolist() == [[0, 76], [76, 115], [115, 178]]
    assert bounds[0.2][0, 1] == 76 * 160 + 2 * 608


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("can_equal", [[0, 1000], [1000, 2000], [2000, 3000]]),
        ("can_equal_overlap", [[0, 1050], [950, 2050], [1950, 3000]]),
    ],
)
def test_equal_segments_overlap_by_the_field_of_their_recipe(recipe, expected):
    bounds, is_aligned = segment_bounds(RECIPES[recipe], utterance(words=TABLE_1), 3000)
    assert (bounds.tolist(), is_aligned) == (expected, False)


def test_words_without_times_never_overlap():
    bounds, is_aligned = segment_bounds(RECIPES["can"], utterance(), 3000)
    assert (bounds.tolist(), is_aligned) == ([[0, 1000], [1000, 2000], [2000, 3000]], False)


def test_odd_frame_of_silence_goes_to_the_left():
    words = (Word("a", 0.0, 0.10), Word("b", 0.15, 0.30))
    [_, first_end], [second_start, _] = segments.aligned_bounds(words, 30 * 160).tolist()
    margin = round(0.05 * 13 * 160), round(0.05 * 17 * 160)
    assert (first_end - margin[0], second_start + margin[1]) == (13 * 160, 13 * 160)


def test_a_single_word_gets_the_whole_utterance():
    assert segments.aligned_bounds((Word("yes", 0.3, 0.5),), 16_123).tolist() == [[0, 16_123]]


@pytest.mark.parametrize(
    "words",
    [
        [("a", 0.0, 0.3), ("b", 0.2, 0.5)],  # overlapping
        [("a", 0.3, 0.5), ("b", 0.0, 0.2)],  # backwards
        [("a", -0.1, 0.3)],  # before the audio starts
        [("a", 0.0, 0.3), ("b", 1.05, 1.2)],  # after the audio ends
        [("a", 0.4, 0.2)],  # ends before it starts
        [("a", 0.1, 0.1), ("b", 0.1, 0.1), ("c", 0.1, 0.1)],  # no frame left for the second
        [("a", float("nan"), 0.3)],
        [("a", 0.0, float("inf"))],
        [("a", 0.0, 1e300)],
        [],
    ],
)
def test_times_that_contradict_the_audio_are_rejected(words):
    assert segments.aligned_bounds([Word(*word) for word in words], RATE) is None


def test_equal_parts():
    assert segments.equal_bounds(3, 10).tolist() == [[0, 3], [3, 6], [6, 10]]
    assert segments.equal_bounds(1, 7).tolist() == [[0, 7]]


gaps = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(gaps, st.integers(0, 60), st.integers(-159, 159))
def test_any_alignment_covers_the_utterance_with_small_overlaps(spans, trailing, odd):
    at, words = 0, []
    for silence, spoken in spans:
        words.append(Word("x", (at + silence) / 100, (at + silence + spoken) / 100))
        at += silence + spoken
    num_samples = max(1, (at + trailing) * 160 + odd)
    bounds = segments.aligned_bounds(words, num_samples)
    assert bounds is not None
    assert bounds[0, 0] == 0
    assert bounds[-1, 1] == num_samples
    assert (bounds[:, 0] < bounds[:, 1]).all()
    assert (np.diff(bounds, axis=0) >= 0).all()  # 5 % of a long word may contain all of a short neighbour
    overlap = bounds[:-1, 1] - bounds[1:, 0]
    longest = (bounds[:, 1] - bounds[:, 0]).max()
    assert (overlap >= 0).all()
    assert (overlap <= 0.1 * longest + 1).all()


def utterance(**fields) -> Utterance:
    return Utterance(id="x", wav="x.wav", label="neu", transcript="I like, apple!", **fields)


def make(recipe: str, spoken: Utterance, samples: np.ndarray) -> dict[str, np.ndarray]:
    vocabulary = build_vocabulary([tokens(RECIPES[recipe], spoken)])
    return extract(RECIPES[recipe], spoken, samples, vocabulary)


def words_of(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    return np.split(arrays["segments"], np.cumsum(arrays["segment_lengths"])[:-1])


def test_each_word_is_transformed_as_a_separate_signal():
    samples = noise(1.78)
    samples[20_000:] *= 1e-6  # the last word has its own limit of 80 dB
    arrays = make("can", utterance(words=TABLE_1), samples)
    bounds = segments.aligned_bounds(TABLE_1, len(samples)).tolist()
    assert arrays["words"].tolist() == [3, 4, 2]
    assert arrays["segment_lengths"].tolist() == [audio.num_frames(end - start) for start, end in bounds]
    for found, (start, end) in zip(words_of(arrays), bounds, strict=True):
        assert_close(found, spectra.mfcc([samples[start:end]])[0])
    assert_close(arrays["audio"], spectra.mfcc([samples])[0])
    assert quality_flags(RECIPES["can"], utterance(words=TABLE_1), samples) == ()


def test_extracted_arrays_match_their_specs():
    for name, recipe in RECIPES.items():
        arrays = make(name, utterance(words=TABLE_1), noise(1.78))
        assert arrays.keys() == recipe.arrays.keys()
        for key, spec in recipe.arrays.items():
            assert arrays[key].dtype == spec.dtype
            assert list(arrays[key].shape[1:]) == list(spec.shape[1:])


def test_long_words_are_cut_and_flagged():
    words = (Word("oh", 0.0, 0.4), Word("no", 4.0, 4.5))
    arrays = make("can", utterance(words=words), noise(4.5))
    assert arrays["segment_lengths"].tolist() == [232, 242]
    words = (Word("oh", 0.0, 4.0), Word("no", 4.0, 4.5))
    arrays = make("can", utterance(words=words), noise(4.5))
    assert arrays["segment_lengths"].tolist() == [300, 53]
    assert len(arrays["segments"]) == 353
    assert quality_flags(RECIPES["can"], utterance(words=words), noise(4.5)) == ("cut_segments",)


@pytest.mark.parametrize(
    ("fields", "count", "flags"),
    [
        ({"words": None}, 3, ("equal_segments",)),
        ({"words": (Word("i", 0.5, 0.9), Word("like", 0.2, 0.4))}, 2, ("equal_segments", "bad_alignment")),
        ({"words": ()}, 1, ("no_words",)),
    ],
)
def test_segments_without_a_usable_alignment_have_equal_length_and_a_flag(fields, count, flags):
    samples = noise(1.5)
    arrays = make("can", utterance(**fields), samples)
    expected = audio.num_frames(len(samples) // count)
    assert arrays["segment_lengths"].tolist() == [expected] * count == [expected] * len(arrays["words"])
    assert quality_flags(RECIPES["can"], utterance(**fields), samples) == flags


def test_can_equal_has_the_same_words_and_different_segments():
    samples = noise(1.8)
    aligned, equal = (make(name, utterance(words=TABLE_1), samples) for name in ("can", "can_equal"))
    np.testing.assert_array_equal(aligned["words"], equal["words"])
    assert equal["segment_lengths"].tolist() == [61, 61, 61]
    assert quality_flags(RECIPES["can_equal"], utterance(words=TABLE_1), samples) == ()


def test_words_beyond_the_limit_are_cut_and_flagged():
    words = tuple(Word("x", n / 10, (n + 1) / 10) for n in range(130))
    arrays = make("can", utterance(words=words), noise(13.0))
    assert len(arrays["words"]) == len(arrays["segment_lengths"]) == 128
    assert quality_flags(RECIPES["can"], utterance(words=words), noise(13.0)) == ("cut_words",)


def test_more_words_than_samples():
    spoken = Utterance(id="x", wav="x.wav", label="neu", transcript="word " * 1_000)
    arrays = make("can", spoken, noise(0.03))
    assert len(arrays["words"]) == len(arrays["segment_lengths"]) == 128
    assert np.isfinite(arrays["segments"]).all()


def test_an_utterance_without_words_is_one_segment():
    spoken = Utterance(id="x", wav="x.wav", label="neu", transcript="...")
    arrays = make("can", spoken, noise(0.5))
    assert_close(arrays["segments"], arrays["audio"])
    assert tokens(RECIPES["can"], spoken) == ("<none>",)
    assert tokens(RECIPES["mcsan"], spoken) == (".", ".", ".")
    assert quality_flags(RECIPES["can"], spoken, noise(0.5)) == ("no_words",)
