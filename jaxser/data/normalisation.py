"""Normalisation of features: whose mean and standard deviation are taken, and z-scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxser.types import Dataset, Normalisation, Ragged, UsageError

NORMALISATIONS = ("train", "train_neutral", "utterance", "none")
"""Whose frames' mean and standard deviation are taken from a feature's values."""

AS_GIVEN = ("video",)
"""Features that are never z-scored: Rajan et al. 2022 standardise audio alone."""


def is_standardised(name: str, dtype: np.dtype) -> bool:
    """Whether z-scores are made of an array: of features over time, rather than of ids or of video."""
    return name not in AS_GIVEN and np.issubdtype(dtype, np.floating)


def fold_normalisations(
    dataset: Dataset, rows: Sequence[Int[np.ndarray, _]], needs: tuple[str, ...], normalise: str = "train"
) -> list[dict[str, Normalisation]]:
    """The statistics of each set of training rows; of its neutral utterances alone for `train_neutral` (Ramet 2018).

    Raises:
        UsageError: a training part has no utterance labelled neutral.
    """
    if normalise in ("utterance", "none"):
        return [{} for _ in rows]
    if normalise == "train_neutral":
        neutral = np.isin(dataset.column("label"), ("neu", "neutral"))
        rows = [part[neutral[part]] for part in rows]
        if any(len(part) == 0 for part in rows):
            raise UsageError("config.normalise=train_neutral: a training part has no neutral utterance")
    arrays = {name: dataset.arrays[name] for name in needs}
    sums = {name: FrameSums.of(a) for name, a in arrays.items() if is_standardised(name, a.values.dtype)}
    return [{name: own.normalisation(part) for name, own in sums.items()} for part in rows]


class FrameSums(NamedTuple):
    """Per-utterance sums of frames, in float64, from which any fold's statistics follow."""

    frames: Int[np.ndarray, " N"]
    total: Float[np.ndarray, "N D"]
    squares: Float[np.ndarray, "N D"]

    @classmethod
    def of(cls, frames: Ragged) -> FrameSums:
        """One pass over the frames, an utterance at a time."""
        count, width = frames.length, frames.values.shape[1]
        total, squares = np.zeros((len(count), width)), np.zeros((len(count), width))
        for n, (start, length) in enumerate(zip(frames.offset, count, strict=True)):
            x = frames.values[start : start + length].astype(np.float64)
            total[n], squares[n] = x.sum(0), (x * x).sum(0)
        return cls(count, total, squares)

    def normalisation(self, rows: Int[np.ndarray, " n"]) -> Normalisation:
        """Mean and standard deviation of each feature over the valid frames of `rows`; 1 for a constant feature."""
        count = self.frames[rows].sum()
        mean = self.total[rows].sum(0) / count
        variance = np.maximum(self.squares[rows].sum(0) / count - mean**2, 0)
        std = np.where(variance > 1e-12 * (mean**2 + 1), np.sqrt(variance), 1)
        return Normalisation(mean.astype(np.float32), std.astype(np.float32))


def normalised(
    x: Shaped[Array, "B T ..."], mask: Bool[Array, "B T"], statistics: Normalisation | None
) -> Shaped[Array, "B T ..."]:
    """z-scores where there are statistics; zero where padded."""
    if statistics is not None:
        x = (x - statistics.mean) / statistics.std
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, 0)


def own_statistics(
    x: Float[Array, "B T D"], mask: Bool[Array, "B T"]
) -> tuple[Float[Array, "B 1 D"], Float[Array, "B 1 D"]]:
    """Mean and standard deviation of each utterance's own frames; 1 for a constant feature."""
    count = jnp.maximum(mask.sum(1, keepdims=True), 1)[..., None].astype(x.dtype)
    valid = mask[..., None]
    mean = jnp.where(valid, x, 0).sum(1, keepdims=True) / count
    variance = jnp.where(valid, (x - mean) ** 2, 0).sum(1, keepdims=True) / count
    return mean, jnp.where(variance > 1e-12 * (mean**2 + 1), jnp.sqrt(variance), 1)
