"""Learned weights of an encoder's layers (SUPERB, Yang et al. 2021, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxser.models.network import Network, Wrapper
from jaxser.types import Batch, Hyper, Output


def with_layer_weights(network: Network, parameters: Mapping[str, Any]) -> Network:
    """Put learned weights before a network if the frames of its recipe have several layers.

    Args:
        network: the network.
        parameters: the parameters of the recipe, as in the manifest of a dataset.
    """
    described = parameters.get("encoder", {})
    num_layers = 1 if described.get("layers_mean", True) else len(described["layers"])
    return LayerMix(network.num_classes, network, num_layers) if num_layers > 1 else network


class LayerMix(Wrapper):
    """A network that reads the weighted sum of the layers of an encoder.

    The frames have the layers' features one after another. The weights are a softmax of parameters that start at 0.

    Attributes:
        network: the network behind the weights.
        num_layers: the number of layers.
    """

    num_layers: int

    @nn.compact
    def __call__(self, batch: Batch, hyper: Hyper, *, train: bool) -> Output:
        """Compute the class probabilities of a batch."""
        weights = jax.nn.softmax(self.param("layer_weights", nn.initializers.zeros, (self.num_layers,)))
        mixed = {
            name: self._mixed(getattr(batch, name), weights)
            for name in ("audio", "segments")
            if name in self.needs
        }
        return self.network(batch._replace(**mixed), hyper, train=train)

    def _mixed(self, x: Float[Array, "B T LD"], weights: Float[Array, " L"]) -> Float[Array, "B T D"]:
        layers = x.reshape(*x.shape[:2], self.num_layers, -1)
        return jnp.einsum("btld,l->btd", layers, weights.astype(x.dtype))
