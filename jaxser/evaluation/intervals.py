"""Bootstrap intervals of a run's pooled test score, and of differences between runs.

    interval(run)       of the pooled score
    difference(a, b)    of the pooled score of a minus that of b

The pooled score is that of the predictions of all folds together, of one seed at a time, averaged over seeds. The
models stay as they are; utterances or speakers are resampled. Scores are fractions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Num, Shaped

from jaxser.evaluation import metrics
from jaxser.evaluation.comparisons import check_comparable
from jaxser.evaluation.hypothesis_tests import LEVEL
from jaxser.evaluation.run_folder import Run
from jaxser.evaluation.run_scores import check_metric, group_statistics, name_of, replica_scores
from jaxser.types import UsageError

MIN_SPEAKERS = 5
"""The smallest number of speakers that can be resampled."""

MAX_SINGLE = 20_000
"""The largest number of utterances or speakers that are always drawn one by one."""


@dataclass(frozen=True)
class Interval:
    """A 95 % bootstrap interval of a pooled score, or of a difference.

    The difference is the score of run `a` minus that of run `b`.

    Attributes:
        runs: the names of the run, or of `a` and `b`.
        by: what is resampled: "utterance" or "speaker".
        value: the score of the predictions as they are.
        drawn: the number of utterances or speakers.
    """

    runs: tuple[str, ...]
    metric: str
    by: str
    value: float
    low: float
    high: float
    drawn: int

    def __str__(self) -> str:
        metric = metrics.describe(self.metric)
        score = f"{metric.title} of {' minus that of '.join(self.runs)}"
        sign, unit = ("", metric.unit) if len(self.runs) == 1 else ("+", metric.step)
        low, value, high = (metric.show(number, sign) for number in (self.low, self.value, self.high))
        return f"{score}: {value}{unit} (95 % interval {low} to {high}, from {self.drawn} {self.by}s)"


def interval(
    run: Run, metric: str = "ua", by: str = "utterance", *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Estimate how the pooled test score would vary with other utterances, or other speakers.

    All seeds see the same draws, since seeds add no utterances. For small numbers, the percentiles are widened as in
    the expanded percentile interval of Hesterberg (2015, "What Teachers Should Know About the Bootstrap").

    Args:
        run: a finished run.
        metric: one of the target's scores.
        by: "utterance", or "speaker" to draw speakers with all their utterances.
        resamples: the number of draws.
        seed: the seed of the draws.

    Raises:
        UsageError: if speakers are unknown or too few, or no seed has all folds.
    """
    return _bootstrap([run], metric, by, resamples, seed)


def difference(
    a: Run, b: Run, metric: str = "ua", by: str = "utterance", *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Estimate how the score of `a` minus that of `b` would vary; one fold is enough.

    Both runs are scored on the same draws. For the arguments see `interval`.

    Raises:
        UsageError: as `interval`, or if the runs cannot be compared.
    """
    check_comparable(a, b)
    return _bootstrap([a, b], metric, by, resamples, seed)


def _bootstrap(runs: Sequence[Run], metric: str, by: str, resamples: int, seed: int) -> Interval:
    for run in runs:
        check_metric(run, metric)
    counts = [_statistics_by_unit(run, by).astype(np.float32) for run in runs]
    number, pooled = len(counts[0]), _pooled(runs[0].results.target.scores)

    def score(times: Shaped[np.ndarray, "batch units"]) -> Float[np.ndarray, " batch"]:
        """Return the score, or the difference of two, of units that occur so many times."""
        first, *second = (
            pooled(np.tensordot(times.astype(np.float32), own, axes=1), metric) for own in counts
        )
        return first - second[0] if second else first

    value = float(score(np.ones((1, number)))[0])
    rng, level = np.random.default_rng(seed), _expanded_level(number)
    if number > MAX_SINGLE and (drawn := _draw_kinds(counts, resamples, rng)) is not None:
        counts, times = drawn
        low, high = np.quantile(score(times), [(1 - level) / 2, (1 + level) / 2])
    else:

        def statistic(rows: Int[np.ndarray, "batch units"], axis: int = -1) -> Float[np.ndarray, " batch"]:
            return score(np.stack([np.bincount(row, minlength=number) for row in rows]))

        low, high = scipy.stats.bootstrap(
            (np.arange(number),),
            statistic,
            n_resamples=resamples,
            batch=250,
            vectorized=True,
            confidence_level=level,
            method="percentile",
            rng=rng,
        ).confidence_interval
    return Interval(tuple(map(name_of, runs)), metric, by, value, float(low), float(high), number)


def _draw_kinds(
    counts: Sequence[Float[np.ndarray, "units seeds K L"]], resamples: int, rng: np.random.Generator
) -> tuple[list[Float[np.ndarray, "kinds seeds K L"]], Int[np.ndarray, "batch kinds"]] | None:
    """Draw units of equal statistics together, which has the same distribution as to draw them one by one.

    Returns:
        The statistics of each kind of unit, and how often it is drawn; None if most units are of a kind of their own.
    """
    number = len(counts[0])
    flat = np.concatenate([own.reshape(number, -1) for own in counts], axis=1)
    rows = np.ascontiguousarray(flat).view(np.dtype((np.void, flat.shape[1] * flat.itemsize))).ravel()
    _, first, times = np.unique(rows, return_index=True, return_counts=True)
    if len(first) * 4 > number:
        return None
    return [own[first] for own in counts], rng.multinomial(number, times / number, resamples)


def _expanded_level(number: int) -> float:
    """Return the level at which percentiles match a t-interval with n - 1 in the variance (Hesterberg 2015)."""
    errors = math.sqrt(number / (number - 1)) * scipy.stats.t.ppf(1 - LEVEL / 2, number - 1)
    return float(1 - 2 * scipy.stats.norm.sf(errors))


@functools.cache
def _pooled(scores: Callable[..., dict[str, Any]]) -> Callable[..., Float[np.ndarray, " batch"]]:
    """Return a compiled function from statistics `[batch, seeds, K, L]` to a score, averaged over seeds."""
    compiled = jax.jit(jax.vmap(jax.vmap(scores)))

    def pooled(statistics: Float[np.ndarray, "batch seeds K L"], metric: str) -> Float[np.ndarray, " batch"]:
        return np.asarray(compiled(statistics)[metric], dtype=np.float64).mean(axis=1)

    return pooled


def _statistics_by_unit(run: Run, by: str) -> Num[np.ndarray, "units seeds K L"]:
    """Return the statistics of each utterance or speaker, without the seeds that lack a fold."""
    if by not in ("utterance", "speaker"):
        raise UsageError(f"intervals are by 'utterance' or 'speaker', not by {by!r}")
    is_complete = np.isfinite(replica_scores(run, run.results.target.defined)).all(axis=0)
    if not is_complete.any():
        raise UsageError(
            f"{name_of(run)} has no seed with a score in every fold: train again with more seeds"
        )
    p = run.test_predictions
    units = p.utterance
    if by == "speaker":
        units = np.array([run.utterances[i].speaker for i in units.tolist()], dtype=str)
    names, unit = np.unique(units, return_inverse=True)
    if by == "speaker" and ("" in names or len(names) < MIN_SPEAKERS):
        speakers = "utterances of unknown speakers" if "" in names else f"only {len(names)} speakers"
        raise UsageError(
            f"{name_of(run)} tests {speakers}; {MIN_SPEAKERS} known speakers are needed: use by='utterance'"
        )
    return group_statistics(p, unit, len(names), run.results.target)[:, is_complete]
