"""Reasons to doubt scores: parts that share utterances or speakers, exchanged labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize
from jaxtyping import Int

from jaxser.data.leaks import KINDS, PAIRS, PART_NAMES, FoldIds, Leak, leaks
from jaxser.evaluation import metrics
from jaxser.evaluation.run_folder import Predictions, Run
from jaxser.report.tables import Table
from jaxser.types import Utterance

NAMES = {
    "utterance": "utterances",
    "recording": "byte-identical recordings",
    "speaker": "speakers",
    "dialogue": "dialogues",
    "transcript": "transcripts",
}
"""The kinds of leaks in the plural."""

MAX_LISTED = 200


@dataclass(frozen=True)
class LeakList:
    """The values of one kind (speakers, for example) that two parts of a fold share.

    Attributes:
        values: each value with the utterances of the second part that have it.
        left_out: the number of values that are not listed.
    """

    title: str
    values: tuple[tuple[str, tuple[str, ...]], ...]
    left_out: int


def find_leaks(run: Run) -> tuple[Leak, ...]:
    """Find everything that two parts of a fold share.

    See `assumed_folds` for folds of unknown training data.
    """
    return tuple(leaks(assumed_folds(run.folds), run.utterances))


def assumed_folds(folds: Sequence[FoldIds]) -> tuple[FoldIds, ...]:
    """Return the folds; unknown training data is everything that a fold does not test."""
    everything = tuple(dict.fromkeys(i for fold in folds for i in fold.test))
    return tuple(
        fold if fold.train else replace(fold, train=_without(everything, fold.test)) for fold in folds
    )


def _without(ids: Sequence[str], excluded: Sequence[str]) -> tuple[str, ...]:
    left_out = set(excluded)
    return tuple(i for i in ids if i not in left_out)


def known_kinds(utterances: Mapping[str, Utterance]) -> tuple[str, ...]:
    """Return the kinds of leaks that can be checked, because some utterance has a value."""
    return tuple(kind for kind, value in KINDS.items() if any(map(value, utterances.values())))


def shares_speakers(found: Sequence[Leak]) -> bool:
    """Return whether a test part has a speaker who is heard in training or validation."""
    return any(leak.kind == "speaker" and leak.parts[1] == "test" for leak in found)


def leak_verdict(found: Sequence[Leak], utterances: Mapping[str, Utterance]) -> str:
    """Return one sentence on what was checked and found."""
    known = known_kinds(utterances)
    unknown = [NAMES[kind] for kind in KINDS if kind not in known]
    limit = f" Not checked for lack of data: {_listed(unknown, 'and')}." if unknown else ""
    shared = [NAMES[kind] for kind in KINDS if any(leak.kind == kind for leak in found)]
    if shared:
        return f"The training, validation and test parts share {_listed(shared, 'and')}.{limit}"
    names = _listed([NAMES[kind] for kind in known], "or")
    return f"No {names} are shared by the training, validation and test parts of a fold.{limit}"


def leak_table(found: Sequence[Leak], run: Run) -> Table:
    """Return the number of shared values, for every kind of leak and pair of parts."""
    known = known_kinds(run.utterances)
    rows = []
    for kind in KINDS:
        for parts in PAIRS:
            own = [leak for leak in found if (leak.kind, leak.parts) == (kind, parts)]
            counts = _counts(own, len(run.folds)) if kind in known else ("unknown", "", "")
            rows.append((NAMES[kind], _between(parts), *counts))
    header = ("shared", "between", "values", "utterances of the second part", "folds")
    return Table("leaks", "Values shared by the parts of a fold", header, tuple(rows))


def leak_lists(found: Sequence[Leak], utterances: Mapping[str, Utterance]) -> list[LeakList]:
    """Return the shared values, for every kind of leak and pair of parts that has any."""
    lists = []
    for kind in KINDS:
        for parts in PAIRS:
            where: dict[str, dict[str, None]] = {}
            for leak in found:
                if (leak.kind, leak.parts) == (kind, parts):
                    for i in leak.utterances:
                        where.setdefault(KINDS[kind](utterances[i]), {})[i] = None
            if where:
                values = tuple((value, tuple(ids)) for value, ids in list(where.items())[:MAX_LISTED])
                title = f"{NAMES[kind].capitalize()} in both {_between(parts)} ({len(where)})"
                lists.append(LeakList(title, values, len(where) - len(values)))
    return lists


def exchanged(p: Predictions) -> list[str]:
    """Return a warning if other names for the predicted classes would raise UA by much.

    If so, the labels may be exchanged.
    """
    if not len(p.true):
        return []
    counts = np.asarray(metrics.confusion(p.true, p.predicted, np.ones(len(p.true)), len(p.classes)))
    order = _best_names(counts)
    moved = [row for row in range(len(order)) if order[row] != row]
    gain = _ua(counts[:, order]) - _ua(counts)
    utterances = len(set(p.utterance.tolist()))
    if not moved or gain < 3 / math.sqrt(4 * utterances):  # three standard errors of a proportion, at most
        return []
    names = ", ".join(f"{p.classes[row]} is predicted as {p.classes[order[row]]}" for row in moved)
    return [
        f"Labels may be exchanged: {names}. Renaming them would raise UA by {100 * gain:.0f} points. "
        "Check the order of the classes in the program that made the predictions."
    ]


def _best_names(counts: np.ndarray) -> Int[np.ndarray, " C"]:
    """Return the predicted class that best matches each true one, each used once."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return scipy.optimize.linear_sum_assignment(share, maximize=True)[1]


def _ua(counts: np.ndarray) -> float:
    return float(metrics.scores(counts)["ua"])


def _counts(found: Sequence[Leak], folds: int) -> tuple[int, int, str]:
    values = {value for leak in found for value in leak.values}
    utterances = {i for leak in found for i in leak.utterances}
    return len(values), len(utterances), f"{len({leak.fold for leak in found})} of {folds}"


def _between(parts: tuple[str, str]) -> str:
    return " and ".join(PART_NAMES[part] for part in parts)


def _listed(names: Sequence[str], last: str) -> str:
    """Return a list in words: "a, b or c"."""
    *first, final = names
    return f"{', '.join(first)} {last} {final}" if first else final
