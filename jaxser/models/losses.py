"""Losses, averaged over the utterances of a batch; padding rows are left out."""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree

from jaxser.types import AnyArray, Batch, Hyper, Output

PLAIN: Hyper = MappingProxyType({})
"""Neither label smoothing nor a focal factor."""

_CERTAIN = 1 - 1e-6
"""The largest probability in the focal factor, whose gradient is infinite at 1 if gamma is below 1."""

_NO_SPREAD = 1e-8
"""The smallest denominator of a concordance."""


def weighted_mean(values: Float[Array, " B"], batch: Batch) -> Float[Array, ""]:
    """Return the mean over the utterances of a batch; padding rows are left out."""
    return (values * batch.weight).sum() / jnp.maximum(batch.weight.sum(), 1)


def cross_entropy(
    output: Output, batch: Batch, class_weights: Float[Array, " C"], hyper: Hyper = PLAIN
) -> Float[Array, ""]:
    """Return the mean of -log p(label) under the model's inference rule (Sun 2021, eq. 20)."""
    return negative_log_likelihood(output.log_probs, batch, class_weights, hyper)


def negative_log_likelihood(
    log_probs: Float[Array, "B C"], batch: Batch, class_weights: Float[Array, " C"], hyper: Hyper = PLAIN
) -> Float[Array, ""]:
    """Return the mean of -log p(label), where each utterance has the weight of its class.

    Args:
        log_probs: the log-probabilities of the classes.
        batch: the utterances.
        class_weights: the weight of each class.
        hyper: may have `label_smoothing` e, which gives the label 1 - e + e / C of the target and every other class
            e / C, and `focal_gamma` g, which multiplies each utterance by (1 - p(label))^g (Lin et al. 2017, eq. 4).
    """
    chosen = jnp.take_along_axis(log_probs, batch.label[:, None], axis=1)[:, 0]
    each = chosen
    if "label_smoothing" in hyper:
        each = (1 - hyper["label_smoothing"]) * chosen + hyper["label_smoothing"] * log_probs.mean(axis=1)
    if "focal_gamma" in hyper:
        each = each * _focal(jnp.exp(chosen), hyper)
    return weighted_mean(-class_weights[batch.label] * each, batch)


def sigmoid_cross_entropy(
    logits: Float[Array, "B C"], batch: Batch, class_weights: Float[Array, " C"], hyper: Hyper = PLAIN
) -> Float[Array, ""]:
    """Return the binary cross-entropy, averaged over classes (Yoon et al. 2018).

    It is that of multimodal-speech-emotion at 44d05d5.

    `hyper` may have `label_smoothing` and `focal_gamma`, as in `negative_log_likelihood`, for each class by itself.
    """
    is_class = jax.nn.one_hot(batch.label, logits.shape[1], dtype=logits.dtype)
    target = is_class
    if "label_smoothing" in hyper:
        target = is_class + hyper["label_smoothing"] * (1 / logits.shape[1] - is_class)
    each = jax.nn.softplus(logits) - target * logits
    if "focal_gamma" in hyper:
        each = each * _focal(jax.nn.sigmoid(jnp.where(is_class > 0, logits, -logits)), hyper)
    return weighted_mean(class_weights[batch.label] * each.mean(1), batch)


def soft_cross_entropy(
    log_probs: Float[Array, "B C"],
    shares: Float[AnyArray, "B C"],
    weight: Float[AnyArray, " B"],
    class_weights: Float[Array, " C"],
    hyper: Hyper = PLAIN,
) -> Float[Array, ""]:
    """Return the mean cross-entropy to distributions, -sum_c w_c y_c log p_c.

    With weights by the effective number of votes (Cui et al. 2019, eq. 2), it is the class-balanced loss for
    distributions, with which EMO-SUPERB trains (Wu et al. 2024).

    Args:
        log_probs: the log-probabilities of the classes.
        shares: the distributions; each row adds up to one.
        weight: 1 for an utterance, 0 for a padding row.
        class_weights: the weight w_c of each class.
        hyper: may have `label_smoothing` e, which replaces the share y by (1 - e) y + e / C.
    """
    if "label_smoothing" in hyper:
        shares = shares + hyper["label_smoothing"] * (1 / shares.shape[1] - shares)
    each = -(class_weights * shares * log_probs).sum(1)
    return (each * weight).sum() / jnp.maximum(weight.sum(), 1)


