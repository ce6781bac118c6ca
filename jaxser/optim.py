"""Gradient transformations of one replica, with traced hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from jaxser.types import Hyper

SCHEDULES = {
    "constant": lambda progress: jnp.ones_like(progress),
    "cosine": lambda progress: 0.5 * (1 + jnp.cos(jnp.pi * progress)),
}
"""Factor on the learning rate by the share of the training that is done, in [0, 1]."""


@dataclass(frozen=True)
class Adam:
    """Adam with the gradient's global norm clipped before it (None: not clipped).

    Reads `learning_rate` and, where it is there, `weight_decay` (decoupled) from `hyper`.
    """

    b1: float = 0.9
    b2: float = 0.999
    clip_norm: float | None = None
    schedule: str = "constant"

    hyper = ("learning_rate", "weight_decay")

    def init(self, params: PyTree) -> PyTree:
        """The optimiser's state for these parameters."""
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            return self._transformation().init(params)

    def update(
        self, grads: PyTree, state: PyTree, params: PyTree, hyper: Hyper, progress: Float[Array, ""]
    ) -> tuple[PyTree, PyTree]:
        """The next parameters and optimiser state."""
        with jax.numpy_dtype_promotion("standard"):
            steps, state = self._transformation().update(grads, state, params)
        rate = hyper["learning_rate"] * SCHEDULES[self.schedule](progress)
        decay = hyper.get("weight_decay", 0.0)
        return jax.tree.map(lambda p, s: p - rate * (s + decay * p), params, steps), state

    def _transformation(self) -> optax.GradientTransformation:
        clip = optax.identity() if self.clip_norm is None else optax.clip_by_global_norm(self.clip_norm)
        return optax.chain(clip, optax.scale_by_adam(b1=self.b1, b2=self.b2))
