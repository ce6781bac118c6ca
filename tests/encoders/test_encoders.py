"""The hidden states of all families against a numpy version, and what padding, layers and types change."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.encoders import FOLDERS, config_of, padded, speech, tensors_of, write_folder
from jaxser import encoders
from jaxser.encoders.attention import ScoreBias, attend
from jaxser.encoders.waveforms import _mel_filters, log_mel, normalised
from jaxser.encoders.wavlm import bucket
from jaxser.types import UsageError
from references import encoders as reference

LENGTHS = (4_000, 2_017, 400)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each family."""
    base = tmp_path_factory.mktemp("encoders")
    return {name: write_folder(base / name, name) for name in FOLDERS}


@pytest.fixture(scope="module")
def hidden(folders):
    """Encoder and hidden states of a padded batch, by family and padding."""

    @cache
    def compute(name, padding="exact"):
        encoder = encoders.load(folders[name], padding=padding)
        return encoder, encoder(*padded(speech(LENGTHS), padding=0.7))

    return compute


def expected(name, wave):
    """All hidden states of one recording by the numpy version."""
    config = config_of(name)
    model = reference.Reference(
        config["model_type"],
        tensors_of(name),
        heads=2,
        pre_norm=name in ("whisper", "wav2vec2-large"),
        buckets=config.get("num_buckets", 0),
        max_distance=config.get("max_bucket_distance", 0),
    )
    if name == "whisper":
        frames = -(-len(wave) // 320)
        silent = np.pad(wave, (0, 320 * (frames + 1) - len(wave)))
        wave = reference.log_mel(silent, 80, _mel_filters(80))[: 2 * frames]
    return model.hidden_states(wave)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_hidden_state_equals_the_numpy_version(name, hidden):
    encoder, (states, mask) = hidden(name)
    assert len(states) == encoder.layers + 1 == 3
    for row, wave in enumerate(speech(LENGTHS)):
        theirs = expected(name, wave.astype(np.float64))
        assert mask[row].sum() == encoder.num_frames(len(wave)) == len(theirs[0])
        for ours, their in zip(states, theirs, strict=True):
            np.testing.assert_allclose(ours[row, : len(their)], their, atol=1e-4 * np.ptp(their))
            np.testing.assert_array_equal(ours[row, len(their) :], 0)


@pytest.mark.parametrize("name", FOLDERS)
def test_padding_changes_no_valid_frame(name, hidden):
    encoder, (states, mask) = hidden(name)
    waves = speech(LENGTHS)
    alone = encoder(*padded(waves[1:2]))
    for ours, state in zip(alone.states, states, strict=True):
        np.testing.assert_allclose(ours[0], state[1, : ours.shape[1]], atol=1e-5)
    assert mask[1].sum() == alone.mask.sum()


@pytest.mark.parametrize("name", ["wav2vec2", "whisper", "data2vec-audio"])
def test_padding_as_published_changes_frames(name, hidden):
    _, exact = hidden(name)
    _, published = hidden(name, "as_published")
    frames = int(exact.mask[1].sum())
    assert np.abs(exact.states[-1][1, :frames] - published.states[-1][1, :frames]).max() > 0.01
    np.testing.assert_array_equal(exact.mask, published.mask)


@pytest.mark.parametrize("name", ["wav2vec2", "wavlm", "whisper"])
def test_a_padding_row_is_zero_and_finite(name, folders, hidden):
    encoder, _ = hidden(name)
    waveforms, _ = padded(speech(LENGTHS))
    states, mask = encoder(waveforms, np.array([4_000, 0, 0], np.int32))
    assert not mask[1:].any()
    for state in states:
        np.testing.assert_array_equal(state[1:], 0)


def test_chosen_layers_are_those_of_all(hidden):
    encoder, (states, _) = hidden("wav2vec2")
    chosen = encoder(*padded(speech(LENGTHS), padding=0.7), layers=(1, -1)).states
    np.testing.assert_allclose(chosen[0], states[1], atol=1e-6)
    np.testing.assert_allclose(chosen[1], states[2], atol=1e-6)
    with pytest.raises(UsageError, match="hidden states 0 to 2"):
        encoder(*padded(speech(LENGTHS)), layers=(3,))


@pytest.mark.parametrize("name", ["wavlm", "whisper"])
def test_bfloat16_is_close(name, folders, hidden):
    _, (states, _) = hidden(name)
    encoder = encoders.load(folders[name], padding="exact", dtype="bfloat16")
    rough = encoder(*padded(speech(LENGTHS), padding=0.7), layers=(0, 2)).states
    for ours, theirs in zip(rough, (states[0], states[2]), strict=True):
        assert ours.dtype == jnp.bfloat16
        difference = np.abs(np.asarray(ours, np.float32) - theirs)
        assert 0 < difference.mean() < 0.02 * np.ptp(theirs)


def test_a_waveform_longer_than_the_window_is_refused(hidden):
    encoder, _ = hidden("whisper")
    assert encoder.max_samples == 6_400
    with pytest.raises(UsageError, match=r"longer than the encoder's window of 0\.4 s"):
        encoder.apply(encoder.params, jnp.zeros((1, 6_401)), jnp.array([6_401]))


def test_a_waveform_shorter_than_a_frame_has_none(hidden):
    encoder, _ = hidden("wav2vec2")
    states, mask = encoder(np.ones((1, 399), np.float32), np.array([399], np.int32))
    assert mask.shape == states[0].shape[:2] == (1, 0)


def test_dropout_needs_a_key_and_changes_frames(hidden):
    encoder, (states, _) = hidden("wavlm")
    batch = padded(speech(LENGTHS), padding=0.7)
    apply = jax.jit(lambda key: encoder.apply(encoder.params, *batch, layers=(1,), dropout_key=key).states[0])
    draws = [apply(jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 0.01
    assert np.abs(draws[0] - states[1]).max() > 0.01


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_gradients_are_the_same_with_remat(name, folders):
    waves = padded(speech((2_000, 800)))

    def gradient(remat):
        encoder = encoders.load(folders[name], padding="exact", remat=remat)

        def loss(params):
            return jnp.square(encoder.apply(params, *waves, layers=(-1,)).states[0]).mean()

        return jax.jit(jax.grad(loss))(encoder.params)

    kept, recomputed = gradient(False), gradient(True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), kept, recomputed)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(kept["layer_0"]["feed_forward"]))


@pytest.mark.parametrize("bands", [80, 128])
def test_log_mel_equals_the_numpy_version(bands):
    wave = np.pad(speech([6_000])[0], (0, 400))
    ours = log_mel(jnp.asarray(wave)[None], bands)[0]
    np.testing.assert_allclose(ours, reference.log_mel(wave, bands, _mel_filters(bands)), atol=2e-5)


def test_normalisation_has_the_published_mean_and_variance():
    waves = speech([48_000, 7_000])
    ours = normalised(*map(jnp.asarray, padded(waves, padding=9.0)))
    for row, wave in zip(ours, waves, strict=True):
        wide = wave.astype(np.float64)
        np.testing.assert_allclose(
            row[: len(wave)], (wide - wide.mean()) / np.sqrt(wide.var() + 1e-7), atol=1e-5
        )
        np.testing.assert_array_equal(row[len(wave) :], 0)


def test_buckets_are_those_of_the_paper():
    model = reference.Reference("wavlm", {}, heads=1, buckets=320, max_distance=800)
    distances = np.array([-1500, -800, -81, -80, -79, -1, 0, 1, 79, 80, 81, 100, 799, 800, 1500])
    np.testing.assert_array_equal(bucket(distances, 320, 800), [model.bucket(d) for d in distances])
    assert bucket(np.array([-3, 3]), 320, 800).tolist() == [3, 163]


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_attention_is_the_same_on_a_cpu_and_elsewhere(has_bias, rate, monkeypatch):
    rng = np.random.default_rng(0)
    frames = 300  # two blocks of queries

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    inputs = [draw(2, frames, 3, 4) for _ in range(3)]
    mask = jnp.arange(frames) < jnp.array([[frames], [17]])
    bias = ScoreBias(draw(3, frames, frames), draw(2, frames, 3)) if has_bias else None
    dropout = (jax.random.key(0), rate) if rate else None
    on_cpu = attend(*inputs, mask, bias, dropout=dropout)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(attend(*inputs, mask, bias, dropout=dropout), on_cpu, atol=1e-5)
    if rate:
        undropped = np.asarray(attend(*inputs, mask, bias))
        draws = [
            attend(*inputs, mask, bias, dropout=(jax.random.key(seed), rate))[0].mean() for seed in range(8)
        ]
        assert np.abs(on_cpu - undropped).max() > 0.01
        np.testing.assert_allclose(np.mean(draws), undropped[0].mean(), atol=0.02)
