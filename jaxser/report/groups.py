"""Scores of parts of the tested utterances - a class, a gender, a speaker - with bootstrap intervals.

A part is scored as a run of its own (`part`), so that its interval is `jaxser.statistics.interval`'s. The recall
of a class is the WA of the utterances that have it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np

from jaxser.data.leaks import Row
from jaxser.evaluation import metrics
from jaxser.evaluation.comparisons import NAMES, Interval, interval, tested
from jaxser.evaluation.run_folder import Predictions, Run
from jaxser.report.tables import Cell, Range, Score, Table, percent
from jaxser.types import UsageError

MOST_SPEAKERS = 40
"""Corpora such as MELD have hundreds of speakers, most with a sentence or two: the rest is one line."""

RESAMPLES = 2000
"""Bootstrap draws of an interval."""

CLUSTERED = "clustered by speaker where five or more are known, otherwise over utterances"


@dataclass(frozen=True)
class Group:
    """A part of the tested utterances; intervals are None where they cannot be had."""

    name: str
    utterances: int
    wa: Interval | None
    ua: Interval | None


@lru_cache(maxsize=16)
def by_class(run: Run) -> tuple[Group, ...]:
    """Each class that is tested; its `wa` is its recall."""
    found = (group(run, name, "label") for name in run.results["classes"])
    return tuple(one for one in found if one.utterances)


@lru_cache(maxsize=16)
def by_gender(run: Run) -> tuple[Group, ...]:
    """Each gender that is known, or nothing where fewer than two are."""
    names = sorted({run.utterances[i]["gender"] for i in _tested(run)} - {""})
    if len(names) < 2:
        return ()
    return tuple(group(run, name, "gender") for name in names)


@lru_cache(maxsize=16)
def by_speaker(run: Run) -> tuple[Group, ...]:
    """Each speaker that is known, of many those with the most utterances."""
    speakers = [run.utterances[i]["speaker"] for i in _tested(run)]
    names, counts = np.unique([name for name in speakers if name], return_counts=True)
    kept = sorted(names[np.argsort(-counts, kind="stable")][:MOST_SPEAKERS].tolist())
    return tuple(group(run, name, "speaker", by="utterance") for name in kept)


def worst(groups: tuple[Group, ...], metric: str) -> Group | None:
    """The group of the lowest score, where there are two or more."""
    scored = [one for one in groups if getattr(one, metric) is not None]
    return min(scored, key=lambda one: getattr(one, metric).value) if len(scored) > 1 else None


def group(run: Run, name: str, field: str, by: str = "speaker") -> Group:
    """The utterances that have `name` in a field, scored by themselves."""
    own = part(run, lambda row: row[field] == name)
    wa, ua = (clustered(own, metric, by) for metric in ("wa", "ua"))
    return Group(name, len(set(own.predictions.utterance.tolist())), wa, ua)


def clustered(run: Run, metric: str, by: str = "speaker") -> Interval | None:
    """The interval over speakers where they are known and enough, otherwise over utterances."""
    return _interval(run, metric, by) or _interval(run, metric, "utterance")


def part(run: Run, keeps: Callable[[Row], bool]) -> Run:
    """The run as if it had tested only some utterances; folds that test none of them are left out."""
    p = tested(run)
    chosen = np.array([keeps(run.utterances[i]) for i in p.utterance.tolist()], dtype=bool)
    columns = {f.name: getattr(p, f.name)[chosen] for f in fields(p) if f.name != "classes"}
    ids = set(columns["utterance"].tolist())
    folds = (replace(fold, test=tuple(i for i in fold.test if i in ids)) for fold in run.folds)
    return replace(
        run,
        predictions=Predictions(classes=p.classes, **columns),
        folds=tuple(fold for fold in folds if fold.test),
    )


@lru_cache(maxsize=16)
def intervals(run: Run) -> Table:
    """The pooled scores with their intervals over utterances and over speakers."""
    rows: list[tuple[Cell, ...]] = []
    for metric in metrics.SCORES:
        found = [_interval(run, metric, by) for by in ("utterance", "speaker")]
        pooled = (run.results["summary"]["pooled"] or {}).get(metric)
        rows.append((NAMES[metric], Score(pooled), *(interval_cells(one)[1] for one in found)))
    header = ("", "pooled", "95 % interval over utterances", "over speakers")
    return Table("intervals", "Pooled test scores (%) with bootstrap intervals", header, tuple(rows))


def classes(run: Run) -> Table:
    """The recall of each class, as the mean over folds and pooled with its interval."""
    recall = run.results["summary"]["recall"]
    rows: list[tuple[Cell, ...]] = []
    for one in by_class(run):
        mean = Score(recall["mean"].get(one.name), recall["std_over_folds"].get(one.name))
        rows.append((one.name, one.utterances, mean, *interval_cells(one.wa)))
    header = ("class", "utterances tested", "recall, ± over folds", "pooled", "95 % interval")
    return Table("recall", f"Recall by class (%); intervals {CLUSTERED}", header, tuple(rows))


def genders(run: Run) -> Table | None:
    """WA and UA by gender, or None where fewer than two are known."""
    rows = [(one.name, one.utterances, *_scores(one)) for one in by_gender(run)]
    header = ("gender", "utterances", *_HEADER)
    caption = f"Test scores by gender (%), mean over seeds; intervals {CLUSTERED}"
    return Table("genders", caption, header, tuple(rows)) if rows else None


def speakers(run: Run) -> Table | None:
    """WA and UA by test speaker, or None where the corpus names none."""
    gender = {run.utterances[i]["speaker"]: run.utterances[i]["gender"] for i in _tested(run)}
    rows = [(one.name, gender[one.name], one.utterances, *_scores(one)) for one in by_speaker(run)]
    caption = "Test scores by speaker (%), mean over seeds; intervals over the speaker’s utterances"
    if len(rows) < len(gender.keys() - {""}):
        caption += f"; the {len(rows)} of {len(gender.keys() - {''})} speakers with the most utterances"
    header = ("speaker", "gender", "utterances", *_HEADER)
    return Table("speakers", caption, header, tuple(rows)) if rows else None


def lowest(run: Run) -> list[str]:
    """A sentence for the class, the gender and the speaker that fare worst."""
    told = (
        ("class", "recall", by_class(run), "wa"),
        ("gender", "UA", by_gender(run), "ua"),
        ("speaker", "UA", by_speaker(run), "ua"),
    )
    sentences = []
    for kind, name, found, metric in told:
        if one := worst(found, metric):
            own = getattr(one, metric)
            sentences.append(
                f"Lowest {name} of a {kind}: {one.name}, {percent(own.value)} % "
                f"(95 % interval {percent(own.low)} to {percent(own.high)}, from {own.drawn} {own.by}s)."
            )
    return sentences


_HEADER = ("WA", "95 % interval of WA", "UA", "95 % interval of UA")


def _scores(one: Group) -> tuple[Cell, ...]:
    return (*interval_cells(one.wa), *interval_cells(one.ua))


def interval_cells(found: Interval | None) -> tuple[Score, Range]:
    """A pooled score and its interval, dashes where there is none."""
    if found is None:
        return Score(None), Range(None, None)
    alike = found.low == found.high  # a recall of 0 or 1: draws that do not differ tell nothing of its spread
    return Score(found.value), Range(None, None) if alike else Range(found.low, found.high)


def _interval(run: Run, metric: str, by: str) -> Interval | None:
    """None where there is too little to draw from, or what is to be drawn is not known."""
    if len(set(run.predictions.utterance.tolist())) < 2:
        return None
    try:
        return interval(run, metric, by, resamples=RESAMPLES)
    except UsageError:
        return None


def _tested(run: Run) -> list[str]:
    return list(dict.fromkeys(tested(run).utterance.tolist()))
