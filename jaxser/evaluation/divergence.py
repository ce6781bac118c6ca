"""Predicted distributions against raters' votes, for NumPy and JAX arrays.

All scores follow from statistics of single utterances, which can be added up as confusion matrices can. Divergences
and entropies are in bits.
"""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Float, Num

from jaxser.evaluation import metrics
from jaxser.types import AnyArray

SCORES = ("js", "f1_threshold", "entropy_error", "entropy_r", "wa", "ua")
"""The scores in the order in which reports print them."""

SUMS = 8
"""The number of sums that are not of a class: weight, divergence, difference of entropies, and the entropies."""


def shares(counts: Float[AnyArray, "*rows C"]) -> Float[AnyArray, "*rows C"]:
    """Divide each row by its sum; a row of zeros stays one."""
    total = counts.sum(-1)[..., None]
    xp = counts.__array_namespace__()
    return counts / xp.where(total > 0, total, 1)


def entropy(p: Float[AnyArray, "*rows C"]) -> Float[AnyArray, "*rows"]:
    """Return the entropy of each distribution, in bits."""
    xp = p.__array_namespace__()
    return -xp.sum(p * xp.log(xp.where(p > 0, p, 1)), axis=-1) / math.log(2)


def jensen_shannon(p: Float[AnyArray, "*rows C"], q: Float[AnyArray, "*rows C"]) -> Float[AnyArray, "*rows"]:
    """Return the Jensen-Shannon divergence (Lin 1991, eq. 4.1): 0 if equal, 1 if disjoint.

    SciPy's `jensenshannon` is its square root.
    """
    xp = p.__array_namespace__()
    found = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return xp.where(found > 0, found, 0.0 * found)


def is_present(p: Float[AnyArray, "*rows C"]) -> Any:
    """Return which classes have a share above 1/C and so are present (Wu et al. 2024)."""
    return p > (1 + _MARGIN) / p.shape[-1]


def majority(counts: Float[AnyArray, "*rows C"]) -> Any:
    """Return the class with more votes than any other, or -1 if there is none."""
    xp = counts.__array_namespace__()
    is_single = (counts == counts.max(-1)[..., None]).sum(-1) == 1
    return xp.where(is_single, counts.argmax(-1), -1)


def by_utterance(
    counts: Float[AnyArray, "N C"], predicted: Float[AnyArray, "N C"]
) -> tuple[Float[AnyArray, "N C 3"], Float[AnyArray, "N 8"]]:
    """Return what an utterance adds to the statistics, besides the confusion matrix.

    They are, for each class, whether it is present in the votes, in the prediction, and in both; and `SUMS` values.

    Args:
        counts: the votes for each class.
        predicted: the predicted distributions.
    """
    xp = counts.__array_namespace__()
    true, own = shares(counts), shares(predicted)
    in_votes, in_own = (is_present(x).astype(own.dtype) for x in (true, own))
    h, g = entropy(true), entropy(own)
    values = (xp.ones_like(h), jensen_shannon(true, own), abs(h - g), h, g, h * h, g * g, h * g)
    return xp.stack([in_votes, in_own, in_votes * in_own], axis=2), xp.stack(values, axis=1)


def sums(
    counts: Float[AnyArray, "N C"], predicted: Float[AnyArray, "N C"], weight: Num[AnyArray, " N"]
) -> Float[AnyArray, "1 L"]:
    """Sum the confusion matrix of majorities and what `by_utterance` returns."""
    xp = counts.__array_namespace__()
    classes, values = by_utterance(counts, predicted)
    table = metrics.confusion(majority(counts), predicted.argmax(-1), weight, counts.shape[1])
    parts = (table, (classes * weight[:, None, None]).sum(0), (values * weight[:, None]).sum(0))
    return xp.concatenate([part.reshape(-1) for part in parts])[None]


def scores(sums: Float[AnyArray, "1 L"], number: int) -> dict[str, Any]:
    """Compute the scores of statistics.

    `wa` and `ua` are over utterances with a majority. The macro-F1 is over the classes that are present in votes or
    predictions. `entropy_error` is the mean absolute difference of the entropies of prediction and votes (Baan et al.
    2022), and `entropy_r` their correlation, which is NaN if the votes' entropy does not vary. All are NaN without
    utterances.

    Args:
        sums: the statistics.
        number: the number of classes.
    """
    xp = sums.__array_namespace__()
    flat, area = sums[0], number * number
    of_majority = metrics.scores(flat[:area].reshape(number, number))
    true, own, both = flat[area : area + 3 * number].reshape(number, 3).T
    some = true + own > 0
    f1 = xp.where(some, 2 * both / xp.where(some, true + own, 1), 0)
    total = flat[area + 3 * number]
    n = xp.where(total > 0, total, xp.nan)
    js, error, h, g, hh, gg, hg = (flat[area + 3 * number + k] / n for k in range(1, SUMS))
    spread, varies = xp.maximum(hh - h * h, 0.0), hh - h * h > _NO_SPREAD
    own_spread = xp.maximum(gg - g * g, 0.0)
    own_varies = own_spread > _NO_SPREAD
    deviations = xp.sqrt(xp.where(varies & own_varies, spread * own_spread, 1.0))
    correlation = xp.where(own_varies, (hg - h * g) / deviations, 0 * n)
    return {
        "js": js,
        "f1_threshold": f1.sum() / xp.where(total > 0, some.sum(), xp.nan),
        "entropy_error": error,
        "entropy_r": xp.where(varies, correlation, xp.nan),
        "wa": of_majority["wa"],
        "ua": of_majority["ua"],
    }


_NO_SPREAD = 1e-6
"""Variances of entropies below this are rounding errors of float32."""

_MARGIN = 1e-5
"""Shares that exceed the threshold by less are at the threshold, whatever the rounding."""
