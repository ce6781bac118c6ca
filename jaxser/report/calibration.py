"""Calibration of a model's confidence, and its most confident mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxser.evaluation.run_folder import Predictions
from jaxser.types import Utterance

BINS = 15
MAX_MISTAKES = 10


@dataclass(frozen=True, eq=False)
class Calibration:
    """Test predictions in bins of equal width, by the probability of the predicted class.

    Attributes:
        error: the expected calibration error, averaged over seeds.
        confidence: the mean of each bin; NaN if it is empty.
        accuracy: likewise.
        count: the number of predictions in each bin.
    """

    error: float
    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]
    count: Int[np.ndarray, " bins"]


@dataclass(frozen=True)
class Mistake:
    """An utterance that is misclassified by the mean probabilities of its replicas.

    Attributes:
        confidence: the mean probability of the predicted class.
        wrong: the number of replicas, of `replicas`, that misclassify it.
    """

    utterance: str
    true: str
    predicted: str
    confidence: float
    wrong: int
    replicas: int
    transcript: str
    speaker: str


def calibration(p: Predictions) -> Calibration | None:
    """Compute the calibration of the test predictions of all replicas.

    It is None if probabilities are missing, as in some imports. The expected calibration error is that of Guo et al.
    (2017, "On Calibration of Modern Neural Networks").
    """
    if not len(p.true) or not np.isfinite(p.probabilities).all():
        return None
    confidence = p.probabilities[np.arange(len(p.true)), p.predicted]
    correct = p.true == p.predicted
    count, mean_confidence, accuracy = _bins(confidence, correct)
    errors = []
    for seed in np.unique(p.seed):
        own = p.seed == seed
        number, *means = _bins(confidence[own], correct[own])
        errors.append(float(np.nansum(number * np.abs(means[0] - means[1])) / number.sum()))
    return Calibration(float(np.mean(errors)), mean_confidence, accuracy, count)


def mistakes(
    p: Predictions, utterances: Mapping[str, Utterance], limit: int = MAX_MISTAKES
) -> tuple[Mistake, ...]:
    """Return the misclassified utterances with the highest mean probability, highest first.

    The result is empty if probabilities are missing.
    """
    if not np.isfinite(p.probabilities).all():
        return ()
    ids, first, row, count = np.unique(
        p.utterance, return_index=True, return_inverse=True, return_counts=True
    )
    total = np.zeros((len(ids), len(p.classes)))
    np.add.at(total, row, p.probabilities)
    mean, true = total / count[:, None], p.true[first]
    wrong = np.bincount(row, p.true != p.predicted, len(ids)).astype(int)
    predicted = mean.argmax(axis=1)
    confidence = np.where(predicted == true, -1.0, mean.max(axis=1))
    order = [n for n in np.argsort(-confidence, kind="stable")[:limit] if confidence[n] >= 0]
    return tuple(
        Mistake(
            utterance=str(ids[n]),
            true=p.classes[true[n]],
            predicted=p.classes[predicted[n]],
            confidence=float(confidence[n]),
            wrong=int(wrong[n]),
            replicas=int(count[n]),
            transcript=utterances[str(ids[n])].transcript,
            speaker=utterances[str(ids[n])].speaker,
        )
        for n in order
    )


def _bins(
    confidence: Float[np.ndarray, " N"], correct: np.ndarray
) -> tuple[Int[np.ndarray, " bins"], Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Return number, mean confidence and accuracy of each bin; a bin includes its upper edge."""
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(index, minlength=BINS)
    sums = [np.bincount(index, values, BINS) for values in (confidence, correct)]
    means = [np.divide(s, count, out=np.full(BINS, np.nan), where=count > 0) for s in sums]
    return count, means[0], means[1]
