"""The results and the predictions of a trained sweep."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxser.config import describe_training
from jaxser.data.merging import corpus_of
from jaxser.evaluation import run_folder
from jaxser.evaluation.environment import environment
from jaxser.evaluation.pretrained import PretrainedEncoder
from jaxser.evaluation.results import ReplicaResult, RunResults, setting_name
from jaxser.evaluation.scores import Scores
from jaxser.evaluation.targets import CLASSES
from jaxser.models.encoded import encoder_of
from jaxser.training.loop import Predicted
from jaxser.training.sweep import Sweep
from jaxser.types import Status, Trained


def run_results(
    config: ConfigDict, sweep: Sweep, trained: Trained, predicted: Sequence[Predicted]
) -> RunResults:
    """Return the results of a run, as yet without summaries."""
    manifest, model, target = sweep.dataset.manifest, sweep.trainer.model, sweep.trainer.target
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
        best_possible=target.best_possible(facts.get("bayes")),
        environment=environment(jax.devices()),
        training=describe_training(config, sweep.hyper),
        described_target={} if target.kind == CLASSES else target.to_json(),
        encoder=None if encoder is None else PretrainedEncoder.from_json(encoder),
    )


def _replica_results(sweep: Sweep, trained: Trained, predicted: Sequence[Predicted]) -> list[ReplicaResult]:
    results = []
    for index, (point, own) in enumerate(zip(sweep.replicas, predicted, strict=True)):
        best_epoch = int(trained.best.epoch[index])
        validation, test = _scores(sweep, own) if best_epoch else (None, None)
        results.append(
            ReplicaResult(
                fold=sweep.folds[point.fold].name,
                seed=int(point.seed),
                status=Status(int(trained.status[index])).final_label,
                setting=setting_name(point.setting),
                best_epoch=best_epoch - 1 if best_epoch else None,
                validation=validation,
                test=test,
                validation_loss=_validation_loss(sweep, own) if best_epoch else None,
                by_corpus=_scores_by_corpus(sweep, own) if best_epoch else {},
            )
        )
    return results


def _validation_loss(sweep: Sweep, own: Predicted) -> float | None:
    """Return the loss on the validation part."""
    target, part = sweep.trainer.target, slice(own.validation)
    truth = target.truth(sweep.dataset)[own.rows]
    loss = float(target.loss_in_full(own.estimates[part], truth[part]))
    return loss if np.isfinite(loss) else None


def _scores(sweep: Sweep, own: Predicted) -> tuple[Scores, Scores]:
    """Return the scores on the validation part and on the test part."""
    target = sweep.trainer.target
    true, guess = target.truth(sweep.dataset)[own.rows], target.guess(own.estimates)

    def scores(part: slice) -> Scores:
        ones = np.ones(len(true[part]))
        statistics = target.statistics(true[part], guess[part], ones)
        return Scores.of_statistics(np.asarray(statistics), target)

    return scores(slice(own.validation)), scores(slice(own.validation, None))


def _scores_by_corpus(sweep: Sweep, own: Predicted) -> dict[str, Scores]:
    """Return the scores on the test utterances of each dataset of a merged one."""
    if not sweep.dataset.sources:
        return {}
    rows = own.rows[own.validation :]
    target, guess = sweep.trainer.target, sweep.trainer.target.guess(own.estimates)[own.validation :]
    true = target.truth(sweep.dataset)[rows]
    corpus = np.array([corpus_of(i) for i in sweep.dataset.column("id")[rows].tolist()])
    found = {}
    for name in dict.fromkeys(corpus.tolist()):
        of = corpus == name
        statistics = target.statistics(true[of], guess[of], np.ones(int(of.sum())))
        found[name] = Scores.of_statistics(np.asarray(statistics), target)
    return found


def predictions(sweep: Sweep, index: int, own: Predicted) -> run_folder.Predictions:
    """Return the predictions of the replica with an index in the grid, as they are written."""
    point, dataset, target = sweep.replicas[index], sweep.dataset, sweep.trainer.target
    number = len(own.rows)
    return run_folder.Predictions(
        classes=target.names,
        utterance=dataset.column("id")[own.rows],
        fold=np.full(number, sweep.folds[point.fold].name),
        seed=np.full(number, point.seed),
        setting=np.full(number, setting_name(point.setting)),
        split=np.where(np.arange(number) < own.validation, "validation", "test"),
        true=target.truth(dataset)[own.rows],
        predicted=np.asarray(target.guess(own.estimates)),
        probabilities=target.probabilities(own.estimates),
    )
