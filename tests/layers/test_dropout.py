"""The random numbers of dropout: they have the right rate, and no pattern that a network could learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxser.layers.dropout import dropped, kept

SHAPE = (40, 6, 50, 50)


@pytest.fixture(scope="module")
def masks():
    """The masks of 60 steps of one replica."""
    keys = jax.vmap(lambda step: jax.random.fold_in(jax.random.key(3), step))(jnp.arange(60))
    return np.asarray(jax.jit(jax.vmap(lambda key: kept(key, SHAPE[1:], jnp.float32(0.3))))(keys))


def correlation(a, b):
    """In standard errors under independence."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    return abs((a * b).mean() / (a.std() * b.std())) * np.sqrt(a.size)


@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.1, 0.25, 0.5, 0.9])
def test_elements_are_dropped_at_the_rate(rate):
    found = np.asarray(kept(jax.random.key(0), SHAPE, jnp.float32(rate)))
    error = np.sqrt(rate * (1 - rate) / found.size)
    assert abs(1 - found.mean() - rate) <= 4 * error


def test_elements_are_independent_of_neighbours_steps_and_seeds(masks):
    for axis in range(masks.ndim):
        for shift in (1, 2, 7):
            assert correlation(masks, np.roll(masks, shift, axis)) < 4.5
    other = np.asarray(kept(jax.random.key(4), masks.shape, 0.3))
    assert correlation(masks, other) < 4.5


def test_counts_in_runs_of_eight_are_binomial(masks):
    counts = np.bincount(
        masks.reshape(-1)[: masks.size // 8 * 8].reshape(-1, 8) @ 2 ** np.arange(8), minlength=256
    )
    ones = np.array([bin(pattern).count("1") for pattern in range(256)])
    expected = 0.7**ones * 0.3 ** (8 - ones) * counts.sum()
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert abs(statistic - 255) < 4.5 * np.sqrt(2 * 255)


def test_all_elements_are_dropped_equally_often(masks):
    share = masks.mean(0).ravel()
    assert share.std() == pytest.approx(np.sqrt(0.3 * 0.7 / len(masks)), rel=0.05)


def test_kept_elements_are_scaled():
    x = jnp.linspace(1, 2, 1000)
    found = np.asarray(dropped(jax.random.key(1), x, 0.25))
    mask = np.asarray(kept(jax.random.key(1), x.shape, 0.25))
    np.testing.assert_allclose(found, np.where(mask, x / 0.75, 0), rtol=1e-6)


def test_vmapped_masks_equal_single_masks():
    keys = jax.random.split(jax.random.key(0), 3)
    rates = jnp.array([0.1, 0.2, 0.5])
    together = jax.vmap(lambda key, rate: kept(key, (20, 30), rate))(keys, rates)
    for r in range(3):
        np.testing.assert_array_equal(together[r], kept(keys[r], (20, 30), rates[r]))
