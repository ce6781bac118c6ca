"""WA, UA and F1 from a confusion matrix, for NumPy and JAX arrays (also traced ones).

WA is the accuracy over all utterances; UA (also UAR or balanced accuracy) is the mean of the per-class recalls. All
scores are fractions in [0, 1]. An undefined score, such as the recall of a class without utterances, is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int, Num

from jaxser.types import AnyArray

SCORES = ("wa", "ua", "f1_weighted", "f1_macro")
"""The scores that are single numbers, in the order in which reports print them."""


@dataclass(frozen=True)
class Metric:
    """How a score is called and printed.

    Attributes:
        title: the name for display.
        is_percentage: whether it is a fraction that is printed in percent; otherwise it has three decimals.
        lower_is_better: whether lower scores are better, as of errors.
    """

    title: str
    is_percentage: bool = True
    lower_is_better: bool = False

    @property
    def unit(self) -> str:
        """The unit of a printed score, with a space before it."""
        return " %" if self.is_percentage else ""

    @property
    def step(self) -> str:
        """The unit of a printed difference, with a space before it."""
        return " points" if self.is_percentage else ""

    def show(self, value: float, sign: str = "") -> str:
        """Return a score as it is printed, without its unit; `sign` "+" shows the sign."""
        return f"{100 * value:{sign}.1f}" if self.is_percentage else f"{value:{sign}.3f}"

    def gain(self, value: Any) -> Any:
        """Return a number that is higher the better the score is."""
        return -value if self.lower_is_better else value


_METRICS: Mapping[str, Metric] = {
    "wa": Metric("WA"),
    "ua": Metric("UA"),
    "f1_weighted": Metric("weighted F1"),
    "f1_macro": Metric("macro F1"),
    "f1_threshold": Metric("macro F1 after thresholds"),
    "js": Metric("Jensen-Shannon divergence", is_percentage=False, lower_is_better=True),
    "entropy_error": Metric("entropy error", is_percentage=False, lower_is_better=True),
    "entropy_r": Metric("entropy correlation", is_percentage=False),
    "ccc": Metric("CCC", is_percentage=False),
    "pearson": Metric("Pearson", is_percentage=False),
    "rmse": Metric("RMSE", is_percentage=False, lower_is_better=True),
}


def title(name: str) -> str:
    """Return the name for display of a score or the loss, or of a sum of scores."""
    known = (part if part == "loss" else describe(part).title for part in name.split("_plus_"))
    return " + ".join(known)


def describe(name: str) -> Metric:
    """Return how a score is called and printed.

    Args:
        name: the score, such as "ua" or "ccc", or that of one attribute, such as "ccc_valence". Any other name is
            used as it is.
    """
    if name in _METRICS:
        return _METRICS[name]
    kind, _, attribute = name.partition("_")
    if kind not in _METRICS:
        return Metric(name)
    of_all = _METRICS[kind]
    return Metric(f"{of_all.title} of {attribute}", of_all.is_percentage, of_all.lower_is_better)


def confusion(
    label: Int[AnyArray, " N"],
    predicted: Int[AnyArray, " N"],
    weight: Num[AnyArray, " N"],
    num_classes: int,
) -> Num[AnyArray, "C C"]:
    """Sum the weights by true class (rows) and predicted class (columns).

    The confusion matrices of batches can be added up.

    Args:
        label: the true classes; -1 is not counted, as in `predicted`.
        predicted: the predicted classes.
        weight: 1 for an utterance, 0 for a padding row.
        num_classes: the number of classes.
    """
    xp = label.__array_namespace__()
    classes = xp.arange(num_classes, dtype=label.dtype)
    is_true = (label[:, None] == classes[None, :]).astype(weight.dtype)
    is_predicted = (predicted[:, None] == classes.astype(predicted.dtype)[None, :]).astype(weight.dtype)
    return (is_true * weight[:, None]).T @ is_predicted


def scores(confusion: Num[AnyArray, "C C"], /) -> dict[str, Any]:
    """Compute the scores of a confusion matrix.

    `wa`, `ua`, `f1_weighted` and `f1_macro` are scalars, and `recall` has one value per class. The definitions are
    those of scikit-learn. `ua` leaves out classes without a true utterance, as `balanced_accuracy_score` does.
    `f1_macro` is the mean over the classes that are true or predicted, as in `f1_score`, so that a class that is
    predicted but absent counts as 0. `recall` is NaN for an absent class, and all scores are NaN for a matrix of zeros.
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
    """Return the ratio, or NaN if the denominator is 0, without a warning of NumPy."""
    some = denominator > 0
    return xp.where(some, numerator / xp.where(some, denominator, 1), xp.nan)


def _mean_where(xp: Any, values: Any, chosen: Any) -> Any:
    return _ratio(xp, xp.sum(xp.where(chosen, values, 0.0)), xp.sum(chosen.astype(values.dtype)))
