"""One replica: batches, statistics, optimiser and training, compared with numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.data.batch_schedule import make_buckets
from jaxser.data.device import gather, on_host
from jaxser.data.normalisation import FrameSums
from jaxser.evaluation.targets import Classes
from jaxser.models.losses import class_weights, cross_entropy
from jaxser.training.optim import SCHEDULES, Adam
from jaxser.training.replica import ReplicaTrainer
from jaxser.types import Batch, Output


@pytest.fixture(scope="module")
def data():
    return tiny.dataset()


def test_class_weights_are_inverse_frequencies():
    np.testing.assert_allclose(class_weights(np.array([0, 0, 0, 2]), 3, True), [4 / 9, 0, 4 / 3])
    np.testing.assert_array_equal(class_weights(np.array([0, 0]), 2, False), [1, 1])


def test_cross_entropy_ignores_padding_rows():
    logits = jnp.array(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    batch = Batch(label=jnp.array([0, 2, 1, 1]), weight=jnp.array([1.0, 1.0, 0.0, 1.0]))
    output = Output(jax.nn.log_softmax(logits), {}, {})
    weights = np.array([1.0, 2.0, 0.5])
    each = [
        -np.log(np.exp(logits[n, c]) / np.exp(logits[n]).sum()) * weights[c]
        for n, c in ((0, 0), (1, 2), (3, 1))
    ]
    assert float(cross_entropy(output, batch, jnp.array(weights, jnp.float32))) == pytest.approx(
        np.mean(each), rel=1e-5
    )
    empty = batch._replace(weight=jnp.zeros(4))
    assert float(cross_entropy(output, empty, jnp.ones(3))) == 0


@pytest.mark.parametrize("clip", [None, 0.5])
def test_adam_is_the_published_rule(clip):
    """Kingma & Ba 2014, algorithm 1, with the global norm clipped and decoupled weight decay of kernels."""
    rng = np.random.default_rng(0)
    params = {"bias": rng.normal(size=3), "kernel": rng.normal(size=(2, 2))}
    grads = [{k: rng.normal(size=v.shape) for k, v in params.items()} for _ in range(3)]
    hyper = {"learning_rate": jnp.float32(0.1), "weight_decay": jnp.float32(0.02)}
    adam = Adam(clip="global_norm", clip_limit=clip) if clip else Adam()
    actual = jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)
    state = adam.init(actual, hyper)
    m, v = ({k: np.zeros_like(p) for k, p in params.items()} for _ in range(2))
    for t, g in enumerate(grads, 1):
        actual, state = adam.update(
            jax.tree.map(lambda x: jnp.array(x, jnp.float32), g),
            state,
            actual,
            hyper,
            jnp.float32(1),
            jnp.float32(4),
        )
        norm = np.sqrt(sum((x**2).sum() for x in g.values()))
        scale = min(1, clip / norm) if clip else 1
        for k in params:
            m[k] = 0.9 * m[k] + 0.1 * g[k] * scale
            v[k] = 0.999 * v[k] + 0.001 * (g[k] * scale) ** 2
            step = (m[k] / (1 - 0.9**t)) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-8)
            decay = 0.02 if k == "kernel" else 0
            params[k] = params[k] - 0.1 * (step + decay * params[k])
    for k in params:
        np.testing.assert_allclose(actual[k], params[k], rtol=1e-4)


def test_schedules_start_at_one():
    progress = jnp.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(SCHEDULES["constant"].fall(progress), [1, 1, 1])
    np.testing.assert_allclose(SCHEDULES["cosine"].fall(progress), [1, 0.5, 0], atol=1e-7)
    np.testing.assert_allclose(SCHEDULES["one_cycle"].fall(progress), [1, 0.500002, 4e-6], rtol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.5, [0, 0.5, 1, 1, 1]),
        ("cosine", 0.5, [0, 0.5, 1, 0.5, 0]),
        ("cosine", 0.0, [1, 0.853553, 0.5, 0.146447, 0]),
        ("one_cycle", 0.5, [0.04, 0.52, 1, 0.500002, 4e-6]),  # PyTorch's OneCycleLR with pct_start=0.5
    ],
)
def test_the_rate_rises_during_warm_up(schedule, warmup, expected):
    factors = [
        Adam(schedule=schedule).factor(jnp.float32(p), {"warmup": jnp.float32(warmup)})
        for p in (0, 0.25, 0.5, 0.75, 1)
    ]
    np.testing.assert_allclose(factors, expected, rtol=1e-4, atol=1e-6)


def plateau_factors(adam, losses):
    """The factor on the learning rate after each epoch, given the validation losses."""
    plateau, factors = adam.begin_plateau(), []
    for loss in losses:
        plateau = adam.after_epoch(plateau, jnp.float32(loss))
        factors.append(float(plateau.scale))
    return factors


def test_the_plateau_schedule_waits_for_more_bad_epochs_than_its_patience():
    """PyTorch's ReduceLROnPlateau: with patience 10, after the 11th bad epoch, and again after 11 more."""
    factors = plateau_factors(Adam(plateau_patience=10), [2.0] + [2.1] * 23)
    np.testing.assert_allclose(factors, [1] * 11 + [0.1] * 11 + [0.01] * 2, rtol=1e-6)
    assert plateau_factors(Adam(), [2.0] * 24) == [1] * 24


