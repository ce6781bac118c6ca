"""Significance tests of two or several models, on arrays of their scores.

`jaxser.evaluation.comparisons` applies them to runs and gives the verdict. How often each test finds a difference
between equally good models is shown in docs/explanation/statistics.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats
from jaxtyping import Float

LEVEL = 0.05
"""The significance level of all tests, which are two-sided; intervals have the level 1 - LEVEL."""

POWER = 0.8
"""The probability that a test finds a difference of the size that is called detectable."""


@dataclass(frozen=True)
class Result:
    """The result of a test.

    Attributes:
        p: two-sided.
        number: the number of `units`, such as folds.
        low: the lower end of the 95 % interval of the difference; None if the test has none, as for `high`.
        detectable: the smallest true difference that is found with 80 % power; None if it is unknown.
    """

    test: str
    statistic: float
    p: float
    number: int
    units: str
    low: float | None = None
    high: float | None = None
    detectable: float | None = None

    def __str__(self) -> str:
        result = f"{self.test} over {self.number} {self.units}: {self.statistic:.2f}, p = {self.p:.2g}"
        if self.detectable is None or self.units == "squared errors":
            return result
        return f"{result}; finds a true difference of {100 * self.detectable:.1f} points with 80 % power"


def corrected_t_test(differences: Float[np.ndarray, " folds"], ratio: float, level: float = LEVEL) -> Result:
    """Run the corrected resampled t-test of Nadeau and Bengio.

    It is from "Inference for the Generalization Error" (2003). The variance of the mean of k folds is taken as (1 / k +
    ratio) times that of the folds, because folds share training data.

    Args:
        differences: the difference of two models in each fold.
        ratio: test utterances per training utterance; 0 gives the plain paired t-test.
        level: the significance level that `Result.detectable` is for.
    """
    k, mean = len(differences), float(np.mean(differences))
    error = math.sqrt((1 / k + ratio) * np.var(differences, ddof=1))
    return _t_test("corrected resampled t-test", mean, error, k - 1, k, "folds", level)


def unpaired_t_test(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> Result:
    """Run Student's t-test over runs, as in Rajan et al. (2022).

    It treats runs (folds x seeds) as if they were independent. They are not, since the runs of a fold share their test
    set. It is given for comparison with published results.
    """
    n, m = len(a), len(b)
    pooled = ((n - 1) * np.var(a, ddof=1) + (m - 1) * np.var(b, ddof=1)) / (n + m - 2)
    error = math.sqrt(pooled * (1 / n + 1 / m))
    return _t_test("unpaired t-test", float(np.mean(a) - np.mean(b)), error, n + m - 2, n + m, "runs", LEVEL)


def signed_rank(differences: Float[np.ndarray, " folds"]) -> Result:
    """Run Wilcoxon's signed-rank test.

    Folds without a difference are dropped, and p is exact for few folds.
    """
    kept = np.round(differences, 12)
    kept = kept[kept != 0]
    statistic, p = scipy.stats.wilcoxon(kept) if len(kept) else (0.0, 1.0)
    return Result("Wilcoxon signed-rank test", float(statistic), float(p), len(differences), "folds")


def mcnemar(differences: Float[np.ndarray, " N"]) -> Result:
    """Run McNemar's test of two models on the same utterances.

    With one seed the test is exact (binomial). With several, the seeds of an utterance form a cluster, as in Durkalski
    et al. (2003, "Analysis of clustered matched-pair data"); for clusters of one that is McNemar's chi-square.

    Args:
        differences: how often `a` classifies each utterance correctly minus how often `b` does, averaged over seeds.
    """
    differences = np.round(differences, 12)
    squares = float(np.sum(differences**2))
    if np.isin(differences, (-1, 0, 1)).all():
        won, lost = int(np.sum(differences > 0)), int(np.sum(differences < 0))
        statistic = float(min(won, lost))
        p = scipy.stats.binomtest(won, won + lost).pvalue if squares else 1.0
    else:
        statistic = float(np.sum(differences)) ** 2 / squares
        p = scipy.stats.chi2.sf(statistic, 1)
    normal = scipy.stats.norm.ppf(1 - LEVEL / 2) + scipy.stats.norm.ppf(POWER)
    least = float(normal * math.sqrt(squares) / len(differences))
    return Result("McNemar's test", statistic, float(p), len(differences), "utterances", detectable=least)


def paired_t_test(differences: Float[np.ndarray, " N"]) -> Result:
    """Run a paired t-test of two models on the same utterances.

    It treats utterances as independent, as McNemar's test does.

    Args:
        differences: minus the squared error of `a` plus that of `b` for each utterance, averaged over seeds.
    """
    number = len(differences)
    error = math.sqrt(float(np.var(differences, ddof=1)) / number)
    return _t_test(
        "paired t-test", float(np.mean(differences)), error, number - 1, number, "squared errors", LEVEL
    )


def friedman(scores: Float[np.ndarray, "runs folds"]) -> Result:
    """Run Friedman's test of equal ranks, corrected for ties."""
    scores = np.round(scores, 12)
    tied = (scores == scores[0]).all()
    statistic, p = (0.0, 1.0) if tied else scipy.stats.friedmanchisquare(*scores)
    return Result("Friedman's test", float(statistic), float(p), scores.shape[1], "folds")


def critical_difference(runs: int, folds: int) -> float:
    """Return Nemenyi's critical difference of average ranks at 5 % (Demšar 2006).

    The paper is "Statistical Comparisons of Classifiers".
    """
    q = scipy.stats.studentized_range.ppf(1 - LEVEL, runs, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(runs * (runs + 1) / (6 * folds)))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values by Holm's step-down correction; they keep their order."""
    order = np.argsort(p)
    steps = np.arange(len(p), 0, -1) * np.asarray(p)[order]
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


@functools.cache
def detectable_errors(df: int, level: float = LEVEL) -> float:
    """Return the true mean that a two-sided t-test at `level` finds with 80 % power.

    It is in standard errors.
    """
    critical = scipy.stats.t.ppf(1 - level / 2, df)

    def excess_power(mean: float) -> float:  # the other tail is negligible at this power
        return float(scipy.stats.nct.sf(critical, df, mean)) - POWER

    return float(scipy.optimize.brentq(excess_power, 0.0, 2 * critical + 5))


def _t_test(test: str, mean: float, error: float, df: int, number: int, units: str, level: float) -> Result:
    """Run a t-test of `mean` with the standard error `error`.

    p is 0 or 1 if the error is 0 up to rounding.
    """
    if error < 1e-12:
        error = 0.0
    statistic = mean / error if error else math.copysign(math.inf, mean) if abs(mean) > 1e-12 else 0.0
    half = float(scipy.stats.t.ppf(1 - LEVEL / 2, df)) * error
    return Result(
        test,
        statistic,
        float(2 * scipy.stats.t.sf(abs(statistic), df)),
        number,
        units,
        low=mean - half,
        high=mean + half,
        detectable=error * detectable_errors(df, level),
    )
