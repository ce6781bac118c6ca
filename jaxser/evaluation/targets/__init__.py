"""What a network is trained to predict: classes, numeric attributes, or raters' votes.

A target knows the width of the network's last layer, the loss, how an output becomes a prediction, and the scores of
predictions. Scores follow from statistics that can be added up over utterances, batches and folds: a confusion matrix,
or the sums of `jaxser.evaluation.concordance` or `jaxser.evaluation.divergence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxser.evaluation.records import typed
from jaxser.evaluation.targets.attributes import ATTRIBUTE_LOSSES, ATTRIBUTES, Attributes
from jaxser.evaluation.targets.base import Target
from jaxser.evaluation.targets.classes import ANY_CLASSES, CLASSES, Classes
from jaxser.evaluation.targets.votes import CLASS_BALANCED, VOTE_LOSSES, VOTES, Votes

__all__ = [
    "ANY_CLASSES",
    "ATTRIBUTES",
    "ATTRIBUTE_LOSSES",
    "CLASSES",
    "CLASS_BALANCED",
    "KINDS",
    "TARGETS",
    "VOTES",
    "VOTE_LOSSES",
    "Attributes",
    "Classes",
    "Target",
    "Votes",
    "from_json",
]

KINDS: tuple[type[Target], ...] = (Classes, Attributes, Votes)
"""The targets that a network can be trained on."""

TARGETS = tuple(target.kind for target in KINDS)
"""The values of `config.target`."""


def from_json(value: Mapping[str, Any], classes: Sequence[str]) -> Target:
    """Return the target that `to_json` describes.

    Args:
        value: the description; empty for the classes of earlier versions.
        classes: the names of the classes.

    Raises:
        KeyError: if a key is missing.
        TypeError: if a value has another type than expected.
        ValueError: if the scale is empty or an attribute is named twice.
    """
    kind = typed(value, "kind", Literal[TARGETS], CLASSES)
    if kind == CLASSES:
        return Classes(tuple(classes))
    if kind == VOTES:
        return Votes(tuple(classes), typed(value, "loss", Literal[VOTE_LOSSES]))
    names = typed(value, "attributes", tuple[str, ...])
    low, high = typed(value, "scale", tuple[float, float])
    if not names or len(set(names)) < len(names) or not low < high:
        raise ValueError("its attributes are not different names on a scale")
    return Attributes(
        names,
        low,
        high,
        typed(value, "loss", Literal[ATTRIBUTE_LOSSES]),
        typed(value, "class_share", float),
        len(classes),
    )
