"""Normalisation: statistics of training parts and of single utterances, compared with numpy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.data.device import on_host
from jaxser.data.normalisation import FrameSums, fold_normalisations, is_neutral, utterance_statistics
from jaxser.types import Ragged, UsageError


@pytest.fixture(scope="module")
def data():
    return tiny.dataset()


def test_statistics_are_taken_over_valid_training_frames(data):
    rows = np.array([3, 11, 42])
    found = FrameSums.of(data.arrays["audio"]).normalisation(rows)
    frames = np.concatenate([data.arrays["audio"][n] for n in rows]).astype(np.float64)
    np.testing.assert_allclose(found.mean, frames.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std, frames.std(0), rtol=1e-5)


def test_a_constant_feature_is_divided_by_one(data):
    audio = data.arrays["audio"]
    flat = dataclasses.replace(audio, values=np.full_like(audio.values, 3.3))
    found = FrameSums.of(flat).normalisation(np.arange(5))
    np.testing.assert_array_equal(found.std, np.ones(6))


def test_normalisation_by_utterance(data):
    device = on_host(data, ("audio",), "utterance")
    start, length = device.arrays["audio"].offset[9], device.arrays["audio"].length[9]
    own = device.arrays["audio"].values[start : start + length]
    np.testing.assert_allclose(own.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(own.std(0), 1, rtol=1e-4)
    assert fold_normalisations(data, [np.arange(9)], ("audio",), "utterance") == [{}]


def test_video_is_not_standardised(data):
    """Rajan et al. 2022 standardise only audio."""
    data = dataclasses.replace(data, arrays={**data.arrays, "video": data.arrays["audio"]})
    (found,) = fold_normalisations(data, [np.arange(9)], ("audio", "video", "words"))
    assert set(found) == {"audio"}
    own = on_host(data, ("audio", "video"), "utterance").arrays
    np.testing.assert_array_equal(own["video"].values, data.arrays["video"].values)
    assert not np.array_equal(own["audio"].values, own["video"].values)


def test_statistics_of_neutral_speech(data):
    rows = np.arange(30)
    (found,) = fold_normalisations(data, [rows], ("audio", "words"), "train_neutral")
    expected = FrameSums.of(data.arrays["audio"]).normalisation(rows[data.label[rows] == 1])
    np.testing.assert_array_equal(found["audio"].mean, expected.mean)
    assert set(found) == {"audio"}
    with pytest.raises(UsageError, match="no neutral utterance"):
        fold_normalisations(data, [np.array([0, 2, 3])], ("audio",), "train_neutral")


def test_statistics_in_jax_equal_those_on_the_host():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (2, 9, 4)).astype(np.float32)
    x[..., 1] = -7.25
    lengths = np.array([9, 5])
    mask = np.arange(9) < lengths[:, None]
    padded = np.where(mask[..., None], x, np.float32(1e6))
    mean, std = utterance_statistics(jnp.asarray(padded), jnp.asarray(mask))
    ragged = Ragged(np.concatenate([x[0], x[1, :5]]), lengths.astype(np.int32))
    for row in range(2):
        own = FrameSums.of(ragged).normalisation(np.array([row]))
        np.testing.assert_allclose(mean[row, 0], own.mean, rtol=1e-5)
        np.testing.assert_allclose(std[row, 0], own.std, rtol=1e-5)
    assert std[0, 0, 1] == 1


@pytest.mark.parametrize(
    ("label", "neutral"),
    [
        ("neu", True), ("neutral", True), ("Neutral", True), ("NEU", True), ("neutral state", True),
        ("01_neutral", True), ("Neutral;", True), ("neutre", True), ("中性", True),
        ("non-neutral", False), ("calm", False), ("N", False), ("", False), ("neutralised", False),
    ],
)  # fmt: skip
def test_names_of_neutral_speech(label, neutral):
    assert is_neutral(label) == neutral
