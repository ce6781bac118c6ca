"""Frames of recordings: chosen layers, windows, batches, and datasets that are made of them."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.encoders import speech, write_folder
from helpers.small_corpus import write_ravdess
from jaxser import encoders
from jaxser.data.dataset import load_prepared
from jaxser.data_prep import jobs
from jaxser.data_prep.prepare import main, prepare
from jaxser.encoders import frames
from jaxser.encoders.frames import FrameEncoder, Layers, open_encoder
from jaxser.features.audio import read_audio
from jaxser.features.extraction import extract
from jaxser.features.quality import quality_flags
from jaxser.features.recipes import RECIPES, with_encoder
from jaxser.features.text import Vocabulary
from jaxser.models.layer_mix import LayerMix, with_layer_weights
from jaxser.models.probe import Probe
from jaxser.types import Batch, InputError, UsageError, Utterance, Word

LENGTHS = (4_000, 17_000, 400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny HuBERT with two layers."""
    return write_folder(tmp_path_factory.mktemp("encoder") / "hubert", "hubert")


@pytest.fixture(scope="module")
def loaded(folder):
    return encoders.load(folder)


@pytest.mark.parametrize(
    ("text", "indices", "mean"),
    [
        ("last", (12,), False),
        ("all", tuple(range(13)), False),
        ("mean", tuple(range(13)), True),
        ("3,6, 9", (3, 6, 9), False),
        ("0", (0,), False),
        ("6,6", (6,), False),
    ],
)
def test_layers(text, indices, mean):
    assert Layers.parse(text, 12) == Layers(indices, mean)


@pytest.mark.parametrize("text", ["", "13", "-1", "3,", "first", "1.5", "³"])
def test_wrong_layers(text):
    with pytest.raises(UsageError, match=r"--layers=.*: must be last, all, mean, or numbers from 0 to 12"):
        Layers.parse(text, 12)


@pytest.mark.parametrize("layers", ["last", "all", "mean", "0,2"])
def test_frames_are_the_hidden_states_of_each_recording_alone(layers, loaded):
    encoder = FrameEncoder(loaded, Layers.parse(layers, loaded.layers))
    for wave, found in zip(speech(LENGTHS), encoder.encode(speech(LENGTHS)), strict=True):
        states = np.stack(loaded(jnp.asarray(wave[None]), jnp.array([len(wave)])).states)[:, 0]
        chosen = {
            "last": states[-1],
            "all": np.concatenate(states, axis=-1),
            "mean": states.mean(0),
            "0,2": np.concatenate([states[0], states[2]], axis=-1),
        }[layers]
        assert found.dtype == np.float16
        assert found.shape == (loaded.num_frames(len(wave)), encoder.width)
        np.testing.assert_allclose(found, chosen, rtol=2e-3, atol=1e-3)


def test_long_recordings_are_cut_into_equal_windows(loaded, monkeypatch):
    monkeypatch.setattr(frames, "WINDOW_SECONDS", 1)
    encoder = FrameEncoder(loaded, Layers.parse("last", loaded.layers))
    [wave] = speech((40_000,))  # 125 frames: windows of 41, 42 and 42 frames
    [found] = encoder.encode([wave])
    parts = encoder.encode([wave[: 41 * 320], wave[41 * 320 : 83 * 320], wave[83 * 320 :]])
    np.testing.assert_allclose(found, np.concatenate(parts), atol=1e-3)


def test_very_short_and_empty_recordings_have_a_frame(loaded):
    encoder = FrameEncoder(loaded, Layers.parse("last", loaded.layers))
    for found in encoder.encode([np.zeros(0, np.float32), np.ones(3, np.float32)]):
        assert found.shape == (1, loaded.width)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("factor", [np.nan, 1e6])
def test_values_that_float16_cannot_hold_are_an_error(factor, loaded):
    norm = {name: factor * value for name, value in loaded.params["layer_1"]["norm"].items()}
    layer = {**loaded.params["layer_1"], "norm": norm}
    broken = replace(loaded, params={**loaded.params, "layer_1": layer})
    with pytest.raises(InputError, match="the hubert encoder computes values that are not finite or exceed"):
        FrameEncoder(broken, Layers((2,))).encode(speech((4_000,)))


UTTERANCE = Utterance(
    id="a",
    wav="a.wav",
    label="ang",
    transcript="we go home",
    words=(Word("we", 0.0, 0.1), Word("go", 0.1, 0.42), Word("home", 0.42, 0.6)),
)


def extracted(utterance, number):
    """The arrays of 0.6 s of sound and `number` frames, whose values are their indices."""
    recipe = with_encoder(RECIPES["encoder"], {"hop_samples": 320, "layers": [1]}, width=2)
    index = np.repeat(np.arange(number, dtype=np.float16)[:, None], 2, axis=1)
    vocabulary = Vocabulary(("<pad>", "<unk>", "we", "go", "home", "<none>"))
    samples = np.full(9_600, 0.1, np.float32)
    arrays = extract(recipe, utterance, samples, vocabulary, {"audio": index})
    return arrays, quality_flags(recipe, utterance, samples, {"audio": index})


