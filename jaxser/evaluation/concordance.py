"""CCC, Pearson's correlation and RMSE, for NumPy and JAX arrays (also traced ones).

They are computed from sums over utterances, which can be added up as confusion matrices can. CCC is the concordance
correlation coefficient (Lin 1989, "A Concordance Correlation Coefficient to Evaluate Reproducibility", eq. 1): 1 if
predictions equal the truth, 0 if they are unrelated.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Num

from jaxser.types import AnyArray

SCORES = ("ccc", "pearson", "rmse")
"""The scores in the order in which reports print them."""

SUMS = 6
"""The number of sums per attribute: weight, truth, prediction, their squares, and their product."""


def sums(
    truth: Float[AnyArray, "N A"],
    predicted: Float[AnyArray, "N A"],
    weight: Num[AnyArray, " N"],
    centre: float,
) -> Float[AnyArray, "A 6"]:
    """Sum the powers of the true and the predicted values of each attribute.

    Args:
        truth: the true values.
        predicted: the predictions.
        weight: 1 for an utterance, 0 for a padding row.
        centre: subtracted from all values, which keeps the sums small.
    """
    xp = truth.__array_namespace__()
    return xp.sum(powers(truth, predicted, centre) * weight[:, None, None], axis=0)


def powers(
    truth: Float[AnyArray, "N A"], predicted: Float[AnyArray, "N A"], centre: float
) -> Float[AnyArray, "N A 6"]:
    """Return what `sums` adds up: 1, truth, prediction, their squares, and their product."""
    xp = truth.__array_namespace__()
    true, own = truth - centre, predicted - centre
    return xp.stack([xp.ones_like(true), true, own, true * true, own * own, true * own], axis=2)


def scores(sums: Float[AnyArray, "A 6"]) -> dict[str, Any]:
    """Compute CCC, Pearson's correlation and RMSE of each attribute.

    CCC and the correlation are NaN if the truth does not vary, and 0 if only the predictions do not. All are NaN
    without utterances. The arrays have one value per attribute.
    """
    xp = sums.__array_namespace__()
    number = xp.where(sums[:, 0] > 0, sums[:, 0], xp.nan)
    true, own, true_square, own_square, product = (sums[:, n] / number for n in range(1, SUMS))
    true_variance = xp.maximum(true_square - true * true, 0.0)
    own_variance = xp.maximum(own_square - own * own, 0.0)
    covariance = product - true * own
    varies = true_variance > _RELATIVE * (true_square + _RELATIVE)
    own_varies = own_variance > _RELATIVE * (own_square + _RELATIVE)
    spread = xp.where(varies, true_variance + own_variance + (true - own) ** 2, xp.nan)
    deviations = xp.where(varies & own_varies, xp.sqrt(true_variance * own_variance), xp.nan)
    correlation = xp.where(own_varies, covariance / deviations, 0 * number)
    return {
        "ccc": 2 * covariance / spread,
        "pearson": xp.where(varies, correlation, xp.nan),
        "rmse": xp.sqrt(xp.maximum(true_square + own_square - 2 * product, 0.0)),
    }


_RELATIVE = 1e-6
"""Variances below this share of the mean square are rounding errors of float32."""