def kl_divergence(
    log_probs: Float[Array, "B C"],
    shares: Float[AnyArray, "B C"],
    weight: Float[AnyArray, " B"],
    class_weights: Float[Array, " C"],
    hyper: Hyper = PLAIN,
) -> Float[Array, ""]:
    """Return the mean of sum_c w_c y_c log(y_c / p_c), which is 0 for a perfect prediction.

    It differs from `soft_cross_entropy` by a constant, the entropy of the distributions. For the arguments see there.
    """
    if "label_smoothing" in hyper:
        shares = shares + hyper["label_smoothing"] * (1 / shares.shape[1] - shares)
    log_shares = jnp.log(jnp.where(shares > 0, shares, 1))
    constant = soft_cross_entropy(log_shares, shares, weight, class_weights)
    return soft_cross_entropy(log_probs, shares, weight, class_weights) - constant


def concordance_loss(
    values: Float[AnyArray, "B A"], truth: Float[AnyArray, "B A"], weight: Float[AnyArray, " B"]
) -> Float[Array, ""]:
    """Return 1 - CCC of the batch, averaged over attributes (Trigeorgis et al. 2016).

    A batch in which neither the truth nor the values vary has the loss 1.

    Args:
        values: the predictions.
        truth: the true values.
        weight: 1 for an utterance, 0 for a padding row.
    """
    share = weight[:, None] / jnp.maximum(weight.sum(), 1)
    means = [(x * share).sum(0) for x in (values, truth)]
    own, true = (x - mean for x, mean in zip((values, truth), means, strict=True))
    covariance = (own * true * share).sum(0)
    spread = ((own**2 + true**2) * share).sum(0) + (means[0] - means[1]) ** 2
    return (1 - 2 * covariance / jnp.maximum(spread, _NO_SPREAD)).mean()


def squared_error(
    values: Float[AnyArray, "B A"], truth: Float[AnyArray, "B A"], weight: Float[AnyArray, " B"]
) -> Float[Array, ""]:
    """Return the squared error, averaged over attributes and over utterances with weight 1."""
    return (jnp.square(values - truth).mean(1) * weight).sum() / jnp.maximum(weight.sum(), 1)


def l2(params: PyTree) -> Float[Array, ""]:
    """Return half the sum of squares of all kernels (TensorFlow's `l2_loss`).

    Biases and scales are left out.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [leaf for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path[-1:])]
    return 0.5 * sum(((kernel * kernel).sum() for kernel in kernels), start=jnp.zeros(()))


def class_weights(
    label: Int[np.ndarray, " n"], num_classes: int, balanced: bool, beta: float = 0.0
) -> Float[np.ndarray, " C"]:
    """Return each class's weight in the loss: 1, or N / (C N_c) if `balanced` (Ramet 2018).

    Args:
        label: the N training labels, N_c of them of class c; a class without utterances has weight 0.
        num_classes: the number of classes C.
        balanced: whether classes are weighted by their inverse frequency.
        beta: between 0 (all weights are 1) and 1 (the limit is `balanced`): weights by the effective number of
            utterances, (1 - beta) / (1 - beta^N_c) (Cui et al. 2019, eq. 2), scaled to a mean of 1 over the labels.
    """
    return weights_of_counts(np.bincount(label, minlength=num_classes), balanced, beta)


def weights_of_counts(
    counts: Num[np.ndarray, " C"], balanced: bool, beta: float = 0.0
) -> Float[np.ndarray, " C"]:
    """Return the weights of `class_weights`, given the numbers of utterances (or shares)."""
    if not balanced and not beta:
        return np.ones(len(counts), np.float32)
    if balanced:
        weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
    else:
        effective = (1 - beta ** np.maximum(counts, 1)) / (1 - beta)
        weights = counts.sum() / (effective * (counts / effective).sum())
    return np.where(counts > 0, weights, 0).astype(np.float32)


def _focal(probability: Float[Array, "*shape"], hyper: Hyper) -> Float[Array, "*shape"]:
    return (1 - jnp.minimum(probability, _CERTAIN)) ** hyper["focal_gamma"]
