"""Datasets in device memory, and the batches that a training step gathers from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from jaxser.data.batch_schedule import Widths
from jaxser.data.normalisation import is_standardised, normalised, normalised_by_utterance
from jaxser.types import ABSENT, AnyArray, Batch, Dataset, Normalisation


class Sequences(NamedTuple):
    """The device counterpart of `Ragged`.

    Row n is `values[offset[n] : offset[n] + length[n]]`.
    """

    values: Shaped[AnyArray, "total ..."]
    offset: Int[AnyArray, " N"]
    length: Int[AnyArray, " N"]


class DeviceData(NamedTuple):
    """A dataset in device memory, shared by all replicas.

    Attributes:
        label: the class of each utterance.
        arrays: the arrays that the model reads.
        embeddings: word vectors `[V, E]`; None if the model reads no words.
        encoder: parameters of the pretrained encoder; None if the model reads no waveforms.
        target: the attributes to predict; None if the label is predicted.
    """

    label: Int[AnyArray, " N"]
    arrays: Mapping[str, Sequences]
    embeddings: Any
    encoder: Any = None
    target: Any = None


def on_host(dataset: Dataset, needs: tuple[str, ...], normalise: str = "train") -> DeviceData:
    """Collect what a model reads as numpy arrays, ready for `jax.device_put`.

    Args:
        dataset: the dataset.
        needs: the arrays that the model reads.
        normalise: one of `NORMALISATIONS`. With "utterance" the arrays are normalised here; statistics of training
            parts are applied by `gather`.
    """
    arrays = {}
    for name in needs:
        ragged = dataset.arrays[name]
        is_normalised_here = normalise == "utterance" and is_standardised(name, ragged.values.dtype)
        values = normalised_by_utterance(ragged) if is_normalised_here else ragged.values
        arrays[name] = Sequences(values, ragged.offset, ragged.length.astype(np.int32))
    embeddings = dataset.embeddings if "words" in needs else None
    encoder = jax.tree.map(np.asarray, dataset.encoder.params) if "waveform" in needs else None
    return DeviceData(dataset.label.astype(np.int32), arrays, embeddings, encoder, dataset.target)


def gather(
    data: DeviceData,
    index: Int[AnyArray, " B"],
    weight: Float[AnyArray, " B"],
    widths: Widths,
    normalisation: Mapping[str, Normalisation],
    *,
    pads_first: bool = False,
) -> Batch:
    """Gather the rows of a batch, normalised and padded to the widths of their bucket.

    Args:
        data: the dataset.
        index: the rows.
        weight: 1, or 0 for a padding row, which is masked as a whole.
        widths: the padded length of each array.
        normalisation: the statistics of each array that is normalised.
        pads_first: whether arrays are padded before they are normalised.
    """
    fields: dict[str, Array] = {}
    for name, width in widths.items():
        values, offset, length = data.arrays[name]
        position = jnp.arange(width)
        mask = (position < length[index][:, None]) & (weight[:, None] > 0)
        x = values[jnp.where(mask, offset[index][:, None] + position, 0)]
        x = normalised(x, mask, normalisation.get(name), pads_first=pads_first)
        fields |= {name: x, f"{name}_mask": mask}
    return Batch(
        label=data.label[index],
        weight=weight,
        embeddings=data.embeddings,
        encoder=data.encoder,
        target=ABSENT if data.target is None else data.target[index],
        **fields,
    )
