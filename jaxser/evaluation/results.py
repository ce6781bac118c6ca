"""The results of a run: the typed form of results.json.

No other module knows its keys. Scores are fractions in [0, 1]. An undefined score (the recall of an absent class, the
scores of a replica whose loss was not finite) is None in Python and null in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, SupportsFloat, TypeVar

import msgspec
import numpy as np

from jaxser.evaluation.metrics import describe
from jaxser.evaluation.pretrained import PretrainedEncoder
from jaxser.evaluation.records import Count, typed
from jaxser.evaluation.scores import Moments, Scores, moments
from jaxser.evaluation.targets import CLASSES, Target
from jaxser.evaluation.targets import from_json as target_from_json
from jaxser.types import InputError, Status

Value = TypeVar("Value")

_STATUSES = tuple(status.final_label for status in Status)


@dataclass(frozen=True)
class ReplicaResult:
    """The scores of one replica: one fold, seed and setting.

    Attributes:
        setting: the swept scalars, as `setting_name` writes them; "" if nothing is swept.
        best_epoch: the selected epoch, counted from 0; None if the loss was not finite before one ended.
        validation: None if the protocol has no validation part, or there is no selected epoch.
        test: None if there is no selected epoch.
        validation_loss: the mean of -log p(label) on the validation part, or the loss of another target; None like
            `validation`.
        by_corpus: the scores on the test utterances of each corpus; empty unless datasets were merged.
    """

    fold: str
    seed: int
    status: str  # a `Status.final_label`
    setting: str = ""
    best_epoch: int | None = None
    validation: Scores | None = None
    test: Scores | None = None
    validation_loss: float | None = None
    by_corpus: Mapping[str, Scores] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Fold, seed and setting, for display."""
        return " ".join(filter(None, (f"fold {self.fold} seed {self.seed}", self.setting)))

    @property
    def is_finite(self) -> bool:
        """Whether its loss stayed finite."""
        return self.status != Status.NOT_FINITE.final_label

    def to_json(self) -> dict[str, Any]:
        """Return the replica as in results.json."""
        return {
            "fold": self.fold,
            "seed": self.seed,
            "setting": self.setting,
            "best_epoch": self.best_epoch,
            "status": self.status,
            "validation": None if self.validation is None else self.validation.to_json(),
            "validation_loss": self.validation_loss,
            "test": None if self.test is None else self.test.to_json(),
            **(
                {"by_corpus": {name: one.to_json() for name, one in self.by_corpus.items()}}
                if self.by_corpus
                else {}
            ),
        }

    @classmethod
    def from_json(cls, value: Any, target: Target) -> ReplicaResult:
        """Read the replica as in results.json."""

        def scores(part: Any) -> Scores:
            return Scores.from_json(part, target)

        return cls(
            fold=typed(value, "fold", str),
            seed=typed(value, "seed", int),
            status=typed(value, "status", Literal[_STATUSES]),
            setting=typed(value, "setting", str),
            best_epoch=typed(value, "best_epoch", int | None),
            validation=_optional(scores, typed(value, "validation", Any)),
            test=_optional(scores, typed(value, "test", Any)),
            validation_loss=typed(value, "validation_loss", float | None, None),
            by_corpus={
                name: scores(own) for name, own in typed(value, "by_corpus", Mapping[str, Any], {}).items()
            },
        )


