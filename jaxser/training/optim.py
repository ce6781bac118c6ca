"""Optimiser and learning-rate schedules, with traced hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from jaxser.types import AnyArray, Hyper, Plateau

SCHEDULES = {
    "constant": lambda progress: jnp.ones_like(progress),
    "cosine": lambda progress: 0.5 * (1 + jnp.cos(jnp.pi * progress)),
}
"""Factor on the learning rate as a function of the fraction of training that is done, in [0, 1]."""

CLIPS = {
    "none": lambda limit: optax.identity(),
    "global_norm": optax.clip_by_global_norm,
    "tensor_norm": lambda limit: optax.stateless(lambda grads, _: jax.tree.map(_clip_norm(limit), grads)),
    "value": optax.clip,
}
"""Gradient clipping: by the global norm, by the norm of each tensor, or by value."""


@dataclass(frozen=True)
class Adam:
    """Adam with clipped gradients, decoupled weight decay and learning-rate schedules.

    Reads `learning_rate` and, if present, `weight_decay` from the hyper-parameters.

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

    def init(self, params: PyTree) -> PyTree:
        """Return the initial optimiser state."""
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            return self._transformation().init(params)

    def update(
        self, grads: PyTree, state: PyTree, params: PyTree, hyper: Hyper, factor: Float[Array, ""]
    ) -> tuple[PyTree, PyTree]:
        """Return the updated parameters and optimiser state; `factor` scales the learning rate."""
        with jax.numpy_dtype_promotion("standard"):
            steps, state = self._transformation().update(grads, state, params)
        rate = hyper["learning_rate"] * factor
        decay = hyper.get("weight_decay", 0.0)
        return jax.tree.map(lambda p, s: p - rate * (s + decay * p), params, steps), state

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

    def _transformation(self) -> optax.GradientTransformation:
        return optax.chain(CLIPS[self.clip](self.clip_limit), optax.scale_by_adam(b1=self.b1, b2=self.b2))


def _clip_norm(limit: float):
    """TensorFlow's `clip_by_norm`, which unlike optax clips each tensor on its own."""

    def clipped(grad):
        norm = jnp.linalg.norm(grad)
        return grad * jnp.where(norm > limit, limit / jnp.maximum(norm, limit), 1)

    return clipped
