"""Calibrated probabilities: temperature scaling, and predictions that are withheld.

Both are chosen on the validation part of each replica and measured on its test part. The source is Guo et al. (2017,
"On Calibration of Modern Neural Networks").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from jaxser.evaluation.run_folder import Predictions, Run
from jaxser.report.calibration import Calibration, calibration

SMALLEST = 5e-7
"""Replaces probabilities of 0, which are those below half of the last digit in predictions.csv."""

RANGE = (0.05, 20.0)
"""The temperatures that are tried."""

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""The shares of the validation part that are answered."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """What temperature scaling changes (Guo et al. 2017, section 4.2).

    Attributes:
        temperatures: the temperature of each replica; above 1, its probabilities were too extreme.
        error: the expected calibration error of the test predictions, before and after.
        loss: the mean of -log p(label) of the test predictions, before and after.
        answers: what is left if the least confident predictions are withheld.
    """

    temperatures: Float[np.ndarray, " replicas"]
    error: tuple[float, float]
    loss: tuple[float, float]
    answers: tuple[Answers, ...]


@dataclass(frozen=True)
class Answers:
    """Test predictions whose confidence reaches a threshold, averaged over replicas.

    The confidence is the scaled probability of the predicted class.

    Attributes:
        share: the share of the validation part that reaches the threshold, which is what the threshold is chosen by.
        threshold: the threshold.
        coverage: the share of the test part that reaches it.
        accuracy: the fraction of these predictions that are correct; None if there are none.
    """

    share: float
    threshold: float
    coverage: float
    accuracy: float | None


def fit_temperature(probabilities: Float[np.ndarray, "N C"], true: Int[np.ndarray, " N"]) -> float:
    """Return the temperature that minimises the mean of -log p(label)."""
    log_probs = np.log(np.maximum(probabilities, SMALLEST))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(log_probs / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(true)), true].mean())

    low, high = np.log(RANGE)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def tempered(probabilities: Float[np.ndarray, "N C"], temperature: float) -> Float[np.ndarray, "N C"]:
    """Return the probabilities after their logits are divided by a temperature."""
    return softmax(np.log(np.maximum(probabilities, SMALLEST)) / temperature, axis=1)


def scaling(run: Run, before: Calibration | None) -> Scaling | None:
    """Scale the test predictions of each replica by the temperature of its validation part.

    The result is None if probabilities are missing, or if a replica has no validation part.

    Args:
        run: the run.
        before: the calibration of its test predictions.
    """
    test, validation = run.test_predictions, run.scored("validation")
    if before is None or not np.isfinite(validation.probabilities).all():
        return None
    scaled = np.array(test.probabilities, dtype=np.float64)
    temperatures, answered = [], []
    for held_out, tested in _replicas(validation, test):
        if not held_out.any():
            return None
        probabilities, true = validation.probabilities[held_out], validation.true[held_out]
        temperature = fit_temperature(probabilities, true)
        scaled[tested] = tempered(test.probabilities[tested], temperature)
        correct = test.predicted[tested] == test.true[tested]
        confidence = tempered(probabilities, temperature).max(axis=1)
        answered.append(
            [_answers(share, confidence, scaled[tested].max(axis=1), correct) for share in SHARES]
        )
        temperatures.append(temperature)
    after = calibration(replace(test, probabilities=scaled))
    assert after is not None
    return Scaling(
        temperatures=np.array(temperatures),
        error=(before.error, after.error),
        loss=(_loss(test.probabilities, test.true), _loss(scaled, test.true)),
        answers=tuple(map(_mean_answers, zip(*answered, strict=True))),
    )


def _replicas(
    validation: Predictions, test: Predictions
) -> Iterator[tuple[Bool[np.ndarray, " V"], Bool[np.ndarray, " T"]]]:
    """Yield the validation and test predictions of each replica."""
    for fold, seed in sorted(set(zip(test.fold.tolist(), test.seed.tolist(), strict=True))):
        yield tuple((part.fold == fold) & (part.seed == seed) for part in (validation, test))


def _answers(
    share: float,
    validation: Float[np.ndarray, " V"],
    test: Float[np.ndarray, " T"],
    correct: Bool[np.ndarray, " T"],
) -> Answers:
    """Return the test predictions above the confidence that `share` of the validation part reaches."""
    threshold = 0.0 if share == 1 else float(np.quantile(validation, 1 - share))
    kept = test >= threshold
    return Answers(share, threshold, float(kept.mean()), float(correct[kept].mean()) if kept.any() else None)


def _mean_answers(of_replicas: tuple[Answers, ...]) -> Answers:
    defined = [one.accuracy for one in of_replicas if one.accuracy is not None]
    return Answers(
        share=of_replicas[0].share,
        threshold=float(np.mean([one.threshold for one in of_replicas])),
        coverage=float(np.mean([one.coverage for one in of_replicas])),
        accuracy=float(np.mean(defined)) if defined else None,
    )


def _loss(probabilities: Float[np.ndarray, "N C"], true: Int[np.ndarray, " N"]) -> float:
    chosen = probabilities[np.arange(len(true)), true]
    return -float(np.log(np.maximum(chosen, SMALLEST)).mean())
