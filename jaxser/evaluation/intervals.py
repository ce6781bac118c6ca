"""Bootstrap intervals of a run's pooled test score, and of differences between runs.

    interval(run)       of the pooled score
    intervals(run)      of the pooled scores of all metrics, from the same draws
    difference(a, b)    of the pooled score of a minus that of b

The pooled score is that of the predictions of all folds together, of one seed at a time, averaged over seeds. The
models stay as they are; utterances or speakers are resampled. Scores are fractions.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import scipy.sparse
import scipy.stats
from jaxtyping import Float, Int, Shaped

from jaxser.evaluation import metrics
from jaxser.evaluation.comparisons import check_comparable, check_same_task, check_same_truth
from jaxser.evaluation.hypothesis_tests import LEVEL
from jaxser.evaluation.run_folder import Run
from jaxser.evaluation.run_scores import check_metric, name_of, replica_scores
from jaxser.types import UsageError

MIN_SPEAKERS = 5
"""The smallest number of speakers that can be resampled."""

MAX_SINGLE = 20_000
"""The largest number of utterances or speakers that are always drawn one by one."""

_BATCH = 250  # draws at a time


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
    return _bootstrap([run], (metric,), by, resamples, seed)[0]


def intervals(
    run: Run, by: str = "utterance", *, resamples: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """Return the intervals of all scores of the run's target, from the same draws.

    For the arguments and errors see `interval`.
    """
    names = run.results.target.score_names
    found = _bootstrap([run], names, by, resamples, seed)
    return dict(zip(names, found, strict=True))


def difference(
    a: Run, b: Run, metric: str = "ua", by: str = "utterance", *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Estimate how the score of `a` minus that of `b` would vary; one fold is enough.

    Both runs are scored on the same draws. For the arguments see `interval`.

    Raises:
        UsageError: as `interval`, or if the runs cannot be compared.
    """
    check_comparable(a, b)
    return _bootstrap([a, b], (metric,), by, resamples, seed)[0]


