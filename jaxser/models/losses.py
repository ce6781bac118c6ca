"""Losses, averaged over the utterances of a batch; padding rows are left out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxser.types import Batch, Output


def weighted_mean(values: Float[Array, " B"], batch: Batch) -> Float[Array, ""]:
    """The mean over the utterances of a batch; padding rows are left out."""
    return (values * batch.weight).sum() / jnp.maximum(batch.weight.sum(), 1)


def cross_entropy(output: Output, batch: Batch, class_weights: Float[Array, " C"]) -> Float[Array, ""]:
    """The mean of -log p(label) under the model's inference rule (Sun 2021, eq. 20)."""
    return negative_log_likelihood(output.log_probs, batch, class_weights)


def negative_log_likelihood(
    log_probs: Float[Array, "B C"], batch: Batch, class_weights: Float[Array, " C"]
) -> Float[Array, ""]:
    """The mean of -log p(label), where each utterance has the weight of its class."""
    chosen = jnp.take_along_axis(log_probs, batch.label[:, None], axis=1)[:, 0]
    return weighted_mean(-class_weights[batch.label] * chosen, batch)


def sigmoid_cross_entropy(
    logits: Float[Array, "B C"], batch: Batch, class_weights: Float[Array, " C"]
) -> Float[Array, ""]:
    """The binary cross-entropy, averaged over classes (published code of Yoon et al. 2018)."""
    is_class = jax.nn.one_hot(batch.label, logits.shape[1], dtype=logits.dtype)
    each = jax.nn.softplus(logits) - is_class * logits
    return weighted_mean(class_weights[batch.label] * each.mean(1), batch)


def l2(params: PyTree) -> Float[Array, ""]:
    """Half the sum of squares of all kernels, without biases and scales (TensorFlow's `l2_loss`)."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [leaf for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path[-1:])]
    return 0.5 * sum(((kernel * kernel).sum() for kernel in kernels), start=jnp.zeros(()))


def class_weights(label: Int[np.ndarray, " n"], num_classes: int, balanced: bool) -> Float[np.ndarray, " C"]:
    """The weight of each class in the loss: 1, or N / (C N_c) if `balanced` (Ramet 2018).

    N counts the training labels, and N_c those of class c; a class without utterances has weight 0.
    """
    if not balanced:
        return np.ones(num_classes, np.float32)
    counts = np.bincount(label, minlength=num_classes)
    return np.where(counts > 0, len(label) / (num_classes * np.maximum(counts, 1)), 0).astype(np.float32)
