"""What every target of training has in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, PyTree, Shaped

from jaxser.evaluation import metrics
from jaxser.evaluation.hypothesis_tests import Result
from jaxser.models.network import Network
from jaxser.types import AnyArray, Batch, Hyper, Output


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

    def class_counts(self, dataset: Any, rows: Int[np.ndarray, " n"], number: int) -> Num[np.ndarray, " C"]:
        """Count utterances by class, for the weights of `number` classes."""
        label = dataset.label[rows]
        return np.bincount(label[label >= 0], minlength=number)

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