def difference_across_folds(
    a: Run, b: Run, metric: str = "ua", by: str = "utterance", *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Estimate the difference of two runs that test the same utterances in different folds.

    The runs test the same utterances altogether (`jaxser.evaluation.fold_twins` selects them). For the arguments see
    `interval`, for the errors `difference`.
    """
    check_same_task(a, b)
    check_same_truth(a, b)
    return _bootstrap([a, b], (metric,), by, resamples, seed)[0]


@dataclass(frozen=True, eq=False)
class _Counts:
    """The statistics of each utterance or speaker: of confusion matrices, nearly all cells are 0.

    Attributes:
        cells: units by the cells of the statistics of all seeds.
        shape: the shape of the cells: seeds, and the shape of the target's statistics.
    """

    cells: scipy.sparse.csr_array
    shape: tuple[int, ...]


def _bootstrap(
    runs: Sequence[Run], names: Sequence[str], by: str, resamples: int, seed: int
) -> list[Interval]:
    """Return the interval of each metric; all are from the same draws."""
    for name in names:
        for run in runs:
            check_metric(run, name)
    counts, scores_of = [_statistics_by_unit(run, by) for run in runs], runs[0].results.target.scores
    number = counts[0].cells.shape[0]

    def score(
        times: Shaped[np.ndarray, "batch units"], counts: Sequence[_Counts] = counts
    ) -> Float[np.ndarray, "metrics batch"]:
        """Return the scores, or the differences of two, of units that occur so many times."""
        first, *second = (_pooled(scores_of, times, own, names) for own in counts)
        return first - second[0] if second else first

    values = score(np.ones((1, number)))[:, 0]
    rng, level = np.random.default_rng(seed), _expanded_level(number)
    if number > MAX_SINGLE and (drawn := _draw_kinds(counts, resamples, rng)) is not None:
        kinds, times = drawn
        scores = [score(times[row : row + _BATCH], kinds) for row in range(0, resamples, _BATCH)]
        lows, highs = np.quantile(np.hstack(scores), [(1 - level) / 2, (1 + level) / 2], axis=1)
    else:

        def statistic(
            rows: Int[np.ndarray, "batch units"], axis: int = -1
        ) -> Float[np.ndarray, "metrics batch"]:
            return score(np.stack([np.bincount(row, minlength=number) for row in rows]))

        with warnings.catch_warnings():  # where a draw has no score, the ends are NaN
            warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
            lows, highs = scipy.stats.bootstrap(
                (np.arange(number),),
                statistic,
                n_resamples=resamples,
                batch=_BATCH,
                vectorized=True,
                confidence_level=level,
                method="percentile",
                rng=rng,
            ).confidence_interval
    runs_of = tuple(map(name_of, runs))
    return [
        Interval(runs_of, name, by, float(value), float(low), float(high), number)
        for name, value, low, high in zip(names, values, lows, highs, strict=True)
    ]


def _draw_kinds(
    counts: Sequence[_Counts], resamples: int, rng: np.random.Generator
) -> tuple[list[_Counts], Int[np.ndarray, "batch kinds"]] | None:
    """Draw units of equal statistics together, which has the same distribution as to draw them one by one.

    Returns:
        The statistics of each kind of unit, and how often it is drawn; None if most units are of a kind of their own.
    """
    number = counts[0].cells.shape[0]
    if any(len(np.unique(np.diff(own.cells.indptr))) > 1 for own in counts):
        return None
    parts = [
        part.reshape(number, -1)
        for own in counts
        for part in (own.cells.indices.astype(np.int32), own.cells.data.view(np.int32))
    ]
    rows = np.ascontiguousarray(np.hstack(parts))
    keys = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    _, first, times = np.unique(keys, return_index=True, return_counts=True)
    if len(first) * 4 > number:
        return None
    kinds = [_Counts(own.cells[first], own.shape) for own in counts]
    return kinds, rng.multinomial(number, times / number, resamples)


def _expanded_level(number: int) -> float:
    """Return the level at which percentiles match a t-interval with n - 1 in the variance (Hesterberg 2015)."""
    errors = math.sqrt(number / (number - 1)) * scipy.stats.t.ppf(1 - LEVEL / 2, number - 1)
    return float(1 - 2 * scipy.stats.norm.sf(errors))


@functools.cache
def _compiled(scores: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, jax.Array]]:
    """Return a compiled function from statistics `[batch, seeds, K, L]` to scores."""
    return jax.jit(jax.vmap(jax.vmap(scores)))


def _pooled(
    scores: Callable[..., dict[str, Any]],
    times: Shaped[np.ndarray, "batch units"],
    counts: _Counts,
    names: Sequence[str],
) -> Float[np.ndarray, "metrics batch"]:
    """Return the scores of the units' summed statistics, averaged over seeds."""
    summed = (times.astype(np.float32) @ counts.cells).reshape(-1, *counts.shape)
    found = _compiled(scores)(summed)
    return np.stack([np.asarray(found[name], dtype=np.float64).mean(axis=1) for name in names])


def _statistics_by_unit(run: Run, by: str) -> _Counts:
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
    target, seed = run.results.target, np.unique(p.seed, return_inverse=True)[1]
    kept, row_of = is_complete[seed], np.cumsum(is_complete) - 1
    shape = (int(is_complete.sum()), *target.shape)
    cell, value = target.cells(p.true[kept], p.predicted[kept])
    cell = cell + (row_of[seed[kept]] * math.prod(target.shape))[:, None]
    rows = np.repeat(unit[kept], cell.shape[1])
    cells = scipy.sparse.csr_array(
        (value.astype(np.float32).ravel(), (rows, cell.ravel())), shape=(len(names), math.prod(shape))
    )
    cells.sort_indices()
    return _Counts(cells, shape)
