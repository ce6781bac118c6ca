"""Whether a model's confidence is to be believed: reliability, and the mistakes it was surest of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxser.evaluation.comparisons import tested
from jaxser.evaluation.run_folder import Run
from jaxser.report.tables import Score, Table

BINS = 15
MOST_MISTAKES = 10


@dataclass(frozen=True, eq=False)
class Calibration:
    """Test predictions by the probability of the class that was predicted, in bins of equal width."""

    error: float  # expected calibration error: of each seed's predictions, averaged over seeds
    confidence: Float[np.ndarray, " bins"]  # mean of a bin; NaN where it is empty
    accuracy: Float[np.ndarray, " bins"]
    count: Int[np.ndarray, " bins"]


@dataclass(frozen=True)
class Mistake:
    """An utterance that is taken for another class by the mean of its replicas' probabilities."""

    utterance: str
    true: str
    predicted: str
    confidence: float
    wrong: int  # of `replicas`
    replicas: int
    transcript: str
    speaker: str


def calibration(run: Run) -> Calibration | None:
    """Of every replica's test predictions; None where there are no probabilities (some imported results).

    The expected calibration error is that of Guo et al. (2017, "On Calibration of Modern Neural Networks").
    """
    p = tested(run)
    if not len(p.true) or not np.isfinite(p.probabilities).all():
        return None
    confidence = p.probabilities[np.arange(len(p.true)), p.predicted]
    right = p.true == p.predicted
    count, sure, accurate = _bins(confidence, right)
    errors = []
    for seed in np.unique(p.seed):
        own = p.seed == seed
        number, *means = _bins(confidence[own], right[own])
        errors.append(float(np.nansum(number * np.abs(means[0] - means[1])) / number.sum()))
    return Calibration(float(np.mean(errors)), sure, accurate, count)


def mistakes(run: Run, most: int = MOST_MISTAKES) -> tuple[Mistake, ...]:
    """The wrong predictions with the highest probability, the surest first; none without probabilities."""
    p = tested(run)
    if not np.isfinite(p.probabilities).all():
        return ()
    ids, first, row, count = np.unique(
        p.utterance, return_index=True, return_inverse=True, return_counts=True
    )
    total = np.zeros((len(ids), len(p.classes)))
    np.add.at(total, row, p.probabilities)
    mean, true = total / count[:, None], p.true[first]
    wrong = np.bincount(row, p.true != p.predicted, len(ids)).astype(int)
    taken = mean.argmax(axis=1)
    sure = np.where(taken == true, -1.0, mean.max(axis=1))
    order = [n for n in np.argsort(-sure, kind="stable")[:most] if sure[n] >= 0]
    return tuple(
        Mistake(
            utterance=str(ids[n]),
            true=p.classes[true[n]],
            predicted=p.classes[taken[n]],
            confidence=float(sure[n]),
            wrong=int(wrong[n]),
            replicas=int(count[n]),
            transcript=run.utterances[str(ids[n])]["transcript"],
            speaker=run.utterances[str(ids[n])]["speaker"],
        )
        for n in order
    )


def mistakes_table(found: tuple[Mistake, ...]) -> Table | None:
    """The mistakes, or None where there are none."""
    rows = tuple(
        (m.utterance, m.true, m.predicted, Score(m.confidence), f"{m.wrong} of {m.replicas}", m.transcript)
        for m in found
    )
    header = ("utterance", "true", "taken for", "mean probability", "wrong in", "transcript")
    caption = (
        "The most confident mistakes (probabilities in %, averaged over the replicas that test the utterance)"
    )
    return Table("mistakes", caption, header, rows) if rows else None


def _bins(
    confidence: Float[np.ndarray, " N"], right: np.ndarray
) -> tuple[Int[np.ndarray, " bins"], Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Number, mean confidence and accuracy of each bin; a bin has its upper edge."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, values, BINS) for values in (confidence, right)]
    sure, accurate = (np.divide(s, count, out=np.full(BINS, np.nan), where=count > 0) for s in sums)
    return count, sure, accurate
