"""Training and evaluation of one replica, as pure functions.

`jaxser.training.sweep` maps them over many replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from jaxser.data.batch_schedule import BatchSchedule, last_of_merged
from jaxser.data.device import DeviceData, gather
from jaxser.evaluation.targets import Target
from jaxser.models.network import Network
from jaxser.training import augment, averaging, selection
from jaxser.training.optim import Adam
from jaxser.types import AnyArray, Batch, Best, Hyper, Normalisation, Output, ReplicaState, Status, Trained

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""Precision of the forward and backward passes of training steps. All else is float32."""

AUGMENTATION = 1
"""Folded into a step's key for the random numbers of augmentation."""


class EpochResult(NamedTuple):
    """Losses and scores of one epoch. All floats are NaN if the replica did not train.

    Attributes:
        train_loss: the mean loss of the training steps.
        validation_loss: the loss on the validation part.
        statistics: those of the predictions on the validation part, see `Target.statistics`.
        learning_rate: the learning rate after the epoch, without the schedule's factor.
        train_statistics: those of the training steps, as they see the utterances: each before its update, with dropout
            and augmentation.
    """

    train_loss: Float[AnyArray, ""]
    validation_loss: Float[AnyArray, ""]
    statistics: Float[AnyArray, "K L"]
    learning_rate: Float[AnyArray, ""]
    train_statistics: Float[AnyArray, "K L"]


class StepResult(NamedTuple):
    """The outputs of a training step beside the state, stacked over the steps of an epoch.

    Attributes:
        loss: the mean loss of the batch before its update.
        predicted: the prediction for each utterance, see `Target.guess`.
    """

    loss: Float[Array, "*steps"]
    predicted: Shaped[Array, "*steps B ..."]


