"""The test scores of one run, by fold and seed, computed from its test predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num

from jaxser.evaluation import metrics
from jaxser.evaluation.run_folder import Predictions, Run
from jaxser.evaluation.targets import Target
from jaxser.types import UsageError

NAMES = {name: metrics.describe(name).title for name in metrics.SCORES}
"""The display names of the scores of classes."""


@dataclass(frozen=True)
class Spread:
    """A mean test score and its standard deviations.

    They divide by n - 1, and are None for n = 1.

    Attributes:
        over_folds: seeds averaged within a fold.
        over_seeds: folds averaged within a seed.
        over_runs: every replica by itself.
    """

    metric: str
    mean: float
    over_folds: float | None
    over_seeds: float | None
    over_runs: float | None
    folds: int
    seeds: int

    def __str__(self) -> str:
        spreads = [
            (self.over_folds, f"over {self.folds} folds (seeds averaged)"),
            (self.over_seeds, f"over {self.seeds} seeds (folds averaged)"),
        ]
        metric = metrics.describe(self.metric)
        known = "; ".join(f"± {metric.show(std)} {over}" for std, over in spreads if std is not None)
        return f"{metric.title} {metric.show(self.mean)}{metric.unit}" + (f", {known}" if known else "")


def spread(run: Run, metric: str = "ua") -> Spread:
    """Return the mean of a score and its standard deviations, from the run's summary.

    Raises:
        UsageError: if no replica has a score, or the metric is unknown.
    """
    check_metric(run, metric)
    summary = run.results.summary
    mean = summary.mean[metric]
    if mean is None:
        raise UsageError(f"{name_of(run)} has no replica with a score: train again with another setting")
    return Spread(
        metric,
        mean,
        over_folds=summary.std_over_folds[metric],
        over_seeds=summary.std_over_seeds[metric],
        over_runs=summary.std_over_runs[metric],
        folds=summary.folds,
        seeds=summary.seeds,
    )


def replica_scores(run: Run, metric: str) -> Float[np.ndarray, "folds seeds"]:
    """Return the test score of each fold and seed; NaN if there is none.

    Folds are in the order of `run.folds`, and seeds ascending.
    """
    check_metric(run, metric)
    p = run.test_predictions
    row_of = {fold.name: row for row, fold in enumerate(run.folds)}
    fold = np.array([row_of[name] for name in p.fold.tolist()], dtype=int)
    target = run.results.target
    found = group_statistics(p, fold, len(run.folds), target)
    return np.array([[target.scores(own)[metric] for own in row] for row in found])


def fold_means(run: Run, metric: str) -> Float[np.ndarray, " folds"]:
    """Return the test score of each fold, averaged over the seeds that have one."""
    return np.nanmean(replica_scores(run, metric), axis=1)


def correct(run: Run) -> Float[np.ndarray, "N seeds"]:
    """Return whether each test utterance (sorted by id) is classified correctly, by seed.

    The value is 0 or 1, or the mean if several folds test the utterance; NaN if none does. For other targets than
    classes, it is `Target.compared_by_utterance`.
    """
    p = run.test_predictions
    utterance = np.unique(p.utterance, return_inverse=True)[1]
    seed = np.unique(p.seed, return_inverse=True)[1]
    shape = (int(utterance.max()) + 1, int(seed.max()) + 1)
    cell = np.ravel_multi_index((utterance, seed), shape)
    tests = np.bincount(cell, minlength=math.prod(shape))
    each = run.results.target.compared_by_utterance(p.true, p.predicted)
    hits = np.bincount(cell, each, math.prod(shape))
    return np.divide(hits, tests, out=np.full(len(tests), np.nan), where=tests > 0).reshape(shape)


def group_statistics(
    p: Predictions, group: Int[np.ndarray, " N"], num_groups: int, target: Target
) -> Num[np.ndarray, "groups seeds K L"]:
    """Return the statistics of each group and seed: confusion matrices, or sums.

    Args:
        p: test predictions.
        group: the group of each prediction, such as its fold or its speaker.
        num_groups: the number of groups.
        target: what is predicted.
    """
    seeds, seed = np.unique(p.seed, return_inverse=True)
    cell = np.ravel_multi_index((group, seed), (num_groups, len(seeds)))
    found = target.grouped(p.true, p.predicted, cell, num_groups * len(seeds))
    return found.reshape(num_groups, len(seeds), *target.shape)


def test_train_ratio(run: Run) -> float:
    """Return the number of test utterances per training utterance, averaged over folds.

    If a fold does not name its training part (imported results), all utterances that it does not test count as
    its training part.
    """
    num_utterances = len({i for fold in run.folds for i in fold.test})
    return float(np.mean([len(f.test) / (len(f.train) or num_utterances - len(f.test)) for f in run.folds]))


def name_of(run: Run) -> str:
    """Return the name of the run's folder."""
    return run.folder.resolve().name


def check_metric(run: Run, metric: str) -> None:
    """Check that a run has a score.

    Raises:
        UsageError: if it has none of that name.
    """
    if metric not in (known := run.results.target.score_names):
        raise UsageError(f"metric {metric!r} is not one of {', '.join(known)}")
