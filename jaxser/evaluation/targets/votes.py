"""Raters' votes: a distribution over classes for each utterance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree

from jaxser.evaluation import divergence
from jaxser.evaluation.hypothesis_tests import Result, paired_t_test
from jaxser.evaluation.targets.distribution import Distribution
from jaxser.models import losses
from jaxser.models.network import Network
from jaxser.types import AnyArray, Batch, Hyper, Output

VOTES = "votes"

CLASS_BALANCED = "class_balanced"
VOTE_LOSSES = ("cross_entropy", "kl", CLASS_BALANCED)
"""The values of `config.votes.loss`."""


@dataclass(frozen=True)
class Votes(Distribution):
    """The distribution of raters' votes over classes.

    The truth of an utterance is the number of votes for each class. Utterances without a majority are trained and
    tested like all others.

    Attributes:
        names: the names of the classes.
        criterion: one of `VOTE_LOSSES`.
    """

    names: tuple[str, ...]
    criterion: str = "cross_entropy"

    kind = VOTES
    headline = "js"
    defined = "js"
    main = divergence.SCORES
    compared = ("js", "f1_threshold", "entropy_error", "wa", "ua")
    selections = ("js", "f1_threshold", "entropy_error", "loss")
    rounding = 1e-6
    score_names = divergence.SCORES
    bounded = ("js", "wa", "ua")

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of `jaxser.evaluation.divergence.sums`."""
        return 1, self.width * (self.width + 3) + divergence.SUMS

    def truth(self, data: Any) -> Any:
        """Return the number of votes for each class."""
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
        shares = divergence.shares(batch.target)
        heads = model.heads(output, hyper)
        each = [
            weight * self._criterion(jax.nn.log_softmax(scores), shares, batch.weight, class_weights, hyper)
            for weight, scores in heads
        ]
        total = sum(each, start=jnp.zeros(()))
        return total / sum(weight for weight, _ in heads) + model.penalty(params, hyper)

    def guess(self, estimates: Float[AnyArray, "*rows C"]) -> Float[AnyArray, "*rows C"]:
        """Return the probabilities, in six decimals as in predictions.csv."""
        xp = estimates.__array_namespace__()
        precise = estimates.astype(np.float64) if isinstance(estimates, np.ndarray) else estimates
        return xp.round(xp.exp(precise), 6)

    def no_guess(self, rows: Int[AnyArray, "*rows"]) -> Float[Array, "*rows C"]:
        """Return zeros."""
        return jnp.zeros((*rows.shape, self.width))

    def statistics(
        self,
        truth: Float[AnyArray, "*rows C"],
        guess: Float[AnyArray, "*rows C"],
        weight: Num[AnyArray, "*rows"],
    ) -> Float[AnyArray, "1 L"]:
        """Return `jaxser.evaluation.divergence.sums`."""
        own, predicted = (x.reshape(-1, self.width) for x in (truth, guess))
        return divergence.sums(own.astype(predicted.dtype), predicted, weight.ravel())

    def cells(
        self, truth: Float[np.ndarray, "N C"], guess: Float[np.ndarray, "N C"]
    ) -> tuple[Int[np.ndarray, "N k"], Float[np.ndarray, "N k"]]:
        """Return the cell of the confusion matrix, to which ties add 0, and all others."""
        number, area = len(truth), self.width**2
        classes, values = divergence.by_utterance(truth.astype(float), guess)
        label = divergence.majority(truth)
        rest = np.broadcast_to(np.arange(area, self.shape[1]), (number, self.shape[1] - area))
        cell = np.maximum(label, 0) * self.width + guess.argmax(1)
        parts = [(label >= 0).astype(float)[:, None], classes.reshape(number, -1), values]
        return np.concatenate([cell[:, None], rest], axis=1), np.concatenate(parts, axis=1)

    def compared_by_utterance(
        self, truth: Float[np.ndarray, "N C"], guess: Float[np.ndarray, "N C"]
    ) -> Float[np.ndarray, " N"]:
        """Return minus the Jensen-Shannon divergence."""
        return -np.asarray(divergence.jensen_shannon(*map(divergence.shares, (truth.astype(float), guess))))

    def paired_test(self, differences: Float[np.ndarray, " N"]) -> Result:
        """Run a paired t-test of the divergences."""
        return paired_t_test(differences)

    def scores(self, statistics: Float[AnyArray, "1 L"], /) -> dict[str, Any]:
        """Return each score."""
        return divergence.scores(statistics, self.width)

    def validation_loss(
        self,
        estimates: Float[Array, "*rows C"],
        truth: Float[AnyArray, "*rows C"],
        weight: Float[AnyArray, "*rows"],
    ) -> Float[Array, ""]:
        """Return the criterion, without weights of classes."""
        own, counts = (x.reshape(-1, self.width) for x in (estimates, jnp.asarray(truth)))
        return self._criterion(own, divergence.shares(counts), weight.ravel(), jnp.ones(self.width), {})

    def loss_in_full(self, estimates: Float[np.ndarray, "N C"], truth: Float[np.ndarray, "N C"]) -> float:
        """Return the criterion, without weights of classes."""
        shares, log_probs = divergence.shares(truth.astype(float)), estimates.astype(float)
        found = -(shares * log_probs).sum(1)
        if self.criterion == "kl":
            found = found - divergence.entropy(shares) * math.log(2)
        return float(found.mean())

    def probabilities(self, estimates: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N 0"]:
        """Return no probabilities besides those that are the guesses."""
        return np.empty((len(estimates), 0))

    def best_possible(self, bayes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the best possible divergence and accuracies; None if unknown for these classes."""
        known = (bayes or {}).get("votes") or {}
        if not bayes or set(known.get("classes", ())) != set(self.names):
            return None
        observers = {name: own for name, own in known.items() if name != "classes"}
        return {
            name: {"js": own["js"], **{m: bayes[name][m] for m in ("wa", "ua")}}
            for name, own in observers.items()
        }

    def deviation(self, best: float, number: int) -> float:
        """Return an upper limit of the standard error of the mean divergence.

        A value from 0 to 1 with mean m has a variance of at most m (1 - m).
        """
        return math.sqrt(best * (1 - best) / number)

    def class_counts(self, dataset: Any, rows: Int[np.ndarray, " n"], number: int) -> Float[np.ndarray, " C"]:
        """Return the sum of the shares of each class."""
        return np.asarray(divergence.shares(dataset.target[rows].astype(float)).sum(0))

    def to_json(self) -> dict[str, Any]:
        """Return the loss; the classes are in results.json by themselves."""
        return {"kind": self.kind, "loss": self.criterion}

    def _criterion(
        self,
        log_probs: Float[Array, "B C"],
        shares: Float[AnyArray, "B C"],
        weight: Float[AnyArray, " B"],
        class_weights: Float[Array, " C"],
        hyper: Hyper,
    ) -> Float[Array, ""]:
        criterion = losses.kl_divergence if self.criterion == "kl" else losses.soft_cross_entropy
        return criterion(log_probs, shares, weight, class_weights, hyper)
