"""Augmented copies of recordings: what is changed by how much, the same on every preparation, in training only."""

import dataclasses

import numpy as np
import pytest

from helpers import tiny
from helpers.small_corpus import write_ravdess
from jaxser.data.dataset import copies_of, load_prepared, with_copies
from jaxser.data.folds import Protocol, make_folds
from jaxser.data_prep import augment, prepare
from jaxser.features import text
from jaxser.features.extraction import extract
from jaxser.features.recipes import RECIPES
from jaxser.types import Ragged, UsageError, Utterance, Word

RATE = 16_000


def tone(seconds=1.0, hertz=440.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)


def pitch(samples):
    """The frequency with the most energy."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 2**18))
    return spectrum.argmax() * RATE / 2**18


def only(kind, low, high=None):
    return {kind: (low, low if high is None else high)}


def test_speed_changes_length_and_pitch():
    changed, speed = augment.augmented(tone(), only("speed", 1.25), "a", 1)
    assert speed == 1.25
    assert len(changed) == pytest.approx(RATE / 1.25, abs=2)
    assert pitch(changed) == pytest.approx(550, rel=0.005)
    assert pitch(augment.augmented(tone(), only("speed", 0.8), "a", 1)[0]) == pytest.approx(352, rel=0.005)


def test_pitch_keeps_the_length():
    changed, speed = augment.augmented(tone(), only("pitch", 2.0), "a", 1)
    assert (speed, len(changed)) == (1.0, RATE)
    assert pitch(changed) == pytest.approx(440 * 2 ** (2 / 12), rel=0.01)


def test_noise_has_its_ratio_and_gain_its_decibels():
    noise = augment.augmented(tone(), only("noise", 20.0), "a", 1)[0] - tone()
    ratio = 10 * np.log10((tone() ** 2).mean() / (noise**2).mean())
    assert ratio == pytest.approx(20, abs=0.2)
    louder, _ = augment.augmented(tone(), only("gain", 6.0), "a", 1)
    np.testing.assert_allclose(louder, tone() * 10**0.3, rtol=1e-5, atol=1e-6)


def test_reverberation_decays_by_60_db():
    click = np.zeros(RATE, np.float32)
    click[0] = 1
    changed, _ = augment.augmented(click, only("reverb", 0.4), "a", 1)
    assert changed[0] == pytest.approx(1)
    tail = changed[1:]
    assert 10 * np.log10((tail**2).sum()) == pytest.approx(-augment.DIRECT_TO_REVERBERANT_DB, abs=0.1)
    power = [(tail[start : start + 800] ** 2).mean() for start in (0, 3200)]  # 0.2 s apart: half of 0.4
    assert 10 * np.log10(power[0] / power[1]) == pytest.approx(30, abs=2)


def test_copies_depend_on_the_utterance_and_the_copy_only():
    first, _ = augment.augmented(tone(), augment.RANGES, "a", 1)
    again, _ = augment.augmented(tone(), augment.RANGES, "a", 1)
    np.testing.assert_array_equal(first, again)
    for identity, copy in (("a", 2), ("b", 1)):
        other, _ = augment.augmented(tone(), augment.RANGES, identity, copy)
        assert len(other) != len(first) or not np.array_equal(other, first)
    speeds = [
        augment.augmented(tone(0.1), {"speed": augment.RANGES["speed"]}, str(n), 1)[1] for n in range(50)
    ]
    low, high = augment.RANGES["speed"]
    assert low <= min(speeds) < 0.9
    assert 1.1 < max(speeds) <= high
    _, alone = augment.augmented(tone(), {"speed": augment.RANGES["speed"]}, "a", 1)
    _, together = augment.augmented(tone(), augment.RANGES, "a", 1)
    assert alone == together  # other kinds do not change what is drawn


def test_a_short_recording_stays_long_enough_for_a_window():
    changed, _ = augment.augmented(tone()[:400], only("speed", 1.18), "a", 1)
    assert len(changed) == 400


def utterance():
    words = (Word("good", 0.1, 0.4), Word("morning", 0.4, 0.9))
    return Utterance("u1", "u1.wav", "hap", transcript="good morning", words=words)


@pytest.mark.parametrize("name", ["mcsan", "can", "self_cross"])
def test_the_arrays_of_copies_are_those_of_the_changed_waveform(name):
    recipe = augment.with_copies(RECIPES[name], ("speed", "noise"), 2)
    vocabulary = text.build_vocabulary([("good", "morning")])
    arrays = augment.extract_with_copies(recipe, utterance(), tone(), vocabulary)
    assert arrays.keys() == recipe.arrays.keys()
    clean = extract(RECIPES[name], utterance(), tone(), vocabulary)
    for key, value in clean.items():
        np.testing.assert_array_equal(arrays[key], value)
    _, speed = augment.augmented(tone(), recipe.parameters["augment"]["ranges"], "u1", 2)
    assert len(arrays["audio_copy2"]) == pytest.approx(len(clean["audio"]) / speed, abs=1)
    if name == "can":  # the word times follow the speed
        ratio = arrays["segment_lengths_copy2"] / clean["segment_lengths"]
        np.testing.assert_allclose(ratio, 1 / speed, rtol=0.1)
    described = recipe.parameters["augment"]
    assert described["copies"] == 2
    assert described["ranges"] == {kind: augment.RANGES[kind] for kind in ("speed", "noise")}


@pytest.mark.parametrize(
    ("recipe", "kinds", "copies", "message"),
    [
        (
            "mcsan",
            ("speed", "volume"),
            1,
            "--augment: 'volume' is not one of speed, pitch, reverb, noise, gain",
        ),
        ("mcsan", ("speed",), 0, "--copies=0: must be at least 1"),
        ("frames", ("speed",), 1, "--augment: the features of recipe frames are not computed from waveforms"),
    ],
)
def test_bad_arguments(recipe, kinds, copies, message):
    with pytest.raises(UsageError, match=message):
        augment.with_copies(RECIPES[recipe], kinds, copies)


def test_copies_are_rows_of_the_training_parts():
    data = tiny.dataset(30)
    audio = data.arrays["audio"]
    copies = {f"audio_copy{n}": Ragged(audio.values + n, audio.length) for n in (1, 2)}
    data = dataclasses.replace(data, arrays={**data.arrays, **copies})
    assert copies_of(data) == [{"audio": "audio_copy1"}, {"audio": "audio_copy2"}]
    folds = make_folds(data, Protocol("session"))
    larger, with_them = with_copies(data, folds, in_validation=False)
    assert larger.arrays.keys() == {"audio", "words"}
    assert len(larger.utterances) == len(larger.label) == 90
    for n in range(3):
        np.testing.assert_array_equal(larger.arrays["audio"][30 * n + 7], audio[7] + n)
        np.testing.assert_array_equal(larger.arrays["words"][30 * n + 7], data.arrays["words"][7])
        assert larger.utterances[30 * n + 7] == data.utterances[7]
    for before, after in zip(folds, with_them, strict=True):
        assert sorted(after.train) == sorted(np.concatenate([before.train + 30 * n for n in range(3)]))
        np.testing.assert_array_equal(after.validation, before.validation)
        np.testing.assert_array_equal(after.test, before.test)
        assert not set(after.train % 30) & set(after.test)


def test_a_prepared_dataset_has_its_copies(tmp_path):
    """From the recordings to the rows of a fold; the command makes the same bytes again."""
    write_ravdess(tmp_path / "ravdess", 6)
    made = []
    for out in ("one", "two"):
        argv = [
            "--corpus=ravdess", f"--root={tmp_path / 'ravdess'}", f"--out={tmp_path / out}", "--workers=1",
            "--augment=speed,noise", "--copies=2", "--recipe=mcsan",
        ]  # fmt: skip
        assert prepare.main(argv) == 0
        [shard] = (tmp_path / out).rglob("*.tfrecord-*")
        made.append(shard.read_bytes())
    assert made[0] == made[1]
    data = load_prepared(tmp_path / "one" / "ravdess", "mcsan")
    described = data.manifest["parameters"]["augment"]
    assert described == {
        "copies": 2,
        "ranges": {kind: list(augment.RANGES[kind]) for kind in ("speed", "noise")},
    }
    assert copies_of(data) == [{"audio": "audio_copy1"}, {"audio": "audio_copy2"}]
    lengths = [data.arrays[name].length.tolist() for name in ("audio", "audio_copy1", "audio_copy2")]
    assert len({tuple(own) for own in lengths}) == 3
