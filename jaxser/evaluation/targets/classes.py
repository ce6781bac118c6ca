"""Classes: one label per utterance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree

from jaxser.evaluation import metrics
from jaxser.evaluation.hypothesis_tests import Result, mcnemar
from jaxser.evaluation.targets.distribution import Distribution
from jaxser.models.network import Network
from jaxser.types import AnyArray, Batch, Hyper, Output

CLASSES = "classes"


@dataclass(frozen=True)
class Classes(Distribution):
    """Classes: one label per utterance."""

    names: tuple[str, ...]

    kind = CLASSES
    headline = "ua"
    defined = "wa"
    main = metrics.SCORES
    compared = ("wa", "ua", "f1_weighted")
    selections = ("wa", "ua", "f1_weighted", "f1_macro", "wa_plus_ua", "loss")
    rounding = 0.0
    score_names = metrics.SCORES
    scores = staticmethod(metrics.scores)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of a confusion matrix."""
        return self.width, self.width

    def truth(self, data: Any) -> Any:
        """Return the labels."""
        return data.label

    def loss(
        self,
        model: Network,
        output: Output,
        batch: Batch,
        class_weights: Float[Array, " C"],
        params: PyTree,
        hyper: Hyper,
    ) -> Float[Array, ""]:
        """Return the loss of the network."""
        return model.loss(output, batch, class_weights, params, hyper)

    def guess(self, estimates: Float[AnyArray, "*rows C"]) -> Int[AnyArray, "*rows"]:
        """Return the most probable class."""
        return estimates.argmax(-1)

    def no_guess(self, rows: Int[AnyArray, "*rows"]) -> Int[Array, "*rows"]:
        """Return class 0 for each row."""
        return jnp.zeros_like(rows)

    def statistics(
        self,
        truth: Int[AnyArray, "*rows"],
        guess: Int[AnyArray, "*rows"],
        weight: Num[AnyArray, "*rows"],
    ) -> Num[AnyArray, "C C"]:
        """Return the confusion matrix; rows are true classes."""
        return metrics.confusion(truth.ravel(), guess.ravel(), weight.ravel(), self.width)

    def cells(
        self, truth: Int[np.ndarray, " N"], guess: Int[np.ndarray, " N"]
    ) -> tuple[Int[np.ndarray, "N 1"], Float[np.ndarray, "N 1"]]:
        """Return the cell of the confusion matrix."""
        return (self.width * truth + guess)[:, None], np.ones((len(truth), 1))

    def compared_by_utterance(
        self, truth: Int[np.ndarray, " N"], guess: Int[np.ndarray, " N"]
    ) -> Float[np.ndarray, " N"]:
        """Return 1 for a correct prediction, and 0 for a wrong one."""
        return (truth == guess).astype(float)

    def paired_test(self, differences: Float[np.ndarray, " N"]) -> Result:
        """Run McNemar's test."""
        return mcnemar(differences)

    def validation_loss(
        self,
        estimates: Float[Array, "*rows C"],
        truth: Int[AnyArray, "*rows"],
        weight: Float[AnyArray, "*rows"],
    ) -> Float[Array, ""]:
        """Return the mean of -log p(label) under the model's inference rule."""
        chosen = jnp.take_along_axis(estimates, truth[..., None], axis=-1)[..., 0]
        return -(chosen * weight).sum() / weight.sum()

    def loss_in_full(self, estimates: Float[np.ndarray, "N C"], truth: Int[np.ndarray, " N"]) -> float:
        """Return the mean of -log p(label)."""
        return -float(estimates[np.arange(len(truth)), truth].astype(np.float64).mean())

    def probabilities(self, estimates: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
        """Return the probabilities."""
        return np.asarray(self.readable(estimates.astype(np.float64)))

    bounded = ("wa", "ua")

    def best_possible(self, bayes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the best possible accuracies."""
        return bayes

    def deviation(self, best: float, number: int) -> float:
        """Return the standard error of WA."""
        return math.sqrt(best * (1 - best) / number)

    def to_json(self) -> dict[str, Any]:
        """Return the kind alone: the classes are in results.json by themselves."""
        return {"kind": self.kind}


ANY_CLASSES = Classes(())
"""Classes whose names do not matter."""
