"""From a config to the folder of a finished run: dataset, sweep, training, results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import jax
import numpy as np
from ml_collections import ConfigDict

from jaxser import corpora, files
from jaxser.config import build_model, check_hyper, describe_training, flatten, load_encoder, training_hyper
from jaxser.configs import common
from jaxser.data.batch_schedule import make_buckets
from jaxser.data.dataset import copies_of, load_prepared, with_copies
from jaxser.data.folds import Protocol, make_folds
from jaxser.data.leaks import FoldIds
from jaxser.data.shards import MANIFEST
from jaxser.evaluation import metrics, run_folder
from jaxser.evaluation.environment import environment
from jaxser.evaluation.pretrained import PretrainedEncoder
from jaxser.evaluation.records import RunConfig
from jaxser.evaluation.results import ReplicaResult, RunResults, Scores, setting_name
from jaxser.evaluation.summary import with_summaries
from jaxser.features.audio import SAMPLE_RATE
from jaxser.inference.saved_model import save_models
from jaxser.models.encoded import Encoded, encoder_of
from jaxser.models.network import Network
from jaxser.training.loop import Predicted, predict_sweep, train_sweep
from jaxser.training.mesh import replica_mesh
from jaxser.training.multihost import broadcast_from_primary, is_primary, locked_by_primary, run_on_primary
from jaxser.training.optim import Adam
from jaxser.training.programs import ProgramCache
from jaxser.training.replica import ReplicaTrainer
from jaxser.training.selection import members
from jaxser.training.streaming import choose_data_source
from jaxser.training.sweep import Sweep, grid
from jaxser.types import Dataset, FieldError, Status, Trained, UsageError, Utterance

Log = Callable[[str], None]
"""Prints a line, such as `print`."""


def load_dataset(config: ConfigDict, data_dir: Path, log: Log = print) -> Dataset:
    """Load the prepared dataset of a resolved config.

    A missing demo dataset is made on the spot.

    Raises:
        UsageError: if the dataset is missing or of another recipe; the message has the command that makes it.
        InputError: if a shard is damaged.
    """
    if config.dataset in corpora.DEMO_DATASETS:
        run_on_primary(lambda: _make_demo(config.dataset, config.recipe, data_dir))
    dataset = load_prepared(
        data_dir / config.dataset, config.recipe, classes=config.classes, subset=config.subset
    )
    if "waveform" in dataset.arrays:
        dataset = replace(dataset, encoder=load_encoder(config))
    elif config.encoder.folder:
        raise UsageError(
            f"config.encoder.folder: recipe {config.recipe} has no waveforms; use recipe waveform"
        )
    log(f"{dataset.name}: {len(dataset.label)} utterances, {len(dataset.classes)} classes")
    if dataset.left_out:
        log("left out: " + ", ".join(f"{number} {label}" for label, number in dataset.left_out.items()))
    corpus, expected = dataset.manifest["corpus"], config.get("corpus", "")
    if corpora.CORPORA.get(corpus) != corpora.CORPORA.get(expected):
        log(
            f"note: {dataset.name} was prepared from corpus {corpus}, but the config is for "
            f"{expected or 'an unknown corpus'}; get_config('{config.dataset}:{corpus}') returns one that fits"
        )
    return dataset


def build_sweep(
    config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device], strategy: str = "", budget: int = 0
) -> Sweep:
    """Build the sweep that a resolved config describes.

    Args:
        config: a resolved config.
        dataset: the dataset of the config.
        devices: the devices to train on.
        strategy: one of `jaxser.training.mesh.STRATEGIES`; "" chooses by device.
        budget: bytes of a device's memory for the dataset, which is streamed if it is larger; 0 is half of the
            free memory.

    Raises:
        UsageError: if a field of the config does not fit the network, the dataset or the devices.
    """
    try:
        sweep = _sweep(config, dataset, devices, strategy, budget)
        sweep.shapes()
    except FieldError as error:
        raise UsageError(f"config.model.{error}") from None
    return sweep


def run_experiment(
    config: ConfigDict,
    dataset: Dataset,
    folder: Path,
    *,
    strategy: str = "",
    budget: int = 0,
    command: str = "",
    log: Log = print,
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
    sweep = build_sweep(config, dataset, jax.devices(), strategy, budget)
    asked = RunConfig(run_folder.plain(config.to_dict()), _digest(dataset), command)
    if not _is_finished(folder):
        with locked_by_primary(folder, run_folder.ADVICE):
            if not _is_finished(folder):  # it may have been finished just before it was locked
                return _run(config, dataset, sweep, asked, folder, log)
    _check_same(folder, asked)
    log(f"{folder} is already finished; nothing to train")
    return run_folder.read_results(folder)


def _run(
    config: ConfigDict, dataset: Dataset, sweep: Sweep, asked: RunConfig, folder: Path, log: Log
) -> RunResults:
    """Train and evaluate a sweep in a locked folder."""
    if broadcast_from_primary((folder / run_folder.CONFIG).is_file()):
        _check_same(folder, asked)
    run_on_primary(lambda: _claim(folder, asked))
    folds = make_folds(dataset, Protocol(**config.protocol))
    fold_ids = [FoldIds.of(fold, [u.id for u in dataset.utterances]) for fold in folds]
    utterances = _labelled(dataset)
    if is_primary():
        run_folder.write_folds(folder, dict(config.protocol), config.protocol.split_seed, fold_ids)
        run_folder.write_utterances(folder, utterances)
    _log_start(config, dataset, sweep, log)
    trained = train_sweep(sweep, folder, log)
    predicted = predict_sweep(sweep, trained, folds)
    replicas = _replica_results(sweep, trained, predicted)
    results = with_summaries(_results(config, sweep, replicas), fold_ids, utterances)
    run_on_primary(lambda: _write(folder, config, sweep, trained, predicted, results))
    return results


def _labelled(dataset: Dataset) -> list[Utterance]:
    """Return the utterances, labelled with the classes of the run instead of the corpus's own labels."""
    labels = [dataset.classes[n] for n in dataset.label]
    return [replace(one, label=label) for one, label in zip(dataset.utterances, labels, strict=True)]


