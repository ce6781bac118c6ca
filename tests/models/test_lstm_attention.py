"""LSTM attention against its equations in numpy, its noise, its loss, and the paper's unmasked padding."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.configs import lstm_attention as config
from jaxser.data.device import gather, on_host
from jaxser.data.normalisation import fold_normalisations
from jaxser.layers.noise import WhiteNoise
from jaxser.models.losses import cross_entropy
from jaxser.models.lstm_attention import LSTMAttention
from jaxser.types import Batch, FieldError
from references.lstm_attention import lstm_attention

FRAMES = np.array([9, 12, 0, 4])
HYPER = {"dropout_rate": jnp.float32(0.1), "noise_variance": jnp.float32(0.4), "l2": jnp.float32(0.05)}
VARIANTS = {
    "mean": {"pooling": "mean"},
    "zhou": {"pooling": "zhou"},
    "yang": {"pooling": "yang"},
    "yang_from_attention": {"pooling": "yang", "pool_from": "attention"},
    "proposed": {},
    "normalised": {"normalise_weights": True},
    "from_attention": {"pool_from": "attention"},
    "as_published": {"as_published": True},
}


def make_batch(padding: int = 0, rubbish: bool = True) -> Batch:
    """Four utterances, one of them empty; `padding` adds steps."""
    rng = np.random.default_rng(0)
    steps = FRAMES.max() + padding
    audio = rng.normal(size=(4, 30, tiny.FEATURES)).astype(np.float32)[:, :steps]
    mask = np.arange(steps) < FRAMES[:, None]
    if not rubbish:
        audio = np.where(mask[..., None], audio, np.float32(0))
    return Batch(
        label=jnp.array([0, 1, 2, 1]),
        weight=jnp.array([1.0, 1, 0, 1]),
        audio=jnp.array(audio),
        audio_mask=jnp.array(mask),
    )


def network(**fields) -> LSTMAttention:
    return LSTMAttention(3, dense_size=7, hidden_size=4, attention_hidden=5, yang_dense=6, **fields)


@cache
def trained_like(variant: str):
    """A network of the variant, random parameters, and its compiled evaluation."""
    net = network(**VARIANTS[variant])
    return net, *tiny.prepared(net, make_batch(), HYPER)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equations(variant):
    net, params, run = trained_like(variant)
    batch = make_batch()
    found = run(params, batch)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for n, length in enumerate(FRAMES):
        audio = np.asarray(batch.audio[n] if net.as_published else batch.audio[n, :length], np.float64)
        if not len(audio):
            continue
        expected, weights = lstm_attention(audio, params, net.pooling, net.pool_from, net.normalise_weights)
        np.testing.assert_allclose(found.log_probs[n], expected, rtol=1e-5, atol=1e-5)
        for shown in found.attention.values():
            np.testing.assert_allclose(shown.weights[n, : len(audio)], weights, rtol=1e-5, atol=1e-6)
            assert not np.asarray(shown.weights[n, len(audio) :]).any()


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "as_published"])
def test_padding_does_not_change_predictions(variant):
    _, params, run = trained_like(variant)
    more, less = run(params, make_batch(5)).log_probs, run(params, make_batch(rubbish=False)).log_probs
    np.testing.assert_allclose(more, less, rtol=1e-5, atol=1e-6)


def test_as_published_padding_is_not_masked_and_has_a_fixed_length():
    net, params, run = trained_like("as_published")
    assert net.lengths == {"audio": 500}
    assert network().lengths == {}
    less, more = run(params, make_batch()), run(params, make_batch(5))
    assert (np.abs(more.log_probs - less.log_probs).max(1) > 1e-3).all()
    assert (np.asarray(less.attention["pooling_audio"].weights) > 0).all()


def test_as_published_utterances_are_padded_then_normalised_then_noisy():
    """Section 3: padded frames are -mean / std of the training part, plus noise."""
    data = tiny.dataset()
    data = replace(data, arrays=data.arrays | {"audio": tiny.everything().arrays["audio"]})
    device = on_host(data, ("audio",))
    [statistics] = fold_normalisations(data, [np.arange(30)], ("audio",))
    mean, std = statistics["audio"]
    index, width = jnp.arange(4), 130
    for net, padding in ((network(as_published=True), -mean / std), (network(), 0 * mean)):
        batch = gather(device, index, jnp.ones(4), {"audio": width}, statistics, pads_first=net.pads_first)
        audio, mask = np.asarray(batch.audio), np.asarray(batch.audio_mask)
        assert 0 < mask.sum() < mask.size
        np.testing.assert_allclose(audio[~mask], np.broadcast_to(padding, audio[~mask].shape), rtol=1e-6)
        frames = data.arrays["audio"]
        expected = (frames.values[: frames.length[0]] - mean) / std
        np.testing.assert_allclose(audio[0, : frames.length[0]], expected, rtol=1e-4, atol=1e-5)


def test_as_published_noise_is_added_to_padded_frames_too():
    """Without dropout, the dense layers of two draws of noise differ in padded frames if these are as published."""
    for variant, differs in (("as_published", True), ("zhou", False)):
        net, params, _ = trained_like(variant)
        hyper = HYPER | {"dropout_rate": jnp.float32(0)}

        def first_layer(key, net=net, params=params, hyper=hyper):
            _, seen = net.apply(
                {"params": params},
                make_batch(),
                hyper,
                train=True,
                rngs={"dropout": jax.random.key(key)},
                capture_intermediates=True,
            )
            return np.asarray(seen["intermediates"]["dense_0"]["__call__"][0])

        padded = ~np.asarray(make_batch().audio_mask)
        assert (first_layer(0) != first_layer(1))[padded].any() == differs


@pytest.mark.parametrize("variant", ["normalised", "yang", "as_published"])
def test_gradients_are_finite_with_an_empty_utterance_and_a_variance_of_zero(variant):
    net, params, _ = trained_like(variant)
    batch = make_batch()

    def loss(params, variance):
        hyper = HYPER | {"noise_variance": variance}
        rngs = {"dropout": jax.random.key(0)}
        output = net.apply({"params": params}, batch, hyper, train=True, rngs=rngs)
        return net.loss(output, batch, jnp.ones(3), params, hyper)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))
    for variance in (0.0, 0.4):
        grads = gradients(params, jnp.float32(variance))
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
        assert all(np.asarray(g).any() for g in jax.tree.leaves(grads[0]))


def test_loss_is_cross_entropy_and_half_the_squares_of_all_kernels():
    net, params, run = trained_like("proposed")
    batch = make_batch()
    output = run(params, batch)
    squares = 0.0
    for name in ("dense_0", "dense_1", "dense_2", "score", "classifier"):
        squares += (np.asarray(params[name]["kernel"], np.float64) ** 2).sum()
    for name in ("bilstm", "attention_bilstm"):
        for kernel in ("input_kernel", "kernel"):
            squares += (np.asarray(params[name][kernel], np.float64) ** 2).sum()
    weights = jnp.array([2.0, 0.5, 1.0])
    found = net.loss(output, batch, weights, params, HYPER)
    expected = float(cross_entropy(output, batch, weights)) + 0.05 * 0.5 * squares
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_noise_has_the_given_variance_on_valid_steps_only():
    x = jnp.full((40, 50, 30), 3.0)
    mask = jnp.arange(50) < jnp.arange(11, 51)[:, None]
    noisy = jax.jit(
        lambda variance, key: WhiteNoise().apply({}, x, mask, variance, train=True, rngs={"dropout": key})
    )
    noise = np.asarray(noisy(jnp.float32(0.4), jax.random.key(0))) - 3
    valid = noise[np.asarray(mask)]  # [1220, 30]
    assert valid.mean() == pytest.approx(0, abs=0.01)
    assert valid.var() == pytest.approx(0.4, rel=0.02)
    assert np.abs(np.corrcoef(valid[:-1, 0], valid[1:, 0])[0, 1]) < 0.1  # white: from frame to frame
    assert np.abs(np.corrcoef(valid[:, 0], valid[:, 1])[0, 1]) < 0.1  # and from feature to feature
    assert not noise[~np.asarray(mask)].any()
    np.testing.assert_array_equal(noisy(jnp.float32(0), jax.random.key(0)), x)
    other = np.asarray(noisy(jnp.float32(0.4), jax.random.key(1))) - 3
    assert np.abs(np.corrcoef(valid.ravel(), other[np.asarray(mask)].ravel())[0, 1]) < 0.02
    np.testing.assert_array_equal(WhiteNoise().apply({}, x, mask, 0.4, train=False), x)


@cache
def training():
    """The proposed network's compiled forward pass in training."""
    net, params, _ = trained_like("proposed")

    def run(hyper, key):
        return net.apply({"params": params}, make_batch(), hyper, train=True, rngs={"dropout": key})

    return jax.jit(run)


