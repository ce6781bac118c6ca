"""Overfitting, as the log of the epochs shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxser.evaluation.records import EpochRecord

TOLERANCE = 0.05
"""How much the validation loss must rise above its lowest value, relative to it, to count as overfitting."""


@dataclass(frozen=True)
class Overfitting:
    """How the training of one replica generalised; epochs are counted from 0.

    Attributes:
        since: the first epoch of overfitting; None if there is none.
        gap: how much better the headline score (such as UA) of the training steps is than that of the validation part,
            for the selected epoch.
        selected: validation score of the selected epoch.
        last: validation score of the last epoch.
    """

    since: int | None
    gap: float | None
    selected: float | None
    last: float | None


def overfitting(epochs: Sequence[EpochRecord], best_epoch: int | None) -> Overfitting:
    """Return how the training of a replica generalised.

    Args:
        epochs: the replica's epochs, in order.
        best_epoch: the selected epoch; None if there is none.
    """
    selected = next((record for record in epochs if record.epoch == best_epoch), None)
    return Overfitting(
        since=overfits_since(epochs),
        gap=selected.gap if selected else None,
        selected=selected.validation_score if selected else None,
        last=epochs[-1].validation_score if epochs else None,
    )


def overfits_since(epochs: Sequence[EpochRecord]) -> int | None:
    """Return the epoch since which a replica overfits, or None.

    It is the one after the lowest validation loss, if that loss ends more than `TOLERANCE` above its lowest value while
    the training loss has fallen further.
    """
    known = [one for one in epochs if one.validation_loss is not None and one.train_loss is not None]
    if not known:
        return None
    losses = [float(one.validation_loss or 0) for one in known]
    lowest, last = losses.index(min(losses)), len(losses) - 1
    rises = losses[last] > (1 + TOLERANCE) * losses[lowest]
    falls = float(known[last].train_loss or 0) < float(known[lowest].train_loss or 0)
    return known[lowest + 1].epoch if lowest < last and rises and falls else None
