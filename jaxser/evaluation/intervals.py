"""Bootstrap intervals of a run's pooled test score, and of differences between runs.

    interval(run)       of the pooled score
    difference(a, b)    of the pooled score of a minus that of b

The pooled score is that of the predictions of all folds together, of one seed at a time, averaged over seeds. The
models stay as they are; utterances or speakers are resampled. Scores are fractions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from jaxser.evaluation import metrics
from jaxser.evaluation.comparisons import check_comparable
from jaxser.evaluation.hypothesis_tests import LEVEL
from jaxser.evaluation.run_folder import Run
from jaxser.evaluation.run_scores import NAMES, check_metric, group_confusions, name_of, replica_scores
from jaxser.types import UsageError

MIN_SPEAKERS = 5
"""The smallest number of speakers that can be resampled."""


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
        score = f"{NAMES[self.metric]} of {' minus that of '.join(self.runs)}"
        sign, unit = ("", "%") if len(self.runs) == 1 else ("+", "points")
        low, value, high = (f"{100 * number:{sign}.1f}" for number in (self.low, self.value, self.high))
        return f"{score}: {value} {unit} (95 % interval {low} to {high}, from {self.drawn} {self.by}s)"


def interval(
    run: Run, metric: str = "ua", by: str = "utterance", *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Estimate how the pooled test score would vary with other utterances, or other speakers.

    All seeds see the same draws, since seeds add no utterances. For small numbers, the percentiles are widened as in
    the expanded percentile interval of Hesterberg (2015, "What Teachers Should Know About the Bootstrap").

    Args:
        run: a finished run.
        metric: one of `metrics.SCORES`.
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
    check_metric(metric)
    counts = [_confusions_by_unit(run, by).astype(np.float32) for run in runs]
    number = len(counts[0])

    def statistic(rows: Int[np.ndarray, "batch units"], axis: int = -1) -> Float[np.ndarray, " batch"]:
        """Return the score, or the difference of two, of drawn utterances or speakers."""
        times = np.stack([np.bincount(row, minlength=number) for row in rows]).astype(np.float32)
        first, *second = (_pooled(np.tensordot(times, own, axes=1), metric) for own in counts)
        return first - second[0] if second else first

    units = np.arange(number)
    bounds = scipy.stats.bootstrap(
        (units,),
        statistic,
        n_resamples=resamples,
        batch=250,
        vectorized=True,
        confidence_level=_expanded_level(number),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    value = float(statistic(units[None])[0])
    return Interval(
        tuple(map(name_of, runs)), metric, by, value, float(bounds.low), float(bounds.high), number
    )


def _expanded_level(number: int) -> float:
    """Return the level at which percentiles match a t-interval with n - 1 in the variance (Hesterberg 2015)."""
    errors = math.sqrt(number / (number - 1)) * scipy.stats.t.ppf(1 - LEVEL / 2, number - 1)
    return float(1 - 2 * scipy.stats.norm.sf(errors))


_scores: Callable[..., dict[str, jax.Array]] = jax.jit(jax.vmap(jax.vmap(metrics.scores)))


def _pooled(counts: Float[np.ndarray, "batch seeds C C"], metric: str) -> Float[np.ndarray, " batch"]:
    return np.asarray(_scores(counts)[metric], dtype=np.float64).mean(axis=1)


def _confusions_by_unit(run: Run, by: str) -> Int[np.ndarray, "units seeds C C"]:
    """Return the confusions of each utterance or speaker, without the seeds that lack a fold."""
    if by not in ("utterance", "speaker"):
        raise UsageError(f"intervals are by 'utterance' or 'speaker', not by {by!r}")
    is_complete = np.isfinite(replica_scores(run, "wa")).all(axis=0)
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
    return group_confusions(p, unit, len(names))[:, is_complete]
