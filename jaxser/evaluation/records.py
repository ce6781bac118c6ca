"""Records of a run: config.json, and the lines of utterances.jsonl and metrics.jsonl.

Each record knows the keys of its file. An undefined number is None in Python and null in JSON. Reading raises a
`KeyError` for a missing key, and a `TypeError` or `ValueError` for a value of another type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import msgspec

from jaxser.evaluation import metrics
from jaxser.types import Utterance

Number = float | None

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number of things; floats hold these exactly."""

_CONFIG_TEXTS = ("paper", "dataset", "corpus", "variant", "subset")


def typed(value: Any, name: str, kind: Any, *default: Any) -> Any:
    """Return a value of a JSON object after checking its type.

    Args:
        value: the object.
        name: the key.
        kind: the type, such as `int` or `Mapping[str, float]`; numbers are finite, and are not converted.
        *default: the value if the key is missing; without it, the key is needed.

    Raises:
        KeyError: if the key is missing.
        TypeError: if the object is not one, or the value has another type.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name!r} was expected in an object, not in {type(value).__name__}")
    if default and name not in value:
        return default[0]
    try:
        return msgspec.convert(value[name], kind)
    except msgspec.ValidationError as error:
        raise TypeError(f"{name!r}: {error}") from None


@dataclass(frozen=True)
class RunConfig:
    """The contents of config.json: the config of a run, its dataset and its command.

    Attributes:
        fields: the resolved config, as nested mappings.
        dataset: a digest of the prepared dataset; "" for imported predictions.
        command: the command that started the run; "" if it was not started by a command.
        imported: the name of the file that the predictions were imported from; "" for a run of jaxser.
    """

    fields: Mapping[str, Any]
    dataset: str = ""
    command: str = ""
    imported: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the contents of config.json."""
        if self.imported:
            return {"imported": self.imported, "config": self.fields}
        return {"config": self.fields, "dataset": self.dataset, "command": self.command}

    @classmethod
    def from_json(cls, value: Any) -> RunConfig:
        """Read the contents of config.json."""
        fields = typed(value, "config", dict[str, Any], value)
        for name in _CONFIG_TEXTS:
            typed(fields, name, str, "")
        if "imported" not in value:
            typed(fields, "dataset", str)
        return cls(
            fields=dict(fields),
            dataset=typed(value, "dataset", str, ""),
            command=typed(value, "command", str, ""),
            imported=typed(value, "imported", str, ""),
        )


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one replica: a line of metrics.jsonl.

    Attributes:
        epoch: counted from 0.
        validation_loss: None if the protocol has no validation part, like the scores in `validation`.
        validation: `wa`, `ua` and `f1_weighted` on the validation part, or the scores of another target.
        train_score: the headline score of the training steps, each before its update, with dropout and augmentation.
        headline: the name of that score.
        status: a `Status.label`.
        wave: the number that the replicas trained together share.
        seconds: the wall time of the wave's epoch.
        valid_frame_fraction: of the frames that were computed, those that were not padding.
    """

    epoch: int
    fold: str
    seed: int
    setting: str
    train_loss: float | None
    validation_loss: float | None
    validation: Mapping[str, float | None]
    learning_rate: float | None
    status: str
    wave: int = 0
    seconds: float | None = None
    valid_frame_fraction: float | None = None
    train_score: float | None = None
    headline: str = "ua"

    @property
    def replica(self) -> tuple[str, int, str]:
        """The fold, seed and setting of the replica."""
        return self.fold, self.seed, self.setting

    @property
    def gap(self) -> float | None:
        """How much better the headline score of training steps is than that of validation."""
        score, gain = self.validation_score, metrics.describe(self.headline).gain
        return None if score is None or self.train_score is None else gain(self.train_score) - gain(score)

    @property
    def validation_score(self) -> float | None:
        """The headline score on the validation part; None if it is undefined."""
        return self.validation.get(self.headline)

    def to_json(self) -> dict[str, Any]:
        """Return a line of metrics.jsonl."""
        return {
            "epoch": self.epoch,
            "fold": self.fold,
            "seed": self.seed,
            "setting": self.setting,
            "train_loss": self.train_loss,
            f"train_{self.headline}": self.train_score,
            "validation": {"loss": self.validation_loss, **self.validation},
            "learning_rate": self.learning_rate,
            "status": self.status,
            "wave": self.wave,
            "seconds": self.seconds,
            "valid_frame_fraction": self.valid_frame_fraction,
        }

    @classmethod
    def from_json(cls, value: Any) -> EpochRecord:
        """Read a line of this version or an earlier one.

        Earlier versions called the fraction of valid frames `real_share`.
        """
        validation = dict(typed(value, "validation", Mapping[str, Number] | None) or {})
        headline = next((name for name in ("ccc", "js") if f"train_{name}" in value), "ua")
        return cls(
            epoch=typed(value, "epoch", int),
            fold=typed(value, "fold", str),
            seed=typed(value, "seed", int),
            setting=typed(value, "setting", str),
            train_loss=typed(value, "train_loss", Number),
            validation_loss=validation.pop("loss", None),
            validation={headline: None, **validation},
            learning_rate=typed(value, "learning_rate", Number),
            status=typed(value, "status", str),
            wave=typed(value, "wave", int, 0),
            seconds=typed(value, "seconds", Number, None),
            valid_frame_fraction=typed(
                value, "valid_frame_fraction", Number, typed(value, "real_share", Number, None)
            ),
            train_score=typed(value, f"train_{headline}", Number, None),
            headline=headline,
        )


@dataclass(frozen=True)
class _UtteranceLine:
    """The keys of a line of utterances.jsonl."""

    id: str
    label: str
    duration: Number
    speaker: str
    gender: Literal["F", "M", ""]
    session: str
    dialogue: str
    split: str
    transcript: str
    flags: tuple[str, ...]
    sha256: str


_UTTERANCE_FIELDS = tuple(field.name for field in fields(_UtteranceLine))


def utterance_to_json(utterance: Utterance) -> dict[str, Any]:
    """Return a line of utterances.jsonl; the path of the recording is not in it."""
    value = {name: getattr(utterance, name) for name in _UTTERANCE_FIELDS}
    seconds = value["duration"]
    value["duration"] = None if seconds is None or not math.isfinite(seconds) else round(float(seconds), 3)
    return value


def utterance_from_json(value: Any) -> Utterance:
    """Read a line of utterances.jsonl; `wav` is empty."""
    if isinstance(value, Mapping) and (missing := [name for name in _UTTERANCE_FIELDS if name not in value]):
        raise KeyError(missing[0])
    line = msgspec.convert(value, _UtteranceLine)
    return Utterance(wav="", **{name: getattr(line, name) for name in _UTTERANCE_FIELDS})
