"""The pretrained encoder of a run: the typed form of `encoder` in results.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import msgspec

from jaxser.encoders.tuning import Tuning
from jaxser.evaluation.records import typed
from jaxser.features.audio import SAMPLE_RATE

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Layers = Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(min_length=1)]

_DIGITS = 16


@dataclass(frozen=True)
class PretrainedEncoder:
    """The encoder whose frames a run reads, and what was trained of it.

    Attributes:
        family: the `model_type` of its config.json.
        digest: SHA-256 of its tensors.
        padding: "exact" or "as_published".
        layers: the hidden states that the network reads; 0 is the input of the first transformer layer.
        layers_mean: whether the network reads their mean.
        hop_samples: samples at 16 kHz per frame; None if the run does not say, like the three sizes that follow.
        width: features of a hidden state.
        num_layers: transformer layers.
        parameters: the number of its parameters.
        tuning: what was trained of it.
    """

    family: str
    digest: str
    padding: str
    layers: tuple[int, ...]
    layers_mean: bool = False
    hop_samples: int | None = None
    width: int | None = None
    num_layers: int | None = None
    parameters: int | None = None
    tuning: Tuning = field(default_factory=Tuning)

    def __str__(self) -> str:
        """Return one sentence without a full stop."""
        parts = [self.family]
        if self.parameters is not None:
            parts.append(f"{self.parameters / 1e6:.1f} M parameters")
        if self.num_layers is not None:
            parts.append(f"{self.num_layers} layers")
        if self.width is not None:
            parts.append(f"{self.width} features")
        if self.hop_samples is not None:
            parts.append(f"one frame every {1000 * self.hop_samples / SAMPLE_RATE:g} ms")
        padding = self.padding.replace("_", " ")
        parts += [self._states, f"padding {padding}", str(self.tuning), f"SHA-256 {self.digest[:_DIGITS]}"]
        return ", ".join(parts)

    @property
    def _states(self) -> str:
        numbers = ", ".join(map(str, self.layers))
        if len(self.layers) == 1:
            return f"hidden state {numbers}"
        return f"{'mean' if self.layers_mean else 'learned weights'} of hidden states ({numbers})"

    def to_json(self) -> dict[str, Any]:
        """Return the encoder as in results.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PretrainedEncoder:
        """Read the encoder as in results.json, or as a dataset or a network describes it."""
        return cls(
            family=typed(value, "family", str),
            digest=typed(value, "digest", str),
            padding=typed(value, "padding", str),
            layers=typed(value, "layers", _Layers),
            layers_mean=typed(value, "layers_mean", bool),
            hop_samples=typed(value, "hop_samples", _Count | None, None),
            width=typed(value, "width", _Count | None, None),
            num_layers=typed(value, "num_layers", _Count | None, None),
            parameters=typed(value, "parameters", _Count | None, None),
            tuning=typed(value, "tuning", Tuning, Tuning()),
        )
