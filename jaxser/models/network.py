"""What every network is: fields, the arrays it reads, a forward pass, a loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float, PyTree

from jaxser.models.losses import cross_entropy
from jaxser.types import Batch, Hyper, Output


class Network(nn.Module):
    """A network of plain fields, which never sees a config."""

    num_classes: int

    hyper: ClassVar[tuple[str, ...]] = ("dropout_rate",)
    """The traced scalars that it reads."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The recipe's arrays that it reads, by their names in `Batch`."""
        raise NotImplementedError

    @property
    def lengths(self) -> Mapping[str, int]:
        """The padded length of each array where the network fixes it (time as channels); empty: any length."""
        return {}

    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """The class probabilities of a batch. In training, random numbers come by the stream `dropout`."""
        raise NotImplementedError

    def loss(
        self, output: Output, batch: Batch, class_weights: Float[Array, " C"], params: PyTree, hyper: Hyper
    ) -> Float[Array, ""]:
        """What training makes small; fillers do not count."""
        return cross_entropy(output, batch, class_weights)
