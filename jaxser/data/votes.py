"""Raters' votes as counts per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxser.types import Utterance

_NOUNS = {
    "angry": "anger",
    "contemptuous": "contempt",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
}
"""The label by the word that raters chose, where corpora such as MSP-Podcast use both."""


def count_votes(utterances: Sequence[Utterance], class_of: Mapping[str, str]) -> Float[np.ndarray, "N C"]:
    """Return the number of votes for each class, in class order.

    Votes for labels that are in no class are left out. The case of letters does not matter, and a rater's "angry" is a
    vote for "anger".

    Args:
        utterances: the utterances.
        class_of: the class of each label.
    """
    column = {name: n for n, name in enumerate(dict.fromkeys(class_of.values()))}
    row_of = {label.casefold(): column[name] for label, name in class_of.items()}
    counts = np.zeros((len(utterances), len(column)), np.float32)
    for row, utterance in enumerate(utterances):
        for vote in utterance.votes:
            name = vote.casefold()
            if (found := row_of.get(name, row_of.get(_NOUNS.get(name, name)))) is not None:
                counts[row, found] += 1
    return counts


def voted_classes(utterances: Sequence[Utterance], class_of: Mapping[str, str]) -> dict[str, str]:
    """Return the labels whose class has votes, unlike "no agreement", and their classes."""
    names = dict.fromkeys(class_of.values())
    totals = dict(zip(names, count_votes(utterances, class_of).sum(axis=0).tolist(), strict=True))
    return {label: name for label, name in class_of.items() if totals[name]}


def has_votes(utterance: Utterance, class_of: Mapping[str, str]) -> bool:
    """Return whether an utterance has a vote for one of the classes."""
    return bool(count_votes([utterance], class_of).any())
