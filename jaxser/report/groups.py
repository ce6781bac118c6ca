"""Scores of a class, a gender or a speaker, with bootstrap intervals.

A group is scored as if the run had tested nothing else (`part`), so its interval is that of
`jaxser.evaluation.intervals.interval`. The recall of a class is the WA of the utterances of that class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from jaxser.evaluation.intervals import Interval, intervals
from jaxser.evaluation.run_folder import Run
from jaxser.report.tables import percent
from jaxser.types import UsageError

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
    return tuple(group for group in score_groups(run, run.results.classes, "label") if group.utterances)


def by_gender(run: Run) -> tuple[Group, ...]:
    """Return each gender; empty unless at least two are known."""
    return score_groups(run, known_genders(run), "gender")


def known_genders(run: Run) -> list[str]:
    """Return the genders of the test speakers; empty unless at least two are known."""
    names = sorted({run.utterances[i].gender for i in tested_ids(run)} - {""})
    return names if len(names) > 1 else []


def by_speaker(run: Run) -> tuple[Group, ...]:
    """Return each known test speaker, at most the `MAX_SPEAKERS` with the most utterances."""
    return score_groups(run, known_speakers(run), "speaker", by="utterance")


def known_speakers(run: Run) -> list[str]:
    """Return the known test speakers, at most the `MAX_SPEAKERS` with the most utterances."""
    speakers = [run.utterances[i].speaker for i in tested_ids(run)]
    names, counts = np.unique([name for name in speakers if name], return_counts=True)
    return sorted(names[np.argsort(-counts, kind="stable")][:MAX_SPEAKERS].tolist())


def worst(kind: str, groups: Sequence[Group]) -> Worst | None:
    """Return the group with the lowest score of a kind, such as "class".

    It is None unless at least two groups have one.
    """
    metric = "wa" if kind == "class" else "ua"
    scores = [Worst(kind, group, score) for group in groups if (score := getattr(group, metric)) is not None]
    return min(scores, key=lambda one: one.score.value) if len(scores) > 1 else None


def score_groups(run: Run, names: Sequence[str], field: str, by: str = "speaker") -> tuple[Group, ...]:
    """Compute, for each name, the scores of the test utterances whose `field` it is."""
    ids = run.test_predictions.utterance.tolist()
    return grouped(run, names, [getattr(run.utterances[i], field) for i in ids], by)


def grouped(run: Run, names: Sequence[str], values: Sequence[str], by: str = "speaker") -> tuple[Group, ...]:
    """Compute, for each name, the scores of the test predictions whose value it is."""
    value, found = np.array(values, dtype=str), []
    for name in names:
        own = part(run, value == name)
        scores = clustered(own, by)
        number = len(np.unique(own.predictions.utterance))
        found.append(Group(name, number, scores.get("wa"), scores.get("ua")))
    return tuple(found)


def clustered(run: Run, by: str = "speaker") -> Mapping[str, Interval]:
    """Return the intervals over speakers if there are enough, else over utterances."""
    return bootstrap(run, by) or bootstrap(run, "utterance")


def bootstrap(run: Run, by: str) -> Mapping[str, Interval]:
    """Return the intervals of the pooled scores by metric.

    They are empty if there are too few units to resample, or they are unknown. A score that is undefined for some
    draws, as the CCC of a single utterance is, has none.
    """
    if len(np.unique(run.predictions.utterance)) < 2:
        return {}
    try:
        found = intervals(run, by, resamples=RESAMPLES)
    except UsageError:
        return {}
    return {name: one for name, one in found.items() if np.isfinite([one.value, one.low, one.high]).all()}


def part(run: Run, keeps: Bool[np.ndarray, " N"]) -> Run:
    """Return the run as if it had made only some of its test predictions.

    Only the folds that have any of them remain.
    """
    own = run.test_predictions.select(keeps)
    tests = {name: np.unique(own.utterance[own.fold == name]) for name in np.unique(own.fold).tolist()}
    folds = (replace(fold, test=tuple(tests[fold.name].tolist())) for fold in run.folds if fold.name in tests)
    return replace(run, predictions=own, folds=tuple(folds))


def tested_ids(run: Run) -> list[str]:
    """Return the ids of the tested utterances, without repetitions."""
    return list(dict.fromkeys(run.test_predictions.utterance.tolist()))
