"""Averages of the parameters over training steps (EMA) or epochs (SWA).

They are evaluated in place of the parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from jaxser.types import AnyArray, Hyper


class Average(NamedTuple):
    """An average of the parameters and batch statistics.

    Attributes:
        params: the averaged parameters.
        batch_stats: the averaged batch statistics.
        number: how many were averaged.
    """

    params: PyTree
    batch_stats: PyTree
    number: Int[AnyArray, ""]


def begin(params: PyTree, batch_stats: PyTree, hyper: Hyper) -> PyTree:
    """Return the average before the first step; () without `ema_decay` and `swa_share`."""
    if "ema_decay" in hyper or "swa_share" in hyper:
        return Average(params, batch_stats, jnp.zeros((), jnp.int32))
    return ()


def after_step(
    average: PyTree, params: PyTree, batch_stats: PyTree, hyper: Hyper, is_update: Bool[Array, ""] | bool
) -> PyTree:
    """Return the exponential moving average after a training step.

    The decay is min(ema_decay, (1 + n) / (10 + n)) after n steps, as in TensorFlow, so that the initial parameters are
    soon forgotten.

    Args:
        average: the average before.
        params: the parameters after the step.
        batch_stats: the batch statistics after the step.
        hyper: the hyper-parameters.
        is_update: whether the step changed the parameters.
    """
    if "ema_decay" not in hyper:
        return average
    number = average.number.astype(jnp.float32)
    decay = jnp.where(is_update, jnp.minimum(hyper["ema_decay"], (1 + number) / (10 + number)), 1)
    moved = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average[:2], (params, batch_stats))
    return Average(moved[0], moved[1], average.number + is_update)


def after_epoch(
    average: PyTree, params: PyTree, batch_stats: PyTree, hyper: Hyper, progress: AnyArray
) -> PyTree:
    """Return the stochastic weight average after an epoch (Izmailov et al. 2018).

    It is the mean over the last epochs.

    Args:
        average: the average before.
        params: the parameters after the epoch.
        batch_stats: the batch statistics after the epoch.
        hyper: the hyper-parameters; `swa_share` is the share of the training over which parameters are averaged.
        progress: the fraction of the training that is done.
    """
    if "swa_share" not in hyper:
        return average
    has_begun = progress > 1 - hyper["swa_share"]
    weight = jnp.where(has_begun, 1 / (average.number + 1).astype(jnp.float32), 0)
    moved = jax.tree.map(lambda old, new: old + weight * (new - old), average[:2], (params, batch_stats))
    return Average(moved[0], moved[1], average.number + has_begun)


def evaluated(average: PyTree, params: PyTree, batch_stats: PyTree) -> tuple[PyTree, PyTree]:
    """Return the parameters and batch statistics to evaluate.

    They are the average if there is one, and else the latest.
    """
    if not isinstance(average, Average):
        return params, batch_stats
    has_begun = average.number > 0
    return jax.tree.map(
        lambda mean, latest: jnp.where(has_begun, mean, latest), average[:2], (params, batch_stats)
    )
