"""MCSAN against its equations in numpy, and its invariants."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.models.losses import cross_entropy
from jaxser.models.mcsan import ARRANGEMENTS, MCSAN
from jaxser.types import Batch, FieldError
from references import layers as reference

FRAMES, WORDS = np.array([31, 40, 9, 18]), np.array([3, 5, 1, 2])
HYPER = {"dropout_rate": jnp.float32(0.2)}
VARIANTS = {
    "parallel": {},
    "audio_only": {"modalities": ("audio",)},
    "text_only": {"modalities": ("text",)},
    **{name: {"arrangement": name} for name in ("cross", "self", "cross_then_self", "self_then_cross")},
    "two_layers": {"num_layers": 2},
    "relu": {"relu_after_conv": True},
}


def make_batch(padding=0, seed=0) -> Batch:
    """Four utterances with arbitrary values in the padding; `padding` adds steps."""
    rng = np.random.default_rng(seed)
    frames, words = FRAMES.max() + 9 * padding, WORDS.max() + padding
    audio = rng.normal(size=(4, 80, tiny.FEATURES)).astype(np.float32)[:, :frames]
    return Batch(
        label=jnp.array([0, 1, 2, 1]),
        weight=jnp.ones(4),
        audio=jnp.array(audio),
        audio_mask=jnp.array(np.arange(frames) < FRAMES[:, None]),
        words=jnp.array(rng.integers(1, 12, (4, 20))[:, :words]),
        words_mask=jnp.array(np.arange(words) < WORDS[:, None]),
        embeddings=jnp.array(rng.normal(size=(12, 5)), jnp.float32),
    )


@cache
def trained_like(variant: str):
    """A network of the variant, random parameters (biases and scales included), and its compiled evaluation."""
    net = tiny.model(**VARIANTS[variant])
    shapes = jax.eval_shape(lambda key: net.init(key, make_batch(), HYPER, train=False), jax.random.key(0))[
        "params"
    ]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: jnp.array(rng.normal(size=p.shape) * 0.5, jnp.float32), shapes)
    run = jax.jit(lambda params, batch: net.apply({"params": params}, batch, HYPER, train=False))
    return net, params, run


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "relu"])
def test_equations(variant):
    net, params, run = trained_like(variant)
    batch = make_batch()
    found = run(params, batch).log_probs
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    chains = ARRANGEMENTS["self" if len(net.modalities) == 1 else net.arrangement]
    for n in range(4):
        audio = np.asarray(batch.audio[n, : FRAMES[n]], np.float64) if "audio" in net.modalities else None
        vectors = np.asarray(batch.embeddings[batch.words[n, : WORDS[n]]], np.float64)
        expected = reference.mcsan(
            audio,
            vectors if "text" in net.modalities else None,
            params,
            chains,
            net.num_layers,
            net.num_heads,
        )
        np.testing.assert_allclose(found[n], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_does_not_change_predictions(variant):
    _, params, run = trained_like(variant)
    np.testing.assert_allclose(
        run(params, make_batch(2)).log_probs, run(params, make_batch()).log_probs, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_weights_sum_to_one_over_valid_positions(variant):
    _, params, run = trained_like(variant)
    batch = make_batch()
    for name, found in run(params, batch).attention.items():
        weights = found.weights
        kind, modality, _ = name.split("_")
        other = {"audio": "text", "text": "audio"}[modality]
        source = modality if kind == "self" else other
        valid = np.asarray(batch.words_mask) if source == "text" else np.arange(4) < FRAMES[:, None] // 9
        valid = valid[:, : weights.shape[-1]]
        np.testing.assert_allclose(np.asarray(weights).sum(-1), 1, atol=1e-5)
        assert not np.asarray(weights)[~np.broadcast_to(valid[:, None, None], weights.shape)].any()


@pytest.mark.parametrize("masked", ["audio", "words"])
def test_a_fully_masked_modality_is_finite(masked):
    net, params, run = trained_like("parallel")
    batch = tiny.masked(make_batch(), masked)
    assert np.isfinite(run(params, batch).log_probs).all()
    loss = lambda p: cross_entropy(net.apply({"params": p}, batch, HYPER, train=False), batch, jnp.ones(3))  # noqa: E731
    assert tiny.all_finite(jax.jit(jax.grad(loss))(params))


def test_training_depends_on_the_key_and_evaluation_does_not():
    net, params, run = trained_like("parallel")
    batch = make_batch()
    train = jax.jit(
        lambda key: net.apply({"params": params}, batch, HYPER, train=True, rngs={"dropout": key}).log_probs
    )
    np.testing.assert_array_equal(run(params, batch).log_probs, run(params, batch).log_probs)
    np.testing.assert_array_equal(train(jax.random.key(0)), train(jax.random.key(0)))
    assert np.abs(train(jax.random.key(0)) - train(jax.random.key(1))).max() > 1e-3


def count(**fields) -> int:
    """The number of parameters at the paper's size, for 40 MFCC and 300-dimensional vectors."""
    net = MCSAN(num_classes=7, **fields)
    batch = jax.eval_shape(lambda: make_batch())._replace(
        audio=jax.ShapeDtypeStruct((4, 40, 40), jnp.float32),
        embeddings=jax.ShapeDtypeStruct((12, 300), jnp.float32),
    )
    shapes = jax.eval_shape(
        lambda key, batch: net.init(key, batch, HYPER, train=False), jax.random.key(0), batch
    )
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def test_number_of_parameters():
    """By hand, d = 128:

    convolutions   3 * 40 * 128 + 128 = 15,488 and 3 * 128 * 128 + 128 = 49,280
    BiLSTM         2 (4 d (in + d) + 2 * 4 d): audio, in = d: 264,192; text, in = 300: 440,320
    a module, for each modality: projections 4 d^2 = 65,536; norms 2 * 2 d = 512;
                   feed-forward 2 * 4 d^2 + 4 d + d = 131,712; together 197,760
    classifier     n d * 128 + 128 + 128 * 7 + 7 for n pooled vectors: 1,031 + 16,384 n
    """
    audio, text, module = 15_488 + 49_280 + 264_192, 440_320, 197_760
    classifier = lambda n: 1_031 + 16_384 * n  # noqa: E731
    assert count() == audio + text + 4 * module + classifier(4)
    assert count(arrangement="cross") == audio + text + 2 * module + classifier(2)
    assert count(arrangement="cross_then_self") == audio + text + 4 * module + classifier(2)
    assert count(num_layers=3) == audio + text + 12 * module + classifier(4)
    assert count(modalities=("audio",)) == audio + module + classifier(1)
    assert count(modalities=("text",)) == text + module + classifier(1)
    assert count(modalities=("text",), train_embeddings=True) == text + module + classifier(1) + 12 * 300


def test_an_unknown_arrangement_is_reported():
    with pytest.raises(FieldError, match="arrangement='sideways' is not one of parallel, cross, self"):
        tiny.model(arrangement="sideways").init(jax.random.key(0), make_batch(), HYPER, train=False)
