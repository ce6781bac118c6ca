"""Selection of epochs: the best one of a replica, and those that predict together with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from jaxser.evaluation.targets import Target
from jaxser.types import Best, Trained

Runners = Any
"""The next best epochs: a `Best` whose leaves are stacked from better to worse; () if one epoch predicts alone."""


def no_runners_up(best: Best, number: int) -> Runners:
    """Return `number` runners-up before the first epoch, which do not predict."""
    if number == 0:
        return ()
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (number, *x.shape)), best)


def select(
    best: Best, runners_up: Runners, candidate: Best, finite: Bool[Array, ""]
) -> tuple[Best, Runners, Bool[Array, ""]]:
    """Return the best epoch, its runners-up, and whether the candidate is the best so far.

    Args:
        best: the best epoch so far.
        runners_up: the next best epochs.
        candidate: the epoch that has ended.
        finite: whether its losses are finite; otherwise it is not kept.
    """
    improves = candidate.metric > best.metric
    better = finite & (improves | ((candidate.metric == best.metric) & (candidate.loss < best.loss)))
    if isinstance(runners_up, Best):
        metric = jnp.where(finite, candidate.metric, -jnp.inf)
        loss = jnp.where(finite, candidate.loss, jnp.inf)
        kept = _stacked(best, runners_up, candidate._replace(metric=metric, loss=loss))
        order = jnp.lexsort((kept.loss, -kept.metric))[
            :-1
        ]  # stable: of equal epochs, the earlier one is better
        runners_up = jax.tree.map(lambda x: x[order[1:]], kept)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), candidate, best)
    return best, runners_up, better


def mean_prediction(
    trained: Trained, predict: Callable[[PyTree, PyTree], Float[Array, "steps B K"]], target: Target
) -> Float[Array, "steps B K"]:
    """Return the mean prediction of the selected epochs.

    Args:
        trained: a replica.
        predict: returns estimates, given parameters and batch statistics.
        target: what is predicted.
    """
    if not isinstance(trained.runners_up, Best):
        return predict(trained.best.params, trained.best.batch_stats)
    chosen = _stacked(trained.best, trained.runners_up)
    estimates = jax.lax.map(lambda own: predict(*own), (chosen.params, chosen.batch_stats))
    return target.mean(estimates, jnp.isfinite(chosen.metric).at[0].set(True))


def members(trained: Trained) -> tuple[Trained, list[int]]:
    """Return each selected epoch of stacked replicas as a row, and the replica of each row."""
    number = len(trained.best.epoch)
    runners_up = trained.runners_up
    if not isinstance(runners_up, Best):
        return trained, list(range(number))
    kept = jax.tree.map(lambda one, more: np.concatenate([one[:, None], more], 1), trained.best, runners_up)
    is_kept = np.isfinite(kept.metric)
    is_kept[:, 0] = True
    replica, place = np.nonzero(is_kept)
    best = jax.tree.map(lambda x: x[replica, place], kept)
    shared = (trained.hyper, trained.normalisation, trained.status)
    return Trained(best, *jax.tree.map(lambda x: x[replica], shared)), replica.tolist()


def _stacked(best: Best, runners_up: Best, *candidates: Best) -> Best:
    own = jax.tree.map(lambda x: x[None], (best, *candidates))
    return jax.tree.map(
        lambda first, more, *last: jnp.concatenate([first, more, *last]), own[0], runners_up, *own[1:]
    )
