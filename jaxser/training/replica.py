"""Training and evaluation of one replica: pure functions, which `jaxser.training.sweep` maps over many replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from jaxser.data.batch_schedule import BatchSchedule, last_of_merged
from jaxser.data.device import DeviceData, gather
from jaxser.evaluation import metrics
from jaxser.models.network import Network
from jaxser.training.optim import SCHEDULES, Adam
from jaxser.types import AnyArray, Batch, Best, Hyper, Normalisation, Output, ReplicaState, Status, Trained

SELECTIONS = ("wa", "ua", "f1_weighted", "f1_macro", "wa_plus_ua")
"""Validation scores that may select the epoch; of equal scores, the one with the lower loss wins."""

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""Precision of the forward and backward passes of training steps. All else is float32."""


class EpochResult(NamedTuple):
    """Losses and scores of one epoch. All floats are NaN if the replica did not train."""

    train_loss: Float[AnyArray, ""]
    validation_loss: Float[AnyArray, ""]
    confusion: Float[AnyArray, "C C"]  # of the validation part; rows are true classes
    learning_rate: Float[AnyArray, ""]


@dataclass(frozen=True)
class ReplicaTrainer:
    """The network, its training and the selection of the epoch, which all replicas of a run share.

    Attributes:
        widths: the padded length of each array, for each training bucket.
        selection: one of `SELECTIONS`.
        patience: epochs without improvement after which a replica stops; None trains all epochs.
        precision: one of `PRECISIONS`.
    """

    model: Network
    optimizer: Adam
    widths: tuple[tuple[tuple[str, int], ...], ...]
    num_classes: int
    epochs: int
    selection: str = "wa"
    patience: int | None = None
    precision: str = "float32"

    def init(
        self,
        key: PRNGKeyArray,
        hyper: Hyper,
        normalisation: Mapping[str, Normalisation],
        class_weights: Float[Array, " C"],
        data: DeviceData,
    ) -> ReplicaState:
        """Return the state of a replica before its first epoch."""
        init_key, key = jax.random.split(key)
        index, weight = jnp.zeros(2, jnp.int32), jnp.ones(2)
        batch = gather(data, index, weight, dict(self.widths[0]), normalisation)
        variables = self.model.init({"params": init_key, "dropout": init_key}, batch, hyper, train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        zero = jnp.zeros((), jnp.int32)
        return ReplicaState(
            params=params,
            batch_stats=batch_stats,
            opt_state=self.optimizer.init(params),
            hyper=hyper,
            key=key,
            epoch=zero,
            step=zero,
            best=Best(params, batch_stats, jnp.float32(-jnp.inf), jnp.float32(jnp.inf), zero),
            bad_epochs=zero,
            plateau=self.optimizer.begin_plateau(),
            status=jnp.int32(Status.RUNNING),
            normalisation=normalisation,
            class_weights=class_weights,
        )

    def epoch(
        self, state: ReplicaState, train: BatchSchedule, validation: BatchSchedule, data: DeviceData
    ) -> tuple[ReplicaState, EpochResult]:
        """Train for an epoch, validate, and select. A replica that is not running stays unchanged."""

        def run(state):
            state, losses = self.train_steps(state, train, 0, len(train.bucket), data)
            log_probs = self._predict(state.params, state.batch_stats, state, validation, data)
            return self.finish_epoch(state, losses, train.weight, log_probs, validation, data.label)

        return if_running(state, run, self.skip_epoch)

    def train_part(
        self,
        state: ReplicaState,
        schedule: BatchSchedule,
        begin: Int[Array, ""],
        steps: int,
        data: DeviceData,
    ) -> tuple[ReplicaState, Float[Array, " part"]]:
        """Train on a part of an epoch. A replica that is not running stays unchanged.

        Args:
            state: the replica.
            schedule: consecutive steps of the epoch.
            begin: the first of them.
            steps: the number of steps of the whole epoch.
            data: the dataset, or the part of it that the steps read.

        Returns:
            The state and each step's summed loss.
        """

        def train(state):
            return self.train_steps(state, schedule, begin, steps, data)

        def skip(state):
            return state, jnp.zeros(len(schedule.bucket))

        return if_running(state, train, skip)

    def validate_part(
        self, state: ReplicaState, schedule: BatchSchedule, data: DeviceData
    ) -> Float[Array, "part B C"]:
        """Return the log-probabilities of the current parameters."""
        return self._predict(state.params, state.batch_stats, state, schedule, data)

    def finish_epoch(
        self,
        state: ReplicaState,
        losses: Float[Array, " steps"],
        weight: Float[AnyArray, "steps B"],
        log_probs: Float[Array, "v B C"],
        validation: BatchSchedule,
        label: Int[AnyArray, " N"],
    ) -> tuple[ReplicaState, EpochResult]:
        """Score an epoch and update the selected one.

        Args:
            state: the replica after its training steps.
            losses: the summed loss of each training step.
            weight: the weights of the training schedule.
            log_probs: the predictions on the validation part.
            validation: the schedule of the validation part.
            label: the labels of the dataset.
        """
        label = label[validation.rows]
        result = EpochResult(
            losses.sum() / weight.sum(),
            validation_loss(log_probs, label, validation.weight),
            confusion_of(log_probs, label, validation.weight, self.num_classes),
            state.hyper["learning_rate"] * state.plateau.scale,
        )
        return self._select(state, result), result

    def skip_epoch(self, state: ReplicaState) -> tuple[ReplicaState, EpochResult]:
        """Return the state unchanged, and an empty result."""
        nan = jnp.float32(jnp.nan)
        empty = jnp.zeros((self.num_classes, self.num_classes), jnp.float32)
        return state, EpochResult(nan, nan, empty, nan)

    def predict(
        self, trained: Trained, schedule: BatchSchedule, data: DeviceData
    ) -> Float[Array, "steps B C"]:
        """Return the log-probabilities of the selected epoch."""
        return self._predict(trained.best.params, trained.best.batch_stats, trained, schedule, data)

    def apply(
        self, params, batch_stats, batch: Batch, hyper: Hyper, *, train: bool, key: PRNGKeyArray | None = None
    ) -> tuple[Output, Mapping[str, PyTree]]:
        """Return the output of the model and the updated batch statistics."""
        variables = {"params": params, "batch_stats": batch_stats}
        rngs = {} if key is None else {"dropout": key}
        mutable = ["batch_stats"] if train else []
        output, updated = self.model.apply(variables, batch, hyper, train=train, rngs=rngs, mutable=mutable)
        return output, updated.get("batch_stats", batch_stats)

    def step(
        self, state: ReplicaState, batch: Batch, progress: Float[Array, ""]
    ) -> tuple[ReplicaState, Float[Array, ""]]:
        """Make one update; returns the loss before it.

        Args:
            state: the replica.
            batch: the utterances.
            progress: the fraction of the training that is done, for the learning-rate schedule.
        """

        def loss_fn(params):
            key = jax.random.fold_in(state.key, state.step)
            low, batch_low, hyper = in_precision((params, batch, state.hyper), self.precision)
            output, stats = self.apply(low, state.batch_stats, batch_low, hyper, train=True, key=key)
            output = in_precision(output, "float32")
            loss = self.model.loss(output, batch, state.class_weights, params, state.hyper)
            return loss, stats

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        factor = SCHEDULES[self.optimizer.schedule](progress) * state.plateau.scale
        params, opt_state = self.optimizer.update(grads, state.opt_state, state.params, state.hyper, factor)
        step = state.step + 1
        return state._replace(params=params, opt_state=opt_state, batch_stats=stats, step=step), loss

    def train_steps(
        self,
        state: ReplicaState,
        schedule: BatchSchedule,
        begin: int | Int[Array, ""],
        steps: int,
        data: DeviceData,
    ) -> tuple[ReplicaState, Float[Array, " part"]]:
        """Train on consecutive steps of an epoch, as in `train_part`; returns each step's summed loss."""

        def busy(state, bucket, index, weight, progress):
            def of_bucket(widths):
                batch = gather(data, index, weight, dict(widths), state.normalisation)
                return self.step(state, batch, progress)

            branches = [lambda widths=widths: of_bucket(widths) for widths in self.widths]
            state, loss = jax.lax.switch(bucket, branches)
            return state, loss * weight.sum()

        def step(state, inputs):
            position, bucket, index, weight = inputs
            progress = (state.epoch + position / steps) / self.epochs
            idle = lambda state, *_: (state, jnp.zeros(()))  # noqa: E731
            return jax.lax.cond(weight.sum() > 0, busy, idle, state, bucket, index, weight, progress)

        positions = (begin + jnp.arange(len(schedule.bucket))).astype(jnp.float32)
        return jax.lax.scan(step, state, (positions, *schedule))

    def _predict(
        self, params, batch_stats, state, schedule: BatchSchedule, data: DeviceData
    ) -> Float[Array, "steps B C"]:
        def step(_, inputs):
            bucket, index, weight = inputs

            def of_bucket(widths):
                batch = gather(data, index, weight, dict(widths), state.normalisation)
                return self.apply(params, batch_stats, batch, state.hyper, train=False)[0].log_probs

            branches = [lambda b=last: of_bucket(self.widths[b]) for last in last_of_merged(len(self.widths))]
            return None, jax.lax.switch(bucket, branches)

        return jax.lax.scan(step, None, schedule)[1]

    def _select(self, state: ReplicaState, result: EpochResult) -> ReplicaState:
        """Keep the epoch if it is the best so far; stop the replica if it runs out of patience or is not finite."""
        scores = metrics.scores(result.confusion)
        metric = scores["wa"] + scores["ua"] if self.selection == "wa_plus_ua" else scores[self.selection]
        best, loss = state.best, result.validation_loss
        finite = jnp.isfinite(result.train_loss) & jnp.isfinite(loss)
        better = finite & ((metric > best.metric) | ((metric == best.metric) & (loss < best.loss)))
        epoch = state.epoch + 1
        candidate = Best(state.params, state.batch_stats, jnp.asarray(metric), jnp.asarray(loss), epoch)
        bad_epochs = jnp.where(better, 0, state.bad_epochs + 1)
        patience = self.epochs if self.patience is None else self.patience
        status = jnp.where(bad_epochs >= patience, Status.STOPPED, Status.RUNNING)
        return state._replace(
            epoch=epoch,
            best=jax.tree.map(lambda new, old: jnp.where(better, new, old), candidate, best),
            bad_epochs=bad_epochs,
            plateau=self.optimizer.after_epoch(state.plateau, loss),
            status=jnp.where(finite, status, Status.NOT_FINITE),
        )


def if_running(
    state: ReplicaState, run: Callable[[ReplicaState], PyTree], skip: Callable[[ReplicaState], PyTree]
) -> PyTree:
    """Return `run(state)` if the replica is running, else `skip(state)`."""
    return jax.lax.cond(state.status == Status.RUNNING, run, skip, state)


def in_precision(tree: PyTree, precision: str) -> PyTree:
    """Cast the floating-point arrays of a tree to one of `PRECISIONS`."""
    dtype = PRECISIONS[precision]
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def confusion_of(
    log_probs: Float[Array, "steps B C"],
    label: Int[AnyArray, "steps B"],
    weight: Float[AnyArray, "steps B"],
    num_classes: int,
) -> Float[AnyArray, "C C"]:
    """Return the confusion matrix of predictions in the order of a schedule; rows are true classes."""
    predicted = log_probs.argmax(-1).ravel()
    return metrics.confusion(label.ravel(), predicted, weight.ravel(), num_classes)


def validation_loss(
    log_probs: Float[Array, "steps B C"], label: Int[AnyArray, "steps B"], weight: Float[AnyArray, "steps B"]
) -> Float[Array, ""]:
    """Return the mean of -log p(label) under the model's inference rule, without class weights."""
    chosen = jnp.take_along_axis(log_probs, label[..., None], axis=-1)[..., 0]
    return -(chosen * weight).sum() / weight.sum()
