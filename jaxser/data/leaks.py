"""Leaks: what the parts of a fold share although they should not, such as speakers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from jaxser.types import Fold, Utterance

SHORT = 4
"""Transcripts of fewer words ("I don't know") recur by chance and are not compared."""

PAIRS = (("train", "test"), ("validation", "test"), ("train", "validation"))
"""The pairs of parts that are compared. A leak is measured by its share of the second part."""

PART_NAMES = {"train": "training", "validation": "validation", "test": "test"}
"""The names of the parts in sentences."""


@dataclass(frozen=True)
class FoldIds:
    """A fold as the utterance ids of its parts, in the order of the dataset."""

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @classmethod
    def of(cls, fold: Fold, ids: Sequence[str]) -> FoldIds:
        """Convert a fold from dataset rows to utterance ids."""
        parts = (fold.train, fold.validation, fold.test)
        return cls(fold.name, *(tuple(str(ids[row]) for row in rows) for rows in parts))


@dataclass(frozen=True)
class Leak:
    """Values of one kind that two parts of a fold share.

    Attributes:
        kind: a key of `KINDS`.
        fold: the name of the fold.
        parts: an element of `PAIRS`.
        values: the shared values, such as speakers.
        utterances: the ids of the utterances of the second part that have one of the values.
        share: the fraction of the second part's utterances in `utterances`.
    """

    kind: str
    fold: str
    parts: tuple[str, str]
    values: tuple[str, ...]
    utterances: tuple[str, ...]
    share: float


def normalise_transcript(transcript: str) -> str:
    """Return the lower-cased words without punctuation, or "" if there are fewer than `SHORT`."""
    if not transcript:
        return ""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", transcript.lower())
    return " ".join(words) if len(words) >= SHORT else ""


KINDS: Mapping[str, Callable[[Utterance], str]] = {
    "utterance": attrgetter("id"),
    "recording": attrgetter("sha256"),
    "speaker": attrgetter("speaker"),
    "dialogue": attrgetter("dialogue"),
    "transcript": lambda utterance: normalise_transcript(utterance.transcript),
}
"""The kinds of leaks, most severe first, and the value of an utterance for each; "" is unknown and never shared."""


def leaks(folds: Iterable[FoldIds], utterances: Mapping[str, Utterance]) -> list[Leak]:
    """Find everything that two parts of a fold share.

    The result is sorted by kind (most severe first), pair of parts and fold.

    Args:
        folds: the folds of a run.
        utterances: the utterances of the run by id.
    """
    folds, ids = tuple(folds), list(utterances)
    row_of = {i: row for row, i in enumerate(ids)}
    rows = {
        (fold.name, part): np.fromiter(map(row_of.__getitem__, getattr(fold, part)), dtype=int)
        for fold in folds
        for part in PART_NAMES
    }
    found = []
    for kind, value in KINDS.items():
        number_of = {"": 0}
        numbers = np.array([number_of.setdefault(value(u), len(number_of)) for u in utterances.values()], int)
        names = list(number_of)
        for parts, fold in ((p, f) for p in PAIRS for f in folds):
            first, second = (rows[fold.name, part] for part in parts)
            is_seen = np.zeros(len(names), dtype=bool)
            is_seen[numbers[first]] = True
            is_seen[0] = False
            affected = second[is_seen[numbers[second]]]
            if len(affected):
                shared = tuple(sorted(names[number] for number in np.unique(numbers[affected])))
                those = tuple(ids[row] for row in affected)
                found.append(Leak(kind, fold.name, parts, shared, those, len(affected) / len(second)))
    return found


def heard_speakers(
    folds: Iterable[FoldIds], utterances: Mapping[str, Utterance]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the test speakers heard in training or validation, and all test speakers."""
    heard, tested = set(), set()
    for fold in folds:
        known = {utterances[i].speaker for i in (*fold.train, *fold.validation)} - {""}
        own = {utterances[i].speaker for i in fold.test} - {""}
        heard |= own & known
        tested |= own
    return frozenset(heard), frozenset(tested)


