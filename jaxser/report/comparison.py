"""What several runs say of their models: which can be compared, and who differs from whom.

Runs are put into sets that test the same utterances by the same folds; within a set all pairs are tested, and runs
of different sets are never compared: a sentence says why.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxser import papers
from jaxser.evaluation.comparisons import (
    FEWEST_FOLDS,
    NAMES,
    Comparison,
    Interval,
    Ranking,
    compare,
    compare_all,
    compare_predictions,
    difference,
    name_of,
    spread,
)
from jaxser.evaluation.hypothesis_tests import holm
from jaxser.evaluation.run_folder import Run
from jaxser.report import groups
from jaxser.report.tables import Cell, Number, Range, Score, Table, best_possible_score
from jaxser.types import UsageError

METRICS = ("wa", "ua", "f1_weighted")

DEFINITIONS = (
    "WA is the share of correct utterances, UA the mean of the per-class recalls, weighted F1 the mean of the "
    "per-class F1 by number of utterances."
)


@dataclass(frozen=True)
class Pair:
    """Two runs and the test that decides between them; numbers are those of `a` less `b`."""

    a: str
    b: str
    metric: str
    difference: float
    low: float
    high: float
    p: float  # Holm's correction applied
    detectable: float | None
    test: str
    verdict: str
    details: Comparison | None  # None where there are too few folds for a test over them

    @property
    def significant(self) -> bool:
        return self.p < 0.05


@dataclass(frozen=True, eq=False)
class Comparable:
    """Runs on the same folds, the best first; `rankings` where there are three runs and folds or more."""

    name: str  # "" where all runs can be compared, otherwise A, B, ...
    runs: tuple[Run, ...]
    pairs: Mapping[str, tuple[Pair, ...]]  # by metric
    rankings: Mapping[str, Ranking]

    def pair(self, a: str, b: str, metric: str) -> Pair | None:
        return next((p for p in self.pairs[metric] if {p.a, p.b} == {a, b}), None)


def comparable_sets(runs: Sequence[Run], metric: str) -> tuple[tuple[Comparable, ...], tuple[str, ...]]:
    """The runs in sets that can be compared, and for the others sentences that say why they cannot."""
    sets: list[list[Run]] = []
    refused = []
    for run in runs:
        reasons = []
        for own in sets:
            if reason := _why_not(own[0], run):
                reasons.append(reason)
            else:
                own.append(run)
                break
        else:
            sets.append([run])
            refused += reasons
    named = [""] if len(sets) == 1 else [chr(ord("A") + place) for place in range(len(sets))]
    return tuple(_compared(name, own, metric) for name, own in zip(named, sets, strict=True)), tuple(refused)


def scores(found: Comparable) -> Table:
    """Means and spreads, the best in bold, and marked what differs from it significantly."""
    spreads = {m: {name_of(run): spread(run, m) for run in found.runs} for m in METRICS}
    best = {m: max(of, key=lambda name, own=of: own[name].mean) for m, of in spreads.items()}  # type: ignore[misc]
    known = ("wa", "ua") if any(run.results["best_possible"] for run in found.runs) else ()
    rows: list[tuple[Cell, ...]] = []
    over = "folds" if len(found.runs[0].folds) > 1 else "seeds"
    for run in found.runs:
        name = name_of(run)
        cells = []
        for metric in METRICS:
            own, pair = spreads[metric][name], found.pair(name, best[metric], metric)
            std = own.over_folds if over == "folds" else own.over_seeds
            mark = " †" if pair and pair.significant else ""
            cells.append(Score(own.mean, std, name == best[metric] and len(found.runs) > 1, mark))
        rows.append(
            (name, run.results["summary"]["seeds"], *cells, *(best_possible_score(run, m) for m in known))
        )
    header = ("run", "seeds", *(NAMES[m] for m in METRICS), *(f"{NAMES[m]}, best possible" for m in known))
    return Table(_named("scores", found), _scores_caption(found, over), header, tuple(rows))


def comparisons(found: Comparable) -> Table | None:
    """Every pair on every metric, with the tests that are given for comparison."""
    rows: list[tuple[Cell, ...]] = []
    for metric in METRICS:
        for pair in found.pairs[metric]:
            tests = pair.details
            others = [getattr(tests, name, None) for name in ("wilcoxon", "mcnemar", "unpaired")]
            rows.append(
                (
                    NAMES[metric],
                    pair.a,
                    pair.b,
                    Score(pair.difference),
                    Range(pair.low, pair.high),
                    Number(pair.p),
                    Score(pair.detectable),
                    *("–" if test is None else Number(test.p) for test in others),
                )
            )
    header = ("metric", "run", "minus", "difference", "95 % interval", "p (Holm)", "detectable", *_OTHERS)
    caption = (
        f"Differences in points. {_test(found)} decides; detectable is the smallest true difference that it finds "
        "with 80 % power. Intervals are of each pair alone; the other p values are uncorrected, for comparison only."
    )
    return Table(_named("comparisons", found), caption, header, tuple(rows)) if rows else None


def recalls(found: Comparable) -> Table:
    """Recall of every class by run."""
    rows: list[tuple[Cell, ...]] = []
    for run in found.runs:
        recall = run.results["summary"]["recall"]
        own = (Score(recall["mean"].get(c), recall["std_over_folds"].get(c)) for c in run.results["classes"])
        rows.append((name_of(run), *own))
    header = ("run", *found.runs[0].results["classes"])
    caption = "Recall by class (%), mean ± standard deviation over folds"
    return Table(_named("recalls", found), caption, header, tuple(rows))


def worst(found: Comparable) -> Table | None:
    """The class, gender and speaker on which each run is worst."""
    kinds = (
        ("class", groups.by_class, "wa"),
        ("gender", groups.by_gender, "ua"),
        ("speaker", groups.by_speaker, "ua"),
    )
    rows: list[tuple[Cell, ...]] = []
    for (kind, of, metric), run in itertools.product(kinds, found.runs):
        if one := groups.worst(of(run), metric):
            shown = "recall" if kind == "class" else "UA"
            rows.append(
                (
                    name_of(run),
                    kind,
                    one.name,
                    one.utterances,
                    shown,
                    *groups.interval_cells(getattr(one, metric)),
                )
            )
    header = ("run", "of each", "the lowest", "utterances", "score", "pooled", "95 % interval")
    caption = f"The worst class, gender and speaker of each run (%); intervals {groups.CLUSTERED}"
    return Table(_named("worst", found), caption, header, tuple(rows)) if rows else None


def genders(found: Comparable) -> Table | None:
    """UA by gender and run."""
    rows: list[tuple[Cell, ...]] = []
    for run in found.runs:
        for one in groups.by_gender(run):
            rows.append((name_of(run), one.name, one.utterances, *groups.interval_cells(one.ua)))
    caption = f"UA by gender (%); intervals {groups.CLUSTERED}"
    header = ("run", "gender", "utterances", "UA", "95 % interval")
    return Table(_named("genders", found), caption, header, tuple(rows)) if rows else None


def speakers(found: Comparable) -> Table | None:
    """UA of every speaker by run."""
    by_run = [{one.name: one for one in groups.by_speaker(run)} for run in found.runs]
    rows: list[tuple[Cell, ...]] = []
    for name, first in by_run[0].items():
        own = [of[name].ua if name in of else None for of in by_run]
        rows.append((name, first.utterances, *(Score(one.value if one else None) for one in own)))
    header = ("speaker", "utterances", *map(name_of, found.runs))
    caption = "UA by speaker (%), mean over seeds; intervals are in each run’s own report"
    return Table(_named("speakers", found), caption, header, tuple(rows)) if rows else None


def printed(runs: Sequence[Run]) -> Table | None:
    """The papers' numbers, each with the run's own below; both with the same kind of ±."""
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        if row := papers.printed(run.config.get("config", run.config)):
            kind = f"over {row.std_over}" if row.std_over else "not printed"
            corpus = row.protocol["dataset"]
            theirs = (Score(*row.scores[m]) if m in row.scores else "–" for m in METRICS)
            rows.append(
                (f"{row.model} ({row.paper.split('_')[0]}, table {row.table})", corpus, kind, *theirs)
            )
            summary = run.results["summary"]
            std = summary[f"std_over_{row.std_over}"] if row.std_over else {}
            ours = (Score(summary["mean"][m], std.get(m)) for m in METRICS)
            here = "synthetic demo speech" if run.results["synthetic"] else run.results["dataset"]
            rows.append((name_of(run), here, kind, *ours))
    header = ("", "corpus", "±", *(NAMES[metric] for metric in METRICS))
    caption = (
        "The papers’ printed numbers (%), and below each the run of the same variant. Numbers of different corpora or "
        "protocols cannot be compared; WA and UA mean what is said above, also where a paper prints them exchanged."
    )
    return Table("printed", caption, header, tuple(rows)) if rows else None


_OTHERS = ("p Wilcoxon", "p McNemar", "p unpaired t")


def _why_not(a: Run, b: Run) -> str:
    try:
        compare_predictions(a, b)
    except UsageError as error:
        return f"Not compared: {error}."
    return ""


def _compared(name: str, runs: Sequence[Run], metric: str) -> Comparable:
    runs = sorted(runs, key=lambda run: -spread(run, metric).mean)
    if len(runs) < 2:
        return Comparable(name, tuple(runs), dict.fromkeys(METRICS, ()), {})
    if len(runs[0].folds) < FEWEST_FOLDS:
        return Comparable(name, tuple(runs), {m: _by_predictions(runs, m) for m in METRICS}, {})
    if len(runs) == 2:
        pairs = {m: (_pair(compare(runs[0], runs[1], m)),) for m in METRICS}
        return Comparable(name, tuple(runs), dict(pairs), {})
    rankings = {m: compare_all(runs, m) for m in METRICS}
    tested = {m: tuple(map(_pair, ranking.comparisons)) for m, ranking in rankings.items()}
    return Comparable(name, tuple(runs), tested, rankings)


def _pair(found: Comparison) -> Pair:
    test = found.corrected
    return Pair(
        found.a,
        found.b,
        found.metric,
        found.difference,
        test.low or 0.0,
        test.high or 0.0,
        found.p,
        test.detectable,
        test.test,
        str(found),
        found,
    )


def _by_predictions(runs: Sequence[Run], metric: str) -> tuple[Pair, ...]:
    """Pairs of runs with too few folds for a test over them: McNemar's test, and a bootstrap interval."""
    chosen = list(itertools.combinations(runs, 2))
    tests = [compare_predictions(a, b) for a, b in chosen]
    found = []
    for (a, b), test, p in zip(chosen, tests, holm([test.p for test in tests]), strict=True):
        between = _difference(a, b, metric)
        least, corrected = 100 * (test.detectable or 0), " after Holm’s correction" if len(chosen) > 1 else ""
        verdict = (
            f"{between}. Which utterances they get right differs {'' if p < 0.05 else 'not '}significantly at 5 % "
            f"({test.test}, {test.number} utterances, p = {p:.2g}{corrected}); "
            f"the smallest true difference of WA found with 80 % power is {least:.1f} points. Both are about the "
            "trained models: they do not count what another training set would have given."
        )
        ends = (between.value, between.low, between.high)
        found.append(
            Pair(name_of(a), name_of(b), metric, *ends, p, test.detectable, test.test, verdict, None)
        )
    return tuple(found)


def _difference(a: Run, b: Run, metric: str) -> Interval:
    """Over speakers where they are known and enough, otherwise over utterances."""
    try:
        return difference(a, b, metric, "speaker")
    except UsageError:
        return difference(a, b, metric)


def _test(found: Comparable) -> str:
    number = len(found.pairs[METRICS[0]])
    first = next(iter(found.pairs[METRICS[0]]), None)
    test = first.test if first else "no test"
    correction = f", with Holm’s correction for {number} comparisons" if number > 1 else ""
    return f"{test[0].upper()}{test[1:]} ({len(found.runs[0].folds)} folds{correction}, at 5 %)"


def _scores_caption(found: Comparable, over: str) -> str:
    own = found.runs[0]
    caption = (
        f"Test scores (%) on {own.results['dataset']}, {len(own.results['classes'])} classes, "
        f"{len(own.folds)} folds: mean ± standard deviation over {over}. {DEFINITIONS}"
    )
    if len(found.runs) < 2:
        return caption
    return f"{caption} Bold: the best. †: differs from the best. {_test(found)}."


def _named(name: str, found: Comparable) -> str:
    return f"{name}-{found.name.lower()}" if found.name else name
