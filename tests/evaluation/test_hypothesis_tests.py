"""Hypothesis tests against SciPy, statsmodels, published examples and arithmetic."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from jaxser.evaluation import comparisons, hypothesis_tests

DEMSAR = np.array(
    [
        [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.940, 0.619, 0.972, 0.957],
        [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978],
        [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.0, 0.965, 0.614, 0.975, 0.946],
        [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.0, 0.962, 0.669, 0.9749, 0.970],
    ]
)
"""AUC of C4.5 and its three tuned versions on 14 data sets (Demšar 2006, table 6, where the last
0.975 ranks below the other)."""

scores = st.floats(0, 1).map(lambda value: round(value, 3))


def test_corrected_t_test_by_hand():
    found = hypothesis_tests.corrected_t_test(np.array([0.01, 0.02, 0.03, 0.04, 0.05]), ratio=0.25)
    # mean 0.03, variance 2.5e-4: the error is sqrt((1/5 + 1/4) 2.5e-4) = 0.010607, t = sqrt(8), and for 4 degrees of
    # freedom P(|T| < t) = 1.5 (x - x³ / 3) with x = t / sqrt(4 + t²) = sqrt(2/3)
    x = np.sqrt(2 / 3)
    assert found.statistic == pytest.approx(np.sqrt(8))
    assert found.p == pytest.approx(1 - 1.5 * (x - x**3 / 3))
    half = 2.776445 * np.sqrt(0.45 * 2.5e-4)  # 2.776445: table of t, 4 degrees of freedom
    assert (found.low, found.high) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-8)


@given(arrays(float, st.integers(3, 12), elements=scores), arrays(float, st.integers(3, 12), elements=scores))
def test_t_tests_are_scipys(a, b):
    if np.ptp(a) > 0:
        paired = hypothesis_tests.corrected_t_test(a - 0.5, ratio=0.0)
        expected = scipy.stats.ttest_1samp(a, 0.5)
        assert (paired.statistic, paired.p) == pytest.approx((expected.statistic, expected.pvalue), abs=1e-9)
        assert (paired.low, paired.high) == pytest.approx(np.array(expected.confidence_interval()) - 0.5)
        assert hypothesis_tests.corrected_t_test(a - 0.5, ratio=0.3).p >= paired.p
    if np.ptp(a) > 0 and np.ptp(b) > 0:
        unpaired, expected = hypothesis_tests.unpaired_t_test(a, b), scipy.stats.ttest_ind(a, b)
        assert (unpaired.statistic, unpaired.p) == pytest.approx(
            (expected.statistic, expected.pvalue), abs=1e-9
        )


@pytest.mark.parametrize(("mean", "p"), [(0.0, 1.0), (0.1, 0.0)])
def test_differences_that_do_not_vary(mean, p):
    assert hypothesis_tests.corrected_t_test(np.full(5, mean), ratio=0.25).p == p
    assert hypothesis_tests.unpaired_t_test(np.full(5, mean), np.zeros(5)).p == p


@pytest.mark.parametrize("number", [3, 5, 10, 50])
def test_detectable_difference_is_statsmodels(number):
    effect = TTestPower().solve_power(nobs=number, alpha=0.05, power=0.8)
    assert hypothesis_tests.detectable_errors(number - 1) == pytest.approx(effect * np.sqrt(number), rel=1e-4)


@pytest.mark.parametrize("number", [3, 5, 24])
@pytest.mark.parametrize("family", [3, 105])
def test_detectable_difference_by_integration(number, family):
    """At small levels statsmodels fails (NaN in the other tail): integrate over the chi-square of the variance."""
    level, df = hypothesis_tests.LEVEL / family, number - 1
    found, critical = hypothesis_tests.detectable_errors(df, level), scipy.stats.t.ppf(1 - level / 2, df)

    def weighted(v: float) -> float:
        return scipy.stats.norm.sf(critical * np.sqrt(v / df) - found) * scipy.stats.chi2.pdf(v, df)

    assert scipy.integrate.quad(weighted, 0, 100)[0] == pytest.approx(0.8, abs=1e-4)


def test_detectable_difference_is_found_in_four_of_five_cases():
    rng = np.random.default_rng(0)
    least = hypothesis_tests.detectable_errors(4) / np.sqrt(5)
    found = [hypothesis_tests.corrected_t_test(rng.normal(least, 1, 5), 0.0).p < 0.05 for _ in range(1000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_signed_rank_on_demsars_data():
    # The two equal data sets are dropped; |-0.005| shares the ranks 1 and 2, |-0.008| is rank 5: 6.5 in all.
    assert hypothesis_tests.signed_rank(DEMSAR[1] - DEMSAR[0]).statistic == 6.5


def test_signed_rank_finds_nothing_in_fewer_folds_than_it_needs():
    fewest = comparisons.MIN_FOLDS_FOR_RANKS
    rising = np.arange(1.0, fewest + 1) / 100
    assert hypothesis_tests.signed_rank(rising).p == pytest.approx(2 / 2**fewest)
    assert hypothesis_tests.signed_rank(rising[:-1]).p > hypothesis_tests.LEVEL > 2 / 2**fewest
    assert hypothesis_tests.signed_rank(np.zeros(6)).p == 1


def rights(both: int, won: int, lost: int, neither: int) -> np.ndarray:
    return np.repeat([0.0, 1.0, -1.0, 0.0], [both, won, lost, neither])


def test_mcnemar_on_agrestis_approval_ratings():
    # Agresti, Categorical Data Analysis, table 10.1: (150 - 86)² / (150 + 86) = 17.36
    differences = rights(794, 150, 86, 570)
    exact = statsmodels_mcnemar([[794, 150], [86, 570]], exact=True)
    assert hypothesis_tests.mcnemar(differences).p == pytest.approx(exact.pvalue)
    clustered = hypothesis_tests.mcnemar(
        differences / 2
    )  # two seeds, in one of which the models never differ
    assert clustered.statistic == pytest.approx(64**2 / 236)
    assert clustered.p == pytest.approx(
        statsmodels_mcnemar([[794, 150], [86, 570]], exact=False, correction=False).pvalue
    )
    assert clustered.detectable == pytest.approx(2.801585 / 2 * np.sqrt(236) / 1600)  # z(.975) + z(.8)
    assert hypothesis_tests.mcnemar(rights(5, 0, 0, 3)).p == 1


def test_seeds_that_agree_add_nothing_to_mcnemar():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 400, 1)) < [[[0.7]], [[0.6]]]
    one = hypothesis_tests.mcnemar((a.astype(float) - b).mean(axis=1))
    many = hypothesis_tests.mcnemar(
        (np.repeat(a, 7, axis=1).astype(float) - np.repeat(b, 7, axis=1)).mean(axis=1)
    )
    assert one == many


def test_friedman_on_demsars_data():
    found = hypothesis_tests.friedman(DEMSAR)
    ranks = scipy.stats.rankdata(-DEMSAR, axis=0).mean(axis=1)
    assert ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=1e-3)
    # His chi-square is 9.28 without correction for ties: here 4 equal once and pairs three times.
    assert found.statistic * (1 - (60 + 3 * 6) / (14 * 60)) == pytest.approx(9.28, abs=0.01)
    assert hypothesis_tests.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert hypothesis_tests.friedman(np.ones((3, 5))).p == 1


def test_critical_difference_has_demsars_table_of_q():
    table = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for runs, q in table.items():
        found = hypothesis_tests.critical_difference(runs, 1) / np.sqrt(runs * (runs + 1) / 6)
        assert found == pytest.approx(q, abs=1.01e-3)


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(p):
    assert hypothesis_tests.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
