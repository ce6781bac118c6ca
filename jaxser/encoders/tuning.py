"""Fine-tuning of an encoder: what is trained beside the pretrained parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from jaxser.types import FieldError

TARGETS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "query": (("attention", "query"),),
    "key": (("attention", "key"),),
    "value": (("attention", "value"),),
    "output": (("attention", "out"),),
    "feed_forward": (("feed_forward", "in"), ("feed_forward", "out")),
}
"""The linear layers of a transformer layer that LoRA can change."""

_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +-1 / sqrt(inputs)


@dataclass(frozen=True)
class Tuning:
    """Which parameters of an encoder are trained.

    With LoRA (Hu et al. 2022), the output of a linear layer becomes `x W + (alpha / rank) x A B`, and only A and B are
    trained. B starts at zero, so that training begins with the pretrained encoder.

    Attributes:
        train: "none", "lora", "top:N" (the highest N of the layers that are computed) or "all".
        rank: the columns of A and rows of B.
        alpha: scales what LoRA adds.
        targets: the layers that LoRA changes, of `TARGETS`.
    """

    train: str = "none"
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "value")

    def __str__(self) -> str:
        if self.train == "lora":
            targets = ", ".join(self.targets).replace("_", " ")
            return f"LoRA of rank {self.rank} and alpha {self.alpha:g} on {targets}"
        if self._top:
            return (
                "the highest layer trained" if self._top == 1 else f"the highest {self._top} layers trained"
            )
        return "frozen" if self.train == "none" else "all parameters trained"

    def check(self, depth: int) -> None:
        """Check the fields for an encoder of which `depth` transformer layers are computed.

        Raises:
            FieldError: if one has an unsupported value.
        """
        if not re.fullmatch(r"none|lora|all|top:[1-9]\d*", self.train):
            raise FieldError(f"train={self.train!r} is not one of none, lora, top:N, all")
        if self._top > depth:
            raise FieldError(f"train={self.train!r}: only {depth} layers of the encoder are computed")
        if self.train == "lora":
            if self.rank < 1:
                raise FieldError(f"lora_rank={self.rank} must be at least 1")
            if not self.targets or not set(self.targets) <= TARGETS.keys():
                raise FieldError(
                    f"lora_targets={','.join(self.targets)!r} must be some of {', '.join(TARGETS)}"
                )
            if depth == 0:
                raise FieldError("train='lora': no layer of the encoder is computed")

    def init(self, key: PRNGKeyArray, base: PyTree, depth: int) -> PyTree:
        """Return the parameters that are trained, before training.

        Args:
            key: seeds the factors of LoRA.
            base: the pretrained parameters.
            depth: the number of transformer layers that are computed.
        """
        if self.train == "lora":
            return self._factors(key, base, depth)
        layers = {f"layer_{index}" for index in range(depth)}
        if self.train == "all":
            unused = {name for name in base if name.startswith("layer_")} - layers
            if f"layer_{depth}" in base:
                unused.add("norm")  # of the last layer of all
            return {name: own for name, own in base.items() if name not in unused}
        return {f"layer_{index}": base[f"layer_{index}"] for index in range(depth - self._top, depth)}

    def merged(self, base: PyTree, trained: PyTree) -> PyTree:
        """Return all parameters of the encoder; those of LoRA are applied within `adapted`."""
        return base if self.train in ("none", "lora") else {**base, **trained}

    def adapted(self, trained: PyTree) -> AbstractContextManager[None]:
        """Return a context in which the encoder's linear layers add what LoRA has learned.

        The pretrained weights are not copied, so replicas that are mapped over their factors share them.
        """
        if self.train != "lora":
            return nullcontext()
        factors = flax.traverse_util.flatten_dict(trained)

        def add(next_method: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            output = next_method(*args, **kwargs)
            if not isinstance(context.module, nn.Dense) or (*context.module.path, "a") not in factors:
                return output
            a, b = (factors[*context.module.path, name].astype(output.dtype) for name in ("a", "b"))
            scale = jnp.asarray(self.alpha / self.rank, output.dtype)
            return output + scale * (args[0].astype(output.dtype) @ a @ b)

        return nn.intercept_methods(add)

    @property
    def _top(self) -> int:
        return int(self.train.partition(":")[2] or 0)

    def _factors(self, key: PRNGKeyArray, base: PyTree, depth: int) -> PyTree:
        paths = [
            (f"layer_{index}", *path)
            for index in range(depth)
            for target in self.targets
            for path in TARGETS[target]
        ]
        flat = {}
        for path, own in zip(paths, jax.random.split(key, len(paths)), strict=True):
            layer, part, name = path
            inputs, outputs = base[layer][part][name]["kernel"].shape
            flat[*path, "a"] = _UNIFORM(own, (inputs, self.rank), jnp.float32)
            flat[*path, "b"] = jnp.zeros((self.rank, outputs), jnp.float32)
        return flax.traverse_util.unflatten_dict(flat)
