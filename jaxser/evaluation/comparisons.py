"""What a run's scores say about its model, and about another's: spreads, intervals, tests, rankings.

    spread(run)              mean, and standard deviation over folds, over seeds and over runs
    interval(run)            bootstrap interval of a pooled score, over utterances or over speakers
    difference(a, b)         the same of the difference of two runs
    compare(a, b)            two runs fold by fold, the seeds averaged: a verdict with what it could have missed
    compare_all(runs)        all pairs with Holm's correction, and ranks for a critical-difference diagram
    compare_predictions(a, b)  McNemar's test, also where there is one fold

Everything is computed from the test predictions of the setting that a run's summary is about; scores and
their differences are fractions. What cannot be answered is refused by a `UsageError` that says what to do
instead. The tests themselves are in `jaxser.significance`; docs/explanation/statistics.md says which was chosen and why.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from jaxser.evaluation import metrics
from jaxser.evaluation.hypothesis_tests import (
    LEVEL,
    Result,
    corrected_t_test,
    critical_difference,
    friedman,
    holm,
    mcnemar,
    signed_rank,
    unpaired_t_test,
)
from jaxser.evaluation.run_folder import Predictions, Run
from jaxser.types import UsageError

NAMES = {"wa": "WA", "ua": "UA", "f1_weighted": "weighted F1", "f1_macro": "macro F1"}

FEWEST_FOLDS, FEWEST_FOR_RANKS, FEWEST_SPEAKERS = 3, 6, 5
"""What a t-test over folds, the signed-rank test (of 5 folds its smallest p is 0.0625) and resampling need."""


@dataclass(frozen=True)
class Spread:
    """Mean test score and its standard deviations, each over n - 1 (None for n = 1)."""

    metric: str
    mean: float
    over_folds: float | None  # seeds averaged within a fold
    over_seeds: float | None  # folds averaged within a seed
    over_runs: float | None  # every fold and seed as it is
    folds: int
    seeds: int

    def __str__(self) -> str:
        spreads = [
            (self.over_folds, f"over {self.folds} folds (seeds averaged)"),
            (self.over_seeds, f"over {self.seeds} seeds (folds averaged)"),
        ]
        told = "; ".join(f"± {100 * std:.1f} {what}" for std, what in spreads if std is not None)
        return f"{NAMES[self.metric]} {100 * self.mean:.1f} %" + (f", {told}" if told else "")


@dataclass(frozen=True)
class Interval:
    """A 95 % bootstrap interval of a run's pooled score, or of the difference of two runs' (`a` less `b`)."""

    runs: tuple[str, ...]
    metric: str
    by: str  # what is drawn: "utterance" or "speaker"
    value: float  # of the predictions as they are
    low: float
    high: float
    drawn: int  # how many utterances or speakers there are

    def __str__(self) -> str:
        of = f"{NAMES[self.metric]} of {' minus that of '.join(self.runs)}"
        sign, unit = ("", "%") if len(self.runs) == 1 else ("+", "points")
        low, value, high = (f"{100 * number:{sign}.1f}" for number in (self.low, self.value, self.high))
        return f"{of}: {value} {unit} (95 % interval {low} to {high}, from {self.drawn} {self.by}s)"


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same folds; differences are those of `a` less those of `b`.

    `corrected` decides: its `low`, `high` and `detectable` (at 5 % / `family`) are those of the mean difference.
    `p` is its p, after Holm's correction where there are `family` comparisons. The other tests are given for
    comparison, `wilcoxon` where there are folds enough for it.
    """

    a: str
    b: str
    metric: str
    mean_a: float
    mean_b: float
    difference: float
    folds: tuple[str, ...]
    by_fold: tuple[float, ...]  # the differences
    seeds: tuple[int, int]
    p: float
    family: int
    corrected: Result
    wilcoxon: Result | None
    mcnemar: Result  # of right and wrong, whatever the metric
    unpaired: Result  # as Rajan et al. (2022) tested

    @property
    def significant(self) -> bool:
        return self.p < LEVEL

    def __str__(self) -> str:
        """The verdict in a sentence, with what the test could have missed."""
        name, test = NAMES[self.metric], self.corrected
        if not any(self.by_fold):
            return f"{self.a} and {self.b} have the same {name} in every fold."
        difference, low, high = (f"{100 * n:+.1f}" for n in (self.difference, test.low or 0, test.high or 0))
        holm = f" after Holm's correction for {self.family} comparisons" if self.family > 1 else ""
        alone = " of this pair alone" if self.family > 1 else ""
        return (
            f"{name} of {self.a} minus that of {self.b}: {difference} points (95 % interval{alone} {low} to {high}), "
            f"{'' if self.significant else 'not '}significant at 5 % ({test.test}, {test.number} folds, "
            f"p = {self.p:.2g}{holm}); the smallest true difference found with 80 % power is "
            f"{100 * (test.detectable or 0):.1f} points."
        )


