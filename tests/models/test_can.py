"""CAN against its equations in numpy, its stop-gradient, and packed word segments."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.layers.segments import first_frames, mean_by_word, word_of_frame
from jaxser.models.can import BLSTM, CAN, CrossAttention
from jaxser.types import Batch, FieldError
from references import can as reference_can

SEGMENTS = ((4, 1, 6), (3,), (2, 5, 1, 3, 2))  # frames of each word of three utterances
WORDS, FRAMES, FEATURES = 6, 17, 5  # with at least one padded word and four padded frames
LABEL = np.array([2, 0, 1])
VARIANTS = {
    "can": {},
    "full": {"head_form": "full"},
    "no_stop_gradient": {"stop_gradient": False},
    "no_align_loss": {"align_loss": False},
    "no_cross_attention": {"cross_attention": False, "align_loss": False, "stop_gradient": False},
}


def hyper(alpha=0.3, dropout_rate=0.0):
    return {"alpha": jnp.float32(alpha), "dropout_rate": jnp.float32(dropout_rate)}


@cache
def make_batch() -> Batch:
    """A batch with arbitrary values in the padding."""
    rng = np.random.default_rng(0)
    words = np.array([len(own) for own in SEGMENTS])
    lengths = rng.integers(-9, 9, (3, WORDS))
    for n, own in enumerate(SEGMENTS):
        lengths[n, : len(own)] = own
    words_mask = jnp.array(np.arange(WORDS) < words[:, None])
    frames = np.array([sum(own) for own in SEGMENTS])
    return Batch(
        label=jnp.array(LABEL),
        weight=jnp.ones(3),
        segments=jnp.array(rng.normal(size=(3, FRAMES, FEATURES)), jnp.float32),
        segments_mask=jnp.array(np.arange(FRAMES) < frames[:, None]),
        segment_lengths=jnp.array(lengths),
        segment_lengths_mask=words_mask,
        words=jnp.array(rng.integers(1, 12, (3, WORDS))),
        words_mask=words_mask,
        embeddings=jnp.array(rng.normal(size=(12, 7)), jnp.float32),
    )


def random_params(module, *arguments, seed=1, **keywords):
    """Random parameters, including biases and queries."""
    init = lambda key: module.init(key, *arguments, **keywords)["params"]  # noqa: E731
    shapes = jax.eval_shape(init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.array(rng.normal(size=p.shape) * 0.5, jnp.float32), shapes)


@cache
def network(variant: str):
    """A network of the variant, random parameters, and its compiled output and loss."""
    net = CAN(num_classes=3, hidden_size=6, num_heads=3, **VARIANTS[variant])
    params = random_params(net, make_batch(), hyper(), train=False)

    @jax.jit
    def run(params, hyper, class_weights):
        output = net.apply({"params": params}, make_batch(), hyper, train=False)
        return output, net.loss(output, make_batch(), class_weights, params, hyper)

    return net, params, run


def words_of(n: int):
    """Frames of each word of utterance n."""
    return np.split(
        np.asarray(make_batch().segments[n, : sum(SEGMENTS[n])], np.float64), np.cumsum(SEGMENTS[n])[:-1]
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_equations(variant):
    net, params, run = network(variant)
    found, loss = run(params, hyper(), jnp.ones(3))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    losses = []
    for n, own in enumerate(SEGMENTS):
        vectors = params["WordEmbedding_0"]["table"][make_batch().words[n, : len(own)]]
        y, final, weights = reference_can.can(
            words_of(n), vectors, params, 0.3, net.head_form, net.cross_attention, net.align_loss
        )
        np.testing.assert_allclose(found.log_probs[n], np.log(final), rtol=1e-5, atol=1e-5)
        assert found.logits.keys() == y.keys()
        for name, expected in y.items():
            np.testing.assert_allclose(jax.nn.softmax(found.logits[name][n]), expected, rtol=1e-4, atol=1e-6)
        for name, alpha in found.attention.items():
            expected = weights[name.split("_on_")[0]]
            np.testing.assert_allclose(alpha.weights[n, :, : len(own)], expected, rtol=1e-4, atol=1e-6)
            assert not alpha.weights[n, :, len(own) :].any()
        losses.append(reference_can.can_loss(y, LABEL[n], 0.3))
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


def test_names_of_the_contexts():
    assert network("can")[2](network("can")[1], hyper(), jnp.ones(3))[0].attention.keys() == {
        "text_on_text",
        "text_on_audio",
        "audio_on_audio",
        "audio_on_text",
    }
    _, params, run = network("no_cross_attention")
    assert run(params, hyper(), jnp.ones(3))[0].attention.keys() == {"text_on_text", "audio_on_audio"}
    assert params["fused"]["kernel"].shape == (2 * 12, 3)


def test_alpha_weights_the_alignment_loss_and_the_product():
    _, params, run = network("can")
    (without, fused), (output, total) = (run(params, hyper(alpha), jnp.ones(3)) for alpha in (0.0, 0.7))
    each = {name: -jax.nn.log_softmax(scores)[np.arange(3), LABEL] for name, scores in output.logits.items()}
    align = each["text"] + each["audio"]  # eq. 13
    np.testing.assert_allclose(fused, each["fused"].mean(), rtol=1e-5)
    np.testing.assert_allclose(total - fused, 0.7 * align.mean(), rtol=1e-4)
    class_weights = jnp.array([2.0, 0.0, 5.0])
    expected = (class_weights[LABEL] * (each["fused"] + 0.7 * align)).mean()
    np.testing.assert_allclose(run(params, hyper(0.7), class_weights)[1], expected, rtol=1e-5)
    np.testing.assert_allclose(without.log_probs, jax.nn.log_softmax(output.logits["fused"]), atol=1e-6)
    assert np.abs(without.log_probs - output.log_probs).max() > 0.01


def test_without_the_alignment_loss_alpha_is_zero_in_both():
    _, params, run = network("no_align_loss")
    assert not {"text", "audio"} & params.keys()
    output, loss = run(params, hyper(0.7), jnp.ones(3))
    _, more, run_with = network("can")
    expected, fused = run_with({**more, **params}, hyper(0.0), jnp.ones(3))
    np.testing.assert_allclose(output.log_probs, expected.log_probs, atol=1e-6)
    np.testing.assert_allclose(loss, fused, rtol=1e-6)


@pytest.mark.parametrize("form", ["slice", "full"])
@pytest.mark.parametrize("cut", [True, False])
def test_stop_gradient_cuts_the_weights_of_cross_attention(cut, form):
    """With it, no gradient reaches the query and the states behind the weights; without it, some does."""
    attend = CrossAttention(num_heads=2, head_form=form, crossed=True, stop_gradient=cut)
    rng = np.random.default_rng(2)
    states = {m: jnp.array(rng.normal(size=(2, 4, 6)), jnp.float32) for m in ("text", "audio")}
    masks = dict.fromkeys(states, jnp.array([[True] * 4, [True, True, False, False]]))
    params = random_params(attend, states, masks)

    def squares(params, states):
        contexts, _ = attend.apply({"params": params}, states, masks)
        return {name: (c * c).sum() for name, c in contexts.items()}

    gradients = jax.jit(jax.jacrev(squares, argnums=(0, 1)))(params, states)
    for by, of in (("text", "audio"), ("audio", "text")):
        own, _ = gradients[f"{by}_on_{by}"]
        crossed, by_states = gradients[f"{by}_on_{of}"]
        assert own[f"{by}_attention"]["query"].any()
        assert crossed[f"{by}_attention"]["query"].any() == (not cut)
        assert not crossed[f"{of}_attention"]["query"].any()
        assert by_states[by].any() == (not cut)
        assert by_states[of].any()


@pytest.mark.parametrize("variant", ["can", "no_stop_gradient"])
def test_text_gets_no_gradient_from_the_audio_that_it_attends_to(variant):
    """If only c(TA) reaches the loss, the text encoder and its query get no gradient in the whole network."""
    net, params, _ = network(variant)
    rows = jnp.arange(4 * 12)[:, None]
    only_ta = jnp.where((rows >= 12) & (rows < 24), params["fused"]["kernel"], 0)  # eq. 10's order
    params = params | {"fused": params["fused"] | {"kernel": only_ta}}

    found = tiny.gradient(net, hyper(0.0))(params, make_batch())
    text = [found["text_encoder"], found["WordEmbedding_0"], found["CrossAttention_0"]["text_attention"]]
    moves = [bool(leaf.any()) for leaf in jax.tree.leaves(text)]
    assert all(moves) if variant == "no_stop_gradient" else not any(moves)
    assert all(leaf.any() for leaf in jax.tree.leaves(found["AudioEncoder_0"]))


def test_packed_words_equal_separate_words():
    """Outputs and gradients of packed words are those of each word as a separate sequence."""
    batch = make_batch()
    layer = BLSTM(4)
    lengths = jnp.where(batch.segment_lengths_mask, batch.segment_lengths, 0)
    word = word_of_frame(lengths, FRAMES)
    alone = np.zeros((9, 6, FEATURES), np.float32)
    count = np.concatenate(SEGMENTS)
    for row, frames in enumerate(frames for n in range(3) for frames in words_of(n)):
        alone[row, : len(frames)] = frames
    alone, alone_mask = jnp.array(alone), jnp.array(np.arange(6) < count[:, None])
    params = random_params(layer, alone, alone_mask, 0.0, train=False)
    cost = jnp.array(np.random.default_rng(3).normal(size=(9, 8)), jnp.float32)
    rows, places = np.nonzero(batch.segment_lengths_mask)

    def packed_means(params):
        states = layer.apply(
            {"params": params},
            batch.segments,
            batch.segments_mask,
            0.0,
            train=False,
            starts=first_frames(word),
        )
        return mean_by_word(states, batch.segments_mask, word, WORDS)[0][rows, places]

    def lone_means(params):
        states = layer.apply({"params": params}, alone, alone_mask, 0.0, train=False)
        return states.sum(1) / count[:, None].astype(np.float32)

    def with_gradient(means):
        found, pull = jax.vjp(means, params)
        return found, pull(cost)

    packed, lone = (jax.jit(lambda f=f: with_gradient(f))() for f in (packed_means, lone_means))
    for a, b in zip(jax.tree.leaves(packed), jax.tree.leaves(lone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_frames_are_assigned_to_their_words():
    """A word can have no frames, and frames after the last word belong to none."""
    word = word_of_frame(jnp.array([[2, 0, 3], [0, 0, 0]]), 7)
    np.testing.assert_array_equal(word, [[0, 0, 2, 2, 2, 3, 3], [3] * 7])
    np.testing.assert_array_equal(first_frames(word)[0], [1, 0, 1, 0, 0, 1, 0])
    x = jnp.arange(7, dtype=jnp.float32)[None, :, None].repeat(2, axis=0)
    mask = jnp.array([[True] * 4 + [False] * 3, [True] * 7])
    means, has_frames = mean_by_word(x, mask, word, 3)
    np.testing.assert_array_equal(means[..., 0], [[0.5, 0, 2.5], [0, 0, 0]])
    np.testing.assert_array_equal(has_frames, [[True, False, True], [False] * 3])


def test_dropout_follows_every_encoder_in_training_only():
    net, params, _ = network("can")

    @jax.jit
    def run(key, rate):
        output, kept = net.apply(
            {"params": params},
            make_batch(),
            hyper(dropout_rate=rate),
            train=True,
            rngs={"dropout": key},
            capture_intermediates=lambda module, _: isinstance(module, BLSTM),
        )
        return output.log_probs, kept["intermediates"]

    log_probs, none = run(jax.random.key(0), 0.0)
    np.testing.assert_allclose(log_probs, network("can")[2](params, hyper(), jnp.ones(3))[0].log_probs, 1e-5)
    assert len(jax.tree.leaves(none)) == 3
    _, half = run(jax.random.key(0), 0.5)
    for before, after in zip(jax.tree.leaves(none), jax.tree.leaves(half), strict=True):
        dropped = np.asarray((after == 0) & (before != 0))
        assert 0.25 < dropped.sum() / (before != 0).sum() < 0.75


def count(**fields) -> int:
    """The number of parameters at the paper's size, for 40 MFCC, 300-dimensional vectors and 12 words."""
    batch = make_batch()._replace(
        segments=jax.ShapeDtypeStruct((3, FRAMES, 40), jnp.float32),
        embeddings=jax.ShapeDtypeStruct((12, 300), jnp.float32),
    )
    init = lambda key, batch: CAN(num_classes=7, **fields).init(key, batch, hyper(), train=False)  # noqa: E731
    shapes = jax.eval_shape(init, jax.random.key(0), batch)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def test_number_of_parameters():
    """By hand, a BLSTM of d = 128 being 2 (4 d (in + d) + 2 * 4 d):

    within words   in = 40: 174,080; over words, in = 2 d: 395,264; text, in = 300: 440,320
    word vectors   12 * 300 = 3,600
    queries        2 modalities * 4 heads * 64 (256 where a head sees all)
    classifiers    4 contexts of 256: 4 * 256 * 7 + 7 = 7,175; those of c(TT) and c(AA): 2 (256 * 7 + 7) = 3,598
    """
    encoders = 174_080 + 395_264 + 440_320 + 3_600
    assert count() == encoders + 512 + 7_175 + 3_598
    assert count(stop_gradient=False) == count()
    assert count(align_loss=False) == encoders + 512 + 7_175
    assert count(cross_attention=False, align_loss=False) == encoders + 512 + 3_591
    assert count(train_embeddings=False) == count() - 3_600
    assert count(head_form="full") == encoders + 4 * 512 + 4 * 7_175 - 21 + 4 * 3_598 - 42


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_form": "half"}, "head_form='half' is not one of slice, full"),
        ({"num_heads": 5}, "num_heads=5 does not divide the 12 features"),
    ],
)
def test_unsupported_fields_are_reported(fields, message):
    net = CAN(num_classes=3, hidden_size=6, **fields)
    with pytest.raises(FieldError, match=message):
        jax.eval_shape(lambda key: net.init(key, make_batch(), hyper(), train=False), jax.random.key(0))
