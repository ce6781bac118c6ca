"""Self, Cross and their combinations against their equations in numpy, and their invariants."""

from functools import cache
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.models.self_cross import SelfCross, statistical_pooling
from jaxser.types import Batch, FieldError
from references import self_cross as reference

AUDIO, VIDEO, WORDS = np.array([9, 4, 1]), np.array([2, 3, 1]), np.array([3, 1, 5])
HYPER = {"dropout_rate": jnp.float32(0.3), "text_dropout_rate": jnp.float32(0.3)}
SIZES = {
    "hidden_size": 4,
    "num_heads": 2,
    "classifier_size": 5,
    "audio_length": 9,
    "audio_steps": 6,
    "video_length": 4,
    "video_steps": 3,
    "words_length": 7,
}
T, V, A = "text", "video", "audio"
PAIRS = {"tv": (T, V), "ta": (T, A), "va": (V, A)}
VARIANTS = {
    "self": {},
    "cross": {"attention": ("cross",)},
    "self_no_sp": {"statistics": False},
    "cross_no_sp": {"attention": ("cross",), "statistics": False},
    "cross_self": {"attention": ("cross", "self")},
    **{
        f"{kind}_{n}": {"attention": (kind,), "modalities": m}
        for kind in ("self", "cross")
        for n, m in PAIRS.items()
    },
    **{f"self_{m[0]}": {"modalities": (m,)} for m in (T, V, A)},
    "masked": {"attention": ("cross", "self"), "as_published": False},
    "masked_t": {"modalities": (T,), "as_published": False},
    "ordered_va": {"modalities": (V, A), "as_published": False},
    "relu": {"relu_in_classifier": True, "modalities": (T,)},
}


def make_batch(rubbish=0.0) -> Batch:
    """Three utterances, padded to the network's lengths."""
    rng = np.random.default_rng(0)

    def frames(length, steps, width):
        mask = np.arange(steps) < length[:, None]
        values = rng.normal(size=(3, steps, width))
        return jnp.array(np.where(mask[..., None], values, rubbish * values), jnp.float32), jnp.array(mask)

    (audio, audio_mask), (video, video_mask) = frames(AUDIO, 9, 5), frames(VIDEO, 4, 8)
    words_mask = np.arange(7) < WORDS[:, None]
    words = np.where(words_mask, rng.integers(1, 12, (3, 7)), int(rubbish))
    return Batch(
        label=jnp.array([0, 2, 1]),
        weight=jnp.ones(3),
        audio=audio,
        audio_mask=audio_mask,
        video=video,
        video_mask=video_mask,
        words=jnp.array(words),
        words_mask=jnp.array(words_mask),
        embeddings=jnp.array(np.random.default_rng(1).normal(size=(12, 6)), jnp.float32),
    )


def model(variant: str, **fields) -> SelfCross:
    return SelfCross(num_classes=3, **(SIZES | VARIANTS[variant] | fields))


@cache
def trained_like(variant: str):
    """A network of the variant, random parameters (biases included), and its compiled evaluation."""
    net = model(variant)
    shapes = jax.eval_shape(lambda key: net.init(key, make_batch(), HYPER, train=False), jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: jnp.array(rng.normal(size=p.shape) * 0.5, jnp.float32), shapes["params"])
    return (
        net,
        params,
        jax.jit(lambda params, batch: net.apply({"params": params}, batch, HYPER, train=False)),
    )


@cache
def gradient():
    """The compiled gradient of the loss, with dropout, for the network with all nine attention modules."""
    net, _, _ = trained_like("masked")

    def loss(params, batch):
        output = net.apply({"params": params}, batch, HYPER, train=True, rngs={"dropout": jax.random.key(0)})
        return net.loss(output, batch, jnp.ones(3), params, HYPER)

    return jax.jit(jax.grad(loss))


def utterance(net, batch, n):
    """The inputs of one utterance in float64; padded words are included as published only."""
    inputs = {
        "text": np.where(batch.words_mask[n][:, None], batch.embeddings[batch.words[n]], 0),
        "video": np.where(batch.video_mask[n][:, None], batch.video[n], 0),
        "audio": np.where(batch.audio_mask[n][:, None], batch.audio[n], 0),
    }
    if not net.as_published:
        inputs["text"] = inputs["text"][: WORDS[n]]
    return {m: np.asarray(inputs[m], np.float64) for m in net.modalities}


