"""A dataset on the devices, and the batches that a training step gathers from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from jaxser.data.batch_schedule import Widths
from jaxser.data.normalisation import FrameSums, is_standardised, normalised
from jaxser.types import AnyArray, Batch, Dataset, Normalisation


class Sequences(NamedTuple):
    """A `Ragged` on the device."""

    values: Shaped[AnyArray, "total ..."]
    offset: Int[AnyArray, " N"]
    length: Int[AnyArray, " N"]


class DeviceData(NamedTuple):
    """A dataset on the device, shared by all replicas."""

    label: Int[AnyArray, " N"]
    arrays: Mapping[str, Sequences]
    embeddings: Any  # Float[Array, "V E"], or None where there are no words


def on_host(dataset: Dataset, needs: tuple[str, ...], normalise: str = "train") -> DeviceData:
    """The arrays that a model needs, as they go to the device; normalised already where each utterance is by itself."""
    arrays = {}
    for name in needs:
        ragged = dataset.arrays[name]
        values = ragged.values
        if normalise == "utterance" and is_standardised(name, ragged.values.dtype):
            values = values.copy()
            sums = FrameSums.of(ragged)
            for n, (start, length) in enumerate(zip(ragged.offset, ragged.length, strict=True)):
                own = sums.normalisation(np.array([n]))
                values[start : start + length] = (values[start : start + length] - own.mean) / own.std
        arrays[name] = Sequences(values, ragged.offset, ragged.length.astype(np.int32))
    embeddings = dataset.embeddings if "words" in needs else None
    return DeviceData(dataset.label.astype(np.int32), arrays, embeddings)


def gather(
    data: DeviceData,
    index: Int[AnyArray, " B"],
    weight: Float[AnyArray, " B"],
    widths: Widths,
    normalisation: Mapping[str, Normalisation],
) -> Batch:
    """The batch of some rows, padded to the bucket's widths; a filler (weight 0) is masked as a whole."""
    fields: dict[str, Array] = {}
    for name, width in widths.items():
        values, offset, length = data.arrays[name]
        position = jnp.arange(width)
        mask = (position < length[index][:, None]) & (weight[:, None] > 0)
        x = values[jnp.where(mask, offset[index][:, None] + position, 0)]
        fields |= {name: normalised(x, mask, normalisation.get(name)), f"{name}_mask": mask}
    return Batch(label=data.label[index], weight=weight, embeddings=data.embeddings, **fields)