def leak_warnings(folds: Sequence[FoldIds], utterances: Mapping[str, Utterance]) -> list[str]:
    """Return one sentence per kind of leak, and one if the speakers are unknown.

    Recordings and transcripts that are shared only because the same utterances are in both parts are not reported
    again.
    """
    found = leaks(folds, utterances)
    reported: set[tuple[str, tuple[str, str], str]] = set()
    sentences = []
    for kind in KINDS:
        group = [leak for leak in found if leak.kind == kind]
        affected = {(leak.fold, leak.parts, i) for leak in group for i in leak.utterances}
        if affected - reported if kind in ("recording", "transcript") else affected:
            sentences.append(_sentence(kind, group, len(folds)))
        reported |= affected if kind in ("utterance", "recording") else set()
    if utterances and not any(utterance.speaker for utterance in utterances.values()):
        sentences.append("The corpus does not name its speakers, so shared speakers cannot be detected.")
    return sentences


def class_warnings(folds: Sequence[FoldIds], utterances: Mapping[str, Utterance]) -> list[str]:
    """Return one sentence per class and part that lacks the class in some fold.

    Empty parts are not reported.
    """
    consequence = {
        "train": "its replicas cannot learn the class",
        "validation": "the epoch is selected without the class",
        "test": "its UA does not include the class",
    }
    names, sentences = sorted({utterance.label for utterance in utterances.values()}), []
    for part, effect in consequence.items():
        present = {fold.name: _labels(getattr(fold, part), utterances, len(names)) for fold in folds}
        for name in names:
            lacking = [fold for fold, labels in present.items() if labels and name not in labels]
            if lacking:
                where = f"the {PART_NAMES[part]} part of {_folds(lacking, len(folds))}"
                sentences.append(f"Class {name} has no utterance in {where}: {effect}.")
    return sentences


def _labels(part: Iterable[str], utterances: Mapping[str, Utterance], most: int) -> set[str]:
    """Return the labels in a part; the search ends when there are as many as possible."""
    found: set[str] = set()
    for i in part:
        found.add(utterances[i].label)
        if len(found) == most:
            break
    return found


_SUBJECTS = {
    "utterance": "The same utterances are",
    "recording": "Byte-identical recordings are",
    "speaker": "Speakers are",
    "dialogue": "Dialogues are",
    "transcript": f"Sentences of {SHORT} words or more are",
}


def _sentence(kind: str, group: Sequence[Leak], num_folds: int) -> str:
    """Return one sentence on all leaks of a kind: the parts, the folds, and examples."""
    shared = []
    for parts in PAIRS:
        of_parts = [leak for leak in group if leak.parts == parts]
        if of_parts:
            most = max(leak.share for leak in of_parts)
            first, second = (PART_NAMES[part] for part in parts)
            share = "all" if most == 1 else f"up to {most:.1%}"
            where = _folds([leak.fold for leak in of_parts], num_folds)
            shared.append(f"{first} and {second} ({share} of the {second} utterances; {where})")
    values = [value for leak in group for value in (leak.utterances if kind == "recording" else leak.values)]
    examples = _shortened([f"“{value}”" for value in values])
    return f"{_SUBJECTS[kind]} in both {', '.join(shared)}: {examples}."


def _shortened(values: Sequence[str], shown: int = 3) -> str:
    values = list(dict.fromkeys(values))
    more = f" and {len(values) - shown} more" if len(values) > shown else ""
    return ", ".join(values[:shown]) + more


def _folds(names: Sequence[str], num_folds: int) -> str:
    if len(names) == num_folds:
        return "every fold" if num_folds > 1 else f"fold {names[0]}"
    return f"fold{'s' if len(names) > 1 else ''} {', '.join(names)}"