def test_noise_and_dropout_act_in_training_only():
    _, params, evaluate = trained_like("proposed")
    trained = lambda hyper, key: training()(hyper, key).log_probs  # noqa: E731
    quiet = {name: jnp.float32(0) for name in HYPER}
    key, other = jax.random.split(jax.random.key(0))
    expected = evaluate(params, make_batch()).log_probs
    np.testing.assert_allclose(trained(quiet, key), expected, rtol=1e-6, atol=1e-6)
    for name in ("dropout_rate", "noise_variance"):
        hyper = quiet | {name: HYPER[name]}
        assert np.abs(trained(hyper, key) - trained(quiet, key)).max() > 1e-3
        assert np.abs(trained(hyper, key) - trained(hyper, other)).max() > 1e-3


def test_no_dropout_within_the_attention_model():
    """If all of its inputs are dropped, the attention model still keeps its own values."""
    hyper = HYPER | {"noise_variance": jnp.float32(0), "dropout_rate": jnp.float32(0.999999)}
    first, second = (
        training()(hyper, jax.random.key(n)).attention["pooling_audio"].weights for n in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert np.ptp(np.asarray(first[1])) > 1e-3


def count(**fields) -> int:
    """The number of parameters at the paper's size, for 32 descriptors."""
    net = LSTMAttention(num_classes=4, **fields)
    batch = make_batch()._replace(audio=jax.ShapeDtypeStruct((4, 12, 32), jnp.float32))
    init = lambda key, batch: net.init(key, batch, HYPER, train=False)  # noqa: E731
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init, jax.random.key(0), batch)))


