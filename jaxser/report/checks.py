"""What makes scores doubtful: what the parts of a fold share, and classes that look exchanged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize
from jaxtyping import Int

from jaxser.data.leaks import KINDS, PAIRS, SPOKEN, FoldIds, Leak, leaks
from jaxser.evaluation import metrics
from jaxser.evaluation.comparisons import tested
from jaxser.evaluation.run_folder import Run
from jaxser.report.tables import Table

NAMES = {
    "utterance": "utterances",
    "recording": "byte-identical recordings",
    "speaker": "speakers",
    "dialogue": "dialogues",
    "transcript": "transcripts",
}

MOST_LISTED = 200


@dataclass(frozen=True)
class Listed:
    """The values of a kind that two parts share somewhere, each with the utterances of the second part."""

    title: str
    values: tuple[tuple[str, tuple[str, ...]], ...]
    left_out: int


def assumed_folds(folds: Sequence[FoldIds]) -> tuple[FoldIds, ...]:
    """The folds; one that does not say what it is trained on is trained on all that it does not test."""
    everything = tuple(dict.fromkeys(i for fold in folds for i in fold.test))
    return tuple(
        fold if fold.train else replace(fold, train=tuple(i for i in everything if i not in set(fold.test)))
        for fold in folds
    )


def leak_table(run: Run) -> Table:
    """A line for every kind of leak and pair of parts: nothing shared is said as well."""
    folds = assumed_folds(run.folds)
    found = leaks(folds, run.utterances)
    rows = []
    for kind in KINDS:
        known = any(KINDS[kind](row) for row in run.utterances.values())
        for parts in PAIRS:
            own = [leak for leak in found if (leak.kind, leak.parts) == (kind, parts)]
            between = " and ".join(SPOKEN[part] for part in parts)
            rows.append(
                (NAMES[kind], between, *(_counts(own, len(folds)) if known else ("not known", "", "")))
            )
    header = ("shared", "between", "values", "utterances of the second part", "folds")
    return Table("leaks", "What the parts of a fold share", header, tuple(rows))


def listed(run: Run) -> list[Listed]:
    """Every shared value by kind and pair of parts, in which utterances of the second part."""
    found = leaks(assumed_folds(run.folds), run.utterances)
    lists = []
    for kind in KINDS:
        for parts in PAIRS:
            where: dict[str, dict[str, None]] = {}
            for leak in found:
                if (leak.kind, leak.parts) == (kind, parts):
                    for i in leak.utterances:
                        where.setdefault(KINDS[kind](run.utterances[i]), {})[i] = None
            if where:
                between = " and ".join(SPOKEN[part] for part in parts)
                values = tuple((value, tuple(ids)) for value, ids in list(where.items())[:MOST_LISTED])
                title = f"{NAMES[kind].capitalize()} in {between} ({len(where)})"
                lists.append(Listed(title, values, len(where) - len(values)))
    return lists


def exchanged(run: Run) -> list[str]:
    """A sentence where other names for the predicted classes would score much better: exchanged labels."""
    p = tested(run)
    if not len(p.true):
        return []
    counts = np.asarray(metrics.confusion(p.true, p.predicted, np.ones(len(p.true)), len(p.classes)))
    order = _best_names(counts)
    moved = [row for row in range(len(order)) if order[row] != row]
    gain = _ua(counts[:, order]) - _ua(counts)
    utterances = len(set(p.utterance.tolist()))
    if not moved or gain < 3 / math.sqrt(4 * utterances):  # three standard errors of a share, at most
        return []
    names = ", ".join(f"{p.classes[row]} is taken for {p.classes[order[row]]}" for row in moved)
    return [
        f"Labels look exchanged: {names}; with these names put right UA would be {100 * gain:.0f} points higher. "
        "Check the order of the classes in what made the predictions."
    ]


def _best_names(counts: np.ndarray) -> Int[np.ndarray, " C"]:
    """The predicted class that is most often meant by each true one, each used once."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return scipy.optimize.linear_sum_assignment(share, maximize=True)[1]


def _ua(counts: np.ndarray) -> float:
    return float(metrics.scores(counts)["ua"])


def _counts(found: Sequence[Leak], folds: int) -> tuple[int, int, str]:
    values = {value for leak in found for value in leak.values}
    utterances = {i for leak in found for i in leak.utterances}
    return len(values), len(utterances), f"{len({leak.fold for leak in found})} of {folds}"
