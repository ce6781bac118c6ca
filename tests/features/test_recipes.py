"""Recipes against librosa and openSMILE, and what all recipes have in common."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import librosa
import numpy as np
import pytest
import soundfile

from helpers.numbers import assert_close
from helpers.small_corpus import EXTRACTED_RECIPES, RATE, noise, sine, talk, write_talks
from jaxser.data import dataset
from jaxser.data_prep import prepare as preparation
from jaxser.features import lld, spectra
from jaxser.features.extraction import extract, with_noise
from jaxser.features.quality import quality_flags
from jaxser.features.recipes import RECIPES, tokens, with_sources
from jaxser.features.sources import ArrayFiles
from jaxser.features.text import build_vocabulary
from jaxser.types import InputError, UsageError

UTTERANCE = talk(3, "ang")
VOCABULARY = build_vocabulary([tokens(RECIPES["mcsan"], UTTERANCE)])


def features_of(name: str, samples: np.ndarray, identity: str = UTTERANCE.id) -> dict[str, np.ndarray]:
    return extract(RECIPES[name], replace(UTTERANCE, id=identity), samples, VOCABULARY)


@pytest.mark.parametrize("seconds", [0.025, 0.31, 7.49, 7.5, 9.0])
def test_cat_is_librosas_log_mel_of_the_padded_signal_minus_the_padding(seconds):
    samples = noise(seconds, seed=1)
    padded = librosa.util.fix_length(samples, size=120_000)
    power = librosa.feature.melspectrogram(y=padded, sr=RATE, n_fft=400, hop_length=160, n_mels=40)
    found = features_of("cat", samples)["audio"]
    assert len(found) == min(750, 1 + len(samples) // 160)
    whole = librosa.power_to_db(power).T
    assert_close(found, whole[: len(found)], rtol=1e-5)
    assert_close(features_of("cat_padded", samples)["audio"], whole[:750], rtol=1e-5)


def test_padding_has_no_noise():
    found = features_of("cat_padded", noise(1.0))["audio_noisy"]
    assert len(found) == 750
    np.testing.assert_array_equal(found[105:], found.min())


def test_cat_ends_before_the_751st_frame():
    assert librosa.util.frame(np.zeros(120_400), frame_length=400, hop_length=160).shape[1] == 751
    assert (
        len(features_of("cat", noise(7.5))["audio"])
        == len(features_of("cat", noise(7.5))["audio_noisy"])
        == 750
    )


def test_noisy_copy_has_the_stated_ratio_and_is_reproducible():
    clean = sine(2.0)
    ratios = []
    for index in range(300):
        added = with_noise(clean, f"u{index}", copy=1) - clean
        ratios.append(10 * np.log10(np.mean(clean**2) / np.mean(added**2)))
    assert min(ratios) == pytest.approx(15, abs=0.3)
    assert max(ratios) == pytest.approx(30, abs=0.3)
    assert np.mean(ratios) == pytest.approx(22.5, abs=0.8)
    np.testing.assert_array_equal(with_noise(clean, "u", 1), with_noise(clean, "u", 1))
    assert np.abs(with_noise(clean, "u", 1) - with_noise(clean, "v", 1)).max() > 0.01
    assert np.abs(with_noise(clean, "u", 1) - with_noise(clean, "u", 2)).max() > 0.01


def test_noise_is_white():
    added = with_noise(sine(8.0), "u", 1) - sine(8.0)
    spectrum = np.abs(np.fft.rfft(added)) ** 2
    quarters = [part.mean() for part in np.array_split(spectrum, 4)]
    assert max(quarters) / min(quarters) < 1.1


def test_noisy_copy_is_the_log_mel_of_the_noisy_signal():
    samples = noise(0.5)
    found = features_of("cat", samples, "some_id")["audio_noisy"]
    [expected] = spectra.log_mel([with_noise(samples, "some_id", 1)], spectra.LIBROSA)
    assert_close(found, expected)
    silent = features_of("cat", np.zeros(4_000, np.float32))
    np.testing.assert_array_equal(silent["audio"], silent["audio_noisy"])


def opensmile_table(samples: np.ndarray, level: str):
    import opensmile

    smile = opensmile.Smile(opensmile.FeatureSet.IS09, getattr(opensmile.FeatureLevel, level))
    return smile.process_signal(samples, RATE)


def test_lld_are_opensmiles_is09_descriptors_and_their_slopes():
    samples = np.zeros(20_800, np.float32)
    samples[::100] = 0.5  # a voice of 160 Hz
    found = features_of("lld", samples)["audio"]
    static = opensmile_table(samples, "LowLevelDescriptors")
    slopes = opensmile_table(samples, "LowLevelDescriptors_Deltas")
    assert (*static.columns, *slopes.columns) == lld.DESCRIPTORS == RECIPES["lld"].parameters["descriptors"]
    np.testing.assert_array_equal(found[:, :16], static.to_numpy())
    np.testing.assert_array_equal(found[:, 16:], slopes.to_numpy()[: len(static)])
    assert np.median(found[:, 15]) == pytest.approx(160, rel=0.02)  # Hz


def test_slopes_are_aligned_with_their_frames():
    """openSMILE's slope: sum of w (x[t + w] - x[t - w]) over w = 1, 2, divided by 2 (1 + 4)."""
    found = features_of("lld", noise(1.0))["audio"].astype(np.float64)
    around = np.pad(found[:, :16], ((2, 2), (0, 0)), mode="edge")
    expected = (2 * (around[4:] - around[:-4]) + around[3:-1] - around[1:-3]) / 10
    np.testing.assert_allclose(found[:, 16:], expected, atol=1e-5)


