"""Probes against numpy, one utterance at a time without padding."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxser.models.probe import Probe
from jaxser.types import Batch, FieldError

LENGTHS = np.array([4, 1, 7])
HYPER = {"dropout_rate": jnp.float32(0.3)}


@cache
def make_batch() -> Batch:
    """A batch with arbitrary values in the padding."""
    rng = np.random.default_rng(0)
    return Batch(
        label=jnp.array([0, 2, 1]),
        weight=jnp.ones(3),
        audio=jnp.array(rng.normal(2, 3, size=(3, 8, 5)), jnp.float32),
        audio_mask=jnp.array(np.arange(8) < LENGTHS[:, None]),
    )


def variables(net: Probe) -> dict:
    """Arbitrary parameters and running averages."""
    shapes = jax.eval_shape(lambda key: net.init(key, make_batch(), HYPER, train=False), jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.array(np.abs(rng.normal(size=p.shape)) + 0.1, jnp.float32), shapes)


@pytest.mark.parametrize("pooling", ["mean", "statistics", "attentive"])
def test_equations(pooling):
    net = Probe(num_classes=3, pooling=pooling, hidden_size=6)
    batch, state = make_batch(), variables(net)
    found = net.apply(state, batch, HYPER, train=False)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state["params"])
    for n, length in enumerate(LENGTHS):
        x = np.asarray(batch.audio[n, :length], np.float64)
        if pooling == "mean":
            pooled = np.maximum(x @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0).mean(0)
        else:
            weights = np.full(length, 1 / length)
            if pooling == "attentive":
                inner = np.tanh(x @ p["inner"]["kernel"] + p["inner"]["bias"])
                scores = np.exp(inner @ p["score"]["kernel"][:, 0])
                weights = scores / scores.sum()
                np.testing.assert_allclose(found.attention["audio"].weights[n, :length], weights, rtol=1e-5)
            mean = weights @ x
            deviation = np.sqrt(np.maximum(weights @ x**2 - mean**2, 1e-6))
            pooled = np.concatenate([mean, deviation])
            averages, norm = state["batch_stats"]["standardise"], p["standardise"]
            pooled = (pooled - averages["mean"]) / np.sqrt(averages["variance"] + 1e-5)
            pooled = pooled * norm["scale"] + norm["bias"]
        logits = pooled @ p["classifier"]["kernel"] + p["classifier"]["bias"]
        np.testing.assert_allclose(found.logits["audio"][n], logits, rtol=1e-4, atol=1e-4)


def test_statistics_are_standardised_over_utterances_without_padding_rows():
    net = Probe(num_classes=3, pooling="statistics")
    batch = make_batch()._replace(weight=jnp.array([1.0, 1.0, 0.0]))
    _, changed = net.apply(
        variables(net), batch, HYPER, train=True, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"]
    )
    before = variables(net)["batch_stats"]["standardise"]["mean"]
    means = np.stack([np.asarray(batch.audio[n, : LENGTHS[n]]).mean(0) for n in (0, 1)])
    expected = 0.9 * before[:5] + 0.1 * means.mean(0)
    np.testing.assert_allclose(changed["batch_stats"]["standardise"]["mean"][:5], expected, rtol=1e-5)


def test_gradient_is_finite_for_constant_frames_and_empty_utterances():
    net = Probe(num_classes=3, pooling="statistics")
    batch = make_batch()
    batch = batch._replace(audio=jnp.ones_like(batch.audio), audio_mask=batch.audio_mask.at[1].set(False))
    state = variables(net)

    def loss(audio):
        return net.apply(state, batch._replace(audio=audio), HYPER, train=False).log_probs[:, 0].sum()

    assert np.isfinite(jax.grad(loss)(batch.audio)).all()


def test_unknown_pooling():
    with pytest.raises(FieldError, match="pooling='max' is not one of mean, statistics, attentive"):
        variables(Probe(num_classes=3, pooling="max"))
