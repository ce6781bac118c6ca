"""What a network is trained to predict: classes, or numeric attributes such as valence.

A target knows the width of the network's last layer, the loss, how an output becomes a prediction, and the scores of
predictions. Scores follow from statistics that can be added up over utterances, batches and folds: a confusion matrix,
or the sums of `jaxser.evaluation.concordance`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, PyTree, Shaped

from jaxser.evaluation import concordance, metrics
from jaxser.evaluation.hypothesis_tests import Result, mcnemar, paired_t_test
from jaxser.evaluation.records import typed
from jaxser.models import losses
from jaxser.models.network import Network
from jaxser.types import AnyArray, Batch, Hyper, Output

CLASSES, ATTRIBUTES = "classes", "attributes"

TARGETS = (CLASSES, ATTRIBUTES)
"""The values of `config.target`."""

ATTRIBUTE_LOSSES = ("ccc", "mse")
"""The values of `config.attributes.loss`."""


class Target(ABC):
    """What a network is trained to predict.

    Attributes:
        kind: one of `TARGETS`.
        headline: the score that the log and the first sentence of a report show.
        defined: a score that is defined wherever there are predictions.
        main: the scores that lists of replicas show.
        compared: the scores that comparisons of runs test.
        selections: what can select the epoch.
        rounding: how much the statistics may differ per prediction because predictions.csv has six digits.
        names: the names of the classes or attributes.
    """

    kind: ClassVar[str]
    headline: ClassVar[str]
    defined: ClassVar[str]
    main: ClassVar[tuple[str, ...]]
    compared: ClassVar[tuple[str, ...]]
    selections: ClassVar[tuple[str, ...]]
    rounding: ClassVar[float]
    names: tuple[str, ...]

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of outputs of the network's last layer."""

    @property
    @abstractmethod
    def score_names(self) -> tuple[str, ...]:
        """The scores that are single numbers, in the order in which reports print them."""

    @abstractmethod
    def truth(self, data: Any) -> Any:
        """Return the true values that a dataset, its device counterpart or a batch has."""

    @abstractmethod
    def loss(
        self,
        model: Network,
        output: Output,
        batch: Batch,
        class_weights: Float[Array, " C"],
        params: PyTree,
        hyper: Hyper,
    ) -> Float[Array, ""]:
        """Return the training loss; padding rows are left out."""

    @abstractmethod
    def estimates(self, model: Network, output: Output, hyper: Hyper) -> Float[Array, "B K"]:
        """Return what is kept of a network's output: log-probabilities or values."""

    @abstractmethod
    def mean(
        self, estimates: Float[Array, "M steps B K"], is_kept: Bool[Array, " M"]
    ) -> Float[Array, "steps B K"]:
        """Return the mean prediction of the members that are kept."""

    @abstractmethod
    def guess(self, estimates: Float[AnyArray, "*rows K"]) -> Shaped[AnyArray, "*rows ..."]:
        """Return what is compared with the truth."""

    @abstractmethod
    def no_guess(self, rows: Int[AnyArray, "*rows"]) -> Shaped[Array, "*rows ..."]:
        """Return placeholders for the guesses of rows that are not predicted."""

    @abstractmethod
    def statistics(
        self,
        truth: Shaped[AnyArray, "*rows ..."],
        guess: Shaped[AnyArray, "*rows ..."],
        weight: Num[AnyArray, "*rows"],
    ) -> Num[AnyArray, "K L"]:
        """Return the statistics of predictions, which can be added up."""

    @abstractmethod
    def cells(
        self, truth: Shaped[np.ndarray, "N ..."], guess: Shaped[np.ndarray, "N ..."]
    ) -> tuple[Int[np.ndarray, "N k"], Float[np.ndarray, "N k"]]:
        """Return the cells of the flattened statistics that each prediction adds to, and how much."""

    def grouped(
        self,
        truth: Shaped[np.ndarray, "N ..."],
        guess: Shaped[np.ndarray, "N ..."],
        group: Int[np.ndarray, " N"],
        number: int,
    ) -> Float[np.ndarray, "groups K L"]:
        """Return the statistics of the predictions of each of `number` groups."""
        cell, value = self.cells(truth, guess)
        size = math.prod(self.shape)
        of_group = (cell + size * group[:, None]).ravel()
        return np.bincount(of_group, value.ravel(), number * size).reshape(number, *self.shape)

    @abstractmethod
    def compared_by_utterance(
        self, truth: Shaped[np.ndarray, "N ..."], guess: Shaped[np.ndarray, "N ..."]
    ) -> Float[np.ndarray, " N"]:
        """Return how good each prediction is by itself; higher is better."""

    @abstractmethod
    def paired_test(self, differences: Float[np.ndarray, " N"]) -> Result:
        """Test the differences of two models in `compared_by_utterance`, averaged over seeds."""

    @abstractmethod
    def scores(self, statistics: Num[AnyArray, "K L"], /) -> dict[str, Any]:
        """Return the scores by name, `score_names` among them; NaN if undefined."""

    @abstractmethod
    def validation_loss(
        self,
        estimates: Float[Array, "*rows K"],
        truth: Shaped[AnyArray, "*rows ..."],
        weight: Float[AnyArray, "*rows"],
    ) -> Float[Array, ""]:
        """Return the loss on a validation part, without weights of classes."""

    @abstractmethod
    def loss_in_full(self, estimates: Float[np.ndarray, "N K"], truth: Shaped[np.ndarray, "N ..."]) -> float:
        """Return `validation_loss` in float64."""

    @abstractmethod
    def readable(self, estimates: Float[AnyArray, "*rows K"]) -> Float[AnyArray, "*rows K"]:
        """Return probabilities instead of log-probabilities; values as they are."""

    @abstractmethod
    def probabilities(self, estimates: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N _"]:
        """Return the probabilities of the classes, if they are predicted."""

    @property
    @abstractmethod
    def bounded(self) -> tuple[str, ...]:
        """The scores whose best possible value is known on the demo corpus."""

    @abstractmethod
    def best_possible(self, bayes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the best possible scores by what a model may read.

        Args:
            bayes: those in the manifest of the demo corpus; None for other corpora.
        """

    @abstractmethod
    def deviation(self, best: float, number: int) -> float:
        """Return the standard error of the first `bounded` score over `number` utterances."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the target as in results.json; `from_json` is its inverse."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The shape of the statistics."""

    def selected(self, selection: str, statistics: Num[AnyArray, "K L"], loss: Float[AnyArray, ""]) -> Any:
        """Return the value by which epochs are compared; higher is better.

        Args:
            selection: one of `selections`.
            statistics: those of the validation part.
            loss: the loss of the validation part.
        """
        if selection == "loss":
            return -jnp.asarray(loss)
        scores = self.scores(statistics)
        parts = [metrics.describe(name).gain(scores[name]) for name in selection.split("_plus_")]
        return jnp.asarray(sum(parts[1:], parts[0]))


@dataclass(frozen=True)
class Classes(Target):
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
    def width(self) -> int:
        """The number of classes."""
        return len(self.names)

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

    def estimates(self, model: Network, output: Output, hyper: Hyper) -> Float[Array, "B C"]:
        """Return the log-probabilities under the network's own inference rule."""
        return output.log_probs

    def mean(
        self, estimates: Float[Array, "M steps B C"], is_kept: Bool[Array, " M"]
    ) -> Float[Array, "steps B C"]:
        """Return the log of the mean probabilities."""
        log_weight = jnp.where(is_kept, -jnp.log(is_kept.sum()), -jnp.inf)
        return jax.nn.logsumexp(estimates + log_weight[:, None, None, None], axis=0)

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

    def readable(self, estimates: Float[AnyArray, "*rows C"]) -> Float[AnyArray, "*rows C"]:
        """Return the probabilities."""
        return estimates.__array_namespace__().exp(estimates)

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


ANY_CLASSES = Classes(())
"""Classes whose names do not matter."""


def from_json(value: Mapping[str, Any], classes: Sequence[str]) -> Target:
    """Return the target that `to_json` describes.

    Args:
        value: the description; empty for the classes of earlier versions.
        classes: the names of the classes.

    Raises:
        KeyError: if a key is missing.
        TypeError: if a value has another type than expected.
        ValueError: if the scale is empty or an attribute is named twice.
    """
    if typed(value, "kind", Literal[TARGETS], CLASSES) == CLASSES:
        return Classes(tuple(classes))
    names = typed(value, "attributes", tuple[str, ...])
    low, high = typed(value, "scale", tuple[float, float])
    if not names or len(set(names)) < len(names) or not low < high:
        raise ValueError("its attributes are not different names on a scale")
    return Attributes(
        names,
        low,
        high,
        typed(value, "loss", Literal[ATTRIBUTE_LOSSES]),
        typed(value, "class_share", float),
        len(classes),
    )