@dataclass(frozen=True)
class Ranking:
    """Several runs on the same folds, the best first; what a critical-difference diagram shows.

    Two runs whose average ranks are less than `critical_difference` apart are not told apart by Nemenyi's test;
    `groups` are the largest sets of such runs (rows of `runs`, drawn as bars). Folds of one corpus are not
    independent data sets, so the diagram shows and the `comparisons` (all pairs, Holm) decide.
    """

    metric: str
    runs: tuple[str, ...]
    means: tuple[float, ...]
    ranks: tuple[float, ...]  # averaged over folds; 1 is the best
    folds: int
    friedman: Result
    critical_difference: float
    groups: tuple[tuple[int, ...], ...]
    comparisons: tuple[Comparison, ...]


def spread(run: Run, metric: str = "ua") -> Spread:
    """What the run's summary says of a score."""
    _check_metric(metric)
    summary = run.results.summary
    if summary.mean[metric] is None:
        raise UsageError(f"{name_of(run)} has no replica with a score: train it again with another setting")
    return Spread(
        metric,
        summary.mean[metric],
        over_folds=summary.std_over_folds[metric],
        over_seeds=summary.std_over_seeds[metric],
        over_runs=summary.std_over_runs[metric],
        folds=summary.folds,
        seeds=summary.seeds,
    )