def test_word_segments_are_cut_out_of_the_frames():
    """Words end at samples 1,600 and 6,720; each bound moves outwards by 5 % of its own word, in frames of 320."""
    arrays, flags = extracted(UTTERANCE, 30)
    bounds = [(0, 1_680), (1_344, 6_976), (6_576, 9_600)]
    expected = [np.arange(start // 320, -(-end // 320)) for start, end in bounds]
    np.testing.assert_array_equal(arrays["segment_lengths"], [len(word) for word in expected])
    np.testing.assert_array_equal(arrays["segments"][:, 0], np.concatenate(expected))
    np.testing.assert_array_equal(arrays["words"], [2, 3, 4])
    assert flags == ()


def test_word_segments_without_times_are_equal_and_flagged():
    arrays, flags = extracted(replace(UTTERANCE, words=None), 30)
    np.testing.assert_array_equal(arrays["segment_lengths"], [10, 10, 10])
    assert flags == ("equal_segments",)


def test_a_word_after_the_last_frame_has_that_frame():
    """Encoders without padding have up to two frames fewer than hops."""
    arrays, _ = extracted(UTTERANCE, 18)
    assert arrays["segments"][-1, 0] == 17


def prepared(root, folder, out, **options):
    return prepare("ravdess", root, "encoder", out, encoder=folder, quiet=True, **options)


def test_a_dataset_has_the_frames_of_its_recordings(folder, tmp_path, monkeypatch):
    """Each recording is decoded once, for the encoder and the quality flags."""
    paths = write_ravdess(tmp_path / "ravdess", 3)
    decoded: list[str] = []
    monkeypatch.setattr(jobs, "read_audio", lambda path: decoded.append(path.stem) or read_audio(path))
    made = prepared(tmp_path / "ravdess", folder, tmp_path / "data", layers="0,2")
    assert sorted(decoded) == sorted(path.stem for path in paths)
    dataset = load_prepared(made.parents[1], "encoder", classes="all")
    assert dataset.arrays["audio"].values.dtype == np.float16
    encoder = open_encoder(folder, "0,2")
    described = dataset.manifest["parameters"]["encoder"]
    assert described == dict(encoder.described)
    assert described["digest"] == encoder.encoder.digest
    waves = {path.stem: frames_of(encoder, path) for path in paths}
    for row, utterance in enumerate(dataset.utterances):
        np.testing.assert_allclose(dataset.arrays["audio"][row], waves[utterance.id], atol=2e-3)


def frames_of(encoder, path):
    from jaxser.features.audio import read_audio

    [found] = encoder.encode([read_audio(path).samples])
    return found


def test_other_layers_make_the_dataset_anew_and_the_same_ones_do_not(folder, tmp_path):
    write_ravdess(tmp_path / "ravdess", 3)
    arguments = (tmp_path / "ravdess", folder, tmp_path / "data")
    made = prepared(*arguments)
    [shard] = made.glob("*.tfrecord-*")
    content, stamp = shard.read_bytes(), shard.stat().st_mtime_ns
    prepared(*arguments)
    assert shard.stat().st_mtime_ns == stamp
    prepared(*arguments, layers="1")
    assert shard.read_bytes() != content
    prepared(*arguments)
    assert shard.read_bytes() == content


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--recipe=encoder"], "recipe encoder needs --encoder, the folder of a pretrained encoder"),
        (["--recipe=mcsan", "--encoder=E"], "--encoder=E: only for --recipe=encoder, not for mcsan"),
        (["--recipe=encoder", "--encoder=E"], "E: no such folder"),
        (["--recipe=mcsan", "--layers=3"], "--layers, --padding: only for --recipe=encoder, not for mcsan"),
        (
            ["--recipe=encoder", "--encoder=E", "--runner=beam"],
            "--runner=beam: recipe encoder runs on this machine's device, with --runner=local",
        ),
    ],
)
def test_wrong_flags_are_reported_in_one_line(flags, message, tmp_path, capsys):
    write_ravdess(tmp_path / "ravdess", 1)
    assert main(["--corpus=ravdess", f"--root={tmp_path / 'ravdess'}", f"--out={tmp_path}", *flags]) in (1, 2)
    assert capsys.readouterr().err == f"prepare: {message}\n"


def test_layers_are_mixed_by_a_softmax_of_learned_weights():
    """The network sees the weighted sum, and the weights have gradients."""
    rng = np.random.default_rng(0)
    layers = rng.normal(size=(2, 5, 3, 4)).astype(np.float32)
    batch = Batch(
        label=jnp.array([0, 1]),
        weight=jnp.ones(2),
        audio=jnp.asarray(layers.reshape(2, 5, 12)),
        audio_mask=jnp.ones((2, 5), bool),
    )
    probe = Probe(num_classes=2, pooling="mean", hidden_size=6)
    mixed = with_layer_weights(probe, {"encoder": {"layers": [0, 1, 2], "layers_mean": False}})
    assert isinstance(mixed, LayerMix)
    hyper = {"dropout_rate": 0.0}
    params = mixed.init(jax.random.key(0), batch, hyper, train=False)["params"]
    params["layer_weights"] = jnp.array([0.5, -1.0, 2.0])
    weights = np.exp([0.5, -1, 2]) / np.exp([0.5, -1, 2]).sum()
    plain = batch._replace(audio=jnp.asarray(np.einsum("btld,l->btd", layers, weights), jnp.float32))
    expected = probe.apply({"params": params["network"]}, plain, hyper, train=False).log_probs
    found = mixed.apply({"params": params}, batch, hyper, train=False).log_probs
    np.testing.assert_allclose(found, expected, atol=1e-5)
    gradient = jax.grad(lambda p: mixed.apply({"params": p}, batch, hyper, train=False).log_probs[0, 0])(
        params
    )
    assert np.abs(gradient["layer_weights"]).min() > 0


@pytest.mark.parametrize(
    "described", [{}, {"layers": [3], "layers_mean": False}, {"layers": [0, 1], "layers_mean": True}]
)
def test_a_single_layer_needs_no_weights(described):
    probe = Probe(num_classes=2)
    assert with_layer_weights(probe, {"encoder": described} if described else {}) is probe


def test_the_manifest_is_json(loaded):
    json.dumps(dict(FrameEncoder(loaded, Layers((0, 1))).described))
