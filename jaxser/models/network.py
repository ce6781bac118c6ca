"""The base class of the networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxser.models.losses import cross_entropy
from jaxser.types import Batch, Hyper, Output

Weight = float | Float[Array, ""]
"""The weight of a head."""


class Network(nn.Module):
    """A network: its fields, the arrays it reads, a forward pass and a loss.

    Fields are plain values, which a config sets by name; the network never sees the config itself.
    """

    num_classes: int

    hyper: ClassVar[tuple[str, ...]] = ("dropout_rate",)
    """The names of the traced scalars that the network reads, such as `dropout_rate`; a sweep can vary them."""

    optional_hyper: ClassVar[tuple[str, ...]] = ()
    """The scalars that the network reads only if they are present, such as `stochastic_depth_rate`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads, by their names in `Batch`."""
        raise NotImplementedError

    @property
    def lengths(self) -> Mapping[str, int]:
        """The padded lengths that the network requires, by array; empty if it accepts any length.

        A network that treats time as channels has fixed lengths.
        """
        return {}

    @property
    def pads_first(self) -> bool:
        """Whether features are zero-padded before they are normalised.

        Otherwise, padding is zero after normalisation.
        """
        return False

    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch.

        In training, random numbers come from the stream `dropout`.

        Raises:
            FieldError: if a field has an unsupported value.
        """
        raise NotImplementedError

    def loss(
        self, output: Output, batch: Batch, class_weights: Float[Array, " C"], params: PyTree, hyper: Hyper
    ) -> Float[Array, ""]:
        """Return the training loss for classes; padding rows are left out."""
        return cross_entropy(output, batch, class_weights, hyper)

    def heads(self, output: Output, hyper: Hyper) -> tuple[tuple[Weight, Float[Array, "B C"]], ...]:
        """Return the heads that predict other targets than classes, with their weights.

        The weight is that in the loss and in the prediction, which is the weighted mean.
        """
        [scores] = output.logits.values()
        return ((1.0, scores),)

    def penalty(self, params: PyTree, hyper: Hyper) -> Float[Array, ""]:
        """Return the part of the loss that depends on the parameters alone."""
        return jnp.zeros(())


class Wrapper(Network):
    """A network in front of another one.

    It reads and regularises what the other one does, unless it says otherwise.

    Attributes:
        network: the other network, whose parameters are `params["network"]`.
    """

    network: Network

    @property
    def hyper(self) -> tuple[str, ...]:  # type: ignore[override]
        """The hyper-parameters that the network reads."""
        return self.network.hyper

    @property
    def optional_hyper(self) -> tuple[str, ...]:  # type: ignore[override]
        """The scalars that the network reads only if they are present."""
        return self.network.optional_hyper

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that the network reads."""
        return self.network.needs

    @property
    def lengths(self) -> Mapping[str, int]:
        """The padded lengths that the network requires."""
        return self.network.lengths

    @property
    def pads_first(self) -> bool:
        """Whether features are zero-padded before they are normalised."""
        return self.network.pads_first

    def loss(
        self, output: Output, batch: Batch, class_weights: Float[Array, " C"], params: PyTree, hyper: Hyper
    ) -> Float[Array, ""]:
        """Return the loss of the network, which leaves the wrapper's own parameters out."""
        return self.network.loss(output, batch, class_weights, params["network"], hyper)

    def heads(self, output: Output, hyper: Hyper) -> tuple[tuple[Weight, Float[Array, "B C"]], ...]:
        """Return the heads of the network."""
        return self.network.heads(output, hyper)

    def penalty(self, params: PyTree, hyper: Hyper) -> Float[Array, ""]:
        """Return the penalty of the network, which leaves the wrapper's own parameters out."""
        return self.network.penalty(params["network"], hyper)