@pytest.mark.parametrize("variant", VARIANTS)
def test_equations(variant):
    net, params, run = trained_like(variant)
    batch = make_batch()
    found = run(params, batch).log_probs
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for n in range(3):
        expected = reference.self_cross(utterance(net, batch, n), params, net)
        np.testing.assert_allclose(found[n], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["cross_self", "masked"])
def test_contents_of_the_padding_do_not_change_predictions(variant):
    _, params, run = trained_like(variant)
    np.testing.assert_array_equal(run(params, make_batch(3.0)).log_probs, run(params, make_batch()).log_probs)


def test_padded_words_take_part_as_published_only():
    """Two more padded words change the result, unless they are masked."""
    for variant, counts in (("self_t", True), ("masked_t", False)):
        _, params, run = trained_like(variant)
        batch = make_batch()
        longer = batch._replace(
            words=jnp.pad(batch.words, ((0, 0), (0, 2))),
            words_mask=jnp.pad(batch.words_mask, ((0, 0), (0, 2))),
        )
        change = np.abs(run(params, longer).log_probs - run(params, batch).log_probs).max()
        assert change > 1e-3 if counts else change < 1e-5, variant


@pytest.mark.parametrize("name", ["audio", "video", "words"])
def test_a_fully_masked_modality_is_finite(name):
    batch = tiny.masked(make_batch(), name)
    for variant in ("cross_self", "masked"):
        _, params, run = trained_like(variant)
        assert np.isfinite(run(params, batch).log_probs).all()
    assert tiny.all_finite(gradient()(params, batch))