def test_an_epoch_improves_only_beyond_the_threshold():
    adam = Adam(plateau_patience=1, plateau_factor=0.5)
    hardly = 1 - 0.5e-4  # within the threshold of 1e-4, so not a new best
    assert plateau_factors(adam, [1, hardly, hardly]) == [1, 1, 0.5]
    assert plateau_factors(adam, [1, hardly, 1 - 2e-4, hardly, hardly]) == [1, 1, 1, 1, 0.5]
    assert plateau_factors(adam, [1, 2, 1.5, 1.2]) == [
        1,
        1,
        0.5,
        0.5,
    ]  # below the previous epoch is not enough
    assert plateau_factors(adam, [1, np.nan, np.nan]) == [1, 1, 0.5]


def test_a_plateau_shrinks_the_updates_of_training(data):
    """No epoch halves the loss, so all epochs but the first are bad."""
    adam = Adam(plateau_patience=1, plateau_threshold=0.5)
    net = tiny.Toy(3)
    buckets = make_buckets({name: data.arrays[name].length for name in net.needs}, 1, 30)
    trainer = ReplicaTrainer(
        net, adam, tuple(tuple(w.items()) for w in buckets.widths), Classes(tiny.CLASSES), epochs=9
    )
    device = jax.device_put(on_host(data, net.needs))
    norm = {"audio": FrameSums.of(data.arrays["audio"]).normalisation(np.arange(60))}
    hyper = {"learning_rate": np.float32(1e-3), "dropout_rate": np.float32(0)}
    state = jax.jit(trainer.init)(jax.random.key(0), hyper, norm, np.ones(3, np.float32), device)
    schedule = jax.device_put(buckets.evaluation_schedule(np.arange(60), [2]))
    epoch = jax.jit(trainer.epoch)
    rates, moved = [], []
    for _ in range(5):
        before = state.params["Dense_0"]["bias"]
        state, result = epoch(state, schedule, schedule, device)
        rates.append(float(result.learning_rate))
        moved.append(float(jnp.abs(state.params["Dense_0"]["bias"] - before).max()))
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-5)
    assert moved[3] == pytest.approx(moved[2] / 10, rel=0.3)


def test_mcsan_overfits_sixteen_utterances_with_one_compilation():
    data = tiny.dataset(16)
    rng = np.random.default_rng(0)
    random_label = rng.integers(0, 3, 16).astype(np.int32)  # nothing to generalise
    data = dataclasses.replace(data, label=random_label)
    net = tiny.model(hidden_size=16)
    trainer = ReplicaTrainer(
        net, Adam(clip="global_norm"), ((("audio", 45), ("words", 5)),), Classes(tiny.CLASSES), 1
    )
    device = jax.device_put(on_host(data, net.needs))
    norm = {"audio": FrameSums.of(data.arrays["audio"]).normalisation(np.arange(16))}
    hyper = {"learning_rate": np.float32(1e-2), "dropout_rate": np.float32(0)}
    state = jax.jit(trainer.init)(jax.random.key(0), hyper, norm, np.ones(3, np.float32), device)
    batch = gather(device, jnp.arange(16), jnp.ones(16), dict(trainer.widths[0]), state.normalisation)
    step = jax.jit(trainer.step)
    losses = []
    for _ in range(60):
        state, result = step(state, batch, jnp.float32(0))
        losses.append(float(result.loss))
    assert step._cache_size() == 1
    assert losses[0] > 0.9
    assert losses[-1] < 0.05
    assert int(state.step) == 60
