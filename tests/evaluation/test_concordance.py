"""CCC, Pearson's correlation and RMSE against their formulas and SciPy, for NumPy and traced JAX arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxser.evaluation import concordance


def drawn(number: int = 200, attributes: int = 3, seed: int = 0):
    """Attributes on a scale from 1 to 5, and predictions that are too narrow, shifted or unrelated."""
    rng = np.random.default_rng(seed)
    true = np.clip(rng.normal(3, 0.8, (number, attributes)), 1, 5)
    noise = rng.normal(0, 0.3, true.shape)
    predicted = np.stack([2 + 0.4 * true[:, 0], true[:, 1] + 0.7, 3 + 0 * true[:, 2]], axis=1) + noise
    return true, predicted


def ccc(true, predicted) -> float:
    """Lin (1989), eq. 1, from the two samples."""
    squared = (true - predicted) ** 2
    independent = true.var() + predicted.var() + (true.mean() - predicted.mean()) ** 2
    return 1 - squared.mean() / independent


def sums_of(true, predicted, centre: float = 3.0):
    return concordance.sums(true, predicted, np.ones(len(true)), centre)


def test_scores_are_those_of_their_formulas():
    true, predicted = drawn()
    found = concordance.scores(sums_of(true, predicted))
    for n in range(3):
        assert found["ccc"][n] == pytest.approx(ccc(true[:, n], predicted[:, n]))
        correlation = scipy.stats.pearsonr(true[:, n], predicted[:, n]).statistic
        assert found["pearson"][n] == pytest.approx(correlation)
        assert abs(found["ccc"][n]) <= abs(correlation)
        assert found["rmse"][n] == pytest.approx(np.sqrt(((true[:, n] - predicted[:, n]) ** 2).mean()))


def test_the_centre_changes_nothing():
    true, predicted = drawn()
    found, other = (concordance.scores(sums_of(true, predicted, centre)) for centre in (0.0, 3.0))
    for name in concordance.SCORES:
        np.testing.assert_allclose(found[name], other[name], rtol=1e-10)


def test_sums_of_parts_add_up_and_padding_rows_do_not_count():
    true, predicted = drawn()
    whole = sums_of(true, predicted)
    np.testing.assert_allclose(
        sums_of(true[:50], predicted[:50]) + sums_of(true[50:], predicted[50:]), whole, rtol=1e-12
    )
    padded = [np.concatenate([x, np.full((9, 3), 99.0)]) for x in (true, predicted)]
    weight = np.repeat([1.0, 0.0], [len(true), 9])
    np.testing.assert_allclose(concordance.sums(*padded, weight, 3.0), whole, rtol=1e-12)


def test_perfect_and_opposite_predictions():
    true, _ = drawn()
    assert concordance.scores(sums_of(true, true))["ccc"] == pytest.approx(np.ones(3))
    opposite = 2 * true.mean(0) - true
    assert concordance.scores(sums_of(true, opposite))["ccc"] == pytest.approx(-np.ones(3))


def test_constant_values_and_no_values():
    true, _ = drawn()
    constant = concordance.scores(sums_of(true, np.full_like(true, 3.5)))
    assert constant["ccc"] == pytest.approx(np.zeros(3), abs=1e-9)
    assert constant["pearson"] == pytest.approx(np.zeros(3), abs=1e-9)
    unknown = concordance.scores(sums_of(np.full_like(true, 2.0), true))
    assert np.isnan(unknown["ccc"]).all()
    assert np.isnan(unknown["pearson"]).all()
    assert np.isfinite(unknown["rmse"]).all()
    nothing = concordance.scores(sums_of(true[:0], true[:0]))
    assert all(np.isnan(nothing[name]).all() for name in concordance.SCORES)


def test_traced_arrays_have_the_same_scores():
    true, predicted = drawn(2000)
    both = [jnp.array(x, jnp.float32) for x in (true, predicted)]
    found = jax.jit(lambda *x: concordance.scores(concordance.sums(*x, jnp.ones(2000), 3.0)))(*both)
    wanted = concordance.scores(sums_of(true, predicted))
    for name in concordance.SCORES:
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-5)
