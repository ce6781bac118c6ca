"""Layers against loops in numpy, outputs and gradients; masks; packed sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxser.layers.attention import MultiHeadAttention, masked_softmax, sinusoidal_positions
from jaxser.layers.conv import Conv1D, mask_steps, max_pool
from jaxser.layers.dropout import Dropout
from jaxser.layers.pooling import masked_max, masked_mean
from jaxser.layers.recurrent import CELLS, Recurrent, recurrence
from jaxser.types import FieldError
from references import layers as reference

LENGTHS = np.array([7, 1, 0, 4])


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max(initial=1e-3)
    )


def sequences(features=5, steps=7, seed=0):
    """Random sequences of `LENGTHS` with arbitrary values in the padding."""
    x = np.random.default_rng(seed).normal(size=(len(LENGTHS), steps, features)).astype(np.float32)
    return jnp.array(x), jnp.array(np.arange(steps) < LENGTHS[:, None])


def as_numpy(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def recurrent(cell, bidirectional=True):
    x, mask = sequences()
    layer = Recurrent(6, cell=cell, bidirectional=bidirectional)
    return layer, jax.jit(layer.init)(jax.random.key(1), x, mask), x, mask


def reference_recurrent(cell, x, params, d):
    one = {name: value[d] for name, value in params.items()}
    if cell == "gru":
        return reference.gru(x, one["input_kernel"], one["kernel"], one["input_bias"], one["bias"])
    if cell in ("gru_tf1", "gru_keras"):
        gate = {"gru_tf1": reference.sigmoid, "gru_keras": reference.hard_sigmoid}[cell]
        return reference.gru_tf1(x, one["input_kernel"], one["kernel"], one["input_bias"] + one["bias"], gate)
    return reference.lstm(x, one["input_kernel"], one["kernel"], one["input_bias"] + one["bias"])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_recurrent_layer_equals_the_loop(cell, bidirectional):
    layer, variables, x, mask = recurrent(cell, bidirectional)
    found, x = np.asarray(jax.jit(layer.apply)(variables, x, mask)), np.asarray(x)
    params = as_numpy(variables["params"])
    for n, length in enumerate(LENGTHS):
        own = np.asarray(x[n, :length], np.float64)
        close(found[n, :length, 0], reference_recurrent(cell, own, params, 0))
        if bidirectional:
            close(found[n, :length, 1], reference_recurrent(cell, own[::-1], params, 1)[::-1])
        assert not found[n, length:].any()


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_equals_that_of_the_loop(cell):
    """Compared with central differences of the float64 loop in random directions of parameters and inputs."""
    layer, variables, x, mask = recurrent(cell)
    rng = np.random.default_rng(2)
    cost = rng.normal(size=(len(LENGTHS), 7, 2, 6))
    loss = lambda params, x: (layer.apply({"params": params}, x, mask) * cost.astype(np.float32)).sum()  # noqa: E731
    grads = as_numpy(jax.jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], x))
    point = (as_numpy(variables["params"]), np.asarray(x, np.float64))

    def reference_loss(params, x):
        total = 0.0
        for n, length in enumerate(LENGTHS):
            own = x[n, :length]
            total += (reference_recurrent(cell, own, params, 0) * cost[n, :length, 0]).sum()
            total += (reference_recurrent(cell, own[::-1], params, 1)[::-1] * cost[n, :length, 1]).sum()
        return total

    for chosen in (*point[0], "x"):
        direction = jax.tree.map(np.zeros_like, point)
        step = rng.normal(size=np.shape(point[1] if chosen == "x" else point[0][chosen]))
        if chosen == "x":
            direction = (direction[0], step)
        else:
            direction[0][chosen] = step
        ahead, behind = (jax.tree.map(lambda p, d, s=s: p + s * 1e-5 * d, point, direction) for s in (1, -1))
        expected = (reference_loss(*ahead) - reference_loss(*behind)) / 2e-5
        found = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), grads, direction)))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5), chosen


@pytest.mark.parametrize("cell", CELLS)
def test_backward_pass_equals_autodiff_of_the_forward_pass(cell):
    rng = np.random.default_rng(3)
    gates = CELLS[cell].num_gates
    xw, kernel, bias, cost = (
        jnp.array(rng.normal(size=s), jnp.float32)
        for s in ((9, 3, gates * 4), (4, gates * 4), (gates * 4,), (9, 3, 4))
    )
    keep = jnp.array(rng.integers(0, 2, (9, 3, 1)), jnp.float32)

    def by_autodiff(xw, kernel, bias):
        def step(state, inputs):
            state = tuple(inputs[1] * s for s in state)
            times = lambda h, gates=slice(None): h @ kernel[:, gates] + bias[gates]  # noqa: E731
            state, _ = CELLS[cell].forward(state, inputs[0], times)
            return state, state[0]

        begin = (jnp.zeros((3, 4)),) * CELLS[cell].state_size
        return (jax.lax.scan(step, begin, (xw, keep))[1] * cost).sum()

    own = lambda *a: (recurrence(CELLS[cell], *a, keep) * cost).sum()  # noqa: E731
    expected = jax.jit(jax.grad(by_autodiff, argnums=(0, 1, 2)))(xw, kernel, bias)
    for found, wanted in zip(
        jax.jit(jax.grad(own, argnums=(0, 1, 2)))(xw, kernel, bias), expected, strict=True
    ):
        close(found, wanted)


@pytest.mark.parametrize("cell", CELLS)
def test_stacked_directions_equal_separate_ones(cell, monkeypatch):
    layer, variables, x, mask = recurrent(cell)
    apart = jax.jit(lambda: layer.apply(variables, x, mask))()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    close(jax.jit(lambda: layer.apply(variables, x, mask))(), apart, 1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_packed_sequences_equal_separate_ones(cell):
    layer, variables, x, _ = recurrent(cell)
    starts = jnp.array([[True, False, False, True, False, True, False]])
    apply = jax.jit(layer.apply)
    valid = np.ones((1, 7), bool)
    valid[0, 6] = False
    packed, x = np.asarray(apply(variables, x[:1], valid, starts)[0]), np.asarray(x)
    for begin, end in ((0, 3), (3, 5), (5, 6)):
        alone = apply(variables, x[:1, begin:end], valid[:, begin:end])[0]
        close(packed[begin:end], alone, 1e-6)


def test_convolution_equals_the_loop():
    x, mask = sequences()
    for size in (1, 2, 3):
        layer = Conv1D(4, size)
        variables = jax.jit(layer.init)(jax.random.key(0), x)
        dense = as_numpy(variables["params"]["Dense_0"])
        found = np.asarray(jax.jit(layer.apply)(variables, mask_steps(x, mask)))
        for n, length in enumerate(LENGTHS):
            expected = reference.conv(
                np.asarray(x, np.float64)[n, :length], dense["kernel"], dense["bias"], size
            )
            if length:
                close(found[n, :length], expected)


def test_max_pool_drops_the_incomplete_window():
    x, mask = sequences()
    x, found, valid = map(np.asarray, (x, *max_pool(x, mask, 3)))
    for n, length in enumerate(LENGTHS):
        assert valid[n].sum() == length // 3
        np.testing.assert_array_equal(found[n, : length // 3], reference.max_pool(x[n, :length], 3))
        assert not found[n, length // 3 :].any()


def test_pooling_uses_valid_steps_only():
    x, mask = sequences()
    mean, highest, x = map(np.asarray, (masked_mean(x, mask), masked_max(x, mask), x))
    for n, length in enumerate(LENGTHS):
        own = x[n, :length]
        close(mean[n], own.mean(0) if length else np.zeros(5))
        close(highest[n], own.max(0) if length else np.zeros(5))


@pytest.mark.parametrize("pool", [masked_mean, masked_max])
def test_a_fully_masked_row_has_a_finite_gradient(pool):
    x, mask = sequences()
    gradient = np.asarray(jax.jit(jax.grad(lambda x: pool(x, mask).sum()))(x))
    assert np.isfinite(gradient).all()
    assert not gradient[2].any()


def test_attention_equals_the_loop_and_its_weights_sum_to_one():
    x, mask = sequences(features=8)
    query, _ = sequences(features=8, seed=5)
    layer = MultiHeadAttention(2)
    variables = jax.jit(layer.init)(jax.random.key(0), query, x, mask)
    found, weights = map(np.asarray, jax.jit(layer.apply)(variables, query, x, mask))
    query, x = np.asarray(query, np.float64), np.asarray(x, np.float64)
    params = as_numpy(variables["params"])
    for n, length in enumerate(LENGTHS):
        np.testing.assert_allclose(weights[n].sum(-1), 1.0 if length else 0.0, atol=1e-6)
        assert not weights[n, ..., length:].any()
        if length:
            close(found[n], reference.attention(query[n], x[n, :length], params, 2))


def test_attention_heads_must_divide_the_features():
    x, mask = sequences()
    with pytest.raises(FieldError, match="num_heads=2 does not divide the 5 features"):
        MultiHeadAttention(2).init(jax.random.key(0), x, x, mask)


def test_masked_softmax_without_valid_positions_is_zero_with_a_finite_gradient():
    scores = jnp.array([[1e30, -3.0], [5.0, 2.0]])
    mask = jnp.array([[False, False], [True, False]])
    np.testing.assert_array_equal(masked_softmax(scores, mask), [[0, 0], [1, 0]])
    gradient = jax.grad(lambda s: (masked_softmax(s, mask) ** 2).sum())(scores)
    np.testing.assert_array_equal(gradient, np.zeros((2, 2)))


def test_sinusoidal_positions():
    close(sinusoidal_positions(11, 6), reference.positions(11, 6))
    close(sinusoidal_positions(4, 5), reference.positions(4, 5))


def test_dropout_drops_at_its_traced_rate_and_keeps_the_mean():
    x = jnp.ones((200, 500))
    run = jax.jit(lambda rate: Dropout().apply({}, x, rate, train=True, rngs={"dropout": jax.random.key(0)}))
    for rate in (0.0, 0.1, 0.5):
        out = np.asarray(run(jnp.float32(rate)))
        assert (out == 0).mean() == pytest.approx(rate, abs=0.005)
        assert out.mean() == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(Dropout().apply({}, x, 0.5, train=False), x)
