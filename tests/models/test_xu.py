"""Learned alignment: the published network against its source in numpy, Lee's form, dropout, and sizes."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.config import build_model, resolve
from jaxser.configs import mcsan
from jaxser.models.xu import DROPOUT_LAYERS, Xu
from jaxser.types import Batch, FieldError
from references import layers as reference
from references import xu as reference_xu

FRAMES, WORDS = np.array([9, 6, 1, 4]), np.array([3, 5, 1, 2])
HYPER = {"dropout_rate": jnp.float32(0.5)}
NETWORKS = {
    "published": Xu(3, hidden_size=4, num_heads=2, speech_dense=7, as_published=True),
    "masked": Xu(3, hidden_size=4, num_heads=2, speech_dense=7),
    "lee": Xu(3, hidden_size=4, num_heads=4, cell="lstm", dropout_after=("encoders", "fusion")),
}


def make_batch(padding=0, seed=0, rubbish=True) -> Batch:
    """Four utterances with arbitrary values in the padding, or zeros as in training; `padding` adds steps."""
    rng = np.random.default_rng(seed)
    frames, words = FRAMES.max() + padding, WORDS.max() + padding
    audio_mask, words_mask = (np.arange(n) < m[:, None] for n, m in ((frames, FRAMES), (words, WORDS)))
    audio = rng.normal(size=(4, 40, 6))[:, :frames]
    tokens = rng.integers(1, 12, (4, 40))[:, :words]
    if not rubbish:
        audio, tokens = audio * audio_mask[..., None], tokens * words_mask
    return Batch(
        label=jnp.array([0, 1, 2, 1]),
        weight=jnp.ones(4),
        audio=jnp.array(audio, jnp.float32),
        audio_mask=jnp.array(audio_mask),
        words=jnp.array(tokens),
        words_mask=jnp.array(words_mask),
        embeddings=jnp.array(np.random.default_rng(3).normal(size=(12, 5)), jnp.float32),
    )


@cache
def prepared(name):
    """A network, random parameters, and its compiled evaluation."""
    return NETWORKS[name], *tiny.prepared(NETWORKS[name], make_batch(), HYPER)


def source_variables(params):
    """The parameters as variables of the source, whose gates are in another order (z, r, h)."""

    def gru(own, d):
        def reordered(columns):
            r, z, h = np.split(columns, 3, axis=-1)
            return np.concatenate([z, r, h], axis=-1)

        return tuple(
            map(reordered, (own["input_kernel"][d], own["kernel"][d], own["input_bias"][d] + own["bias"][d]))
        )

    def bidirectional(name):
        return {"forward": gru(params[name], 0), "backward": gru(params[name], 1)}

    names = {"wq": "query", "wk": "key", "wv": "value", "dense": "out"}
    return {
        "embedding": params["WordEmbedding_0"]["table"],
        "speech_dense": params["speech_dense"],
        "text_encoder": bidirectional("text_encoder"),
        "speech_encoder": bidirectional("audio_encoder"),
        "align_attention": {theirs: params["alignment"][ours] for theirs, ours in names.items()},
        "align_encoder": bidirectional("fusion"),
        "align_attention_pooling": {
            "W": params["attention_dense"]["kernel"],
            "b": params["attention_dense"]["bias"],
            "att_context_v": params["score"]["kernel"][:, 0],
        },
        "final_dense": params["classifier"],
    }


def in_float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def test_the_published_network_equals_its_source_on_padded_batches():
    """Padding is read by the encoders and the alignment, and masked in the attention over words."""
    net, params, run = prepared("published")
    batch = make_batch(2, rubbish=False)
    found = run(params, batch)
    audio, words = np.asarray(batch.audio, np.float64), np.asarray(batch.words)
    variables = source_variables(in_float64(params))
    expected = reference_xu.align_class_model(audio, words, variables, net.num_heads)
    np.testing.assert_allclose(found.logits["fused"], expected, rtol=1e-5, atol=1e-5)
    for n in range(4):
        np.testing.assert_allclose(np.exp(found.log_probs[n]), reference.softmax(expected[n]), atol=1e-5)
    assert (np.asarray(found.attention["alignment"].weights) > 0).all()
    pooling = np.asarray(found.attention["pooling_words"].weights)
    np.testing.assert_array_equal(pooling > 0, batch.words_mask)
    fewer = run(params, make_batch(rubbish=False)).log_probs
    assert (np.abs(fewer - found.log_probs).max(1) > 1e-4).all()


def test_the_variant_is_the_published_network():
    config = mcsan.get_config("iemocap")
    config.variant = "xu_delta"
    config = resolve(config)
    net = build_model(config, 4)
    assert net.lengths == {"audio": 700, "words": 100}
    assert (net.speech_dense, net.join_text, net.cell, net.num_heads) == (512, True, "gru_keras", 8)
    assert "fusion" not in net.dropout_after
    assert set(net.dropout_after) == set(DROPOUT_LAYERS) - {"fusion"}
    assert (config.hyper.dropout_rate, config.normalise, config.batch_size, config.epochs) == (
        0.5,
        "none",
        64,
        150,
    )
    assert (config.optimizer.clip, config.optimizer.clip_limit) == ("global_norm", 3.0)


def test_without_padding_masks_change_nothing():
    """The masked network of a single utterance without padding is the published one."""
    net, params, run = prepared("published")
    batch = make_batch()
    whole = batch._replace(
        audio_mask=jnp.ones_like(batch.audio_mask), words_mask=jnp.ones_like(batch.words_mask)
    )
    masked = jax.jit(
        lambda params: net.clone(as_published=False).apply({"params": params}, whole, HYPER, train=False)
    )
    np.testing.assert_allclose(masked(params).log_probs, run(params, whole).log_probs, rtol=1e-5, atol=1e-6)


def test_lees_form_equals_its_loop():
    net, params, run = prepared("lee")
    batch = make_batch()
    found, params = run(params, batch), in_float64(params)
    for n in range(4):
        audio = np.asarray(batch.audio[n, : FRAMES[n]], np.float64)
        vectors = params["WordEmbedding_0"]["table"][batch.words[n, : WORDS[n]]]
        expected = reference_xu.lee_xu(audio, vectors, params, net.num_heads)
        np.testing.assert_allclose(found.logits["fused"][n], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["masked", "lee"])
def test_padding_does_not_change_predictions(name):
    _, params, run = prepared(name)
    found, padded = run(params, make_batch()), run(params, make_batch(3))
    np.testing.assert_allclose(padded.log_probs, found.log_probs, rtol=1e-5, atol=1e-5)
    for weights, valid in (("alignment", FRAMES), ("pooling_words", WORDS)):
        weights = np.moveaxis(np.asarray(padded.attention[weights].weights), -1, 1)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
        assert not weights[np.arange(weights.shape[1]) >= valid[:, None]].any()


def test_words_act_through_their_states_too():
    """A single frame of speech leaves no choice of alignment, but the states of the words are joined to it."""
    for joined in (True, False):
        net, params, _ = prepared("masked")
        if not joined:  # as in the first version of the toolkit, 12f4aff
            net = net.clone(join_text=False)
            params = tiny.prepared(net, make_batch(), HYPER)[0]
        run = jax.jit(
            lambda batch, net=net, params=params: net.apply({"params": params}, batch, HYPER, train=False)
        )
        batch = make_batch()
        other = batch._replace(words=jnp.where(batch.words == 1, 2, 1))
        change = np.abs(run(batch).log_probs - run(other).log_probs).max(1)
        assert (change[2] > 1e-4) == joined  # the utterance of one frame
        assert (change[[0, 1, 3]] > 1e-4).all()


def test_every_parameter_is_trained_and_masked_utterances_are_finite():
    """Gradients stay finite if a modality or a whole utterance is masked."""
    net, params, _ = prepared("lee")
    gradient = tiny.gradient(net, HYPER)
    for path, g in jax.tree_util.tree_leaves_with_path(gradient(params, make_batch())):
        is_key_bias = "alignment']['key']['bias" in jax.tree_util.keystr(path)  # adds the same to all scores
        assert (np.abs(g).max() > 1e-6) != is_key_bias, path
    for chosen in (("audio",), ("words",), ("audio", "words")):
        assert tiny.all_finite(gradient(params, tiny.masked(make_batch(), *chosen))), chosen


@pytest.mark.parametrize(("layer", "number"), [*zip(DROPOUT_LAYERS, (1, 1, 2, 1, 1, 1, 1), strict=True)])
def test_dropout_follows_each_layer(layer, number):
    """One draw per layer; there are two encoders."""
    net, params, _ = prepared("masked")

    def draws(net):
        def run(key):
            return net.apply({"params": params}, make_batch(), HYPER, train=True, rngs={"dropout": key})

        return str(jax.make_jaxpr(run)(jax.random.key(0))).count(" random_bits[")

    assert draws(net.clone(dropout_after=())) == 0
    assert draws(net.clone(dropout_after=(layer,))) == number


def test_dropout_after_an_unknown_layer_is_reported():
    with pytest.raises(
        FieldError, match=r"dropout_after=\('words',\) may contain only embedding, speech_dense, encoders"
    ):
        tiny.shapes_of(NETWORKS["masked"].clone(dropout_after=("words",)), make_batch(), HYPER)


def test_dropout_acts_in_training_only():
    net, params, run = prepared("masked")
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

    dense          40 * 512 + 512 = 20,992
    BiGRU          2 * 3 * 100 (in + 100 + 2): of 512 368,400, of words 241,200, of 2 h 301,200
    alignment      4 (h h + h) = 160,800
    pooling        h h + h + h = 40,400; classifier 7 h + 7 = 1,407; table 3,600
    Lee's form, h = 256: BLSTM 2 * 4 * 128 (in + 128 + 2): 174,080, 440,320, of 2 h 657,408;
                   263,168; 66,048; 1,799; 3,600
    """

    def count(net) -> int:
        shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32)  # noqa: E731
        batch = jax.eval_shape(make_batch)._replace(audio=shape(4, 9, 40), embeddings=shape(12, 300))
        return sum(leaf.size for leaf in jax.tree.leaves(tiny.shapes_of(net, batch, HYPER)))

    published = 20_992 + 368_400 + 241_200 + 301_200 + 160_800 + 40_400 + 1_407 + 3_600
    assert count(Xu(7, speech_dense=512)) == published
    lee = Xu(7, hidden_size=128, cell="lstm")
    assert count(lee) == 174_080 + 440_320 + 657_408 + 263_168 + 66_048 + 1_799 + 3_600
