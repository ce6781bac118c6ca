"""Normalisation of features, with statistics of training parts or of single utterances."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxser.types import AnyArray, Dataset, Normalisation, Ragged, UsageError

NORMALISATIONS = ("train", "train_neutral", "utterance", "none")
"""The frames whose mean and standard deviation normalise the features.

Those of the training part, of its neutral utterances (Ramet et al. 2018), of each utterance itself, or none.
"""

NOT_NORMALISED = ("video",)
"""Features that are never normalised: Rajan et al. 2022 standardise only audio."""


NEUTRAL = (
    "neu",
    "neutral",
    "neutre",
    "neutro",
    "neutra",
    "neutrale",
    "neutralny",
    "нейтральный",
    "中性",
    "中立",
    "중립",
)
"""First words of labels of neutral speech, in lower case: English, German, French, Spanish, Italian, Polish, ..."""


def is_neutral(label: str) -> bool:
    """Return whether a label names neutral speech.

    `neu`, `Neutral`, `neutral state` and `01_neutral` do, and `non-neutral` does not.
    """
    words = re.findall(r"[^\W\d_]+", unicodedata.normalize("NFC", label).casefold())
    return bool(words) and words[0] in NEUTRAL


def is_standardised(name: str, dtype: np.dtype) -> bool:
    """Return whether an array is normalised.

    Features over time are, but not video and ids of words.
    """
    return name not in NOT_NORMALISED and np.issubdtype(dtype, np.floating)


def fold_normalisations(
    dataset: Dataset, rows: Sequence[Int[np.ndarray, _]], needs: tuple[str, ...], normalise: str = "train"
) -> list[dict[str, Normalisation]]:
    """Compute the statistics of each training part.

    Args:
        dataset: the dataset.
        rows: the rows of each training part.
        needs: the arrays that the model reads.
        normalise: one of `NORMALISATIONS`.

    Returns:
        One mapping per training part, from array name to statistics; empty for "utterance" and "none".

    Raises:
        UsageError: if `normalise` is "train_neutral" and a training part has no neutral utterance.
    """
    if normalise in ("utterance", "none"):
        return [{} for _ in rows]
    if normalise == "train_neutral":
        labels = dataset.column("label")
        neutral = np.array([is_neutral(label) for label in labels], dtype=bool)
        rows = [part[neutral[part]] for part in rows]
        if any(len(part) == 0 for part in rows):
            names = ", ".join(sorted(set(labels[neutral].tolist()))) or (
                f"none of the labels {', '.join(sorted(set(labels.tolist()))[:12])}, which --label_map can rename"
            )
            raise UsageError(
                f"config.normalise=train_neutral: a training part has no neutral utterance (neutral are: {names})"
            )
    arrays = {name: dataset.arrays[name] for name in needs}
    sums = {name: FrameSums.of(a) for name, a in arrays.items() if is_standardised(name, a.values.dtype)}
    return [{name: own.normalisation(part) for name, own in sums.items()} for part in rows]


class FrameSums(NamedTuple):
    """Sums over the frames of each utterance, in float64.

    The statistics of any set of utterances follow from them.
    """

    frames: Int[np.ndarray, " N"]
    total: Float[np.ndarray, "N D"]
    squares: Float[np.ndarray, "N D"]

    @classmethod
    def of(cls, frames: Ragged) -> FrameSums:
        """Sum the frames in one pass."""
        count, width = frames.length, frames.values.shape[1]
        total, squares = np.zeros((len(count), width)), np.zeros((len(count), width))
        for n, (start, length) in enumerate(zip(frames.offset, count, strict=True)):
            x = frames.values[start : start + length].astype(np.float64)
            total[n], squares[n] = x.sum(0), (x * x).sum(0)
        return cls(count, total, squares)

    def normalisation(self, rows: Int[np.ndarray, " n"]) -> Normalisation:
        """Return the statistics of the frames of some utterances."""
        count = self.frames[rows].sum()
        mean = self.total[rows].sum(0) / count
        variance = np.maximum(self.squares[rows].sum(0) / count - mean**2, 0)
        std = _standard_deviation(mean, variance, np)
        return Normalisation(mean.astype(np.float32), std.astype(np.float32))


def for_recordings(
    statistics: Mapping[str, Normalisation], raw: Mapping[str, Normalisation]
) -> dict[str, Normalisation]:
    """Return statistics for recordings, which were not normalised by corpus before.

    Args:
        statistics: of training parts of arrays that were normalised by corpus.
        raw: of the arrays before (`Dataset.raw`); empty if they were not.
    """
    return {
        name: Normalisation(raw[name].mean + raw[name].std * own.mean, raw[name].std * own.std)
        if name in raw
        else own
        for name, own in statistics.items()
    }


def normalised_by_utterance(frames: Ragged) -> Float[np.ndarray, "total D"]:
    """Normalise each utterance by its own statistics, on the host and before training."""
    values = frames.values.astype(np.float32)
    sums = FrameSums.of(frames)
    for n, (start, length) in enumerate(zip(frames.offset, frames.length, strict=True)):
        own = sums.normalisation(np.array([n]))
        values[start : start + length] = (values[start : start + length] - own.mean) / own.std
    return values


# `FrameSums` and `utterance_statistics` both compute the statistics of single utterances. The former adds up float64 on
# the host, once per dataset; JAX has no float64 by default, and the latter is traced into the programs that predict and
# that are exported, where the frames are padded. A test holds them to each other.
def utterance_statistics(
    x: Float[AnyArray, "B T D"], mask: Bool[AnyArray, "B T"]
) -> tuple[Float[Array, "B 1 D"], Float[Array, "B 1 D"]]:
    """Compute mean and standard deviation of each utterance of a padded batch."""
    x = _widened(x)
    count = jnp.maximum(mask.sum(1, keepdims=True), 1)[..., None].astype(x.dtype)
    valid = mask[..., None]
    mean = jnp.where(valid, x, 0).sum(1, keepdims=True) / count
    variance = jnp.where(valid, (x - mean) ** 2, 0).sum(1, keepdims=True) / count
    return mean, _standard_deviation(mean, variance, jnp)


def _widened(x: Shaped[AnyArray, ...]) -> Shaped[AnyArray, ...]:
    """Convert float16, as the frames of an encoder are stored, to float32."""
    return x.astype(jnp.float32) if x.dtype == jnp.float16 else x


def normalised(
    x: Shaped[AnyArray, "B T ..."],
    mask: Bool[AnyArray, "B T"],
    statistics: Normalisation | None,
    *,
    pads_first: bool = False,
) -> Shaped[Array, "B T ..."]:
    """Convert a padded batch to z-scores, unless `statistics` is None.

    Padded frames are set to zero afterwards; if `pads_first`, they are set to zero before and converted too.
    """
    x = _widened(x)
    valid = mask.reshape(mask.shape + (1,) * (x.ndim - 2))
    if pads_first:
        x = jnp.where(valid, x, 0)
    if statistics is not None:
        x = (x - statistics.mean) / statistics.std
    return jnp.asarray(x) if pads_first else jnp.where(valid, x, 0)


def _standard_deviation(mean: AnyArray, variance: AnyArray, xp: ModuleType) -> Any:
    """Return the standard deviation, or 1 for a constant feature, whose variance is only rounding error.

    `xp` is numpy or jax.numpy.
    """
    return xp.where(variance > 1e-12 * (mean**2 + 1), xp.sqrt(variance), 1)
