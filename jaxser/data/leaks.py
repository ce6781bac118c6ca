"""Folds as ids, and what their parts share and should not: pure functions over the utterances of a run.

`rows` are the utterances by id, as utterances.jsonl has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxser.types import Fold

Row = Mapping[str, Any]

SHORT = 4
"""Transcripts of fewer words ("I don't know") recur by chance and are not compared."""

PAIRS = (("train", "test"), ("validation", "test"), ("train", "validation"))

SPOKEN = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class FoldIds:
    """A fold as the ids of its parts, in the order of the dataset."""

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @classmethod
    def of(cls, fold: Fold, ids: Sequence[str]) -> FoldIds:
        """The ids of a fold that is given as rows of a dataset."""
        parts = (fold.train, fold.validation, fold.test)
        return cls(fold.name, *(tuple(str(ids[row]) for row in rows) for rows in parts))


@dataclass(frozen=True)
class Leak:
    """Values (speakers, say) that two parts of a fold share, and the utterances of the second with one."""

    kind: str  # a key of `KINDS`
    fold: str
    parts: tuple[str, str]
    values: tuple[str, ...]
    utterances: tuple[str, ...]
    share: float  # of the second part's utterances


def normalised(transcript: str) -> str:
    """Lower-cased words without punctuation; empty where there are fewer than `SHORT`."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", transcript.lower())
    return " ".join(words) if len(words) >= SHORT else ""


KINDS: Mapping[str, Callable[[Row], str]] = {
    "utterance": lambda row: row["id"],
    "recording": lambda row: row["sha256"],
    "speaker": lambda row: row["speaker"],
    "dialogue": lambda row: row["dialogue"],
    "transcript": lambda row: normalised(row["transcript"]),
}
"""What two parts may share, and how an utterance names it ("": not known, never counted as shared)."""


def leaks(folds: Iterable[FoldIds], rows: Mapping[str, Row]) -> list[Leak]:
    """Everything that two parts of a fold share, the gravest kind first."""
    folds = tuple(folds)
    keys = {kind: {i: key(row) for i, row in rows.items()} for kind, key in KINDS.items()}
    found = []
    for kind, parts, fold in ((k, p, f) for k in KINDS for p in PAIRS for f in folds):
        first, second = (getattr(fold, part) for part in parts)
        seen = {keys[kind][i] for i in first} - {""}
        shared = tuple(i for i in second if keys[kind][i] in seen)
        if shared:
            values = tuple(sorted({keys[kind][i] for i in shared}))
            found.append(Leak(kind, fold.name, parts, values, shared, len(shared) / len(second)))
    return found


def leak_warnings(folds: Sequence[FoldIds], rows: Mapping[str, Row]) -> list[str]:
    """A sentence for each kind of leak, and one where speakers are not known."""
    found = leaks(folds, rows)
    # What is shared because the very utterances are the same is said once, by the gravest kind.
    told: set[tuple[Any, ...]] = set()
    sentences = []
    for kind in KINDS:
        group = [leak for leak in found if leak.kind == kind]
        places = {(leak.fold, leak.parts, i) for leak in group for i in leak.utterances}
        if places - told if kind in ("recording", "transcript") else places:
            sentences.append(_sentence(kind, group, len(folds)))
        told |= places if kind in ("utterance", "recording") else set()
    if rows and not any(row["speaker"] for row in rows.values()):
        sentences.append("The corpus names no speakers: whether the parts share speakers is not known.")
    return sentences


def class_warnings(folds: Sequence[FoldIds], rows: Mapping[str, Row]) -> list[str]:
    """A sentence for every class that a part of a fold lacks; a part that is empty as a whole is no news."""
    consequence = {
        "train": "no replica of it can learn the class",
        "validation": "the epoch is selected without the class",
        "test": "its UA leaves the class out",
    }
    sentences = []
    for part, says in consequence.items():
        present = {fold.name: {rows[i]["label"] for i in getattr(fold, part)} for fold in folds}
        for name in sorted({row["label"] for row in rows.values()}):
            lacking = [fold for fold, labels in present.items() if labels and name not in labels]
            if lacking:
                where = f"the {SPOKEN[part]} part of {_folds(lacking, len(folds))}"
                sentences.append(f"Class {name} has no utterance in {where}: {says}.")
    return sentences


_WHAT = {
    "utterance": "The same utterances are",
    "recording": "Byte-identical recordings are",
    "speaker": "Speakers are",
    "dialogue": "Dialogues are",
    "transcript": f"Sentences of {SHORT} words or more are",
}


def _sentence(kind: str, group: Sequence[Leak], num_folds: int) -> str:
    """All leaks of one kind in words: which parts, how much of them, which folds, and what for example."""
    shared = []
    for parts in PAIRS:
        leaks = [leak for leak in group if leak.parts == parts]
        if leaks:
            most = max(leak.share for leak in leaks)
            first, second = (SPOKEN[part] for part in parts)
            share = "all" if most == 1 else f"up to {most:.1%}"
            where = _folds([leak.fold for leak in leaks], num_folds)
            shared.append(f"{first} and {second} ({share} of the {second} utterances; {where})")
    values = [value for leak in group for value in (leak.utterances if kind == "recording" else leak.values)]
    return f"{_WHAT[kind]} in both {', '.join(shared)}: {_some([f'“{value}”' for value in values])}."


def _some(values: Sequence[str], shown: int = 3) -> str:
    values = list(dict.fromkeys(values))
    more = f" and {len(values) - shown} more" if len(values) > shown else ""
    return ", ".join(values[:shown]) + more


def _folds(names: Sequence[str], num_folds: int) -> str:
    if len(names) == num_folds:
        return "every fold" if num_folds > 1 else f"fold {names[0]}"
    return f"fold{'s' if len(names) > 1 else ''} {', '.join(names)}"