def interval(
    run: Run, metric: str = "ua", by: str = "utterance", *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """How the pooled test score would vary with other utterances, or other speakers, the models as they are.

    Scored are the predictions of all folds together, a seed at a time, averaged over seeds: the summary's
    `pooled`. Every seed sees the same draw of utterances (or of speakers, with all that they say): seeds add no
    utterances. The percentiles are widened as Hesterberg (2015, "What Teachers Should Know About the
    Bootstrap", expanded percentile interval) for small numbers of speakers.

    Raises:
        UsageError: speakers are not known, or too few; no seed has all folds.
    """
    return _bootstrap([run], metric, by, resamples, seed)


def difference(
    a: Run, b: Run, metric: str = "ua", by: str = "utterance", *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The `interval` of the score of `a` less that of `b`, both on the same draws; one fold is enough."""
    _check_same(a, b)
    return _bootstrap([a, b], metric, by, resamples, seed)


def compare(a: Run, b: Run, metric: str = "ua") -> Comparison:
    """Whether two models differ beyond what folds and seeds explain.

    Raises:
        UsageError: the runs have different classes, folds, tested utterances or labels, or too few folds.
    """
    return _compare(a, b, metric, family=1)


def compare_all(runs: Sequence[Run], metric: str = "ua") -> Ranking:
    """All pairs of three runs or more, and their ranks; errors as `compare`."""
    if len(runs) < 3:
        raise UsageError(f"a ranking is of three runs or more, not {len(runs)}: compare two by compare(a, b)")
    pairs = list(itertools.combinations(runs, 2))
    compared = [_compare(a, b, metric, family=len(pairs)) for a, b in pairs]
    adjusted = holm([comparison.corrected.p for comparison in compared])
    means = np.stack([fold_means(run, metric) for run in runs])
    ranks = scipy.stats.rankdata(-means.round(12), axis=0).mean(axis=1)
    order = np.lexsort((-means.mean(axis=1), ranks))
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
        comparisons=tuple(replace(found, p=p) for found, p in zip(compared, adjusted, strict=True)),
    )


def compare_predictions(a: Run, b: Run) -> Result:
    """McNemar's test of which utterances two runs get right, the folds together; errors as `difference`."""
    _check_same(a, b)
    return mcnemar(np.nanmean(right(a), axis=1) - np.nanmean(right(b), axis=1))


def name_of(run: Run) -> str:
    return run.folder.resolve().name


def replica_scores(run: Run, metric: str) -> Float[np.ndarray, "folds seeds"]:
    """Test scores by fold (as `run.folds`) and seed (ascending); NaN for a replica without one."""
    _check_metric(metric)
    p = run.test_predictions
    row_of = {fold.name: row for row, fold in enumerate(run.folds)}
    counts = _confusions(p, np.array([row_of[name] for name in p.fold.tolist()], dtype=int), len(run.folds))
    return np.array([[metrics.scores(confusion)[metric] for confusion in fold] for fold in counts])


def fold_means(run: Run, metric: str) -> Float[np.ndarray, " folds"]:
    """Test scores by fold, averaged over the seeds that have one."""
    return np.nanmean(replica_scores(run, metric), axis=1)


def right(run: Run) -> Float[np.ndarray, "N seeds"]:
    """Whether each tested utterance (by id) is recognised, by seed: 0 or 1, or a mean where folds share it."""
    p = run.test_predictions
    utterance = np.unique(p.utterance, return_inverse=True)[1]
    seed = np.unique(p.seed, return_inverse=True)[1]
    shape = (int(utterance.max()) + 1, int(seed.max()) + 1)
    cell = np.ravel_multi_index((utterance, seed), shape)
    tests, rights = (np.bincount(cell, w, math.prod(shape)) for w in (None, p.true == p.predicted))
    return np.divide(rights, tests, out=np.full(len(tests), np.nan), where=tests > 0).reshape(shape)


def test_over_train(run: Run) -> float:
    """Test utterances over training utterances, averaged over folds.

    Where a fold does not say what it is trained on (imported results), that is all that is not tested in it.
    """
    everything = len({i for fold in run.folds for i in fold.test})
    return float(np.mean([len(f.test) / (len(f.train) or everything - len(f.test)) for f in run.folds]))


def _confusions(
    p: Predictions, group: Int[np.ndarray, " N"], groups: int
) -> Int[np.ndarray, "groups seeds C C"]:
    seeds, seed = np.unique(p.seed, return_inverse=True)
    shape = (groups, len(seeds), len(p.classes), len(p.classes))
    cell = np.ravel_multi_index((group, seed, p.true, p.predicted), shape)
    return np.bincount(cell, minlength=math.prod(shape)).reshape(shape)


def _compare(a: Run, b: Run, metric: str, family: int) -> Comparison:
    _check_same(a, b)
    if len(a.folds) < FEWEST_FOLDS:
        raise UsageError(
            f"{name_of(a)} and {name_of(b)} have {len(a.folds)} of the {FEWEST_FOLDS} folds that a test over "
            "folds needs: use difference(a, b) and compare_predictions(a, b), or train with more folds"
        )
    scores = [replica_scores(run, metric) for run in (a, b)]
    means = [np.nanmean(found, axis=1) for found in scores]
    by_fold = (means[0] - means[1]).round(12)  # what is equal is 0
    corrected = corrected_t_test(by_fold, test_over_train(a), LEVEL / family)
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
        wilcoxon=signed_rank(by_fold) if len(by_fold) >= FEWEST_FOR_RANKS else None,
        mcnemar=compare_predictions(a, b),
        unpaired=unpaired_t_test(*(found[np.isfinite(found)] for found in scores)),
    )


def _bootstrap(runs: Sequence[Run], metric: str, by: str, resamples: int, seed: int) -> Interval:
    _check_metric(metric)
    counts = [_by_unit(run, by).astype(np.float32) for run in runs]
    number = len(counts[0])

    def value(rows: Int[np.ndarray, "batch units"], axis: int = -1) -> Float[np.ndarray, " batch"]:
        """The score, or the difference of two, of drawn utterances or speakers."""
        times = np.stack([np.bincount(row, minlength=number) for row in rows]).astype(np.float32)
        first, *second = (_pooled(np.tensordot(times, found, axes=1), metric) for found in counts)
        return first - second[0] if second else first

    everything = np.arange(number)
    found = scipy.stats.bootstrap(
        (everything,),
        value,
        n_resamples=resamples,
        batch=250,
        vectorized=True,
        confidence_level=_expanded(number),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    ends = (float(value(everything[None])[0]), float(found.low), float(found.high))
    return Interval(tuple(map(name_of, runs)), metric, by, *ends, number)


def _expanded(number: int) -> float:
    """The level of percentiles that for few units does what t and n - 1 do for a mean (Hesterberg 2015)."""
    errors = math.sqrt(number / (number - 1)) * scipy.stats.t.ppf(1 - LEVEL / 2, number - 1)
    return float(1 - 2 * scipy.stats.norm.sf(errors))


_scores: Callable[..., dict[str, jax.Array]] = jax.jit(jax.vmap(jax.vmap(metrics.scores)))


def _pooled(counts: Float[np.ndarray, "batch seeds C C"], metric: str) -> Float[np.ndarray, " batch"]:
    return np.asarray(_scores(counts)[metric], dtype=np.float64).mean(axis=1)


def _by_unit(run: Run, by: str) -> Int[np.ndarray, "units seeds C C"]:
    """Confusions of each utterance, or speaker, by seed; seeds that lack a fold are left out."""
    if by not in ("utterance", "speaker"):
        raise UsageError(f"intervals are over 'utterance' or 'speaker', not {by!r}")
    whole = np.isfinite(replica_scores(run, "wa")).all(axis=0)
    if not whole.any():
        raise UsageError(
            f"{name_of(run)} has no seed with a score in every fold: train it again with more seeds"
        )
    p = run.test_predictions
    units = p.utterance
    if by == "speaker":
        units = np.array([run.utterances[i].speaker for i in units.tolist()], dtype=str)
    names, unit = np.unique(units, return_inverse=True)
    if by == "speaker" and ("" in names or len(names) < FEWEST_SPEAKERS):
        found = "speakers that are not all known" if "" in names else f"{len(names)} speakers"
        raise UsageError(
            f"{name_of(run)} tests {found}; {FEWEST_SPEAKERS} known ones are needed: use by='utterance'"
        )
    return _confusions(p, unit, len(names))[:, whole]


def _groups(ranks: Sequence[float], critical: float) -> tuple[tuple[int, ...], ...]:
    """The largest runs of sorted `ranks` that are less than `critical` apart, of two or more."""
    groups: list[tuple[int, ...]] = []
    for first, rank in enumerate(ranks):
        group = tuple(row for row in range(first, len(ranks)) if ranks[row] - rank < critical)
        if len(group) > 1 and (not groups or group[-1] > groups[-1][-1]):
            groups.append(group)
    return tuple(groups)


def _check_metric(metric: str) -> None:
    if metric not in metrics.SCORES:
        raise UsageError(f"metric {metric!r} is not known: choose of {', '.join(metrics.SCORES)}")


def _check_same(a: Run, b: Run) -> None:
    """That two runs answer the same questions: classes, folds, tested utterances and their labels."""
    names = f"{name_of(a)} and {name_of(b)}"
    if name_of(a) == name_of(b):
        raise UsageError(f"two runs are named {name_of(a)}: compare runs whose folders have different names")
    again = "train both under one --config.protocol, or the second on the first's folds.json"
    if a.predictions.classes != b.predictions.classes:
        of_a, of_b = (", ".join(run.predictions.classes) for run in (a, b))
        raise UsageError(
            f"{names} have different classes ({of_a}; {of_b}): train both with one --config.classes"
        )
    if [fold.name for fold in a.folds] != [fold.name for fold in b.folds]:
        raise UsageError(f"{names} have different folds ({len(a.folds)} and {len(b.folds)}): {again}")
    for one, other in zip(a.folds, b.folds, strict=True):
        if set(one.test) != set(other.test):
            raise UsageError(f"{names} test different utterances in fold {one.name}: {again}")
        if one.train and other.train and set(one.train) != set(other.train):
            raise UsageError(f"{names} train on different utterances in fold {one.name}: {again}")
    labels = [_labels(run) for run in (a, b)]
    different = [i for i in labels[0] if labels[0][i] != labels[1][i]]
    if different:
        raise UsageError(
            f"{names} have different true labels for {len(different)} utterances ({different[0]}, say): "
            "prepare one dataset and train both on it"
        )


def _labels(run: Run) -> dict[str, int]:
    """True labels by utterance; refuses a run that lacks predictions."""
    p = run.test_predictions
    for fold in run.folds:
        missing = set(fold.test) - set(p.utterance[p.fold == fold.name].tolist())
        if missing:
            raise UsageError(
                f"{name_of(run)} has no prediction for {len(missing)} of the {len(fold.test)} utterances that "
                f"fold {fold.name} tests: train it again, or with more seeds where its replicas failed"
            )
    return dict(zip(p.utterance.tolist(), p.true.tolist(), strict=True))