@dataclass(frozen=True)
class ReplicaTrainer:
    """A network, its training and its selection of the epoch, shared by all replicas.

    Attributes:
        widths: the padded length of each array, for each training bucket.
        target: what is predicted.
        selection: one of `Target.selections`.
        patience: epochs without improvement after which a replica stops; None trains all epochs.
        precision: one of `PRECISIONS`.
        best_epochs: the number of best epochs whose mean is the prediction.
    """

    model: Network
    optimizer: Adam
    widths: tuple[tuple[tuple[str, int], ...], ...]
    target: Target
    epochs: int
    selection: str = "wa"
    patience: int | None = None
    precision: str = "float32"
    best_epochs: int = 1

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
        batch = self._gather(data, index, weight, self.widths[0], normalisation)
        variables = self.model.init({"params": init_key, "dropout": init_key}, batch, hyper, train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        zero = jnp.zeros((), jnp.int32)
        best = Best(params, batch_stats, jnp.float32(-jnp.inf), jnp.float32(jnp.inf), zero)
        return ReplicaState(
            params=params,
            batch_stats=batch_stats,
            opt_state=self.optimizer.init(params, hyper),
            hyper=hyper,
            key=key,
            epoch=zero,
            step=zero,
            best=best,
            bad_epochs=zero,
            plateau=self.optimizer.begin_plateau(),
            status=jnp.int32(Status.RUNNING),
            normalisation=normalisation,
            class_weights=class_weights,
            average=averaging.begin(params, batch_stats, hyper),
            runners_up=selection.no_runners_up(best, self.best_epochs - 1),
        )

    def epoch(
        self, state: ReplicaState, train: BatchSchedule, validation: BatchSchedule, data: DeviceData
    ) -> tuple[ReplicaState, EpochResult]:
        """Train for an epoch, validate, and select. A replica that is not running stays unchanged."""

        def run(state):
            state, steps = self.train_steps(state, train, 0, len(train.bucket), data)
            state = self.end_training(state)
            estimates = self.validate_part(state, validation, data)
            return self.finish_epoch(state, steps, train, estimates, validation, self.target.truth(data))

        return if_running(state, run, self.skip_epoch)

    def train_part(
        self,
        state: ReplicaState,
        schedule: BatchSchedule,
        begin: Int[Array, ""],
        steps: int,
        data: DeviceData,
    ) -> tuple[ReplicaState, StepResult]:
        """Train on a part of an epoch. A replica that is not running stays unchanged.

        Args:
            state: the replica.
            schedule: consecutive steps of the epoch.
            begin: the first of them.
            steps: the number of steps of the whole epoch.
            data: the dataset, or the part of it that the steps read.

        Returns:
            The state, and each step's summed loss and predictions.
        """

        def train(state):
            return self.train_steps(state, schedule, begin, steps, data)

        def skip(state):
            return state, StepResult(jnp.zeros(len(schedule.bucket)), self.target.no_guess(schedule.rows))

        return if_running(state, train, skip)

    def end_training(self, state: ReplicaState) -> ReplicaState:
        """Update the average over epochs after the last training step of an epoch."""
        progress = (state.epoch + 1) / self.epochs
        average = averaging.after_epoch(state.average, state.params, state.batch_stats, state.hyper, progress)
        return state._replace(average=average)

    def validate_part(
        self, state: ReplicaState, schedule: BatchSchedule, data: DeviceData
    ) -> Float[Array, "part B K"]:
        """Return the estimates of the current parameters, or of their average."""
        return self._predict(*self._evaluated(state), state, schedule, data)

    def finish_epoch(
        self,
        state: ReplicaState,
        steps: StepResult,
        train: BatchSchedule,
        estimates: Float[Array, "v B K"],
        validation: BatchSchedule,
        truth: Shaped[AnyArray, "N ..."],
    ) -> tuple[ReplicaState, EpochResult]:
        """Score an epoch and update the selected one.

        Args:
            state: the replica after its training steps.
            steps: the summed loss and the predictions of each training step.
            train: the schedule of the training part.
            estimates: the predictions on the validation part, see `Target.estimates`.
            validation: the schedule of the validation part.
            truth: the true values of the dataset.
        """
        target, own, trained = self.target, truth[validation.rows], truth[train.rows]
        result = EpochResult(
            steps.loss.sum() / train.weight.sum(),
            target.validation_loss(estimates, own, validation.weight),
            target.statistics(own, target.guess(estimates), validation.weight),
            state.hyper["learning_rate"] * state.plateau.scale,
            target.statistics(trained, steps.predicted, train.weight),
        )
        return self._select(state, result), result

    def skip_epoch(self, state: ReplicaState) -> tuple[ReplicaState, EpochResult]:
        """Return the state unchanged, and an empty result."""
        nan = jnp.float32(jnp.nan)
        empty = jnp.zeros(self.target.shape)
        return state, EpochResult(nan, nan, empty, nan, empty)

    def predict(
        self, trained: Trained, schedule: BatchSchedule, data: DeviceData
    ) -> Float[Array, "steps B K"]:
        """Return the estimates of the selected epoch, or their mean over the best epochs."""

        def predict(params, batch_stats):
            return self._predict(params, batch_stats, trained, schedule, data)

        return selection.mean_prediction(trained, predict, self.target)

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
    ) -> tuple[ReplicaState, StepResult]:
        """Make one update, and return the loss and the predictions before it.

        Args:
            state: the replica. Its `step` counts batches, which with accumulated gradients are more than updates.
            batch: the utterances.
            progress: the fraction of the training that is done, for the learning-rate schedule.
        """
        key = jax.random.fold_in(state.key, state.step)
        target_loss = self._target_loss
        if augment.NAMES & state.hyper.keys():
            batch, mixed = augment.augmented(batch, state.hyper, jax.random.fold_in(key, AUGMENTATION))
            target_loss = partial(self._mixed_loss, mixed) if mixed else target_loss

        def loss_fn(params):
            low, batch_low, hyper = in_precision((params, batch, state.hyper), self.precision)
            output, stats = self.apply(low, state.batch_stats, batch_low, hyper, train=True, key=key)
            output = in_precision(output, "float32")
            loss = target_loss(output, batch, state, params)
            estimates = self.target.estimates(self.model, output, state.hyper)
            return loss, (stats, self.target.guess(estimates))

        (loss, (stats, predicted)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        factor = self.optimizer.factor(progress, state.hyper) * state.plateau.scale
        params, opt_state = self.optimizer.update(
            grads,
            state.opt_state,
            state.params,
            state.hyper,
            factor,
            batch.weight.sum(),
            self.optimizer.encoder_factor(progress, state.hyper),
        )
        is_update = self.optimizer.has_updated(opt_state, state.hyper)
        average = averaging.after_step(state.average, params, stats, state.hyper, is_update)
        state = state._replace(
            params=params, opt_state=opt_state, batch_stats=stats, step=state.step + 1, average=average
        )
        return state, StepResult(loss, predicted)

    def train_steps(
        self,
        state: ReplicaState,
        schedule: BatchSchedule,
        begin: int | Int[Array, ""],
        steps: int,
        data: DeviceData,
    ) -> tuple[ReplicaState, StepResult]:
        """Train on consecutive steps of an epoch, as in `train_part`.

        Each step's loss is summed over the batch.
        """

        def busy(state, bucket, index, weight, progress):
            def of_bucket(widths):
                batch = self._gather(data, index, weight, widths, state.normalisation)
                return self.step(state, batch, progress)

            branches = [lambda widths=widths: of_bucket(widths) for widths in self.widths]
            state, result = jax.lax.switch(bucket, branches)
            return state, result._replace(loss=result.loss * weight.sum())

        def idle(state, bucket, index, weight, progress):
            return state, StepResult(jnp.zeros(()), self.target.no_guess(index))

        def step(state, inputs):
            position, bucket, index, weight = inputs
            progress = (state.epoch + position / steps) / self.epochs
            return jax.lax.cond(weight.sum() > 0, busy, idle, state, bucket, index, weight, progress)

        positions = (begin + jnp.arange(len(schedule.bucket))).astype(jnp.float32)
        return jax.lax.scan(step, state, (positions, *schedule))

    def _target_loss(self, output: Output, batch: Batch, state: ReplicaState, params) -> Float[Array, ""]:
        return self.target.loss(self.model, output, batch, state.class_weights, params, state.hyper)

    def _mixed_loss(
        self, mixed: augment.Mixed, output: Output, batch: Batch, state: ReplicaState, params
    ) -> Float[Array, ""]:
        """Return the loss of mixed utterances: the mean of the losses for both targets, weighted by their shares."""
        own = self._target_loss(output, batch, state, params)
        partner = batch._replace(label=mixed.partner, target=mixed.target)
        other = self._target_loss(output, partner, state, params)
        return mixed.share * own + (1 - mixed.share) * other

    def _evaluated(self, state: ReplicaState) -> tuple[PyTree, PyTree]:
        return averaging.evaluated(state.average, state.params, state.batch_stats)

    def _predict(
        self, params, batch_stats, state, schedule: BatchSchedule, data: DeviceData
    ) -> Float[Array, "steps B K"]:
        def step(_, inputs):
            bucket, index, weight = inputs

            def of_bucket(widths):
                batch = self._gather(data, index, weight, widths, state.normalisation)
                output, _ = self.apply(params, batch_stats, batch, state.hyper, train=False)
                return self.target.estimates(self.model, output, state.hyper)

            branches = [lambda b=last: of_bucket(self.widths[b]) for last in last_of_merged(len(self.widths))]
            return None, jax.lax.switch(bucket, branches)

        return jax.lax.scan(step, None, schedule)[1]

    def _gather(self, data, index, weight, widths, normalisation) -> Batch:
        return gather(data, index, weight, dict(widths), normalisation, pads_first=self.model.pads_first)

    def _select(self, state: ReplicaState, result: EpochResult) -> ReplicaState:
        """Keep the epoch if it is among the best; stop the replica if it runs out of patience or is not finite."""
        loss = jnp.asarray(result.validation_loss)
        finite = jnp.isfinite(result.train_loss) & jnp.isfinite(loss)
        epoch = state.epoch + 1
        metric = self.target.selected(self.selection, result.statistics, loss)
        candidate = Best(*self._evaluated(state), metric, loss, epoch)
        best, runners_up, better = selection.select(state.best, state.runners_up, candidate, finite)
        bad_epochs = jnp.where(better, 0, state.bad_epochs + 1)
        patience = self.epochs if self.patience is None else self.patience
        status = jnp.where(bad_epochs >= patience, Status.STOPPED, Status.RUNNING)
        return state._replace(
            epoch=epoch,
            best=best,
            runners_up=runners_up,
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
