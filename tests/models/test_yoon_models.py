"""MDRE, MHA and AMH against their published source in numpy, dropout per modality, published lengths, and sizes."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.models.yoon import AMH, MDRE, MHA, last_state
from jaxser.types import Batch, FieldError
from references import layers as reference
from references import yoon as reference_yoon

LENGTHS = {"audio": np.array([9, 6, 1, 4]), "text": np.array([3, 5, 1, 2]), "video": np.array([2, 4, 3, 1])}
WIDTHS = {"audio": 6, "video": 7}
STEPS = {"audio": 9, "text": 5, "video": 4}
HYPER = {f"{m}_dropout_rate": jnp.float32(0.3) for m in LENGTHS}
SMALL = {"hidden_size": 4, "video_hidden_size": 3}
PAIRS = {"ta": ("audio", "text"), "tv": ("text", "video"), "va": ("audio", "video")}

NETWORKS = {
    **{f"mdre_{pair}": MDRE(3, modalities=modalities, **SMALL) for pair, modalities in PAIRS.items()},
    "mdre_tva": MDRE(3, modalities=("text", "video", "audio"), prosody=True, **SMALL),
    "mha_1": MHA(3, modalities=PAIRS["ta"], hidden_size=4, num_hops=1),
    "mha_2": MHA(3, modalities=PAIRS["tv"], hidden_size=4, video_hidden_size=4),
    "mha_3": MHA(3, modalities=PAIRS["va"], hidden_size=4, video_hidden_size=4, num_hops=3),
    "amh": AMH(3, **SMALL),
    "amh_2": AMH(3, num_hops=2, prosody=True, **SMALL),
}


def make_batch(padding=0, seed=0) -> Batch:
    """Four utterances of all modalities with arbitrary values in the padding; `padding` adds steps."""
    rng = np.random.default_rng(seed)
    steps = {m: n + padding for m, n in STEPS.items()}
    frames = {m: rng.normal(size=(4, 40, width))[:, : steps[m]] for m, width in WIDTHS.items()}
    masks = {m: jnp.array(np.arange(steps[m]) < LENGTHS[m][:, None]) for m in STEPS}
    return Batch(
        label=jnp.array([0, 1, 2, 1]),
        weight=jnp.ones(4),
        audio=jnp.array(frames["audio"], jnp.float32),
        audio_mask=masks["audio"],
        words=jnp.array(rng.integers(1, 12, (4, 40))[:, : steps["text"]]),
        words_mask=masks["text"],
        video=jnp.array(frames["video"], jnp.float32),
        video_mask=masks["video"],
        prosody=jnp.array(rng.normal(size=(4, 1, 2)), jnp.float32),
        prosody_mask=jnp.ones((4, 1), bool),
        embeddings=jnp.array(np.random.default_rng(3).normal(size=(12, 5)), jnp.float32),
    )


@cache
def prepared(name):
    """A network, random parameters, and its compiled evaluation."""
    return NETWORKS[name], *tiny.prepared(NETWORKS[name], make_batch(), HYPER)


def source_variables(net, params):
    """The parameters as variables of the source: each GRU has a kernel of both gates, and one of the candidate."""

    def gru(own):
        [kernel] = np.concatenate([own["input_kernel"], own["kernel"]], axis=1)
        [bias] = own["input_bias"] + own["bias"]
        gates, candidate = np.split(np.arange(len(bias)), [2 * len(bias) // 3])
        return {
            "gates/kernel": kernel[:, gates],
            "gates/bias": bias[gates],
            "candidate/kernel": kernel[:, candidate],
            "candidate/bias": bias[candidate],
        }

    def output_layer(own):
        return {"similarity_matrix": own["kernel"], "output_bias": own["bias"]}

    variables = {f"{m}_GRU": gru(params[f"{m}_encoder"]) for m in net.modalities}
    variables["multi_output_layer"] = output_layer(params["classifier"])
    if isinstance(net, MDRE):
        return variables | {
            f"{m}_output_layer": output_layer(params[f"{m}_projection"]) for m in net.modalities
        }
    for hop in range(1, net.num_hops + 1):
        own = params[f"query_{hop}"]
        variables[f"attention_layer_hop{hop}"] = {
            "attn_projection_helper": own["kernel"],
            "attn_bias": own["bias"],
        }
    return variables


def expected_logits(net, params, batch):
    """The logits of a batch: by the source on its padded arrays, or by the loop of MHA, which has no source."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    arrays = {"audio": batch.audio, "video": batch.video}
    if "text" in net.modalities:
        arrays["text"] = params["WordEmbedding_0"]["table"][batch.words]
    inputs = {m: np.asarray(arrays[m], np.float64) for m in net.modalities}
    if isinstance(net, MHA):
        return np.stack(
            [
                reference_yoon.mha(
                    {m: x[n, : LENGTHS[m][n]] for m, x in inputs.items()}, params, net.num_hops
                )
                for n in range(4)
            ]
        )
    prosody = np.asarray(batch.prosody[:, 0], np.float64) if net.prosody else None
    variables = source_variables(net, params)
    if isinstance(net, MDRE):
        return reference_yoon.mdre(inputs, LENGTHS, variables, prosody)
    return reference_yoon.amh(inputs, LENGTHS, variables, net.num_hops, prosody)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_their_source(name):
    net, params, run = prepared(name)
    batch = make_batch()
    found, expected = run(params, batch), expected_logits(net, params, batch)
    np.testing.assert_allclose(found.logits["fused"], expected, rtol=1e-5, atol=1e-5)
    for n in range(4):
        np.testing.assert_allclose(np.exp(found.log_probs[n]), reference.softmax(expected[n]), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_does_not_change_predictions(name):
    _, params, run = prepared(name)
    np.testing.assert_allclose(
        run(params, make_batch(3)).log_probs, run(params, make_batch()).log_probs, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", ["mha_3", "amh"])
def test_hops_attend_to_valid_steps_of_each_modality_in_turn(name):
    _, params, run = prepared(name)
    attention = run(params, make_batch(1)).attention
    turns = ("video", "audio", "video") if name == "mha_3" else ("video", "audio", "text") * 2 + ("video",)
    assert list(attention) == [f"hop_{n}_{m}" for n, m in enumerate(turns, 1)]
    for hop, found in attention.items():
        weights = found.weights
        m = hop.split("_")[-1]
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
        assert not np.asarray(weights)[np.arange(STEPS[m] + 1) >= LENGTHS[m][:, None]].any()


@pytest.mark.parametrize("name", ["mdre_tva", "mha_2", "amh"])
def test_every_parameter_is_trained_and_masked_utterances_are_finite(name):
    """Gradients stay finite if a modality or a whole utterance is masked."""
    net, params, _ = prepared(name)
    batch, gradient = make_batch(), tiny.gradient(net, HYPER)
    for path, g in jax.tree_util.tree_leaves_with_path(gradient(params, batch)):
        assert np.abs(g).max() > 0, path
    masks = [name.removesuffix("_mask") for name in Batch._fields if name.endswith("_mask")]
    arrays = [name for name in masks if getattr(batch, f"{name}_mask") is not None]
    for chosen in [*([name] for name in arrays), arrays]:
        assert tiny.all_finite(gradient(params, tiny.masked(batch, *chosen))), chosen


def test_steps_beyond_the_published_lengths_are_not_read():
    net, params, _ = prepared("mdre_va")
    batch = make_batch()
    cut = batch._replace(
        **{f"audio{s}": getattr(batch, f"audio{s}")[:, :5] for s in ("", "_mask")},
        **{f"video{s}": getattr(batch, f"video{s}")[:, :2] for s in ("", "_mask")},
    )
    evaluate = lambda net, batch: net.apply({"params": params}, batch, HYPER, train=False).log_probs  # noqa: E731
    run = jax.jit(evaluate, static_argnums=0)
    short = net.clone(audio_length=5, video_length=2)
    np.testing.assert_allclose(run(short, batch), run(net, cut), rtol=1e-6)
    assert np.abs(run(short, batch) - run(net, batch)).max() > 1e-3
    np.testing.assert_allclose(
        run(net.clone(audio_length=0, video_length=0), batch), run(net, batch), rtol=1e-6
    )


@pytest.mark.parametrize("side", ["input", "output"])
def test_dropout_has_a_rate_for_each_modality(side):
    net, params, run = prepared("amh")
    net, batch = net.clone(dropout_on=(side,)), make_batch()

    @jax.jit
    def train(rates):
        rngs = {"dropout": jax.random.key(0)}
        return net.apply({"params": params}, batch, rates, train=True, rngs=rngs).log_probs

    without_dropout = dict.fromkeys(HYPER, jnp.float32(0))
    evaluated = run(params, batch).log_probs
    np.testing.assert_allclose(train(without_dropout), evaluated, rtol=1e-6, atol=1e-6)
    for name in HYPER:
        assert np.abs(train({**without_dropout, name: jnp.float32(0.5)}) - evaluated).max() > 1e-3


def test_last_state_of_each_direction():
    states = jnp.arange(2 * 4 * 2 * 1, dtype=jnp.float32).reshape(2, 4, 2, 1)
    mask = jnp.array([[True, True, True, False], [False, True, True, True]])
    np.testing.assert_array_equal(last_state(states, mask), [[4, 1], [14, 11]])
    np.testing.assert_array_equal(last_state(states[:, :, :1], mask), [[4], [14]])


def test_mdre_has_the_sigmoid_cross_entropy_of_each_class_as_loss():
    net, params, run = prepared("mdre_ta")
    batch = make_batch()._replace(weight=jnp.array([1.0, 1.0, 0.0, 1.0]))
    output = run(params, batch)
    found = net.loss(output, batch, jnp.ones(3), params, HYPER)
    p = reference.sigmoid(np.asarray(output.logits["fused"], np.float64))
    each = [-np.log(np.where(np.arange(3) == batch.label[n], p[n], 1 - p[n])).mean() for n in (0, 1, 3)]
    assert found == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (MHA(3, modalities=("audio",)), r"modalities=\('audio',\) must be two"),
        (MHA(3, num_hops=0), "num_hops=0 must be at least 1"),
        (MHA(3, modalities=PAIRS["va"], hidden_size=4), "video_hidden_size=200 must equal hidden_size=4"),
        (AMH(3, modalities=PAIRS["ta"]), r"modalities=\('audio', 'text'\) must be text, video, audio"),
        (MDRE(3, modalities=PAIRS["tv"], prosody=True), "prosody=True needs audio in modalities="),
        (MDRE(3, dropout_on=("state",)), r"dropout_on=\('state',\) may contain only input, output"),
    ],
)
def test_unsupported_fields_are_reported(net, message):
    with pytest.raises(FieldError, match=message):
        tiny.shapes_of(net, make_batch(), HYPER)


