"""ILT and CAT against their equations in numpy, their layers, and training on noisy copies."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.configs import cat_ilt as config
from jaxser.data.dataset import with_copies
from jaxser.data.folds import Protocol, make_folds
from jaxser.layers.conv import Conv1D, Conv2D, average_pool, convolve, mask_steps
from jaxser.layers.norm import BatchNorm
from jaxser.models.cat_ilt import CAT, ILT
from jaxser.models.losses import cross_entropy
from jaxser.types import Batch, Dataset, FieldError, Ragged, UsageError
from references import cat_ilt as reference_cat_ilt
from references import layers as reference

FRAMES = np.array([21, 30, 3, 13])
"""The third is too short for a single pooled step of the CNN."""
HYPER = {"conv_dropout_rate": jnp.float32(0.2), "dropout_rate": jnp.float32(0.1)}
SMALL = {
    "blocks": ((3, 2, 2), (4, 2, 1)),
    "hidden_size": 4,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_size": 10,
}
VARIANTS = {
    "cnn_transformer": ILT(3, **SMALL, lstm="none"),
    "cnn_lstm_transformer": ILT(3, **SMALL, lstm="before", positions=False),
    "ilt_concatenation": ILT(3, **SMALL, fusion="concatenation"),
    "ilt_plus": ILT(3, **SMALL, fusion="plus", alpha=0.3),
    "ilt_trainable_plus": ILT(3, **SMALL, positions=False),
    "cat": CAT(3, **SMALL, front_channels=5),
    "cat_lstm_to_cnn": CAT(3, **SMALL, directions=("lstm_to_cnn",), positions=False),
    "lstm_transformer": CAT(3, **SMALL, directions=("lstm_to_lstm",)),
    "cnn_lstm": CAT(3, **SMALL, directions=()),
}


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def make_batch(padding=0, padding_rows=0) -> Batch:
    """Four utterances with arbitrary values in the padding; `padding` adds steps, `padding_rows` masked rows."""
    rng = np.random.default_rng(0)
    steps = FRAMES.max() + padding
    audio = rng.normal(size=(4 + padding_rows, 60, tiny.FEATURES)).astype(np.float32)[:, :steps]
    frames = np.append(FRAMES, np.zeros(padding_rows, int))
    return Batch(
        label=jnp.array([0, 1, 2, 1] + [0] * padding_rows),
        weight=jnp.array([1.0] * 4 + [0.0] * padding_rows),
        audio=jnp.array(audio),
        audio_mask=jnp.array(np.arange(steps) < frames[:, None]),
    )


def random_variables(net):
    """Random parameters and running averages, including biases and scales."""
    shapes = jax.eval_shape(lambda key: net.init(key, make_batch(), HYPER, train=False), jax.random.key(0))
    rng = np.random.default_rng(1)
    draw = lambda p: jnp.array(rng.normal(size=p.shape) * 0.5, jnp.float32)  # noqa: E731
    params = jax.tree.map(draw, shapes["params"])
    stats = jax.tree.map(
        lambda p: jnp.array(rng.uniform(0.5, 2, p.shape), jnp.float32), shapes.get("batch_stats", {})
    )
    return {"params": params, "batch_stats": stats}


@cache
def prepared(variant: str):
    """A network of the variant, its variables, and its compiled evaluation."""
    net = VARIANTS[variant]
    return (
        net,
        random_variables(net),
        jax.jit(lambda variables, batch: net.apply(variables, batch, HYPER, train=False)),
    )


def as_numpy(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equations(variant):
    net, variables, run = prepared(variant)
    batch = make_batch(padding=3)
    found = run(variables, batch)
    params, stats = (as_numpy(variables[name]) for name in ("params", "batch_stats"))
    for n, length in enumerate(FRAMES):
        if length == 3:
            continue
        audio = np.asarray(batch.audio[n, :length], np.float64)
        if isinstance(net, CAT):
            close(found.log_probs[n], reference_cat_ilt.cat(audio, params, stats, net))
            continue
        log_probs, beta, shares = reference_cat_ilt.ilt(audio, params, stats, net)
        close(found.log_probs[n], log_probs)
        assert ("lstm" in found.attention) == (beta is not None)
        assert ("fusion" in found.attention) == (shares is not None)
        if beta is not None:
            close(found.attention["lstm"].weights[n, : length // 4], beta)
            assert not np.asarray(found.attention["lstm"].weights[n, length // 4 :]).any()
        if shares is not None:
            close(found.attention["fusion"].weights[n], shares)
    assert np.isfinite(found.log_probs).all()


def test_queries_attend_to_valid_keys_of_the_other_branch():
    net, variables, run = prepared("cat")
    batch = make_batch(padding=3)
    attention = run(variables, batch).attention
    steps = {"cnn": FRAMES // 4, "lstm": -(-FRAMES // 4)}
    assert list(attention) == [f"{d}_{n}" for d in net.directions for n in range(2)]
    for name, found in attention.items():
        query, _, memory, _ = name.split("_")
        weights = np.asarray(found.weights)
        assert weights.shape[2:] == (
            (33 // 4, -(-33 // 4)) if (query, memory) == ("cnn", "lstm") else (-(-33 // 4), 33 // 4)
        )
        for n, keys in enumerate(steps[memory]):
            close(weights[n].sum(-1), 1 if keys else 0)
            assert not weights[n, :, :, keys:].any()


def test_fusion_weights_are_equal_at_initialisation():
    net, variables, run = prepared("ilt_trainable_plus")
    begin = jax.jit(lambda key: net.init(key, make_batch(), HYPER, train=False)["params"]["fusion_weights"])
    params = {**variables["params"], "fusion_weights": begin(jax.random.key(0))}
    output = run({**variables, "params": params}, make_batch(padding=3))
    close(output.attention["fusion"].weights, 0.5)


SHALLOW = {**SMALL, "blocks": ((3, 4, 2),), "num_layers": 1}
TRAINED = {"cat": CAT(3, **SHALLOW, front_channels=5), "ilt": ILT(3, **SHALLOW)}


@cache
def training(name: str):
    """Variables, and a compiled function of the loss, batch statistics and gradients without dropout."""
    net = TRAINED[name]
    variables = random_variables(net)
    still = {name: jnp.float32(0) for name in HYPER}

    def loss(params, batch):
        both = {"params": params, "batch_stats": variables["batch_stats"]}
        output, updated = net.apply(
            both, batch, still, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
        )
        return cross_entropy(output, batch, jnp.ones(3)), updated["batch_stats"]

    return variables, jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_padding_and_padding_rows_change_neither_training_nor_batch_statistics():
    variables, run = training("cat")
    batches = make_batch(), make_batch(padding=8, padding_rows=2)
    expected, found = (run(variables["params"], batch) for batch in batches)
    jax.tree.map(lambda a, b: close(a, b, 2e-5), found, expected)


@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_is_trained(name):
    variables, run = training(name)
    _, gradients = run(variables["params"], make_batch())
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.abs(gradient).max() > 1e-7, jax.tree_util.keystr(path)


def test_a_batch_without_valid_steps_is_finite_and_keeps_the_running_averages():
    variables, run = training("cat")
    batch = make_batch()
    for frames in (np.zeros(4), np.array([3, 2, 1, 0])):
        mask = jnp.array(np.arange(30) < frames[:, None])
        (loss, stats), gradients = run(variables["params"], batch._replace(audio_mask=mask))
        assert np.isfinite(loss)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((stats, gradients)))
        kept = [
            np.array_equal(*pair)
            for pair in zip(jax.tree.leaves(stats), jax.tree.leaves(variables["batch_stats"]), strict=True)
        ]
        assert all(kept) if not frames.any() else not any(kept)


def test_batch_normalisation_uses_statistics_of_valid_steps():
    rng = np.random.default_rng(2)
    x = jnp.array(rng.normal(size=(4, 30, 5, 3)) * [1, 2, 0.5] + [0.5, -1, 2], jnp.float32)
    mask = np.arange(30) < FRAMES[:, None]
    layer = BatchNorm()
    variables = jax.jit(partial(layer.init, train=False))(jax.random.key(0), x, jnp.array(mask))
    train = jax.jit(partial(layer.apply, train=True, mutable=["batch_stats"]))
    params = {"scale": jnp.array([1.5, -2, 0.3]), "bias": jnp.array([0.1, 0.2, -3])}
    valid = np.asarray(x, np.float64)[mask]  # [steps, 5, 3]
    mean, variance = valid.mean((0, 1)), valid.var((0, 1))
    expected = reference_cat_ilt.normalised(valid, as_numpy(params), mean, variance)

    rubbish = jnp.where(mask[..., None, None], x, 1e3)
    stats = variables["batch_stats"]
    for step in range(1, 4):
        found, updated = train({"params": params, "batch_stats": stats}, rubbish, jnp.array(mask))
        stats = updated["batch_stats"]
        close(np.asarray(found)[mask], expected)
        close(stats["mean"], (1 - 0.9**step) * mean)
        close(stats["variance"], 0.9**step + (1 - 0.9**step) * variance)
    frozen = layer.apply({"params": params, "batch_stats": stats}, x, jnp.array(mask), train=False)
    close(
        frozen,
        reference_cat_ilt.normalised(as_numpy(x), as_numpy(params), *map(np.asarray, stats.values())),
        1e-4,
    )


def test_gradient_of_batch_normalisation_depends_on_valid_steps_only():
    """Masked rows give the gradient that the same steps give in a row without padding."""
    rng = np.random.default_rng(3)
    x, mask = rng.normal(size=(4, 30, 3)).astype(np.float32), np.arange(30) < FRAMES[:, None]
    cost = rng.normal(size=x.shape).astype(np.float32)
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), jnp.array(x), jnp.array(mask), train=False)

    def gradient(x, mask, cost):
        def total(x):
            y, _ = layer.apply(variables, x, mask, train=True, mutable=["batch_stats"])
            return (jnp.where(mask[..., None], y, 0) * cost).sum()

        return np.asarray(jax.jit(jax.grad(total))(x))

    found = gradient(jnp.array(x), jnp.array(mask), jnp.array(cost))
    alone = gradient(jnp.array(x[mask][None]), jnp.ones((1, mask.sum()), bool), jnp.array(cost[mask][None]))
    close(found[mask], alone[0])
    assert not found[~mask].any()


def test_convolution_equals_the_loop():
    x = jnp.array(np.random.default_rng(4).normal(size=(2, 7, 5, 3)), jnp.float32)
    for size in (1, 3, 5):
        variables = jax.jit(Conv2D(4, size).init)(jax.random.key(0), x)
        kernel = as_numpy(variables["params"]["kernel"])
        for found, own in zip(jax.jit(Conv2D(4, size).apply)(variables, x), as_numpy(x), strict=True):
            close(found, reference_cat_ilt.conv2d(own, kernel))
    with pytest.raises(FieldError, match="kernel_size=2 must be odd"):
        Conv2D(4, 2).init(jax.random.key(0), x)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_gradient_of_the_convolution_equals_that_of_xla(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(5)
    x, kernel, cost = (
        jnp.array(rng.normal(size=s), jnp.float32) for s in ((2, 7, 5, 3), (3, 3, 3, 4), (2, 7, 5, 4))
    )

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    close(convolve(x, kernel), plain(x, kernel))
    found, expected = (
        jax.jit(jax.grad(lambda x, kernel: (f(x, kernel) * cost).sum(), (0, 1)))(x, kernel)  # noqa: B023
        for f in (convolve, plain)
    )
    jax.tree.map(lambda a, b: close(a, b, 2e-5), found, expected)


def test_strided_convolution_equals_every_other_step_of_the_loop():
    x, mask = make_batch().audio, make_batch().audio_mask
    layer = Conv1D(3, 5, stride=4)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    dense = as_numpy(variables["params"]["Dense_0"])
    found, valid = jax.jit(layer.apply)(variables, mask_steps(x, mask)), np.asarray(mask)[:, ::4]
    found, x = np.asarray(found), np.asarray(x)
    for n, length in enumerate(FRAMES):
        expected = reference.conv(as_numpy(x[n, :length]), dense["kernel"], dense["bias"], 5)[::4]
        assert valid[n].sum() == len(expected)
        close(found[n, : len(expected)], expected)


def test_average_pool_drops_incomplete_windows():
    x = jnp.array(np.random.default_rng(6).normal(size=(4, 30, 5, 3)), jnp.float32)
    found, valid = average_pool(x, make_batch().audio_mask, (4, 2))
    for n, length in enumerate(FRAMES):
        assert valid[n].sum() == length // 4
        close(found[n, : length // 4], reference_cat_ilt.average_pool(as_numpy(x[n, :length]), 4, 2))
        assert not np.asarray(found[n, length // 4 :]).any()


def count(net) -> int:
    """The number of parameters for 40 bands."""
    batch = make_batch()._replace(audio=jnp.zeros((4, 30, 40)))
    shapes = jax.eval_shape(lambda key: net.init(key, batch, HYPER, train=False), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def test_number_of_parameters():
    """By hand, for 4 classes; d = 256 is the width, h = 128 the LSTM's:

    convolutions  9 (32 + 32 * 64 + 64 * 128 + 128 * 128) = 239,904, norms 2 (32 + 64 + 128 + 128) = 704,
                  5 bands x 128 channels to d: 640 d + d = 164,096; together 404,704
    BiLSTM        2 (4 h in + 4 h h + 2 * 4 h) = 1024 in + 133,120: after the CNN (in = d) 395,264, after the front
                  (in = 128) 264,192
    front         5 * 40 * 128 + 128 = 25,728
    transformer   2 layers of projections 4 d^2 = 262,144, norms 2 * 2 d = 1,024,
                  feed-forward 2 * 512 d + 512 + d = 262,912: 1,052,160
    classifier    4 in + 4
    """
    cnn, after_cnn, after_front, transformer = 404_704, 395_264, 25_728 + 264_192, 1_052_160
    assert count(ILT(4, lstm="none")) == cnn + transformer + 1_028
    assert count(ILT(4, lstm="before")) == cnn + after_cnn + transformer + 1_028
    assert count(ILT(4, fusion="concatenation")) == cnn + after_cnn + 256 + transformer + 2_052
    assert count(ILT(4, fusion="plus")) == cnn + after_cnn + 256 + transformer + 1_028
    assert count(ILT(4)) == cnn + after_cnn + 256 + 2 + transformer + 1_028
    assert count(CAT(4)) == cnn + after_front + 2 * transformer + 1_028
    assert count(CAT(4, directions=("cnn_to_lstm",))) == cnn + after_front + transformer + 1_028
    assert count(CAT(4, directions=("lstm_to_lstm",))) == after_front + transformer + 1_028
    assert count(CAT(4, directions=())) == cnn + after_front + 1_028


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (ILT(3, lstm="after"), "lstm='after' is not one of parallel, before, none"),
        (ILT(3, fusion="max"), "fusion='max' is not one of concatenation, plus, trainable_plus"),
        (CAT(3, directions=("cnn",)), "'cnn' is not one of cnn_to_lstm, lstm_to_cnn, lstm_to_lstm"),
        (CAT(3), "leave none of 6 frequency bands"),
    ],
)
def test_unsupported_fields_are_reported(net, message):
    with pytest.raises(FieldError, match=message):
        jax.eval_shape(lambda key: net.init(key, make_batch(), HYPER, train=False), jax.random.key(0))


def noisy_dataset() -> Dataset:
    """The tiny dataset, where each utterance has a copy with one frame more and values larger by 100."""
    from dataclasses import replace

    data = tiny.dataset(30)
    clean = data.arrays["audio"]
    copies = [np.concatenate([clean[n], clean[n][:1]]) + 100 for n in range(30)]
    noisy = Ragged(np.concatenate(copies), clean.length + 1)
    return replace(data, arrays={**data.arrays, "audio_noisy": noisy})


@pytest.mark.parametrize("in_validation", [False, True])
def test_noisy_copies_are_trained_on_and_never_tested(in_validation):
    data = noisy_dataset()
    protocol = Protocol("random", folds=5, validation_share=0.3125)
    folds = make_folds(data, protocol)
    doubled, found = with_copies(data, folds, in_validation)
    assert "audio_noisy" not in doubled.arrays
    np.testing.assert_array_equal(doubled.label, np.tile(data.label, 2))
    for n in range(30):
        for name in ("audio", "words"):
            np.testing.assert_array_equal(doubled.arrays[name][n], data.arrays[name][n])
        np.testing.assert_array_equal(doubled.arrays["words"][30 + n], data.arrays["words"][n])
        np.testing.assert_array_equal(doubled.arrays["audio"][30 + n], data.arrays["audio_noisy"][n])
        assert doubled.utterances[30 + n].id == doubled.utterances[n].id == data.utterances[n].id
    for before, after in zip(folds, found, strict=True):
        assert sorted(after.train) == sorted([*before.train, *(before.train + 30)])
        copies = before.validation + 30 if in_validation else []
        assert sorted(after.validation) == sorted([*before.validation, *copies])
        np.testing.assert_array_equal(after.test, before.test)
        assert len(before.train) == pytest.approx(0.55 * 30, abs=1)
        assert not set(after.train % 30) & set(after.validation % 30)


def test_copies_need_a_recipe_that_has_them():
    data = tiny.dataset(30)
    with pytest.raises(UsageError, match=r"config\.copies: tiny has no copies of its recordings; prepare it"):
        with_copies(data, make_folds(data, Protocol("session")), False)


@pytest.mark.parametrize(
    ("dataset", "copies"), [("iemocap", "train"), ("demo", "train"), ("ravdess", "none"), ("emodb", "none")]
)
def test_left_out_noisy_copies_are_noted(dataset, copies):
    found = config.get_config(dataset)
    assert found.copies == copies
    assert ("no noisy copies" in found.note) == (copies == "none")
