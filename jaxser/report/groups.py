"""Scores of a class, a gender or a speaker, with bootstrap intervals.

A group is scored as if the run had tested nothing else (`part`), so its interval is that of
`jaxser.evaluation.intervals.interval`. The recall of a class is the WA of the utterances of that class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxser.evaluation.intervals import Interval, interval
from jaxser.evaluation.run_folder import Run
from jaxser.report.tables import percent
from jaxser.types import UsageError, Utterance

MAX_SPEAKERS = 40
"""Speakers that are scored. Corpora such as MELD have hundreds, most of them with one or two utterances."""

RESAMPLES = 2000
"""Bootstrap resamples of an interval."""

CLUSTERED = "resample speakers if at least five are known, and utterances otherwise"
"""How an interval is made, as the end of a caption."""


@dataclass(frozen=True)
class Group:
    """Scores of a group of test utterances; None if it is too small for an interval."""

    name: str
    utterances: int
    wa: Interval | None
    ua: Interval | None


@dataclass(frozen=True)
class Worst:
    """The group with the lowest score: the recall of a class, or UA of a gender or speaker."""

    kind: str
    group: Group
    score: Interval

    @property
    def metric(self) -> str:
        """The name of the score."""
        return "recall" if self.kind == "class" else "UA"

    def __str__(self) -> str:
        value, low, high = (percent(one) for one in (self.score.value, self.score.low, self.score.high))
        return (
            f"Lowest {self.metric} of any {self.kind}: {self.group.name}, {value} % "
            f"(95 % interval {low} to {high}, from {self.score.drawn} {self.score.by}s)."
        )


def by_class(run: Run) -> tuple[Group, ...]:
    """Return each class with test utterances; `wa` is its recall."""
    groups = (score_group(run, name, "label") for name in run.results.classes)
    return tuple(group for group in groups if group.utterances)


def by_gender(run: Run) -> tuple[Group, ...]:
    """Return each gender; empty unless at least two are known."""
    return tuple(score_group(run, name, "gender") for name in known_genders(run))


def known_genders(run: Run) -> list[str]:
    """Return the genders of the test speakers; empty unless at least two are known."""
    names = sorted({run.utterances[i].gender for i in tested_ids(run)} - {""})
    return names if len(names) > 1 else []


def by_speaker(run: Run) -> tuple[Group, ...]:
    """Return each known test speaker, at most the `MAX_SPEAKERS` with the most utterances."""
    speakers = [run.utterances[i].speaker for i in tested_ids(run)]
    names, counts = np.unique([name for name in speakers if name], return_counts=True)
    kept = sorted(names[np.argsort(-counts, kind="stable")][:MAX_SPEAKERS].tolist())
    return tuple(score_group(run, name, "speaker", by="utterance") for name in kept)


def worst(kind: str, groups: Sequence[Group]) -> Worst | None:
    """Return the group with the lowest score of a kind, such as "class".

    It is None unless at least two groups have one.
    """
    metric = "wa" if kind == "class" else "ua"
    scores = [Worst(kind, group, score) for group in groups if (score := getattr(group, metric)) is not None]
    return min(scores, key=lambda one: one.score.value) if len(scores) > 1 else None


def score_group(run: Run, name: str, field: str, by: str = "speaker") -> Group:
    """Compute the scores of the test utterances whose `field` is `name`."""
    own = part(run, lambda utterance: getattr(utterance, field) == name)
    wa, ua = (clustered(own, metric, by) for metric in ("wa", "ua"))
    return Group(name, len(set(own.predictions.utterance.tolist())), wa, ua)


def clustered(run: Run, metric: str, by: str = "speaker") -> Interval | None:
    """Return the interval over speakers if there are enough, or else over utterances."""
    return bootstrap(run, metric, by) or bootstrap(run, metric, "utterance")


def bootstrap(run: Run, metric: str, by: str) -> Interval | None:
    """Return the interval of a pooled score.

    It is None if there are too few units to resample, or they are unknown.
    """
    if len(set(run.predictions.utterance.tolist())) < 2:
        return None
    try:
        return interval(run, metric, by, resamples=RESAMPLES)
    except UsageError:
        return None


def part(run: Run, keeps: Callable[[Utterance], bool]) -> Run:
    """Return the run as if it had tested only some utterances.

    Only the folds that test any of them remain.
    """
    p = run.test_predictions
    own = p.select(np.array([keeps(run.utterances[i]) for i in p.utterance.tolist()], dtype=bool))
    ids = set(own.utterance.tolist())
    folds = (replace(fold, test=tuple(i for i in fold.test if i in ids)) for fold in run.folds)
    return replace(run, predictions=own, folds=tuple(fold for fold in folds if fold.test))


def tested_ids(run: Run) -> list[str]:
    """Return the ids of the tested utterances, without repetitions."""
    return list(dict.fromkeys(run.test_predictions.utterance.tolist()))
