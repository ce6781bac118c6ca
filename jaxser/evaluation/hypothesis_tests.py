"""Tests of two models and of several, on arrays of their scores; `jaxser.statistics` applies them to runs.

No test gives a verdict: that is `jaxser.statistics.Comparison`'s, which tells what it could have missed as well.
How often each finds a difference between equal models: docs/explanation/statistics.md.
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
"""Two-sided, of every test; intervals have 1 - LEVEL."""

POWER = 0.8
"""With which a test finds a difference as large as its minimal detectable one."""


@dataclass(frozen=True)
class Result:
    """What a test found."""

    test: str
    statistic: float
    p: float  # two-sided
    number: int  # of `units`
    units: str
    low: float | None = None  # 95 % interval of the difference, where the test has one
    high: float | None = None
    detectable: float | None = None  # the smallest true difference found with 80 % power, where it is known

    def __str__(self) -> str:
        found = f"{self.test} over {self.number} {self.units}: {self.statistic:.2f}, p = {self.p:.2g}"
        if self.detectable is None:
            return found
        return f"{found}; finds a true difference of {100 * self.detectable:.1f} points with 80 % power"


def corrected_t_test(differences: Float[np.ndarray, " folds"], ratio: float, level: float = LEVEL) -> Result:
    """The corrected resampled t-test of Nadeau and Bengio (2003, "Inference for the Generalization Error").

    The variance of a mean over k folds is taken as (1 / k + ratio) times that of the folds, since folds share
    training data; `ratio` is test utterances over training utterances. With 0 it is the plain paired t-test.
    """
    k, mean = len(differences), float(np.mean(differences))
    error = math.sqrt((1 / k + ratio) * np.var(differences, ddof=1))
    return _t_test("corrected resampled t-test", mean, error, k - 1, k, "folds", level)


def unpaired_t_test(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> Result:
    """Student's two-tailed t-test over runs (folds x seeds) as if each were independent: Rajan et al. (2022).

    They are not: runs of a fold share their test set. It is given for comparison with what is published.
    """
    n, m = len(a), len(b)
    pooled = ((n - 1) * np.var(a, ddof=1) + (m - 1) * np.var(b, ddof=1)) / (n + m - 2)
    error = math.sqrt(pooled * (1 / n + 1 / m))
    return _t_test("unpaired t-test", float(np.mean(a) - np.mean(b)), error, n + m - 2, n + m, "runs", LEVEL)


def signed_rank(differences: Float[np.ndarray, " folds"]) -> Result:
    """Wilcoxon's signed-rank test; equal folds are dropped, and the p is exact for few folds."""
    kept = np.round(differences, 12)
    kept = kept[kept != 0]
    statistic, p = scipy.stats.wilcoxon(kept) if len(kept) else (0.0, 1.0)
    return Result("Wilcoxon signed-rank test", float(statistic), float(p), len(differences), "folds")


def mcnemar(differences: Float[np.ndarray, " N"]) -> Result:
    """McNemar's test; each utterance has how often `a` is right less how often `b` is, over seeds.

    With one seed it is exact (binomial). With more the seeds of an utterance are a cluster, after Durkalski et
    al. (2003, "Analysis of clustered matched-pair data"), which for clusters of one is McNemar's chi-square.
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


def friedman(scores: Float[np.ndarray, "runs folds"]) -> Result:
    """Friedman's test of equal ranks, with ties corrected."""
    scores = np.round(scores, 12)
    tied = (scores == scores[0]).all()
    statistic, p = (0.0, 1.0) if tied else scipy.stats.friedmanchisquare(*scores)
    return Result("Friedman's test", float(statistic), float(p), scores.shape[1], "folds")


def critical_difference(runs: int, folds: int) -> float:
    """Nemenyi's, of average ranks, at 5 % (Demšar 2006, "Statistical Comparisons of Classifiers")."""
    q = scipy.stats.studentized_range.ppf(1 - LEVEL, runs, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(runs * (runs + 1) / (6 * folds)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p values in the order given."""
    order = np.argsort(p)
    steps = np.arange(len(p), 0, -1) * np.asarray(p)[order]
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


@functools.cache
def detectable_errors(df: int, level: float = LEVEL) -> float:
    """The true mean, in standard errors, that a two-sided t-test at `level` finds with 80 % power."""
    critical = scipy.stats.t.ppf(1 - level / 2, df)

    def missing(mean: float) -> float:  # the other side's tail adds nothing at this power
        return float(scipy.stats.nct.sf(critical, df, mean)) - POWER

    return float(scipy.optimize.brentq(missing, 0.0, 2 * critical + 5))


def _t_test(test: str, mean: float, error: float, df: int, number: int, units: str, level: float) -> Result:
    """`error` is the standard error of `mean`; where it is none but what rounding leaves, p is 0 or 1."""
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
