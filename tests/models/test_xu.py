"""Learned alignment against its loop in numpy, concatenation with the words, dropout, and sizes."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.models.xu import DROPOUT_LAYERS, Xu
from jaxser.types import Batch, FieldError
from references import layers as reference
from references import yoon as reference_yoon

FRAMES, WORDS = np.array([9, 6, 1, 4]), np.array([3, 5, 1, 2])
HYPER = {"dropout_rate": jnp.float32(0.5)}
NETWORKS = {
    "delta": Xu(3, hidden_size=4, num_heads=2),
    "lee": Xu(
        3, hidden_size=4, num_heads=4, cell="lstm", join_text=True, dropout_after=("encoders", "fusion")
    ),
}


def make_batch(padding=0, seed=0) -> Batch:
    """Four utterances with arbitrary values in the padding; `padding` adds steps."""
    rng = np.random.default_rng(seed)
    frames, words = FRAMES.max() + padding, WORDS.max() + padding
    return Batch(
        label=jnp.array([0, 1, 2, 1]),
        weight=jnp.ones(4),
        audio=jnp.array(rng.normal(size=(4, 40, 6))[:, :frames], jnp.float32),
        audio_mask=jnp.array(np.arange(frames) < FRAMES[:, None]),
        words=jnp.array(rng.integers(1, 12, (4, 40))[:, :words]),
        words_mask=jnp.array(np.arange(words) < WORDS[:, None]),
        embeddings=jnp.array(np.random.default_rng(3).normal(size=(12, 5)), jnp.float32),
    )


@cache
def prepared(name):
    """A network, random parameters, and its compiled evaluation."""
    return NETWORKS[name], *tiny.prepared(NETWORKS[name], make_batch(), HYPER)


@pytest.mark.parametrize("name", NETWORKS)
def test_equations(name):
    net, params, run = prepared(name)
    batch = make_batch()
    found = run(params, batch)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for n in range(4):
        audio = np.asarray(batch.audio[n, : FRAMES[n]], np.float64)
        vectors = params["WordEmbedding_0"]["table"][batch.words[n, : WORDS[n]]]
        expected = reference_yoon.xu(audio, vectors, params, net.num_heads, net.join_text, net.cell)
        np.testing.assert_allclose(found.logits["fused"][n], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.exp(found.log_probs[n]), reference.softmax(expected), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_does_not_change_predictions(name):
    _, params, run = prepared(name)
    found, padded = run(params, make_batch()), run(params, make_batch(3))
    np.testing.assert_allclose(padded.log_probs, found.log_probs, rtol=1e-5, atol=1e-5)
    for weights, valid in (("alignment", FRAMES), ("pooling_words", WORDS)):
        weights = np.moveaxis(np.asarray(padded.attention[weights].weights), -1, 1)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
        assert not weights[np.arange(weights.shape[1]) >= valid[:, None]].any()


def test_without_join_text_words_act_through_their_alignment_only():
    """A single frame of speech leaves no choice of alignment, so that the words do not change DELTA's output."""
    for name, hears in (("delta", False), ("lee", True)):
        _, params, run = prepared(name)
        batch = make_batch()
        other = batch._replace(words=jnp.where(batch.words == 1, 2, 1))
        change = np.abs(run(params, batch).log_probs - run(params, other).log_probs).max(1)
        assert (change[2] > 1e-4) == hears  # the utterance of one frame
        assert (change[[0, 1, 3]] > 1e-4).all()


def test_every_parameter_is_trained_and_masked_utterances_are_finite():
    """Gradients stay finite if a modality or a whole utterance is masked."""
    net, params, _ = prepared("lee")
    batch = make_batch()

    @jax.jit
    def gradient(batch):
        def loss(params):
            output = net.apply({"params": params}, batch, HYPER, train=False)
            return net.loss(output, batch, jnp.ones(3), params, HYPER)

        return jax.grad(loss)(params)

    for path, g in jax.tree_util.tree_leaves_with_path(gradient(batch)):
        is_key_bias = "alignment']['key']['bias" in jax.tree_util.keystr(path)  # adds the same to all scores
        assert (np.abs(g).max() > 1e-6) != is_key_bias, path
    for chosen in (("audio_mask",), ("words_mask",), ("audio_mask", "words_mask")):
        masked = batch._replace(**{name: jnp.zeros_like(getattr(batch, name)) for name in chosen})
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient(masked))), chosen


@pytest.mark.parametrize(("layer", "number"), [*zip(DROPOUT_LAYERS, (1, 2, 1, 1, 1), strict=True)])
def test_dropout_follows_each_layer(layer, number):
    """One draw per layer; there are two encoders."""
    net, params, _ = prepared("delta")

    def draws(net):
        def run(key):
            return net.apply({"params": params}, make_batch(), HYPER, train=True, rngs={"dropout": key})

        return str(jax.make_jaxpr(run)(jax.random.key(0))).count(" random_bits[")

    assert draws(net.clone(dropout_after=())) == 0
    assert draws(net.clone(dropout_after=(layer,))) == number


def test_dropout_after_an_unknown_layer_is_reported():
    with pytest.raises(FieldError, match=r"dropout_after=\('words',\) may contain only embedding, encoders"):
        tiny.shapes_of(NETWORKS["delta"].clone(dropout_after=("words",)), make_batch(), HYPER)


def test_dropout_acts_in_training_only():
    net, params, run = prepared("delta")
    train = jax.jit(
        lambda rate: (
            net.apply(
                {"params": params},
                make_batch(),
                {"dropout_rate": rate},
                train=True,
                rngs={"dropout": jax.random.key(0)},
            ).log_probs
        )
    )
    evaluated = run(params, make_batch()).log_probs
    np.testing.assert_allclose(train(jnp.float32(0)), evaluated, rtol=1e-5, atol=1e-6)
    assert np.abs(train(jnp.float32(0.5)) - evaluated).max() > 1e-3


def test_number_of_parameters():
    """By hand, 40 MFCC, 300-dimensional vectors of 12 words, 7 classes; h = 2 * 100 = 200 states of a BiGRU.

    BiGRU          2 * 3 * 100 (in + 100 + 2): of 40 MFCC 85,200, of words 241,200, of h 181,200
    alignment      4 (h h + h) = 160,800
    pooling        h h + h + h = 40,400; classifier 7 h + 7 = 1,407; table 3,600
    Lee's form, h = 256: BLSTM 2 * 4 * 128 (in + 128 + 2): 174,080, 440,320, of 2 h 657,408;
                   263,168; 66,048; 1,799; 3,600
    """

    def count(net) -> int:
        shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32)  # noqa: E731
        batch = jax.eval_shape(make_batch)._replace(audio=shape(4, 9, 40), embeddings=shape(12, 300))
        return sum(leaf.size for leaf in jax.tree.leaves(tiny.shapes_of(net, batch, HYPER)))

    assert count(Xu(7)) == 85_200 + 241_200 + 181_200 + 160_800 + 40_400 + 1_407 + 3_600
    lee = Xu(7, hidden_size=128, cell="lstm", join_text=True)
    assert count(lee) == 174_080 + 440_320 + 657_408 + 263_168 + 66_048 + 1_799 + 3_600
