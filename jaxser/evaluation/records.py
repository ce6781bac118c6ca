"""Records of a run's folder: the contents of config.json, and the lines of utterances.jsonl and metrics.jsonl.

Each record knows the keys of its file. An undefined number is None in Python and null in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxser.types import Utterance


@dataclass(frozen=True)
class RunConfig:
    """What a run was asked to do: the contents of config.json.

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
        return cls(
            fields=dict(value.get("config", value)),
            dataset=str(value.get("dataset", "")),
            command=str(value.get("command", "")),
            imported=str(value.get("imported", "")),
        )


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one replica: a line of metrics.jsonl.

    Attributes:
        epoch: counted from 0.
        validation_loss: None if the protocol has no validation part, like the scores in `validation`.
        validation: `wa`, `ua` and `f1_weighted` on the validation part.
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

    @property
    def replica(self) -> tuple[str, int, str]:
        """The fold, seed and setting of the replica."""
        return self.fold, self.seed, self.setting

    def to_json(self) -> dict[str, Any]:
        """Return a line of metrics.jsonl."""
        return {
            "epoch": self.epoch,
            "fold": self.fold,
            "seed": self.seed,
            "setting": self.setting,
            "train_loss": self.train_loss,
            "validation": {"loss": self.validation_loss, **self.validation},
            "learning_rate": self.learning_rate,
            "status": self.status,
            "wave": self.wave,
            "seconds": self.seconds,
            "valid_frame_fraction": self.valid_frame_fraction,
        }

    @classmethod
    def from_json(cls, value: Any) -> EpochRecord:
        """Read a line of this version, or of an earlier one, which called the fraction of valid frames `real_share`."""
        validation = dict(value["validation"] or {})
        return cls(
            epoch=int(value["epoch"]),
            fold=str(value["fold"]),
            seed=int(value["seed"]),
            setting=str(value["setting"]),
            train_loss=value["train_loss"],
            validation_loss=validation.pop("loss", None),
            validation=validation,
            learning_rate=value["learning_rate"],
            status=str(value["status"]),
            wave=int(value.get("wave", 0)),
            seconds=value.get("seconds"),
            valid_frame_fraction=value.get("valid_frame_fraction", value.get("real_share")),
        )


_UTTERANCE_FIELDS = ("speaker", "gender", "session", "dialogue", "split", "transcript", "flags", "sha256")


def utterance_to_json(utterance: Utterance) -> dict[str, Any]:
    """A line of utterances.jsonl; the path of the recording is not in it."""
    seconds = None if utterance.duration is None else round(utterance.duration, 3)
    fields = {name: getattr(utterance, name) for name in _UTTERANCE_FIELDS}
    return {"id": utterance.id, "label": utterance.label, "duration": seconds, **fields}


def utterance_from_json(value: Any) -> Utterance:
    """Read a line of utterances.jsonl; `wav` is empty."""
    fields = {name: value[name] for name in _UTTERANCE_FIELDS}
    fields["flags"] = tuple(fields["flags"])
    return Utterance(id=value["id"], wav="", label=value["label"], duration=value["duration"], **fields)
