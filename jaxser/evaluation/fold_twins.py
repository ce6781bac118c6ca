"""What shared speakers are worth: a run on published folds against one on their twin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxser.data.leaks import heard_speakers
from jaxser.evaluation import run_folder
from jaxser.evaluation.comparisons import check_same_task, check_same_truth
from jaxser.evaluation.hypothesis_tests import LEVEL, Result
from jaxser.evaluation.intervals import Interval, difference_across_folds
from jaxser.evaluation.run_folder import Run
from jaxser.evaluation.run_scores import Spread, correct, name_of, spread
from jaxser.types import UsageError


@dataclass(frozen=True)
class Worth:
    """The difference between a run and its twin, of the utterances that both test.

    Attributes:
        spreads: by metric, the mean test scores of both runs over their own folds.
        differences: by metric, the difference of the pooled scores, with an interval over speakers if there are enough.
        test: the paired test of the utterances; McNemar's for classes.
        tested: the number of utterances that both test.
        of: the numbers that each of them tests.
        heard: of each run, the number of test speakers that are also heard in training, and that of test speakers.
    """

    spreads: Mapping[str, tuple[Spread, Spread]]
    differences: Mapping[str, Interval]
    test: Result
    tested: int
    of: tuple[int, int]
    heard: tuple[tuple[int, int], tuple[int, int]]

    def __str__(self) -> str:
        """Return the scores, the differences and the verdict, one per line."""
        shared = f"{self.tested} utterances that both runs test"
        if set(self.of) != {self.tested}:
            shared += f", of {self.of[0]} and {self.of[1]}"
        names = next(iter(self.differences.values())).runs
        means = [f"{name}: {own[row]}" for own in self.spreads.values() for row, name in enumerate(names)]
        speakers = [
            f"{name}: {heard} of {tested} test speakers are also heard in training"
            for name, (heard, tested) in zip(names, self.heard, strict=True)
        ]
        significant = "significant" if self.test.p < LEVEL else "not significant"
        return "\n".join(
            [
                *means,
                *speakers,
                f"What shared speakers are worth, pooled over the {shared}:",
                *map(str, self.differences.values()),
                f"The paired difference of the utterances is {significant} at 5 % ({self.test.test}, "
                f"p = {self.test.p:.2g}). It is of these trained networks, and takes utterances for independent, which "
                "those of a speaker are not: the intervals over speakers are wider.",
            ]
        )


def worth(published: Run, twin: Run) -> Worth:
    """Compare a run with one of the same model on the speaker-disjoint twin of its folds.

    The folds differ, so what is compared are the predictions of the utterances that both runs test: of a
    cross-validation these are all. Intervals are over speakers, or over utterances if there are too few speakers.

    Args:
        published: the run whose folds share speakers.
        twin: the run whose folds do not.

    Raises:
        UsageError: if the runs differ in their classes or labels, test nothing in common, or lack predictions.
    """
    check_same_task(published, twin)
    common = check_same_truth(published, twin)
    if not common:
        raise UsageError(f"{name_of(published)} and {name_of(twin)} have no test utterance in common")
    both = [_restricted(run, common) for run in (published, twin)]
    own, other = (np.nanmean(correct(run), axis=1) for run in both)
    target = published.results.target
    return Worth(
        spreads={m: (spread(published, m), spread(twin, m)) for m in target.compared},
        differences={m: _difference(both[0], both[1], m) for m in target.compared},
        test=target.paired_test(own - other),
        tested=len(common),
        of=(_tests(published), _tests(twin)),
        heard=(_heard(published), _heard(twin)),
    )


def read_worth(published: Path, twin: Path) -> Worth:
    """Return what shared speakers are worth, from the folders of two runs.

    Raises:
        UsageError: as `worth`.
        InputError: if a folder is not a finished run.
    """
    return worth(run_folder.read_run(published), run_folder.read_run(twin))


def _difference(a: Run, b: Run, metric: str) -> Interval:
    try:
        return difference_across_folds(a, b, metric, "speaker")
    except UsageError:  # too few known speakers
        return difference_across_folds(a, b, metric)


def _restricted(run: Run, ids: tuple[str, ...]) -> Run:
    """Return the run with the predictions and the tests of these utterances only."""
    kept = set(ids)
    rows = np.array([i in kept for i in run.predictions.utterance.tolist()], dtype=bool)
    folds = tuple(replace(fold, test=tuple(i for i in fold.test if i in kept)) for fold in run.folds)
    return replace(run, folds=folds, predictions=run.predictions.select(rows))


def _heard(run: Run) -> tuple[int, int]:
    heard, tested = heard_speakers(run.folds, run.utterances)
    return len(heard), len(tested)


def _tests(run: Run) -> int:
    return len({i for fold in run.folds for i in fold.test})
