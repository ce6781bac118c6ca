"""One replica: begin, train an epoch, evaluate. Pure functions of arrays; `sweep.py` maps them over many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from jaxser.data.batch_schedule import Plan, last_joined
from jaxser.data.device import DeviceData, gather
from jaxser.evaluation import metrics
from jaxser.models.network import Network
from jaxser.training.optim import SCHEDULES, Adam
from jaxser.types import AnyArray, Batch, Best, Hyper, Normalisation, Output, ReplicaState, Status, Trained

SELECTIONS = ("wa", "ua", "f1_weighted", "f1_macro", "wa_plus_ua")
"""What may select the epoch, on validation; ties go to the lower loss."""


PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""In what a training step's forward and backward passes compute; parameters, losses and evaluation are float32."""


class EpochResult(NamedTuple):
    """What one epoch of a replica tells."""

    train_loss: Float[AnyArray, ""]
    validation_loss: Float[AnyArray, ""]
    confusion: Float[AnyArray, "C C"]  # on validation
    learning_rate: Float[AnyArray, ""]


@dataclass(frozen=True)
class Trainer:
    """What all replicas of a run share: the network, how it is trained, and how an epoch is selected."""

    model: Network
    optimizer: Adam
    widths: tuple[tuple[tuple[str, int], ...], ...]  # of each training bucket: (array, padded length) pairs
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
        """A replica before its first epoch."""
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
        self, state: ReplicaState, train: Plan, validation: Plan, data: DeviceData
    ) -> tuple[ReplicaState, EpochResult]:
        """Train for an epoch, validate, select. A replica that is not running stays as it is."""

        def run(state):
            state, losses = self.train_steps(state, train, 0, len(train.bucket), data)
            log_probs = self._predict(state.params, state.batch_stats, state, validation, data)
            return self._judge(state, losses, train.weight, log_probs, validation, data.label)

        return jax.lax.cond(state.status == Status.RUNNING, run, self._rest, state)

    def train_part(
        self, state: ReplicaState, plan: Plan, begin: Int[Array, ""], steps: int, data: DeviceData
    ) -> tuple[ReplicaState, Float[Array, " part"]]:
        """`plan` is the part of an epoch of so many steps that begins with step `begin`; returns each step's loss."""

        def run(state):
            return self.train_steps(state, plan, begin, steps, data)

        def rest(state):
            return state, jnp.zeros(len(plan.bucket))

        return jax.lax.cond(state.status == Status.RUNNING, run, rest, state)

    def validate_part(self, state: ReplicaState, plan: Plan, data: DeviceData) -> Float[Array, "part B C"]:
        """Log-probabilities of the parameters as they are."""
        return self._predict(state.params, state.batch_stats, state, plan, data)

    def judge(
        self,
        state: ReplicaState,
        losses: Float[Array, " steps"],
        weight: Float[Array, "steps B"],
        log_probs: Float[Array, "v B C"],
        validation: Plan,
        label: Int[Array, " N"],
    ) -> tuple[ReplicaState, EpochResult]:
        """The end of an epoch that was trained and validated in parts."""

        def run(state):
            return self._judge(state, losses, weight, log_probs, validation, label)

        return jax.lax.cond(state.status == Status.RUNNING, run, self._rest, state)

    def predict(self, trained: Trained, plan: Plan, data: DeviceData) -> Float[Array, "steps B C"]:
        """Log-probabilities of the selected epoch."""
        return self._predict(trained.best.params, trained.best.batch_stats, trained, plan, data)

    def apply(
        self, params, batch_stats, batch: Batch, hyper: Hyper, *, train: bool, key: PRNGKeyArray | None = None
    ) -> tuple[Output, Mapping]:
        """The model's output and its updated batch statistics."""
        variables = {"params": params, "batch_stats": batch_stats}
        rngs = {} if key is None else {"dropout": key}
        mutable = ["batch_stats"] if train else []
        output, updated = self.model.apply(variables, batch, hyper, train=train, rngs=rngs, mutable=mutable)
        return output, updated.get("batch_stats", batch_stats)

    def step(
        self, state: ReplicaState, batch: Batch, progress: Float[Array, ""]
    ) -> tuple[ReplicaState, Float[Array, ""]]:
        """One update; returns the loss before it."""

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
        self, state: ReplicaState, plan: Plan, begin: int | Int[Array, ""], steps: int, data: DeviceData
    ) -> tuple[ReplicaState, Float[Array, " part"]]:
        """Train on a plan, of an epoch of so many `steps` those from `begin` on; returns each step's summed loss."""

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

        positions = (begin + jnp.arange(len(plan.bucket))).astype(jnp.float32)
        return jax.lax.scan(step, state, (positions, *plan))

    def _predict(self, params, batch_stats, state, plan: Plan, data: DeviceData) -> Float[Array, "steps B C"]:
        def step(_, inputs):
            bucket, index, weight = inputs

            def of_bucket(widths):
                batch = gather(data, index, weight, dict(widths), state.normalisation)
                return self.apply(params, batch_stats, batch, state.hyper, train=False)[0].log_probs

            branches = [lambda b=last: of_bucket(self.widths[b]) for last in last_joined(len(self.widths))]
            return None, jax.lax.switch(bucket, branches)

        return jax.lax.scan(step, None, plan)[1]

    def _judge(self, state, losses, weight, log_probs, validation, label) -> tuple[ReplicaState, EpochResult]:
        label = label[validation.rows]
        result = EpochResult(
            losses.sum() / weight.sum(),
            validation_loss(log_probs, label, validation.weight),
            confusion_of(log_probs, label, validation.weight, self.num_classes),
            state.hyper["learning_rate"] * state.plateau.scale,
        )
        return self._select(state, result), result

    def _rest(self, state: ReplicaState) -> tuple[ReplicaState, EpochResult]:
        nan = jnp.float32(jnp.nan)
        empty = jnp.zeros((self.num_classes, self.num_classes), jnp.float32)
        return state, EpochResult(nan, nan, empty, nan)

    def _select(self, state: ReplicaState, result: EpochResult) -> ReplicaState:
        """Keep the epoch if it is the best so far; stop when patience is out; freeze what is not finite."""
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


def in_precision(tree: PyTree, precision: str) -> PyTree:
    """The tree with its floating arrays in one of `PRECISIONS`."""
    dtype = PRECISIONS[precision]
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def confusion_of(
    log_probs: Float[Array, "steps B C"],
    label: Int[AnyArray, "steps B"],
    weight: Float[AnyArray, "steps B"],
    num_classes: int,
) -> Float[AnyArray, "C C"]:
    """The confusion matrix of a plan's predictions; rows are true classes."""
    predicted = log_probs.argmax(-1).ravel()
    return metrics.confusion(label.ravel(), predicted, weight.ravel(), num_classes)


def validation_loss(
    log_probs: Float[Array, "steps B C"], label: Int[AnyArray, "steps B"], weight: Float[AnyArray, "steps B"]
) -> Float[Array, ""]:
    """Mean -log p(label) of the model's inference rule, unweighted by class."""
    chosen = jnp.take_along_axis(log_probs, label[..., None], axis=-1)[..., 0]
    return -(chosen * weight).sum() / weight.sum()
