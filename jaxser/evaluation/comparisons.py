"""Comparisons of runs on the same folds: significance tests and rankings.

    compare(a, b)              two runs fold by fold, seeds averaged: a verdict, and what the test could have missed
    compare_all(runs)          all pairs with Holm's correction, and ranks for a critical-difference diagram
    compare_predictions(a, b)  McNemar's test, for which one fold is enough

Everything is computed from the test predictions of the reported setting; scores and their differences are fractions. A
question that the runs cannot answer is a `UsageError` that says what to do instead. The tests themselves are in
`jaxser.evaluation.hypothesis_tests`; docs/explanation/statistics.md says which was chosen and why.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.stats

from jaxser.evaluation import metrics
from jaxser.evaluation.hypothesis_tests import (
    LEVEL,
    Result,
    corrected_t_test,
    critical_difference,
    friedman,
    holm,
    signed_rank,
    unpaired_t_test,
)
from jaxser.evaluation.run_folder import Run
from jaxser.evaluation.run_scores import (
    correct,
    fold_means,
    name_of,
    replica_scores,
    test_train_ratio,
)
from jaxser.evaluation.targets import ATTRIBUTES, CLASSES, VOTES
from jaxser.types import UsageError

_CHOSEN_BY = {CLASSES: "--config.classes", ATTRIBUTES: "--config.attributes.names", VOTES: "--config.classes"}
_TRUTH = {CLASSES: "labels", ATTRIBUTES: "values", VOTES: "votes"}

MIN_FOLDS = 3
"""The smallest number of folds for a t-test over folds."""

MIN_FOLDS_FOR_RANKS = 6
"""The smallest number of folds for the signed-rank test; with 5 folds its smallest p is 0.0625."""


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same folds; all differences are `a` minus `b`.

    Attributes:
        by_fold: the difference in each fold.
        seeds: the number of seeds of each run.
        p: the p value of `corrected`, after Holm's correction if there are several comparisons.
        family: the number of comparisons that Holm's correction is for.
        corrected: the test that decides; `low`, `high` and `detectable` (at 5 % / `family`) are of the mean difference.
        wilcoxon: for information; None if there are too few folds.
        by_utterance: for information; McNemar's test of correct and wrong utterances, or a paired t-test of the squared
            errors of attributes or of the divergences of votes, whatever the metric.
        unpaired: for information; the test of Rajan et al. (2022).
    """

    a: str
    b: str
    metric: str
    mean_a: float
    mean_b: float
    difference: float
    folds: tuple[str, ...]
    by_fold: tuple[float, ...]
    seeds: tuple[int, int]
    p: float
    family: int
    corrected: Result
    wilcoxon: Result | None
    by_utterance: Result
    unpaired: Result

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at 5 %."""
        return self.p < LEVEL

    def __str__(self) -> str:
        """Return the verdict in one sentence, with what the test could have missed."""
        metric, test = metrics.describe(self.metric), self.corrected
        name = metric.title
        if not any(self.by_fold):
            return f"{self.a} and {self.b} have the same {name} in every fold."
        ends = (self.difference, test.low or 0, test.high or 0)
        difference, low, high = (metric.show(number, "+") for number in ends)
        holm = f" after Holm's correction for {self.family} comparisons" if self.family > 1 else ""
        alone = " of this pair alone" if self.family > 1 else ""
        return (
            f"{name} of {self.a} minus that of {self.b}: {difference}{metric.step} "
            f"(95 % interval{alone} {low} to {high}), "
            f"{'' if self.significant else 'not '}significant at 5 % ({test.test}, {test.number} folds, "
            f"p = {self.p:.2g}{holm}); the smallest true difference found with 80 % power is "
            f"{metric.show(test.detectable or 0)}{metric.step}."
        )


@dataclass(frozen=True)
class Ranking:
    """Several runs on the same folds, the best first.

    This is the content of a critical-difference diagram. Two runs whose average ranks differ by less than
    `critical_difference` are not distinguished by Nemenyi's test. The folds of one corpus are not independent data
    sets, so the diagram only illustrates and the `comparisons` decide.

    Attributes:
        means: the mean score of each run.
        ranks: the rank of each run, averaged over folds; 1 is the best.
        groups: the largest sets of runs (indices of `runs`) that are not distinguished, drawn as bars.
        comparisons: all pairs, with Holm's correction.
    """

    metric: str
    runs: tuple[str, ...]
    means: tuple[float, ...]
    ranks: tuple[float, ...]
    folds: int
    friedman: Result
    critical_difference: float
    groups: tuple[tuple[int, ...], ...]
    comparisons: tuple[Comparison, ...]


def compare(a: Run, b: Run, metric: str = "ua") -> Comparison:
    """Test whether two models differ by more than folds and seeds explain.

    Raises:
        UsageError: if the runs have different classes, folds, test utterances or labels, or too few folds.
    """
    return _compare(a, b, metric, family=1)


def compare_all(runs: Sequence[Run], metric: str = "ua") -> Ranking:
    """Compare all pairs of three or more runs, and rank them.

    Raises:
        UsageError: as `compare`, or if there are fewer than three runs.
    """
    if len(runs) < 3:
        raise UsageError(
            f"a ranking needs at least three runs, not {len(runs)}: compare two runs with compare(a, b)"
        )
    pairs = list(itertools.combinations(runs, 2))
    compared = [_compare(a, b, metric, family=len(pairs)) for a, b in pairs]
    adjusted = holm([comparison.corrected.p for comparison in compared])
    means, gain = np.stack([fold_means(run, metric) for run in runs]), metrics.describe(metric).gain
    ranks = scipy.stats.rankdata(-gain(means.round(12)), axis=0).mean(axis=1)
    order = np.lexsort((-gain(means.mean(axis=1)), ranks))
    critical = critical_difference(*means.shape)
    return Ranking(
        metric=metric,
        runs=tuple(name_of(runs[row]) for row in order),
        means=tuple(means[order].mean(axis=1).tolist()),
        ranks=tuple(ranks[order].tolist()),
        folds=means.shape[1],
        friedman=friedman(means),
        critical_difference=critical,
        groups=_groups(ranks[order].tolist(), critical),
        comparisons=tuple(replace(one, p=p) for one, p in zip(compared, adjusted, strict=True)),
    )


def compare_predictions(a: Run, b: Run) -> Result:
    """Compare two runs by McNemar's test, over all folds together.

    It tests which utterances they classify correctly. Numeric attributes are compared by a paired t-test of their
    squared errors.

    Raises:
        UsageError: if the runs have different classes, folds, test utterances or labels.
    """
    check_comparable(a, b)
    own, other = (np.nanmean(correct(run), axis=1) for run in (a, b))
    return a.results.target.paired_test(own - other)


def check_comparable(a: Run, b: Run) -> None:
    """Check that two runs have the same classes, folds, test utterances and labels.

    Raises:
        UsageError: if they have not, or if a prediction is missing.
    """
    check_same_task(a, b)
    names = f"{name_of(a)} and {name_of(b)}"
    tested, other_tested = ({i for fold in run.folds for i in fold.test} for run in (a, b))
    if tested.isdisjoint(other_tested):
        raise UsageError(f"{names} have no test utterance in common")
    again = "train both with the same --config.protocol, or the second one with the folds.json of the first"
    if [fold.name for fold in a.folds] != [fold.name for fold in b.folds]:
        raise UsageError(f"{names} have different folds ({len(a.folds)} and {len(b.folds)}): {again}")
    for one, other in zip(a.folds, b.folds, strict=True):
        if set(one.test) != set(other.test):
            raise UsageError(f"{names} test different utterances in fold {one.name}: {again}")
        if one.train and other.train and set(one.train) != set(other.train):
            raise UsageError(f"{names} train on different utterances in fold {one.name}: {again}")
    check_same_truth(a, b)


def check_same_task(a: Run, b: Run) -> None:
    """Check that two runs have different names, and the same target and classes.

    Raises:
        UsageError: if they have not.
    """
    names = f"{name_of(a)} and {name_of(b)}"
    if a.results.target.kind != b.results.target.kind:
        kinds = " and ".join(run.results.target.kind for run in (a, b))
        raise UsageError(f"{names} predict {kinds}: train both with the same --config.target")
    if name_of(a) == name_of(b):
        raise UsageError(f"two runs are called {name_of(a)}: compare runs whose folders have different names")
    if a.predictions.classes != b.predictions.classes:
        of_a, of_b = (", ".join(run.predictions.classes) for run in (a, b))
        raise UsageError(
            f"{names} have different {a.results.target.kind} ({of_a}; {of_b}): train both with the same "
            f"{_CHOSEN_BY[a.results.target.kind]}"
        )


def check_same_truth(a: Run, b: Run) -> tuple[str, ...]:
    """Check that two runs have the same labels or values of the utterances that both test.

    Returns:
        The ids of these utterances.

    Raises:
        UsageError: if they have not, or if a prediction is missing.
    """
    labels, other = _labels(a), _labels(b)
    common = tuple(i for i in labels if i in other)
    different = [i for i in common if not np.allclose(labels[i], other[i])]
    if different:
        raise UsageError(
            f"{name_of(a)} and {name_of(b)} have different "
            f"true {_TRUTH[a.results.target.kind]} for {len(different)} utterances "
            f"(such as {different[0]}): prepare one dataset and train both runs on it"
        )
    return common


def _compare(a: Run, b: Run, metric: str, family: int) -> Comparison:
    check_comparable(a, b)
    if len(a.folds) < MIN_FOLDS:
        raise UsageError(
            f"{name_of(a)} and {name_of(b)} have {len(a.folds)} folds, and a test over folds needs {MIN_FOLDS}: "
            "use intervals.difference(a, b) and compare_predictions(a, b), or train with more folds"
        )
    scores = [replica_scores(run, metric) for run in (a, b)]
    means = [np.nanmean(own, axis=1) for own in scores]
    by_fold = (means[0] - means[1]).round(12)  # equal scores give exactly 0
    corrected = corrected_t_test(by_fold, test_train_ratio(a), LEVEL / family)
    return Comparison(
        a=name_of(a),
        b=name_of(b),
        metric=metric,
        mean_a=float(np.mean(means[0])),
        mean_b=float(np.mean(means[1])),
        difference=float(np.mean(by_fold)),
        folds=tuple(fold.name for fold in a.folds),
        by_fold=tuple(by_fold.tolist()),
        seeds=(scores[0].shape[1], scores[1].shape[1]),
        p=corrected.p,
        family=family,
        corrected=corrected,
        wilcoxon=signed_rank(by_fold) if len(by_fold) >= MIN_FOLDS_FOR_RANKS else None,
        by_utterance=compare_predictions(a, b),
        unpaired=unpaired_t_test(*(own[np.isfinite(own)] for own in scores)),
    )


def _groups(ranks: Sequence[float], critical: float) -> tuple[tuple[int, ...], ...]:
    """Return the largest groups of at least two `ranks` less than `critical` apart.

    `ranks` are sorted.
    """
    groups: list[tuple[int, ...]] = []
    for first, rank in enumerate(ranks):
        group = tuple(row for row in range(first, len(ranks)) if ranks[row] - rank < critical)
        if len(group) > 1 and (not groups or group[-1] > groups[-1][-1]):
            groups.append(group)
    return tuple(groups)


def _labels(run: Run) -> dict[str, Any]:
    """Return the true label or values of each test utterance; raise an error if predictions are missing."""
    p = run.test_predictions
    for fold in run.folds:
        missing = set(fold.test) - set(p.utterance[p.fold == fold.name].tolist())
        if missing:
            raise UsageError(
                f"{name_of(run)} has no prediction for {len(missing)} of the {len(fold.test)} utterances that "
                f"fold {fold.name} tests: train again, with more seeds if replicas failed"
            )
    return dict(zip(p.utterance.tolist(), p.true.tolist(), strict=True))