def test_lld_is_cut_at_five_seconds():
    found = features_of("lld", noise(5.5))["audio"]
    assert found.shape == (500, 32)
    assert "cut_audio" in quality_flags(RECIPES["lld"], UTTERANCE, noise(5.5))
    assert features_of("lld", noise(0.025))["audio"].shape == (2, 32)


def test_missing_opensmile_is_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    lld._extractors.cache_clear()
    with pytest.raises(UsageError, match=r'pip install "jaxser\[lld\]"'):
        features_of("lld", noise(0.3))
    lld._extractors.cache_clear()


def librosa_mfcc_and_deltas(samples: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=512 is too large")
        cepstra = librosa.feature.mfcc(
            y=samples, sr=RATE, n_mfcc=40, n_mels=40, n_fft=512, hop_length=160, win_length=400, window="hamming"
        )  # fmt: skip
    mode = "interp" if cepstra.shape[1] >= 9 else "nearest"
    slopes = [librosa.feature.delta(cepstra, width=9, order=order, mode=mode) for order in (1, 2)]
    return np.concatenate([cepstra, *slopes]).T


@pytest.mark.parametrize("seconds", [0.025, 0.05, 0.0799, 0.08, 0.1, 0.7, 11.0])
def test_self_cross_is_librosas_mfcc_and_deltas(seconds):
    samples = noise(seconds, seed=2)
    found = features_of("self_cross", samples)["audio"]
    assert found.dtype == np.float32
    assert len(found) == min(1000, 1 + len(samples) // 160)
    assert_close(found, librosa_mfcc_and_deltas(samples)[:1000], rtol=1.5e-6)


@pytest.mark.parametrize("name", EXTRACTED_RECIPES)
def test_extracted_arrays_match_their_specs(name):
    recipe, found = RECIPES[name], features_of(name, noise(0.3))
    assert recipe.name == name
    assert recipe.version == "1.0.0"
    assert found.keys() == recipe.arrays.keys()
    for array, (dtype, shape) in recipe.arrays.items():
        assert found[array].dtype == np.dtype(dtype)
        assert found[array].shape[1:] == shape[1:]
        assert np.isfinite(found[array]).all()
    assert json.loads(json.dumps(recipe.parameters))["max_frames"] > 0


def test_normalisation_of_each_recipe():
    assert {name: recipe.normalise for name, recipe in RECIPES.items() if recipe.normalise != "train"} == {
        "lld": "train_neutral",
        "words": "none",
    }


def test_recipes_without_words_have_no_tokens():
    for name in ("cat", "lld"):
        assert tokens(RECIPES[name], UTTERANCE) == ()
        assert "no_words" not in quality_flags(RECIPES[name], replace(UTTERANCE, transcript=""), noise(0.3))


def test_precomputed_arrays_that_a_recipe_does_not_accept_are_rejected(tmp_path):
    source = ArrayFiles(tmp_path, width=3, max_rows=32)
    with pytest.raises(
        UsageError, match=r"recipe mcsan does not accept precomputed video \(.* accepts: none\)"
    ):
        with_sources(RECIPES["mcsan"], {"video": source})
    with pytest.raises(UsageError, match="recipe frames needs --frames"):
        with_sources(RECIPES["frames"], {})
    fitted = with_sources(RECIPES["self_cross"], {"video": source})
    assert fitted.arrays["video"].shape == (None, 3)
    with pytest.raises(InputError, match="missing precomputed features: video"):
        extract(fitted, UTTERANCE, noise(0.3), VOCABULARY)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder `<out>/talks` with a dataset of every recipe without precomputed arrays."""
    out = tmp_path_factory.mktemp("data")
    reading = write_talks(out / "release", ["ang", "neu", "sad"])
    soundfile.write(out / "release" / "0002.wav", noise(0.025), RATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "corpus_of_this_test", SimpleNamespace(read=lambda root: reading))
        patch.setitem(preparation.READERS, "chatter", "corpus_of_this_test")
        for name in EXTRACTED_RECIPES:
            preparation.prepare("chatter", out / "release", name, out, name="talks", workers=1, quiet=True)
    return out / "talks"


@pytest.mark.parametrize("name", EXTRACTED_RECIPES)
def test_prepared_arrays_are_the_extracted_ones(prepared, name):
    data = dataset.load_prepared(prepared, name)
    for row, utterance in enumerate(data.utterances):
        samples, _ = soundfile.read(prepared.parent / "release" / utterance.wav, dtype="float32")
        words = (
            [data.vocabulary[word] for word in data.arrays["words"][row]] if "words" in data.arrays else []
        )
        for array, expected in features_of(name, samples, utterance.id).items():
            if array == "words":
                assert len(words) == len(expected)
            else:
                assert_close(data.arrays[array][row], expected)
    assert data.manifest["recipe"] == name
    assert data.manifest["version"] == RECIPES[name].version
    assert data.manifest["normalise"] == RECIPES[name].normalise
    assert data.manifest["parameters"] == json.loads(json.dumps(dict(RECIPES[name].parameters)))


@pytest.mark.parametrize("name", RECIPES)
def test_mismatch_of_recipe_or_version_is_one_line_with_the_command(prepared, name):
    other = "cat" if name != "cat" else "lld"
    folder = prepared / other / "1.0.0"
    with pytest.raises(UsageError) as caught:
        dataset.load_prepared(folder, name)
    assert f"found corpus chatter, recipe {other}, version 1.0.0; needed recipe {name}, version 1.0.0" in str(
        caught.value
    )
    flags = " --frames=FOLDER" if name == "frames" else ""
    assert str(caught.value).endswith(
        f"prepare --corpus=chatter --root=FOLDER --recipe={name} --out={prepared.parent} --name=talks{flags}"
    )
    with pytest.raises(UsageError, match=f"needed recipe {name}, version 9.0.0"):
        dataset.load_prepared(prepared, name, "9.0.0")


def test_importing_recipes_needs_no_extras():
    code = "import sys, jaxser.features.recipes, data_prep.prepare; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"opensmile", "av", "onnxruntime", "h5py"} & set(modules.split())