def test_statistical_pooling():
    x = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    mean, deviation = statistical_pooling(jnp.array(x))
    np.testing.assert_allclose(mean, x.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(deviation, x.std(1, ddof=1), rtol=1e-5)


def test_equal_vectors_have_a_finite_gradient():
    x = jnp.ones((2, 3, 5)) * jnp.arange(5.0)
    mean, deviation = statistical_pooling(x)
    np.testing.assert_array_equal(mean, x[:, 0])
    np.testing.assert_allclose(deviation, 1e-6, rtol=1e-3)
    slope = jax.grad(lambda x: statistical_pooling(x)[1].sum())(x)
    np.testing.assert_array_equal(slope, jnp.zeros_like(x))


def test_as_published_deviations_precede_means():
    """Without words to mask, swapping the halves of the first layer's rows turns one order into the other."""
    _, params, run = trained_like("self_va")
    kernel = params["hidden"]["kernel"]
    turned = params | {"hidden": params["hidden"] | {"kernel": jnp.roll(kernel, len(kernel) // 2, axis=0)}}
    _, _, ordered = trained_like("ordered_va")
    batch = make_batch()
    np.testing.assert_allclose(
        ordered(turned, batch).log_probs, run(params, batch).log_probs, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("variant", ["cross_self", "masked"])
def test_attention_is_a_distribution_over_the_source(variant):
    net, params, run = trained_like(variant)
    batch = make_batch()
    attention = run(params, batch).attention
    names = {f"{a}_to_{b}" for a in net.modalities for b in net.modalities if a != b}
    assert set(attention) == names | {f"self_{m}" for m in net.modalities}
    for name, found in attention.items():
        weights = found.weights
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        if name.startswith("text") and not net.as_published:
            padded = np.broadcast_to(~batch.words_mask[:, None], weights.shape)
            assert not np.asarray(weights)[padded].any()


def test_every_parameter_is_trained():
    _, params, _ = trained_like("masked")
    for path, slope in jax.tree_util.tree_leaves_with_path(gradient()(params, make_batch())):
        if "'key']['bias']" not in jax.tree_util.keystr(path):  # adds the same to all scores
            assert np.abs(slope).max() > 1e-7, path


def test_dropout_is_applied_to_weights_and_words():
    net, params, run = trained_like("self_t")
    batch = make_batch()

    @jax.jit
    def train(key, rate, text_rate):
        hyper = {"dropout_rate": rate, "text_dropout_rate": text_rate}
        return net.apply({"params": params}, batch, hyper, train=True, rngs={"dropout": key}).log_probs

    zero, rate = jnp.float32(0), jnp.float32(0.4)
    np.testing.assert_allclose(train(jax.random.key(0), zero, zero), run(params, batch).log_probs, rtol=1e-5)
    for rates in ((rate, zero), (zero, rate)):
        one, again, other = (train(jax.random.key(seed), *rates) for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, again)
        assert np.abs(one - other).max() > 1e-3


def count(**fields) -> int:
    """The number of parameters at the paper's size."""
    net = SelfCross(num_classes=7, **fields)
    shapes = {"audio": (1000, 120), "video": (32, 2048), "words": (128,)}
    dtypes = {"audio": jnp.float32, "video": jnp.float32, "words": jnp.int32}
    arrays = {name: jax.ShapeDtypeStruct((2, *shape), dtypes[name]) for name, shape in shapes.items()}
    masks = {f"{name}_mask": jax.ShapeDtypeStruct((2, shape[0]), bool) for name, shape in shapes.items()}
    batch = Batch(
        label=jax.ShapeDtypeStruct((2,), jnp.int32),
        weight=jax.ShapeDtypeStruct((2,), jnp.float32),
        embeddings=jax.ShapeDtypeStruct((9, 300), jnp.float32),
        **arrays,
        **masks,
    )
    made = jax.eval_shape(
        lambda key, batch: net.init(key, batch, HYPER, train=False), jax.random.key(0), batch
    )
    return sum(leaf.size for leaf in jax.tree.leaves(made["params"]))


def test_number_of_parameters():
    """By hand, d = 60 in each direction:

    convolutions  audio 1000 * 500 + 500 = 500,500; video 32 * 25 + 25 = 825 (as a comment of the published code says)
    bi-GRU        2 (3 d (in + d) + 2 * 3 d): text, in = 300: 130,320; video, 2048: 759,600; audio, 120: 65,520
    attention     4 (120 * 120 + 120) = 58,080 a module
    classifier    n * 60 + 60 + 60 * 7 + 7 = 487 + 60 n for n features
    """
    of = {T: 130_320, V: 825 + 759_600, A: 500_500 + 65_520}
    everything, module = sum(of.values()), 58_080
    classifier = lambda n: 487 + 60 * n  # noqa: E731
    assert count() == everything + 3 * module + classifier(240)
    assert count(attention=("cross",)) == everything + 6 * module + classifier(240)
    assert count(statistics=False) == everything + 3 * module + classifier(360)
    assert count(attention=("cross",), statistics=False) == everything + 6 * module + classifier(720)
    assert count(attention=("cross", "self")) == everything + 9 * module + classifier(480)
    for pair in combinations((T, V, A), 2):
        for kind in ("self", "cross"):
            expected = sum(of[m] for m in pair) + 2 * module + classifier(240)
            assert count(attention=(kind,), modalities=pair) == expected
    for m in (T, V, A):
        assert count(modalities=(m,)) == of[m] + module + classifier(120)
    assert count(modalities=(T,), train_embeddings=True) == of[T] + module + classifier(120) + 9 * 300


def test_the_network_requires_fixed_lengths():
    assert SelfCross(7).lengths == {"words": 128, "video": 32, "audio": 1000}
    assert SelfCross(7, modalities=(A,), audio_length=300).lengths == {"audio": 300}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": ("sideways",)}, r"attention=\('sideways',\) may contain only self, and cross"),
        ({"attention": ("cross",), "modalities": (A,)}, "cross if there are several modalities"),
        ({"num_heads": 3}, "num_heads=3 does not divide the 8 features"),
    ],
)
def test_unsupported_fields_are_reported(fields, message):
    net = model("self", **fields)
    with pytest.raises(FieldError, match=message):
        jax.eval_shape(lambda key: net.init(key, make_batch(), HYPER, train=False), jax.random.key(0))
