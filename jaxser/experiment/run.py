"""Training and evaluation of a config, in the folder of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jax
from ml_collections import ConfigDict

from jaxser import files
from jaxser.data.leaks import FoldIds
from jaxser.data.normalisation import for_recordings
from jaxser.evaluation import run_folder
from jaxser.evaluation.records import RunConfig
from jaxser.evaluation.results import RunResults, setting_name
from jaxser.evaluation.summary import with_summaries
from jaxser.experiment import outcome, resume
from jaxser.experiment.build import build_sweep
from jaxser.experiment.dataset import fit_to_dataset
from jaxser.inference.saved_model import save_models
from jaxser.models.encoded import Encoded
from jaxser.training.loop import Predicted, predict_sweep, train_sweep
from jaxser.training.multihost import broadcast_from_primary, is_primary, locked_by_primary, run_on_primary
from jaxser.training.selection import members
from jaxser.training.sweep import Sweep
from jaxser.types import Dataset, Trained, Utterance


def run_experiment(
    config: ConfigDict,
    dataset: Dataset,
    folder: Path,
    *,
    strategy: str = "",
    budget: int = 0,
    command: str = "",
    log: Callable[[str], None] = print,
) -> RunResults:
    """Train and evaluate a resolved config on its dataset, and write the folder of the run.

    An interrupted run of the same config is resumed; a finished one is not trained again.

    Args:
        config: a resolved config.
        dataset: the dataset of the config.
        folder: the folder of the run.
        strategy: as in `build_sweep`.
        budget: as in `build_sweep`.
        command: the command that is recorded in config.json.
        log: prints a line.

    Raises:
        UsageError: if the folder holds a run of another config or dataset.
        InputError: if another process is writing to the folder, or the folder is damaged.
    """
    config = fit_to_dataset(config, dataset)
    sweep = build_sweep(config, dataset, jax.devices(), strategy, budget)
    asked = RunConfig(run_folder.plain(config.to_dict()), resume.digest_of(dataset), command)
    if not resume.is_finished(folder):
        with locked_by_primary(folder, run_folder.ADVICE):
            if not resume.is_finished(folder):  # it may have been finished just before it was locked
                return _run(config, dataset, sweep, asked, folder, log)
    resume.check_same(folder, asked)
    log(f"{folder} is already finished; nothing to train")
    return run_folder.read_results(folder)


def _run(
    config: ConfigDict,
    dataset: Dataset,
    sweep: Sweep,
    asked: RunConfig,
    folder: Path,
    log: Callable[[str], None],
) -> RunResults:
    """Train and evaluate a sweep in a locked folder."""
    if broadcast_from_primary((folder / run_folder.CONFIG).is_file()):
        resume.check_same(folder, asked)
    run_on_primary(lambda: resume.claim(folder, asked))
    fold_ids = [FoldIds.of(fold, [u.id for u in dataset.utterances]) for fold in sweep.original_folds]
    utterances = _labelled(dataset)
    if is_primary():
        run_folder.write_folds(folder, dict(config.protocol), config.protocol.split_seed, fold_ids)
        run_folder.write_utterances(folder, utterances)
    _log_start(config, dataset, sweep, log)
    trained = train_sweep(sweep, folder, log)
    predicted = predict_sweep(sweep, trained)
    results = with_summaries(outcome.run_results(config, sweep, trained, predicted), fold_ids, utterances)
    run_on_primary(lambda: _write(folder, config, sweep, trained, predicted, results))
    return results


def _labelled(dataset: Dataset) -> list[Utterance]:
    """Return the utterances, labelled with the classes of the run instead of the corpus's own labels."""
    labels = [dataset.classes[n] if n >= 0 else "" for n in dataset.label]
    return [replace(one, label=label) for one, label in zip(dataset.utterances, labels, strict=True)]


def _log_start(config: ConfigDict, dataset: Dataset, sweep: Sweep, log: Callable[[str], None]) -> None:
    """Log the size of the run and what a user may have overlooked."""
    if "words" in sweep.trainer.model.needs:
        if wordless := sum("no_words" in utterance.flags for utterance in dataset.utterances):
            number = len(dataset.utterances)
            log(
                f"note: variant {config.variant} reads words, and {wordless} of {number} utterances have none"
            )
        source = dataset.manifest.get("embeddings", {}).get("source")
        if source == "random" and not config.model.get("train_embeddings", True):
            log(
                "note: the word vectors are random and are not trained; prepare with --glove=FILE or set "
                "config.model.train_embeddings"
            )
    if sweep.source.is_streamed:
        log("the dataset exceeds the memory budget of the devices and is streamed")
    folds, replicas = len(sweep.folds), len(sweep.replicas)
    settings = replicas // (folds * config.seeds)
    grid_size = f"{_count(folds, 'fold')} x {_count(config.seeds, 'seed')}"
    grid_size += f" x {settings} settings" if settings > 1 else ""
    log(f"{_count(replicas, 'replica')} ({grid_size}), {_count(config.epochs, 'epoch')}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _write(
    folder: Path,
    config: ConfigDict,
    sweep: Sweep,
    trained: Trained,
    predicted: Sequence[Predicted],
    results: RunResults,
) -> None:
    """Write predictions, models and results; the checkpoints are no longer needed."""
    parts = (outcome.predictions(sweep, index, own) for index, own in enumerate(predicted))
    run_folder.write_predictions(folder, parts)
    rows, replica_of_row = members(trained)
    points = [sweep.replicas[index] for index in replica_of_row]
    save_models(
        folder,
        sweep.dataset,
        rows._replace(normalisation=for_recordings(rows.normalisation, sweep.dataset.raw)),
        [(sweep.folds[p.fold].name, p.seed, setting_name(p.setting)) for p in points],
        model=config.model.to_dict(),
        target=results.described_target,
        encoder=model.described if isinstance(model := sweep.trainer.model, Encoded) else None,
        normalise=config.normalise,
        setting=results.setting,
    )
    run_folder.write_results(folder, results)
    files.remove_folder(folder, run_folder.CHECKPOINTS)
