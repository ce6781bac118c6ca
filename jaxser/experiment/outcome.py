"""The results and the predictions of a trained sweep."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxser.config import describe_training
from jaxser.evaluation import metrics, run_folder
from jaxser.evaluation.environment import environment
from jaxser.evaluation.pretrained import PretrainedEncoder
from jaxser.evaluation.results import ReplicaResult, RunResults, Scores, setting_name
from jaxser.models.encoded import encoder_of
from jaxser.training.loop import Predicted
from jaxser.training.sweep import Sweep
from jaxser.types import Dataset, Status, Trained


def run_results(
    config: ConfigDict, sweep: Sweep, trained: Trained, predicted: Sequence[Predicted]
) -> RunResults:
    """Return the results of a run, as yet without summaries."""
    manifest, model = sweep.dataset.manifest, sweep.trainer.model
    facts, encoder = manifest.get("facts", {}), encoder_of(model, manifest.get("parameters", {}))
    return RunResults(
        model=config.model.name,
        variant=config.variant,
        dataset=config.dataset,
        protocol={**config.protocol, "metric": config.selection, "note": config.note},
        classes=sweep.dataset.classes,
        epochs=config.epochs,
        replicas=tuple(_replica_results(sweep, trained, predicted)),
        synthetic=bool(facts.get("synthetic")),
        settings={setting_name(point.setting): dict(point.setting) for point in sweep.replicas},
        reads=model.needs,
        best_possible=facts.get("bayes"),
        environment=environment(jax.devices()),
        training=describe_training(config, sweep.hyper),
        encoder=None if encoder is None else PretrainedEncoder.from_json(encoder),
    )


def _replica_results(sweep: Sweep, trained: Trained, predicted: Sequence[Predicted]) -> list[ReplicaResult]:
    results = []
    for index, (point, own) in enumerate(zip(sweep.replicas, predicted, strict=True)):
        best_epoch = int(trained.best.epoch[index])
        validation, test = _scores(sweep.dataset, own) if best_epoch else (None, None)
        results.append(
            ReplicaResult(
                fold=sweep.folds[point.fold].name,
                seed=int(point.seed),
                status=Status(int(trained.status[index])).final_label,
                setting=setting_name(point.setting),
                best_epoch=best_epoch - 1 if best_epoch else None,
                validation=validation,
                test=test,
                validation_loss=_validation_loss(sweep.dataset, own) if best_epoch else None,
            )
        )
    return results


def _validation_loss(dataset: Dataset, own: Predicted) -> float | None:
    """Return the mean of -log p(label) on the validation part."""
    label = dataset.label[own.rows[: own.validation]]
    loss = -float(own.log_probs[np.arange(own.validation), label].astype(np.float64).mean())
    return loss if np.isfinite(loss) else None


def _scores(dataset: Dataset, own: Predicted) -> tuple[Scores, Scores]:
    """Return the scores on the validation part and on the test part."""
    true, guess = dataset.label[own.rows], own.log_probs.argmax(1)

    def scores(part: slice) -> Scores:
        ones = np.ones(len(true[part]))
        confusion = metrics.confusion(true[part], guess[part], ones, len(dataset.classes))
        return Scores.of(np.asarray(confusion), dataset.classes)

    return scores(slice(own.validation)), scores(slice(own.validation, None))


def predictions(sweep: Sweep, index: int, own: Predicted) -> run_folder.Predictions:
    """Return the predictions of the replica with an index in the grid, as they are written."""
    point, dataset = sweep.replicas[index], sweep.dataset
    number = len(own.rows)
    return run_folder.Predictions(
        classes=dataset.classes,
        utterance=dataset.column("id")[own.rows],
        fold=np.full(number, sweep.folds[point.fold].name),
        seed=np.full(number, point.seed),
        setting=np.full(number, setting_name(point.setting)),
        split=np.where(np.arange(number) < own.validation, "validation", "test"),
        true=dataset.label[own.rows],
        predicted=own.log_probs.argmax(1),
        probabilities=np.exp(own.log_probs.astype(np.float64)),
    )