def _make_demo(name: str, recipe: str, data_dir: Path) -> None:
    """Make a demo dataset if it is missing."""
    if not list((data_dir / name).glob(f"{recipe}/*/{MANIFEST}")):
        from jaxser.data_prep.prepare import prepare  # heavy imports, needed only here

        settings = {} if (data_dir / f"{name}_release").is_dir() else corpora.DEMO_DATASETS[name]
        prepare("demo", name=name, recipe=recipe, out=data_dir, demo=settings)


def _sweep(
    config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device], strategy: str, budget: int
) -> Sweep:
    model = build_model(config, len(dataset.classes), dataset.manifest.get("parameters"), dataset.encoder)
    optimizer = Adam(**config.optimizer)
    _check_fit(config, dataset, model, optimizer, devices, strategy)
    folds = make_folds(dataset, Protocol(**config.protocol))
    if config.copies in ("train", "train_and_validation") or (
        config.copies == "available" and copies_of(dataset)
    ):
        dataset, folds = with_copies(dataset, folds, in_validation=config.copies == "train_and_validation")
    lengths = {name: dataset.arrays[name].length for name in model.needs}
    buckets = make_buckets(lengths, config.buckets, config.batch_size, fixed=model.lengths)
    trainer = ReplicaTrainer(
        model=model,
        optimizer=optimizer,
        widths=tuple(tuple(widths.items()) for widths in buckets.widths),
        num_classes=len(dataset.classes),
        epochs=config.epochs,
        selection=config.selection,
        patience=config.patience or None,
        precision=config.precision,
        best_epochs=config.best_epochs,
    )
    by_device = "map" if devices[0].platform == "cpu" else "vmap"
    programs = ProgramCache(replica_mesh(devices, strategy), strategy or by_device)
    return Sweep(
        trainer=trainer,
        dataset=dataset,
        folds=folds,
        buckets=buckets,
        replicas=grid(len(folds), range(config.seeds), _swept(config)),
        hyper=training_hyper(config, model),
        source=choose_data_source(trainer, dataset, buckets, programs, config.normalise, budget),
        programs=programs,
        split_seed=config.protocol.split_seed,
        balanced=config.class_weights == "balanced",
        normalise=config.normalise,
    )


def _swept(config: ConfigDict) -> dict[str, Sequence[float]]:
    return {name: values for name, values in config.sweep.items() if values}


