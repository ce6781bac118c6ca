"""Gradient transformations of one replica, with traced hyper-parameters."""

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
"""Factor on the learning rate by the share of the training that is done, in [0, 1]."""


CLIPS = {
    "none": lambda limit: optax.identity(),
    "global_norm": optax.clip_by_global_norm,
    "tensor_norm": lambda limit: optax.stateless(lambda grads, _: jax.tree.map(_within(limit), grads)),
    "value": optax.clip,
}
"""What of the gradients is held to a limit: the norm of all together, that of each tensor, or each value."""


@dataclass(frozen=True)
class Adam:
    """Adam, its gradients clipped before it.

    With `plateau_patience`, the learning rate shrinks by `plateau_factor` as PyTorch's ReduceLROnPlateau does: after
    more than so many epochs without a validation loss that is lower by a share of `plateau_threshold`.
    Reads `learning_rate` and, where it is there, `weight_decay` (decoupled) from `hyper`.
    """

    b1: float = 0.9
    b2: float = 0.999
    clip: str = "none"
    clip_limit: float = 1.0
    schedule: str = "constant"
    plateau_patience: int = 0  # 0: none
    plateau_factor: float = 0.1
    plateau_threshold: float = 1e-4

    hyper = ("learning_rate", "weight_decay")

    def init(self, params: PyTree) -> PyTree:
        """The optimiser's state for these parameters."""
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            return self._transformation().init(params)

    def update(
        self, grads: PyTree, state: PyTree, params: PyTree, hyper: Hyper, factor: Float[Array, ""]
    ) -> tuple[PyTree, PyTree]:
        """The next parameters and optimiser state; `factor` is on the learning rate."""
        with jax.numpy_dtype_promotion("standard"):
            steps, state = self._transformation().update(grads, state, params)
        rate = hyper["learning_rate"] * factor
        decay = hyper.get("weight_decay", 0.0)
        return jax.tree.map(lambda p, s: p - rate * (s + decay * p), params, steps), state

    def begin_plateau(self) -> Plateau:
        """Before the first epoch."""
        return Plateau(jnp.ones(()), jnp.float32(jnp.inf), jnp.zeros((), jnp.int32))

    def after_epoch(self, plateau: Plateau, validation_loss: Float[AnyArray, ""]) -> Plateau:
        """The plateau schedule after an epoch."""
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


def _within(limit: float):
    """A gradient, scaled down to a norm of `limit` where it is longer (TensorFlow's `clip_by_norm`)."""

    def clipped(grad):
        norm = jnp.linalg.norm(grad)
        return grad * jnp.where(norm > limit, limit / jnp.maximum(norm, limit), 1)

    return clipped