@dataclass(frozen=True)
class Summary:
    """Mean and spread of the test scores of one setting, over its folds and seeds.

    Seeds are averaged within a fold, and `mean` is over the folds. Standard deviations divide by n - 1 and are None for
    n = 1.

    Attributes:
        runs: replicas with a score; `left_out` counts those without one.
        std: over folds, or over seeds if there is one fold; `std_over` says which.
        std_over_folds: seeds averaged within a fold.
        std_over_seeds: folds averaged within a seed.
        std_over_runs: every replica by itself.
        recall_mean: mean recall of each class, over folds.
        validation: mean validation scores.
        validation_loss: mean validation loss.
        pooled: scores of the test confusions of all folds added up, averaged over seeds; None if no seed has all folds.
    """

    runs: int
    folds: int
    seeds: int
    left_out: int
    mean: Moments
    std: Moments
    std_over: str
    std_over_folds: Moments
    std_over_seeds: Moments
    std_over_runs: Moments
    recall_mean: Moments
    recall_std_over_folds: Moments
    validation: Moments
    pooled: Moments | None
    validation_loss: float | None = None

    def validation_score(self, metric: str) -> float | None:
        """Return the value that selects epochs and settings; None if undefined.

        It is a score, such as "ua", or minus the loss or another error.
        """
        if metric == "loss":
            return None if self.validation_loss is None else -self.validation_loss
        scores = {name: self.validation.get(name) for name in metric.split("_plus_")}
        if None in scores.values():
            return None
        gains = (describe(name).gain(score) for name, score in scores.items() if score is not None)
        return float(sum(gains))

    def to_json(self) -> dict[str, Any]:
        """Return the summary as in results.json."""
        return {
            "runs": self.runs,
            "folds": self.folds,
            "seeds": self.seeds,
            "left_out": self.left_out,
            "mean": self.mean,
            "std": self.std,
            "std_over": self.std_over,
            "std_over_folds": self.std_over_folds,
            "std_over_seeds": self.std_over_seeds,
            "std_over_runs": self.std_over_runs,
            "recall": {"mean": self.recall_mean, "std_over_folds": self.recall_std_over_folds},
            "validation": self.validation,
            "validation_loss": self.validation_loss,
            "pooled": self.pooled,
        }

    @classmethod
    def from_json(cls, value: Any, target: Target) -> Summary:
        """Read the summary as in results.json."""

        def scores(one: Any) -> dict[str, float | None]:
            return moments(one, target)

        recall = typed(value, "recall", Mapping[str, Moments])
        return cls(
            runs=typed(value, "runs", Count),
            folds=typed(value, "folds", Count),
            seeds=typed(value, "seeds", Count),
            left_out=typed(value, "left_out", Count),
            mean=scores(typed(value, "mean", Moments)),
            std=scores(typed(value, "std", Moments)),
            std_over=typed(value, "std_over", str),
            std_over_folds=scores(typed(value, "std_over_folds", Moments)),
            std_over_seeds=scores(typed(value, "std_over_seeds", Moments)),
            std_over_runs=scores(typed(value, "std_over_runs", Moments)),
            validation=scores(typed(value, "validation", Moments)),
            recall_mean=recall["mean"],
            recall_std_over_folds=recall["std_over_folds"],
            pooled=_optional(scores, typed(value, "pooled", Moments | None)),
            validation_loss=typed(value, "validation_loss", float | None, None),
        )