def _check_fit(
    config: ConfigDict,
    dataset: Dataset,
    model: Network,
    optimizer: Adam,
    devices: Sequence[jax.Device],
    strategy: str,
) -> None:
    """Check what depends on the dataset, the network or the devices."""
    if len(dataset.classes) < 2:
        raise UsageError(
            f"{dataset.name} has one class ({', '.join(dataset.classes)}), so every network would score 100 %: choose "
            "other --config.classes, or prepare a corpus with two classes at least"
        )
    if lacking := [name for name in model.needs if name not in dataset.arrays]:
        raise UsageError(
            f"{config.model.name} ({config.variant}) needs {', '.join(lacking)}, which recipe {dataset.recipe} "
            "does not provide"
        )
    window = dataset.encoder.max_samples if "waveform" in model.needs else None
    if window and (longest := int(dataset.arrays["waveform"].length.max())) > window:
        raise UsageError(
            f"config.encoder.folder: the encoder takes {window / SAMPLE_RATE:g} s at most, and a recording of "
            f"{dataset.name} has {longest / SAMPLE_RATE:g} s"
        )
    check_hyper(config, (*model.hyper, *optimizer.hyper))
    training_hyper(config, model)
    if strategy == "data" and config.batch_size % len(devices):
        raise UsageError(
            f"config.batch_size={config.batch_size} is not divisible by the {len(devices)} devices over which "
            "--strategy=data spreads a batch"
        )
    if config.protocol.select == "test" and any(len(values) > 1 for values in _swept(config).values()):
        raise UsageError(
            "config.protocol.select=test has no validation part by which to choose among settings: sweep nothing"
        )


def _log_start(config: ConfigDict, dataset: Dataset, sweep: Sweep, log: Log) -> None:
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


def _results(config: ConfigDict, sweep: Sweep, replicas: Sequence[ReplicaResult]) -> RunResults:
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
        replicas=tuple(replicas),
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


def _write(
    folder: Path,
    config: ConfigDict,
    sweep: Sweep,
    trained: Trained,
    predicted: Sequence[Predicted],
    results: RunResults,
) -> None:
    """Write predictions, models and results; the checkpoints are no longer needed."""
    parts = (_predictions(sweep, index, own) for index, own in enumerate(predicted))
    run_folder.write_predictions(folder, parts)
    rows, replica_of_row = members(trained)
    points = [sweep.replicas[index] for index in replica_of_row]
    save_models(
        folder,
        sweep.dataset,
        rows,
        [(sweep.folds[p.fold].name, p.seed, setting_name(p.setting)) for p in points],
        model=config.model.to_dict(),
        encoder=model.described if isinstance(model := sweep.trainer.model, Encoded) else None,
        normalise=config.normalise,
        setting=results.setting,
    )
    run_folder.write_results(folder, results)
    files.remove_folder(folder, run_folder.CHECKPOINTS)


def _predictions(sweep: Sweep, index: int, own: Predicted) -> run_folder.Predictions:
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


def _is_finished(folder: Path) -> bool:
    return broadcast_from_primary((folder / run_folder.RESULTS).is_file())


def _claim(folder: Path, asked: RunConfig) -> None:
    """Write what a new run is asked to do, or clean up after an interrupted one."""
    for name in (".", run_folder.MODEL, f"{run_folder.CHECKPOINTS}/ended"):
        files.remove_leftovers(folder, name)
    if (folder / run_folder.CONFIG).is_file():
        files.remove(folder, run_folder.DIGESTS)  # written before the results, which are missing
    else:
        run_folder.write_config(folder, asked)


def _check_same(folder: Path, asked: RunConfig) -> None:
    """Check that a folder was started with the same config and dataset."""
    if changed := _first_difference(run_folder.read_config(folder), asked):
        raise UsageError(
            f"{folder} holds a run of another {changed}; give another --workdir, or remove that folder"
        )


def _digest(dataset: Dataset) -> str:
    """Return a CRC-32C of what determines the shards and the encoder of their waveforms, which tells datasets apart."""
    parts = ("name", "recipe", "version", "shards", "labels", "embeddings")
    manifest = run_folder.plain({name: dataset.manifest.get(name) for name in parts})
    if dataset.encoder is not None:
        manifest["encoder"] = dataset.encoder.digest
    return f"{google_crc32c.value(json.dumps(manifest, sort_keys=True).encode()):08x}"


def _first_difference(before: RunConfig, asked: RunConfig) -> str:
    if before.dataset != asked.dataset:
        return "version of the dataset" + " or encoder" * bool(asked.fields["encoder"]["folder"])
    fields, new = flatten(before.fields), flatten(asked.fields)
    old = _defaults() | fields
    for name in sorted(
        (fields.keys() | new.keys()) - {"corpus", "note", "encoder.folder"}
    ):  # these change no result
        if old.get(name) != new.get(name):
            return f"config: {name} was {json.dumps(old.get(name))} and is now {json.dumps(new.get(name))}"
    return ""


def _defaults() -> dict[str, Any]:
    """Return the value of each field that a run of an earlier version may lack."""
    fields = common.base_config("", paper="").to_dict()
    return flatten(run_folder.plain({**fields, "sweep": dict.fromkeys(fields["hyper"], ())}))
