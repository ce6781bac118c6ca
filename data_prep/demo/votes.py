"""The best possible divergence from the raters' votes on the demo corpus.

The raters vote independently of each other given the emotion, and the words and the voice say nothing else about their
votes. So the expected divergence of a prediction is a finite sum over emotions and votes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import jensenshannon

_STEPS = 20_000
_TOLERANCE = 1e-7
"""How far the divergence may be from the minimum, in bits."""


def vote_outcomes(
    by_emotion: Float[np.ndarray, "emotions classes"], raters: int
) -> tuple[Float[np.ndarray, "outcomes classes"], Float[np.ndarray, "emotions outcomes"]]:
    """Return the possible shares of the votes, and the probability of each given the emotion.

    Args:
        by_emotion: the probability that a rater names a class, given the emotion.
        raters: the number of raters.
    """
    classes = by_emotion.shape[1]
    counts = np.array(
        [
            np.bincount(drawn, minlength=classes)
            for drawn in combinations_with_replacement(range(classes), raters)
        ]
    )
    orders = np.array(
        [math.factorial(raters) / math.prod(map(math.factorial, own)) for own in counts.tolist()]
    )
    probability = orders * np.prod(by_emotion[:, None, :] ** counts, axis=2)
    possible = probability.any(axis=0)
    return counts[possible] / raters, probability[:, possible]


def best_divergences(
    observed: Mapping[str, Sequence[Float[np.ndarray, "emotions symbols"]]],
    classes: Sequence[str],
    by_emotion: Float[np.ndarray, "emotions classes"],
    raters: int,
) -> dict[str, object]:
    """Return the lowest possible divergence and cross-entropy of each observer.

    The cross-entropy to the votes, in nats, is lowest for the expected shares given what is observed. The expected
    Jensen-Shannon divergence, in bits, is a convex function of the prediction and is minimised.

    Args:
        observed: for each observer, the joint probabilities of the emotions and of what it observes, by group of
            speakers; they add up to one together.
        classes: the names of the classes.
        by_emotion: the probability that a rater names a class, given the emotion.
        raters: the number of raters.
    """
    shares, likelihood = vote_outcomes(by_emotion, raters)
    found: dict[str, object] = {"classes": list(classes)}
    for name, tables in observed.items():
        table = np.concatenate(tables, axis=1)
        table = table[:, table.sum(axis=0) > 0]
        posteriors, group = np.unique((table / table.sum(axis=0)).round(12), axis=1, return_inverse=True)
        mass = np.bincount(group.ravel(), table.sum(axis=0))
        outcome = posteriors.T @ likelihood
        expected = outcome @ shares
        logs = np.log(expected, out=np.zeros_like(expected), where=expected > 0)
        found[name] = {
            "js": float(mass @ _expected(best_predictions(outcome, shares), outcome, shares)),
            "cross_entropy": float(-mass @ (expected * logs).sum(axis=1)),
        }
    return found


def best_predictions(
    outcome: Float[np.ndarray, "symbols outcomes"], shares: Float[np.ndarray, "outcomes classes"]
) -> Float[np.ndarray, "symbols classes"]:
    """Return the predictions with the lowest expected Jensen-Shannon divergence.

    This is mirror descent: a step leads to the geometric mean of the mixtures of prediction and votes, weighted by the
    probabilities of the votes. It ends if the duality gap of every row is below a tolerance.

    Args:
        outcome: the probability of each outcome, given what is observed.
        shares: the shares of the votes of each outcome.
    """
    p = outcome @ shares
    can_be = p > 0
    for _ in range(_STEPS):
        mixture = (p[:, None, :] + shares) / 2
        logs = np.log(mixture, out=np.zeros_like(mixture), where=mixture > 0)
        target = np.einsum("so,soc->sc", outcome, logs)
        own = np.log(p, out=np.zeros_like(p), where=p > 0)
        gradient = np.where(can_be, own - target, np.inf) / (2 * math.log(2))
        steepest = np.where(can_be, gradient, 0)
        if ((p * steepest).sum(axis=1) - gradient.min(axis=1)).max() < _TOLERANCE:
            break
        p = np.where(can_be, np.exp(target), 0)
        p /= p.sum(axis=1, keepdims=True)
    return p


def _expected(
    predicted: Float[np.ndarray, "symbols classes"],
    outcome: Float[np.ndarray, "symbols outcomes"],
    shares: Float[np.ndarray, "outcomes classes"],
) -> Float[np.ndarray, " symbols"]:
    """Return the expected divergence of each prediction from the votes."""
    each = jensenshannon(predicted[:, None], shares[None], base=2, axis=2) ** 2
    return (outcome * each).sum(axis=1)
