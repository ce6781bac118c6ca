"""WA, UA and F1 from a confusion matrix, alike for numpy and jax.numpy arrays (also traced ones).

WA is the accuracy over all utterances, UA (= UAR, balanced accuracy) the mean of the per-class recalls. All
values are fractions in [0, 1]; what is not defined (the recall of a class that has no utterance) is NaN.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Int, Num

from jaxser.types import AnyArray

SCORES = ("wa", "ua", "f1_weighted", "f1_macro")
"""The scores that are one number a run, in the order in which reports print them."""


def confusion(
    label: Int[AnyArray, " N"],
    predicted: Int[AnyArray, " N"],
    weight: Num[AnyArray, " N"],
    num_classes: int,
) -> Num[AnyArray, "C C"]:
    """Sums of `weight` by true class (rows) and predicted class (columns); weight 0 marks a padding row.

    An utterance whose label or prediction is no class (-1) is not counted. The sum of two parts' confusions
    is the confusion of both, so that an evaluation can add up its batches.
    """
    xp = label.__array_namespace__()
    classes = xp.arange(num_classes, dtype=label.dtype)
    is_true = (label[:, None] == classes[None, :]).astype(weight.dtype)
    is_predicted = (predicted[:, None] == classes.astype(predicted.dtype)[None, :]).astype(weight.dtype)
    return (is_true * weight[:, None]).T @ is_predicted


def scores(confusion: Num[AnyArray, "C C"]) -> dict[str, Any]:
    """`wa`, `ua`, `f1_weighted`, `f1_macro` (scalars) and `recall` [C] of a confusion matrix.

    As scikit-learn has them: `ua` leaves out the classes without a true utterance, as
    `balanced_accuracy_score`; `f1_macro` is the mean over the classes that occur among the true or the
    predicted ones, as `f1_score` does by itself, so that a class that is absent but predicted counts as 0.
    `recall` is NaN for an absent class, and everything is NaN for a matrix of zeros.
    """
    xp = confusion.__array_namespace__()
    if not xp.isdtype(confusion.dtype, "real floating"):
        confusion = confusion.astype(float)
    correct = xp.linalg.diagonal(confusion)
    true, predicted = xp.sum(confusion, axis=1), xp.sum(confusion, axis=0)
    present, occurs = true > 0, true + predicted > 0
    recall = _ratio(xp, correct, true)
    f1 = _ratio(xp, 2 * correct, true + predicted)
    total = xp.sum(true)
    return {
        "wa": _ratio(xp, xp.sum(correct), total),
        "ua": _mean_where(xp, recall, present),
        "f1_weighted": _ratio(xp, xp.sum(xp.where(present, f1 * true, 0.0)), total),
        "f1_macro": _mean_where(xp, f1, occurs),
        "recall": recall,
    }


def _ratio(xp: Any, numerator: Any, denominator: Any) -> Any:
    """NaN where the denominator is 0, without dividing by it (numpy would warn)."""
    some = denominator > 0
    return xp.where(some, numerator / xp.where(some, denominator, 1), xp.nan)


def _mean_where(xp: Any, values: Any, chosen: Any) -> Any:
    return _ratio(xp, xp.sum(xp.where(chosen, values, 0.0)), xp.sum(chosen.astype(values.dtype)))
