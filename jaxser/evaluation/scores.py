"""The scores of predictions, as they are in results.json.

An undefined score (the recall of an absent class, for example) is None in Python and null in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Num

from jaxser.evaluation import metrics
from jaxser.evaluation.records import Count, Number, typed
from jaxser.evaluation.targets import Classes, Target

Moments = Mapping[str, float | None]
"""One statistic of each of the target's scores."""


@dataclass(frozen=True)
class Scores:
    """The scores of the predictions of a replica on one part.

    Attributes:
        by_metric: each of the target's scores.
        recall: the recall of each class, in the order of the classes; empty for other targets.
        confusion: utterances by true class (rows) and predicted class (columns); empty for other targets.
        sums: the sums of `jaxser.evaluation.concordance` for each attribute; empty for classes.
    """

    by_metric: Moments
    recall: Moments = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()
    sums: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def of_statistics(cls, statistics: Num[np.ndarray, "K L"], target: Target) -> Scores:
        """Compute the scores of a target's statistics, in float64."""
        if isinstance(target, Classes):
            return cls.of(statistics, target.names)
        sums = np.asarray(statistics, dtype=np.float64)
        values = target.scores(sums)
        by_metric = {name: _defined(values[name]) for name in target.score_names}
        return cls(by_metric, sums=tuple(map(tuple, sums.tolist())))

    @classmethod
    def of(cls, confusion: Num[np.ndarray, "C C"], classes: Sequence[str]) -> Scores:
        """Compute the scores of a confusion matrix, in float64."""
        counts = np.rint(np.asarray(confusion, dtype=np.float64)).astype(int)
        values = metrics.scores(counts)
        return cls(
            by_metric={name: _defined(values[name]) for name in metrics.SCORES},
            recall=dict(zip(classes, map(_defined, values["recall"]), strict=True)),
            confusion=tuple(map(tuple, counts.tolist())),
        )

    def __getitem__(self, metric: str) -> float | None:
        return self.by_metric[metric]

    @property
    def statistics(self) -> Num[np.ndarray, "K L"]:
        """The confusion matrix, or the sums."""
        return np.array(self.sums or self.confusion)

    def to_json(self) -> dict[str, Any]:
        """Return the scores as in results.json."""
        if self.sums:
            return {**self.by_metric, "sums": [list(row) for row in self.sums]}
        return {
            **self.by_metric,
            "recall": dict(self.recall),
            "confusion": [list(row) for row in self.confusion],
        }

    @classmethod
    def from_json(cls, value: Any, target: Target) -> Scores:
        """Read the scores as in results.json."""
        by_metric = moments(value, target)
        if not isinstance(target, Classes):
            return cls(by_metric, sums=typed(value, "sums", tuple[tuple[float, ...], ...]))
        return cls(
            by_metric=by_metric,
            recall=typed(value, "recall", Moments),
            confusion=typed(value, "confusion", tuple[tuple[Count, ...], ...]),
        )


def moments(value: Any, target: Target) -> dict[str, float | None]:
    """Read one statistic of each of the target's scores, as in results.json."""
    return {name: typed(value, name, Number) for name in target.score_names}


def _defined(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
