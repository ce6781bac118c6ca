"""Comparisons of several runs: which can be compared, and which differ significantly.

Runs that are tested on the same utterances in the same folds form a set. All pairs within a set are tested; runs of
different sets are not compared, and a sentence says why.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxser.evaluation.comparisons import (
    MIN_FOLDS,
    Comparison,
    Ranking,
    compare,
    compare_all,
    compare_predictions,
)
from jaxser.evaluation.hypothesis_tests import LEVEL, Result, holm
from jaxser.evaluation.intervals import Interval, difference
from jaxser.evaluation.metrics import describe
from jaxser.evaluation.run_folder import Run
from jaxser.evaluation.targets import KINDS, Target
from jaxser.report.analysis import Analysis
from jaxser.types import UsageError

METRICS = tuple(dict.fromkeys(metric for target in KINDS for metric in target.compared))
"""The metrics of comparisons, of all targets."""


@dataclass(frozen=True)
class Pair:
    """Two runs and the test that decides whether they differ.

    All differences are `a` minus `b`.

    Attributes:
        p: the p value after Holm's correction.
        detectable: the smallest true difference that the test finds with 80 % power.
        details: None if there are too few folds for a test over them.
    """

    a: str
    b: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    detectable: float | None
    test: str
    verdict: str
    details: Comparison | None

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below `LEVEL`."""
        return self.p < LEVEL

    def other(self, name: str) -> str:
        """Return the run that is compared with the run `name`."""
        return self.b if self.a == name else self.a


@dataclass(frozen=True, eq=False)
class Comparable:
    """Runs on the same folds, the best first.

    Attributes:
        name: "A", "B", ...; "" if all runs can be compared.
        metric: the main metric.
        pairs: all pairs, by metric.
        rankings: by metric; empty unless there are at least three runs and three folds.
    """

    name: str
    runs: tuple[Analysis, ...]
    metric: str
    pairs: Mapping[str, tuple[Pair, ...]]
    rankings: Mapping[str, Ranking]

    @property
    def target(self) -> Target:
        """What the runs predict."""
        return self.runs[0].results.target

    @property
    def suffix(self) -> str:
        """What is added to the names of tables and figures."""
        return f"-{self.name.lower()}" if self.name else ""

    def pair(self, a: str, b: str, metric: str) -> Pair | None:
        """Return the comparison of two runs by name, in either order."""
        return next((p for p in self.pairs[metric] if {p.a, p.b} == {a, b}), None)


def comparable_sets(runs: Sequence[Analysis], metric: str) -> tuple[tuple[Comparable, ...], tuple[str, ...]]:
    """Return the runs in sets that can be compared, and sentences that say why others cannot.

    The main metric of runs that do not have `metric`, because they predict something else, is their headline.
    """
    sets: list[list[Analysis]] = []
    refused = []
    for run in runs:
        reasons = []
        for own in sets:
            if reason := _why_not(own[0].run, run.run):
                reasons.append(reason)
            else:
                own.append(run)
                break
        else:
            sets.append([run])
            refused += reasons
    names = [""] if len(sets) == 1 else [chr(ord("A") + n) for n in range(len(sets))]
    return tuple(_compared(name, own, metric) for name, own in zip(names, sets, strict=True)), tuple(refused)


def summary(found: Comparable) -> str:
    """Return what can be claimed about the best run, in one sentence; "" for a single run."""
    metric = found.metric
    if len(found.runs) < 2:
        return ""
    name = found.runs[0].name
    pairs = [pair for run in found.runs[1:] if (pair := found.pair(name, run.name, metric))]
    beaten = [pair.other(name) for pair in pairs if pair.significant]
    level = [pair for pair in pairs if not pair.significant]
    described = describe(metric)
    extreme = "lowest" if described.lower_is_better else "highest"
    sentence = f"{name} has the {extreme} mean {described.title}"
    if beaten:
        sentence += f"; the difference from {_listed(beaten)} is significant"
    if level:
        least = max(pair.detectable or 0 for pair in level)
        sentence += (
            f"; the difference from {_listed([pair.other(name) for pair in level])} is not significant (true "
            f"differences of up to {described.show(least)}{described.step} would be missed in at least one case "
            "out of five)"
        )
    return f"{sentence}."


