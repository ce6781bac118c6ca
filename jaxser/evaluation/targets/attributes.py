"""Numeric attributes of an utterance, such as valence, activation and dominance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

from jaxser.evaluation import concordance
from jaxser.evaluation.hypothesis_tests import Result, paired_t_test
from jaxser.evaluation.targets.base import Target
from jaxser.models import losses
from jaxser.models.network import Network
from jaxser.types import AnyArray, Batch, Hyper, Output

ATTRIBUTES = "attributes"

ATTRIBUTE_LOSSES = ("ccc", "mse")
"""The values of `config.attributes.loss`."""


@dataclass(frozen=True)
class Attributes(Target):
    """Numeric attributes of an utterance, such as valence, on a scale.

    The network predicts them on a scale from -1 to 1, which is the one that its loss sees. Predictions and scores are
    on the scale of the corpus.

    Attributes:
        names: the names of the attributes.
        low: the lower end of the scale.
        high: the upper end of the scale.
        criterion: one of `ATTRIBUTE_LOSSES`.
        class_share: the weight of the classes' cross-entropy in the loss; the rest is that of the attributes.
        num_classes: the number of classes.
    """

    names: tuple[str, ...]
    low: float
    high: float
    criterion: str = "ccc"
    class_share: float = 0.0
    num_classes: int = 0

    kind = ATTRIBUTES
    headline = "ccc"
    defined = "rmse"
    main = concordance.SCORES
    compared = concordance.SCORES
    selections = (*concordance.SCORES, "loss")
    rounding = 1e-4

    @property
    def score_names(self) -> tuple[str, ...]:
        """The mean of each score over the attributes, and the scores of each attribute."""
        return (
            *concordance.SCORES,
            *(f"{score}_{name}" for name in self.names for score in concordance.SCORES),
        )

    @property
    def width(self) -> int:
        """The number of attributes, and of classes if they are trained as well."""
        return len(self.names) + (self.num_classes if self.class_share else 0)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the sums of each attribute."""
        return len(self.names), concordance.SUMS

    @property
    def centre(self) -> float:
        """The middle of the scale."""
        return (self.low + self.high) / 2

    def truth(self, data: Any) -> Any:
        """Return the attributes on the scale of the corpus."""
        return data.target

    def loss(
        self,
        model: Network,
        output: Output,
        batch: Batch,
        class_weights: Float[Array, " C"],
        params: PyTree,
        hyper: Hyper,
    ) -> Float[Array, ""]:
        """Return the weighted mean of the losses of the network's heads, and its penalty."""
        truth = (batch.target - self.centre) / self._half
        heads = model.heads(output, hyper)
        total = sum(
            weight * self._of_head(scores, truth, batch, class_weights, hyper) for weight, scores in heads
        )
        return total / sum(weight for weight, _ in heads) + model.penalty(params, hyper)

    def estimates(self, model: Network, output: Output, hyper: Hyper) -> Float[Array, "B A"]:
        """Return the attributes on the scale of the corpus."""
        heads, number = model.heads(output, hyper), len(self.names)
        total = sum((weight * scores[:, :number] for weight, scores in heads), start=jnp.zeros(()))
        return self.centre + self._half * total / sum(weight for weight, _ in heads)

    def mean(
        self, estimates: Float[Array, "M steps B A"], is_kept: Bool[Array, " M"]
    ) -> Float[Array, "steps B A"]:
        """Return the mean values."""
        return estimates.mean(0, where=is_kept[:, None, None, None])

    def guess(self, estimates: Float[AnyArray, "*rows A"]) -> Float[AnyArray, "*rows A"]:
        """Return the values."""
        return estimates

    def no_guess(self, rows: Int[AnyArray, "*rows"]) -> Float[Array, "*rows A"]:
        """Return zeros."""
        return jnp.zeros((*rows.shape, len(self.names)))

    def statistics(
        self,
        truth: Float[AnyArray, "*rows A"],
        guess: Float[AnyArray, "*rows A"],
        weight: Num[AnyArray, "*rows"],
    ) -> Float[AnyArray, "A 6"]:
        """Return the sums of each attribute."""
        own, predicted = (x.reshape(-1, len(self.names)) for x in (truth, guess))
        return concordance.sums(own, predicted, weight.ravel(), self.centre)

    def cells(
        self, truth: Float[np.ndarray, "N A"], guess: Float[np.ndarray, "N A"]
    ) -> tuple[Int[np.ndarray, "N k"], Float[np.ndarray, "N k"]]:
        """Return all cells, and the powers of each attribute."""
        powers = np.asarray(concordance.powers(truth, guess, self.centre)).reshape(len(truth), -1)
        return np.broadcast_to(np.arange(powers.shape[1]), powers.shape), powers

    def compared_by_utterance(
        self, truth: Float[np.ndarray, "N A"], guess: Float[np.ndarray, "N A"]
    ) -> Float[np.ndarray, " N"]:
        """Return minus the squared error, averaged over attributes."""
        return -((truth - guess) ** 2).mean(axis=1)

    def paired_test(self, differences: Float[np.ndarray, " N"]) -> Result:
        """Run a paired t-test of the squared errors."""
        return paired_t_test(differences)

    def scores(self, statistics: Float[AnyArray, "A 6"], /) -> dict[str, Any]:
        """Return each score: the mean over attributes, and that of each one."""
        found = concordance.scores(statistics)
        by_name = {
            f"{score}_{name}": found[score][row] for row, name in enumerate(self.names) for score in found
        }
        return {score: found[score].mean() for score in found} | by_name

    def validation_loss(
        self,
        estimates: Float[Array, "*rows A"],
        truth: Float[AnyArray, "*rows A"],
        weight: Float[AnyArray, "*rows"],
    ) -> Float[Array, ""]:
        """Return the criterion over the whole part, on the scale from -1 to 1."""
        own, true = ((x.reshape(-1, len(self.names)) - self.centre) / self._half for x in (estimates, truth))
        return self._criterion(own, true, weight.ravel())

    def loss_in_full(self, estimates: Float[np.ndarray, "N A"], truth: Float[np.ndarray, "N A"]) -> float:
        """Return the criterion, on the scale from -1 to 1."""
        sums = self.statistics(truth.astype(float), estimates.astype(float), np.ones(len(truth)))
        found = concordance.scores(sums)
        if self.criterion == "mse":
            return float((found["rmse"] ** 2).mean()) / self._half**2
        return 1 - float(found["ccc"].mean())

    def readable(self, estimates: Float[AnyArray, "*rows A"]) -> Float[AnyArray, "*rows A"]:
        """Return the values."""
        return estimates

    def probabilities(self, estimates: Float[np.ndarray, "N A"]) -> Float[np.ndarray, "N 0"]:
        """Return no probabilities."""
        return np.empty((len(estimates), 0))

    @property
    def bounded(self) -> tuple[str, ...]:
        """CCC and RMSE, on average and by attribute."""
        return tuple(name for name in self.score_names if not name.startswith("pearson"))

    def best_possible(self, bayes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the best possible CCC and RMSE, or None if they are unknown for these attributes."""
        known = (bayes or {}).get("attributes") or {}
        if not known or any(f"ccc_{name}" not in own for own in known.values() for name in self.names):
            return None
        return {observer: {**own, **self._averages(own)} for observer, own in known.items()}

    def _averages(self, own: Mapping[str, float]) -> dict[str, float]:
        return {
            kind: float(np.mean([own[f"{kind}_{name}"] for name in self.names])) for kind in ("ccc", "rmse")
        }

    def deviation(self, best: float, number: int) -> float:
        """Return the standard error of a correlation (delta method).

        That of the mean over attributes is at most as large.
        """
        return (1 - best**2) / math.sqrt(number)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes, their scale and the loss."""
        return {
            "kind": self.kind,
            "attributes": list(self.names),
            "scale": [self.low, self.high],
            "loss": self.criterion,
            "class_share": self.class_share,
        }

    @property
    def _half(self) -> float:
        return (self.high - self.low) / 2

    def _criterion(
        self, values: Float[AnyArray, "B A"], truth: Float[AnyArray, "B A"], weight: Float[AnyArray, " B"]
    ) -> Float[Array, ""]:
        criterion = losses.concordance_loss if self.criterion == "ccc" else losses.squared_error
        return criterion(values, truth, weight)

    def _of_head(
        self,
        scores: Float[Array, "B K"],
        truth: Float[Array, "B A"],
        batch: Batch,
        class_weights: Float[Array, " C"],
        hyper: Hyper,
    ) -> Float[Array, ""]:
        """Return the loss of one head; the classes' loss leaves out utterances without a class."""
        number = len(self.names)
        own = self._criterion(scores[:, :number], truth, batch.weight)
        if not self.class_share:
            return own
        log_probs = jax.nn.log_softmax(scores[:, number:])
        labelled = batch._replace(weight=batch.weight * (batch.label >= 0))
        of_classes = losses.negative_log_likelihood(log_probs, labelled, class_weights, hyper)
        return (1 - self.class_share) * own + self.class_share * of_classes