def test_number_of_parameters():
    """By hand:

    dense         32 * 256 + 256 = 8,448 and twice 256 * 256 + 256 = 65,792
    BiLSTM        2 directions of 4 * 128 * (256 + 128) weights and 2 * 4 * 128 biases: 395,264
    classifier    256 * 4 + 4 = 1,028
    attention     Zhou: w, 256; Yang: 256 * 128 + 128 + 128 = 33,024; proposed: 395,264 and w, 256
    """
    baseline = 8_448 + 2 * 65_792 + 395_264 + 1_028
    assert count(pooling="mean") == baseline
    assert count(pooling="zhou") == baseline + 256
    assert count(pooling="yang") == baseline + 33_024
    assert count() == baseline + 395_264 + 256


@pytest.mark.parametrize(("field", "value"), [("pooling", "max"), ("pool_from", "second")])
def test_unknown_choices_are_reported(field, value):
    with pytest.raises(FieldError, match=f"{field}='{value}' is not one of m"):
        network(**{field: value}).init(jax.random.key(0), make_batch(), HYPER, train=False)


@pytest.mark.parametrize(
    ("dataset", "rate"), [("demo", 3e-4), ("ravdess", 3e-4), ("emodb", 3e-4), ("iemocap", 3e-5)]
)
def test_a_learning_rate_other_than_the_papers_is_noted(dataset, rate):
    found = config.get_config(dataset)
    assert found.hyper.learning_rate == rate
    assert ("learning rate 3e-4" in found.note) == (rate == 3e-4)
    assert "1e-3" not in found.note
    assert ("L2 5e-4" in found.note) == (found.hyper.l2 != 0.05) == (dataset != "iemocap")