def deciding_test(found: Comparable) -> str:
    """Return the test that decides, as the beginning of a sentence."""
    pairs = found.pairs[found.target.compared[0]]
    test = pairs[0].test if pairs else "no test"
    correction = f", with Holm’s correction for {len(pairs)} comparisons" if len(pairs) > 1 else ""
    folds = len(found.runs[0].run.folds)
    return f"{test[0].upper()}{test[1:]} ({folds} fold{'s' if folds != 1 else ''}{correction}, at 5 %)"


def _why_not(a: Run, b: Run) -> str:
    try:
        compare_predictions(a, b)
    except UsageError as error:
        return f"Not compared: {error}."
    return ""


def _compared(name: str, members: Sequence[Analysis], metric: str) -> Comparable:
    target = members[0].results.target
    metric = metric if metric in target.compared else target.headline
    gain = describe(metric).gain
    members = tuple(sorted(members, key=lambda one: -gain(one.spread(metric).mean)))
    runs = [one.run for one in members]
    if len(runs) < 2:
        return Comparable(name, members, metric, dict.fromkeys(target.compared, ()), {})
    if len(runs[0].folds) < MIN_FOLDS:
        return Comparable(name, members, metric, _by_predictions(runs), {})
    if len(runs) == 2:
        pairs = {m: (_pair(compare(runs[0], runs[1], m)),) for m in target.compared}
        return Comparable(name, members, metric, dict(pairs), {})
    rankings = {m: compare_all(runs, m) for m in target.compared}
    tested = {m: tuple(map(_pair, ranking.comparisons)) for m, ranking in rankings.items()}
    return Comparable(name, members, metric, tested, rankings)


def _pair(found: Comparison) -> Pair:
    test = found.corrected
    return Pair(
        a=found.a,
        b=found.b,
        metric=found.metric,
        difference=found.difference,
        low=test.low or 0.0,
        high=test.high or 0.0,
        p=found.p,
        detectable=test.detectable,
        test=test.test,
        verdict=str(found),
        details=found,
    )


def _by_predictions(runs: Sequence[Run]) -> dict[str, tuple[Pair, ...]]:
    """Compare runs with too few folds for a test over them.

    A test of the predictions (McNemar's, for classes) and a bootstrap interval take its place.
    """
    chosen = list(itertools.combinations(runs, 2))
    tests = [compare_predictions(a, b) for a, b in chosen]
    corrected = holm([test.p for test in tests])
    return {
        metric: tuple(
            _pair_of_predictions(_difference(a, b, metric), test, p, family=len(chosen))
            for (a, b), test, p in zip(chosen, tests, corrected, strict=True)
        )
        for metric in runs[0].results.target.compared
    }


def _pair_of_predictions(between: Interval, test: Result, p: float, family: int) -> Pair:
    """Return a pair decided by a `test` of the predictions, with its corrected p."""
    correction = " after Holm’s correction" if family > 1 else ""
    of_errors = test.units == "squared errors"
    what, score = (
        ("Their squared error", "mean squared error")
        if of_errors
        else ("Which utterances they classify correctly", "WA")
    )
    least = f"{test.detectable or 0:.3f}" if of_errors else f"{100 * (test.detectable or 0):.1f} points"
    verdict = (
        f"{between}. {what} {'differs' if p < LEVEL else 'does not differ'} "
        f"significantly at 5 % ({test.test}, {test.number} utterances, p = {p:.2g}{correction}); the smallest true "
        f"difference in {score} found with 80 % power is {least}. Both apply to these "
        "trained models and ignore the effect of another training set."
    )
    return Pair(
        a=between.runs[0],
        b=between.runs[1],
        metric=between.metric,
        difference=between.value,
        low=between.low,
        high=between.high,
        p=p,
        detectable=test.detectable,
        test=test.test,
        verdict=verdict,
        details=None,
    )


def _difference(a: Run, b: Run, metric: str) -> Interval:
    """Return the interval over speakers if they are known and numerous enough, and over utterances otherwise."""
    try:
        return difference(a, b, metric, "speaker")
    except UsageError:
        return difference(a, b, metric)


def _listed(names: Sequence[str]) -> str:
    """Return a list in words: "a, b and c"."""
    *first, final = names
    return f"{', '.join(first)} and {final}" if first else final
