"""Optimiser and learning-rate schedules, with traced hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxser.types import AnyArray, Hyper, Plateau

_START, _END = 1 / 25, 1 / 25e4
"""The first and the last factor of the one-cycle schedule, as in PyTorch."""


class Schedule(NamedTuple):
    """The factor on the learning rate.

    It is a function of the fraction of warm-up, or of the rest, that is done.
    """

    rise: Callable[[Array], Array]
    fall: Callable[[Array], Array]


def _cosine(begin: float, end: float) -> Callable[[Array], Array]:
    return lambda progress: end + (begin - end) * 0.5 * (1 + jnp.cos(jnp.pi * progress))


SCHEDULES = {
    "constant": Schedule(lambda progress: progress, jnp.ones_like),
    "cosine": Schedule(lambda progress: progress, lambda progress: 0.5 * (1 + jnp.cos(jnp.pi * progress))),
    "one_cycle": Schedule(_cosine(_START, 1.0), _cosine(1.0, _END)),
}
"""Learning-rate schedules. Without warm-up, only `fall` is used."""

CLIPS = {
    "none": lambda limit: optax.identity(),
    "global_norm": optax.clip_by_global_norm,
    "tensor_norm": lambda limit: optax.stateless(lambda grads, _: jax.tree.map(_clip_norm(limit), grads)),
    "value": optax.clip,
}
"""Gradient clipping: by the global norm, by the norm of each tensor, or by value."""


class Accumulated(NamedTuple):
    """The state of an optimiser that accumulates the gradients of several batches.

    Attributes:
        inner: the state of the optimiser.
        grads: the sum of the batches' gradients, each times the number of its utterances.
        utterances: their number.
        batches: the number of batches.
    """

    inner: PyTree
    grads: PyTree
    utterances: Float[AnyArray, ""]
    batches: Int[AnyArray, ""]


@dataclass(frozen=True)
class Adam:
    """Adam with clipped gradients, decoupled weight decay and learning-rate schedules.

    Reads `learning_rate` and, if present, `weight_decay`, `warmup` and `accumulation` from the hyper-parameters, and
    for `params["encoder"]` `encoder_learning_rate` and `encoder_warmup`. Weight decay leaves out vectors, which are
    biases and the scales of normalisation layers.

    Attributes:
        clip: one of `CLIPS`, applied before Adam with `clip_limit`.
        schedule: one of `SCHEDULES`.
        plateau_patience: as in PyTorch's ReduceLROnPlateau: after more epochs than this whose validation loss is not
            below the lowest by a relative `plateau_threshold`, the learning rate is multiplied by `plateau_factor`.
            0 disables it.
    """

    b1: float = 0.9
    b2: float = 0.999
    clip: str = "none"
    clip_limit: float = 1.0
    schedule: str = "constant"
    plateau_patience: int = 0
    plateau_factor: float = 0.1
    plateau_threshold: float = 1e-4

    hyper = ("learning_rate", "weight_decay")

    def init(self, params: PyTree, hyper: Hyper) -> PyTree:
        """Return the initial optimiser state."""
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            inner = self._transformation().init(params)
        if "accumulation" not in hyper:
            return inner
        return Accumulated(
            inner, jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), jnp.zeros((), jnp.int32)
        )

    def factor(self, progress: Float[Array, ""], hyper: Hyper) -> Float[Array, ""]:
        """Return the factor on the learning rate, given the fraction of training that is done."""
        schedule = SCHEDULES[self.schedule]
        if "warmup" not in hyper:
            return schedule.fall(progress)
        warmup = hyper["warmup"]
        rising = schedule.rise(jnp.minimum(progress / jnp.maximum(warmup, 1e-6), 1))
        falling = schedule.fall(jnp.maximum(progress - warmup, 0) / (1 - warmup))
        return jnp.where(progress < warmup, rising, falling)

    def encoder_factor(self, progress: Float[Array, ""], hyper: Hyper) -> Float[Array, ""] | float:
        """Return a further factor on the learning rate of the encoder, for its own warm-up."""
        if "encoder_warmup" not in hyper:
            return 1.0
        return jnp.minimum(progress / jnp.maximum(hyper["encoder_warmup"], 1e-6), 1)

    def update(
        self,
        grads: PyTree,
        state: PyTree,
        params: PyTree,
        hyper: Hyper,
        factor: Float[Array, ""],
        utterances: Float[Array, ""],
        encoder_factor: Float[Array, ""] | float = 1.0,
    ) -> tuple[PyTree, PyTree]:
        """Return the updated parameters and optimiser state.

        With `accumulation`, the parameters change only after that many batches, as they would after one large batch.

        Args:
            grads: the gradients of the mean loss of a batch.
            state: the state of the optimiser.
            params: the parameters.
            hyper: the hyper-parameters.
            factor: scales the learning rate.
            utterances: the number of utterances of the batch.
            encoder_factor: scales the learning rate of `params["encoder"]` in addition.
        """
        if "accumulation" not in hyper:
            return self._update(grads, state, params, hyper, factor, encoder_factor)
        total = state.utterances + utterances
        summed = jax.tree.map(lambda old, new: old + utterances * new, state.grads, grads)
        mean = jax.tree.map(lambda x: x / jnp.maximum(total, 1), summed)
        updated = self._update(mean, state.inner, params, hyper, factor, encoder_factor)
        is_due = state.batches + 1 >= hyper["accumulation"]
        params, inner = _where(is_due, updated, (params, state.inner))
        waiting = jax.tree.map(lambda x: jnp.where(is_due, 0, x), (summed, total, state.batches + 1))
        return params, Accumulated(inner, *waiting)

    def has_updated(self, state: PyTree, hyper: Hyper) -> Bool[Array, ""] | bool:
        """Return whether the last batch changed the parameters."""
        return state.batches == 0 if "accumulation" in hyper else True

    def begin_plateau(self) -> Plateau:
        """Return the plateau schedule before the first epoch."""
        return Plateau(jnp.ones(()), jnp.float32(jnp.inf), jnp.zeros((), jnp.int32))

    def after_epoch(self, plateau: Plateau, validation_loss: Float[AnyArray, ""]) -> Plateau:
        """Return the plateau schedule after an epoch."""
        if self.plateau_patience == 0:
            return plateau
        better = validation_loss < plateau.loss * (1 - self.plateau_threshold)
        bad_epochs = jnp.where(better, 0, plateau.bad_epochs + 1)
        is_over = bad_epochs > self.plateau_patience
        return Plateau(
            scale=jnp.where(is_over, plateau.scale * self.plateau_factor, plateau.scale),
            loss=jnp.where(better, validation_loss, plateau.loss),
            bad_epochs=jnp.where(is_over, 0, bad_epochs),
        )

    def _update(self, grads, state, params, hyper: Hyper, factor, encoder_factor) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"):
            steps, state = self._transformation().update(grads, state, params)
        rate = hyper["learning_rate"] * factor
        decay = hyper.get("weight_decay", 0.0)

        def updated(params, steps, rate):
            return jax.tree.map(
                lambda p, step: p - rate * (step + decay * p if p.ndim > 1 else step), params, steps
            )

        new = updated(params, steps, rate)
        if "encoder" in params:
            rate = hyper.get("encoder_learning_rate", hyper["learning_rate"]) * factor * encoder_factor
            new = {**new, "encoder": updated(params["encoder"], steps["encoder"], rate)}
        return new, state

    def _transformation(self) -> optax.GradientTransformation:
        return optax.chain(CLIPS[self.clip](self.clip_limit), optax.scale_by_adam(b1=self.b1, b2=self.b2))


def _where(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _clip_norm(limit: float):
    """Clip each tensor on its own, as TensorFlow's `clip_by_norm`, unlike optax."""

    def clipped(grad):
        norm = jnp.linalg.norm(grad)
        return grad * jnp.where(norm > limit, limit / jnp.maximum(norm, limit), 1)

    return clipped