@dataclass(frozen=True)
class RunResults:
    """Everything in results.json.

    Attributes:
        synthetic: whether the corpus is synthetic, so that the scores are demo numbers.
        protocol: the config's protocol, with `metric` (what selects the epoch) and `note`.
        epochs: the most that a replica trains.
        replicas: every fold, seed and setting.
        setting: the reported setting, which has the best validation score; "" if nothing is swept.
        chosen_by: what the setting was chosen by, such as "validation ua".
        summaries: the summary of each setting, by its name.
        settings: the swept scalars of each setting, by its name.
        warnings: what a reader must know before the scores, one sentence each.
        reads: the arrays that the model reads, such as "audio" and "words".
        best_possible: for the demo corpus, the best possible scores by what a model may read.
        environment: versions, platform and devices.
        training: the name of the training settings (`config.training`), a colon, and what they are.
        described_target: the target as `Target.to_json` describes it; empty for classes.
        encoder: the pretrained encoder whose frames the model reads; None if there is none, or an earlier version of
            jaxser did not record it.
    """

    model: str
    variant: str
    dataset: str
    protocol: Mapping[str, Any]
    classes: tuple[str, ...]
    epochs: int
    replicas: tuple[ReplicaResult, ...]
    setting: str = ""
    chosen_by: str = ""
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    synthetic: bool = False
    settings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    best_possible: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    training: str = ""
    encoder: PretrainedEncoder | None = None
    described_target: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def target(self) -> Target:
        """What the network predicts."""
        return target_from_json(self.described_target, self.classes)

    @property
    def summary(self) -> Summary:
        """The summary of the reported setting."""
        return self.summaries[self.setting]

    @property
    def is_sweep(self) -> bool:
        """Whether several settings were trained."""
        return len(self.summaries) > 1

    @property
    def reported(self) -> tuple[ReplicaResult, ...]:
        """The replicas of the reported setting."""
        return tuple(replica for replica in self.replicas if replica.setting == self.setting)

    @property
    def by_corpus(self) -> Mapping[str, Moments]:
        """The mean test scores of each corpus over the reported replicas that test it.

        They are empty for a single dataset.
        """
        found: dict[str, list[Scores]] = {}
        for replica in self.reported:
            for name, scores in replica.by_corpus.items():
                found.setdefault(name, []).append(scores)
        return {
            name: {metric: _mean([one[metric] for one in own]) for metric in self.target.score_names}
            for name, own in found.items()
        }

    @property
    def observer(self) -> str:
        """The key in `best_possible` to compare with a model that has these `reads`.

        It is "" if there is none.
        """
        hears = bool({"audio", "segments", "waveform"} & set(self.reads))
        has_words = "words" in self.reads
        if "video" in self.reads or not (hears or has_words):
            return ""
        return "joint" if hears and has_words else "audio" if hears else "text"

    def to_json(self) -> dict[str, Any]:
        """Return the contents of results.json."""
        return {
            "model": self.model,
            "variant": self.variant,
            "dataset": self.dataset,
            "synthetic": self.synthetic,
            "protocol": dict(self.protocol),
            "classes": list(self.classes),
            "epochs": self.epochs,
            "settings": self.settings,
            "summary": {"setting": self.setting, "chosen_by": self.chosen_by, **self.summary.to_json()},
            "summaries": {name: one.to_json() for name, one in self.summaries.items()}
            if self.is_sweep
            else {},
            "warnings": list(self.warnings),
            "reads": list(self.reads),
            "best_possible": self.best_possible,
            "environment": dict(self.environment),
            "training": self.training,
            **({"target": dict(self.described_target)} if self.described_target else {}),
            "encoder": None if self.encoder is None else self.encoder.to_json(),
            "replicas": [replica.to_json() for replica in self.replicas],
        }

    @classmethod
    def from_json(cls, value: Any) -> RunResults:
        """Read the contents of results.json, of this version or an earlier one.

        Raises:
            InputError: if a key is missing or a value has another type than expected.
        """
        try:
            return cls._from_json(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"not the results of a run: {reason}") from None

    @classmethod
    def _from_json(cls, value: Any) -> RunResults:
        summary = typed(value, "summary", dict[str, Any])
        classes = typed(value, "classes", tuple[str, ...])
        described = typed(value, "target", Mapping[str, Any], {})
        target = target_from_json(described, classes)
        setting = typed(summary, "setting", str)
        summaries = typed(value, "summaries", dict[str, Any]) or {setting: summary}
        results = cls(
            model=typed(value, "model", str),
            variant=typed(value, "variant", str),
            dataset=typed(value, "dataset", str),
            protocol=typed(value, "protocol", dict[str, Any]),
            classes=classes,
            epochs=typed(value, "epochs", Count),
            replicas=tuple(
                ReplicaResult.from_json(one, target) for one in typed(value, "replicas", list[Any])
            ),
            setting=setting,
            chosen_by=typed(summary, "chosen_by", str),
            summaries={name: Summary.from_json(one, target) for name, one in summaries.items()},
            synthetic=typed(value, "synthetic", bool, False),
            settings=typed(value, "settings", Mapping[str, Mapping[str, float]] | None, None) or {},
            warnings=typed(value, "warnings", tuple[str, ...], ()),
            reads=typed(value, "reads", tuple[str, ...], ()),
            best_possible=_best_possible(
                typed(value, "best_possible", Mapping[str, Any] | None, None), target
            ),
            environment=_environment(typed(value, "environment", Mapping[str, Any] | None, None) or {}),
            training=typed(value, "training", str, ""),
            described_target=described,
            encoder=_optional(PretrainedEncoder.from_json, typed(value, "encoder", Any, None)),
        )
        if contradiction := results._contradiction():
            raise ValueError(contradiction)
        return results

    def _contradiction(self) -> str:
        """Return what is impossible in the results, or an empty string."""
        size = len(self.classes)
        if (not size and self.target.kind == CLASSES) or len(set(self.classes)) < size:
            return "its classes are not different names"
        if self.setting not in self.summaries:
            return f"it has no summary of the setting {self.setting!r}"
        names = [(one.fold, one.seed, one.setting) for one in self.replicas]
        if len(set(names)) < len(names) or not self.reported:
            return "its replicas are not those of a run"
        for one in self.replicas:
            for scores in filter(None, (one.validation, one.test)):
                rows, columns = self.target.shape
                shape = [len(row) for row in scores.sums or scores.confusion]
                named = list(scores.recall) == list(self.classes) or scores.sums
                if shape != [columns] * rows or not named:
                    return f"the scores of {one.name} are not of the {rows} {self.target.kind}"
        best = self.best_possible or {}
        for name in _OBSERVERS:
            for metric in self.target.bounded if name in best else ():
                typed(best[name], metric, float)
        return ""


def setting_name(scalars: Mapping[str, SupportsFloat]) -> str:
    """Return the name of a point of swept scalars; "" if there are none.

    An example is "dropout_rate=0.3 learning_rate=0.001".
    """
    return " ".join(f"{name}={float(value):.6g}" for name, value in sorted(scalars.items()))


def _optional(read: Callable[[Any], Value], value: Any) -> Value | None:
    return None if value is None else read(value)


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the defined values."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Score = Annotated[float, msgspec.Meta(ge=0)]
_OBSERVERS = ("prior", "text", "audio", "late_fusion", "joint")


def _best_possible(best: Mapping[str, Any] | None, target: Target) -> Mapping[str, Any] | None:
    """Check the scores among the best possible ones that reports show."""
    if best is None:
        return None
    shown, kind = (
        [name for name in _OBSERVERS if name in best],
        _Fraction if target.kind == CLASSES else _Score,
    )
    scores = {name: typed(best, name, Mapping[str, kind]) for name in shown}
    return {**best, **{name: {key: own[key] for key in target.bounded} for name, own in scores.items()}}


def _environment(environment: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check the devices of an environment, which reports list."""
    for device in typed(environment, "devices", list[Any], []):
        typed(device, "kind", str)
        typed(device, "number", Count)
    return environment