def count(net, audio) -> int:
    """The number of parameters at full size, for 12 words with 300-dimensional vectors and 2048 video features."""
    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32)  # noqa: E731
    batch = jax.eval_shape(make_batch)._replace(
        audio=shape(4, 9, audio), video=shape(4, 4, 2048), prosody=shape(4, 1, 35), embeddings=shape(12, 300)
    )
    return sum(leaf.size for leaf in jax.tree.leaves(tiny.shapes_of(net, batch, HYPER)))


def test_number_of_parameters():
    """By hand, 7 classes; the trained table of 12 words has 3,600.

    GRU of 200     3 * 200 (in + 200 + 2): of 120 features 193,200, of 40 MFCC 145,200, of words 301,200
    GRU of 128     3 * 128 (2048 + 128 + 2) = 836,352
    BiLSTM of 200  2 * 4 * 200 (in + 200 + 2): of 120 features 515,200, of words 803,200
    MDRE           200 * 100 + 100 = 20,100 a modality, video 128 * 64 + 64 = 8,256; with prosody (235): 235 * 117 + 117
    AMH            queries onto video 400 * 128 + 128 = 51,328, onto audio and text 328 * 200 + 200 = 65,800
    """
    table, audio, words, video = 3_600, 193_200, 301_200, 836_352
    assert count(MDRE(7), 120) == table + audio + words + 2 * 20_100 + 200 * 7 + 7
    assert count(MDRE(7, prosody=True), 120) == table + audio + words + 27_612 + 20_100 + 217 * 7 + 7
    everything = MDRE(7, modalities=("text", "video", "audio"))
    assert count(everything, 40) == table + 145_200 + words + video + 2 * 20_100 + 8_256 + 264 * 7 + 7
    assert count(MHA(7), 120) == table + 515_200 + 803_200 + 800 * 7 + 7
    queries = 3 * 51_328 + 4 * 65_800  # hops 1, 4, 7 onto video
    assert count(AMH(7), 120) == table + audio + words + video + queries + 528 * 7 + 7
    assert count(AMH(7, prosody=True), 120) == count(AMH(7), 120) + 35 * 7
