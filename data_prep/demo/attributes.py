"""The attributes of the demo corpus, and the best possible CCC on them.

An emotion has a centre on each scale, from 1 to 5. Two raters each add normal noise and round to a point of the scale;
the attribute is their mean. The words and the voice say something about the emotion, and nothing else about the
attributes, so the variance of the best prediction, E[attribute | words, voice], is a finite sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float

ATTRIBUTES = ("valence", "activation", "dominance")
CENTRES = {  # close to the means of IEMOCAP
    "ang": (1.9, 3.6, 3.9),
    "hap": (3.9, 3.1, 3.0),
    "exc": (4.0, 3.6, 3.4),
    "sad": (2.2, 2.6, 2.9),
    "neu": (2.9, 2.7, 2.9),
    "fru": (2.3, 3.0, 3.3),
    "sur": (3.1, 3.3, 3.0),
}
NOISE = 0.6  # standard deviation of a rater
RATERS = 2
LOW, HIGH = 1, 5


def rate(emotion: str, rng: np.random.Generator) -> Float[np.ndarray, "raters 3"]:
    """Draw the judgements of the raters."""
    drawn = CENTRES[emotion] + rng.normal(0, NOISE, (RATERS, len(ATTRIBUTES)))
    return np.clip(np.rint(drawn), LOW, HIGH)


def rating_moments(emotion: str) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """Return the mean and the variance of one rater's judgement."""
    points = np.arange(LOW, HIGH + 1)
    edges = np.concatenate([[-np.inf], points[:-1] + 0.5, [np.inf]])
    centre = np.array(CENTRES[emotion])[:, None]
    shares = np.diff(scipy.stats.norm.cdf(edges, centre, NOISE), axis=1)
    mean = shares @ points
    return mean, shares @ points**2 - mean**2


def best_scores(
    observed: Mapping[str, Sequence[Float[np.ndarray, "emotions symbols"]]], emotions: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the best possible CCC and RMSE of each observer, by attribute and on average.

    A prediction f has CCC(f, y) <= Pearson(f, y) <= sqrt(Var(E[y | symbols]) / Var(y)), the correlation ratio. The
    prediction E[y | symbols], scaled about its mean to the variance of y, reaches it. Unscaled, it has the lowest RMSE.

    Args:
        observed: for each observer, the joint probabilities of the emotions and the symbols that it observes. There
            are several arrays, which add up to one together, if groups of speakers differ and are known.
        emotions: the emotions in the order of the arrays.
    """
    means, variances = (np.array(both) for both in zip(*map(rating_moments, emotions), strict=True))
    shares = sum(table.sum(axis=1) for table in next(iter(observed.values())))
    overall = shares @ means
    variance = shares @ (variances / RATERS + means**2) - overall**2
    return {name: _scores(tables, means, overall, variance) for name, tables in observed.items()}


def _scores(
    tables: Sequence[Float[np.ndarray, "emotions symbols"]],
    means: Float[np.ndarray, "emotions 3"],
    overall: Float[np.ndarray, " 3"],
    variance: Float[np.ndarray, " 3"],
) -> dict[str, float]:
    explained = np.zeros(len(ATTRIBUTES))
    for table in tables:
        mass = table.sum(axis=0)
        seen = mass > 0
        expected = (table[:, seen].T @ means) / mass[seen, None]
        explained += mass[seen] @ (expected - overall) ** 2
    ratio = np.sqrt(np.clip((explained / variance).round(12), 0, 1))
    error = np.sqrt(variance * (1 - ratio**2))
    found = {"ccc": ratio, "rmse": error}
    by_name = {
        f"{score}_{name}": float(values[n])
        for n, name in enumerate(ATTRIBUTES)
        for score, values in found.items()
    }
    return {score: math.fsum(values) / len(ATTRIBUTES) for score, values in found.items()} | by_name
