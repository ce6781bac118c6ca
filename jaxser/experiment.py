"""A run from its config to its folder: dataset, folds, sweep, results, report."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import google_crc32c
import jax
import numpy as np
from ml_collections import ConfigDict

from jaxser.data.batch_schedule import make_buckets
from jaxser.data.dataset import CLASSES, SUBSETS, with_copies
from jaxser.data.dataset import load as load_dataset
from jaxser.data.folds import Protocol, make_folds
from jaxser.data.leaks import FoldIds
from jaxser.data.normalisation import NORMALISATIONS
from jaxser.data.shards import MANIFEST
from jaxser.evaluation import metrics, run_folder, summary
from jaxser.models import MODELS
from jaxser.models.network import Network
from jaxser.training.loop import Predicted, predict, train
from jaxser.training.mesh import STRATEGIES, replica_mesh
from jaxser.training.multihost import first, leads
from jaxser.training.optim import CLIPS, SCHEDULES, Adam
from jaxser.training.replica import PRECISIONS, SELECTIONS, Trainer
from jaxser.training.streaming import StreamedSweep, fits, streamed
from jaxser.training.sweep import Sweep, grid
from jaxser.types import Dataset, Trained, UsageError

Say = Callable[[str], None]

DEMOS: Mapping[str, Mapping[str, Any]] = {"demo": {}, "demo_quick": {"utterances": 400}}
"""The demo corpora that are made where they are missing, and the settings of each."""


def resolve(config: ConfigDict, given: Mapping[str, Any] | None = None) -> ConfigDict:
    """The config with its variant's fields set and every value checked.

    `given` are the user's own values by their paths, such as "hyper.learning_rate": a variant does not undo them.

    Raises:
        UsageError: a variant, field or value that cannot be, and what is allowed.
    """
    config = config.copy_and_resolve_references()
    variants = config.variants.to_dict()
    if config.variant not in variants:
        raise UsageError(f"config.variant={config.variant!r} is not one of {', '.join(variants)}")
    with config.unlocked():
        del config.variants
    variant = variants[config.variant]
    if "name" in variant.get("model", {}):  # a compared system: a network of its own
        with config.unlocked():
            config.model = ConfigDict()
            config.update(variant)
            read = MODELS[config.model.name].hyper + Adam.hyper
            config.hyper = ConfigDict({name: value for name, value in config.hyper.items() if name in read})
    config.update(variant)
    config.sweep = ConfigDict({name: config.sweep.get(name, ()) for name in config.hyper})
    for path, value in (given or {}).items():
        if path.partition("[")[0] not in _flat(config.to_dict()):
            raise UsageError(f"config.{path} is no field of variant {config.variant}")
        config.update_from_flattened_dict({path: value})
    _check_values(config)
    return config


def load(config: ConfigDict, data_dir: Path, say: Say = print) -> Dataset:
    """The prepared dataset of a resolved config; a missing demo dataset is made on the spot.

    Raises:
        UsageError: the dataset is missing or of another recipe; the command that makes it is said.
        InputError: a shard is damaged.
    """
    folder = data_dir / config.dataset
    if config.dataset in DEMOS:
        first(lambda: _make_demo(config.dataset, config.recipe, data_dir))
    dataset = load_dataset(folder, config.recipe, classes=config.classes, subset=config.subset)
    say(f"{dataset.name}: {len(dataset.label)} utterances, {len(dataset.classes)} classes")
    if dataset.left_out:
        say("left out: " + ", ".join(f"{number} {label}" for label, number in dataset.left_out.items()))
    return dataset


def _make_demo(name: str, recipe: str, data_dir: Path) -> None:
    """Make a demo dataset where it is missing."""
    if not list((data_dir / name).glob(f"{recipe}/*/{MANIFEST}")):
        from jaxser.data_prep.prepare import prepare  # the one place that makes data

        settings = {} if (data_dir / f"{name}_release").is_dir() else DEMOS[name]
        prepare("demo", name=name, recipe=recipe, out=data_dir, demo=settings)


def model_of(config: ConfigDict, num_classes: int) -> Network:
    """The network that a resolved config describes."""
    fields = dict(config.model)
    name = fields.pop("name")
    _choice("model.name", name, MODELS)
    allowed = {f.name for f in dataclasses.fields(MODELS[name])} - {"parent", "name", "num_classes"}
    for field in fields:
        if field not in allowed:
            raise UsageError(
                f"config.model.{field} is no field of {name}; it has {', '.join(sorted(allowed))}"
            )
    return MODELS[name](num_classes=num_classes, **fields)


def sweep_of(
    config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device], strategy: str, budget: int = 0
) -> Sweep:
    """The sweep that a resolved config describes, over a dataset, which streams where it is over the budget (bytes)."""
    model = model_of(config, len(dataset.classes))
    if lacking := [name for name in model.needs if name not in dataset.arrays]:
        raise UsageError(
            f"{config.model.name} ({config.variant}) needs {', '.join(lacking)}, which recipe {dataset.recipe} has not"
        )
    optimizer = Adam(**config.optimizer)
    _check_hyper(config, (*model.hyper, *optimizer.hyper))
    folds = make_folds(dataset, Protocol(**config.protocol))
    if config.copies != "none":
        dataset, folds = with_copies(dataset, folds, in_validation=config.copies == "train_and_validation")
    lengths = {name: dataset.arrays[name].length for name in model.needs}
    buckets = make_buckets(lengths, config.buckets, config.batch_size, fixed=model.lengths)
    trainer = Trainer(
        model=model,
        optimizer=optimizer,
        widths=tuple(tuple(widths.items()) for widths in buckets.widths),
        num_classes=len(dataset.classes),
        epochs=config.epochs,
        selection=config.selection,
        patience=config.patience or None,
        precision=config.precision,
    )
    if strategy == "data" and config.batch_size % len(devices):
        raise UsageError(
            f"config.batch_size={config.batch_size}: --strategy=data spreads a batch over {len(devices)} devices, "
            "which must divide it"
        )
    swept = {name: values for name, values in config.sweep.items() if values}
    if config.protocol.select == "test" and any(len(values) > 1 for values in swept.values()):
        raise UsageError(
            "config.protocol.select=test leaves no validation part by which to choose among settings"
        )
    sweep = Sweep(
        trainer=trainer,
        dataset=dataset,
        folds=folds,
        buckets=buckets,
        replicas=grid(len(folds), range(config.seeds), swept),
        hyper=dict(config.hyper),
        mesh=replica_mesh(devices, strategy),
        strategy=strategy or ("map" if devices[0].platform == "cpu" else "vmap"),
        split_seed=config.protocol.split_seed,
        balanced=config.class_weights == "balanced",
        normalise=config.normalise,
    )
    try:
        sweep.shapes()
    except ValueError as error:  # a layer's own: heads that do not divide the features, say
        raise UsageError(f"config.model: {error}") from None
    return sweep if fits(sweep, budget) else streamed(sweep, budget)


def run(
    config: ConfigDict,
    dataset: Dataset,
    folder: Path,
    *,
    strategy: str = "",
    budget: int = 0,
    command: str = "",
    say: Say = print,
) -> dict[str, Any]:
    """Train and evaluate a resolved config over a dataset; everything it finds goes into `folder`.

    Goes on where an interrupted run of the same config stopped, and does nothing where one has finished.

    Raises:
        UsageError: the folder holds a run of another config or dataset.
    """
    sweep = sweep_of(config, dataset, jax.devices(), strategy, budget)
    asked = run_folder.plain({"config": config.to_dict(), "dataset": _digest(dataset)})
    _claim(folder, asked, command)
    if (folder / run_folder.RESULTS).is_file():
        say(f"{folder} is finished already; nothing to train")
        return run_folder.read_json(folder / run_folder.RESULTS)
    split = make_folds(dataset, Protocol(**config.protocol))
    folds = tuple(FoldIds.of(fold, [u.id for u in dataset.utterances]) for fold in split)
    rows = run_folder.utterance_rows(dataset.utterances, [dataset.classes[n] for n in dataset.label])
    if leads():
        run_folder.write_folds(folder, dict(config.protocol), config.protocol.split_seed, folds)
        run_folder.write_utterances(folder, rows)
    if "words" in sweep.trainer.model.needs and (silent := _without_words(dataset)):
        number = len(dataset.utterances)
        say(f"note: {silent} of {number} utterances have no words, which variant {config.variant} reads")
    if _words_are_noise(config, sweep):
        say(
            "note: word vectors are random and stay so; prepare with --glove=FILE or set model.train_embeddings"
        )
    settings = len(sweep.replicas) // (len(folds) * config.seeds)
    if isinstance(sweep, StreamedSweep):
        say("the dataset is over the devices' budget: it streams")
    shape = f"{_number(len(folds), 'fold')} x {_number(config.seeds, 'seed')}"
    shape += f" x {settings} settings" if settings > 1 else ""
    say(f"{_number(len(sweep.replicas), 'replica')} ({shape}), {_number(config.epochs, 'epoch')}")

    trained = train(sweep, folder, say)
    predicted = predict(sweep, trained, split)
    found = run_folder.results(
        model=config.model.name,
        variant=config.variant,
        dataset=config.dataset,
        protocol={**config.protocol, "metric": config.selection, "note": config.note},
        classes=dataset.classes,
        epochs=config.epochs,
        replicas=_replica_results(sweep, trained, predicted),
        folds=folds,
        utterances=rows,
        environment=run_folder.environment(jax.devices()),
        synthetic=bool(dataset.manifest.get("facts", {}).get("synthetic")),
        reads=sweep.trainer.model.needs,
        best_possible=dataset.manifest.get("facts", {}).get("bayes"),
        settings={
            run_folder.setting_name(replica.setting): dict(replica.setting) for replica in sweep.replicas
        },
    )

    def write() -> None:
        run_folder.write_predictions(folder, (_predictions(sweep, r, one) for r, one in enumerate(predicted)))
        save_models(folder / run_folder.MODEL, config, sweep, trained, found["summary"]["setting"])
        run_folder.write_json(folder / run_folder.RESULTS, found)
        shutil.rmtree(folder / run_folder.CHECKPOINTS, ignore_errors=True)  # for resuming only

    first(write)
    return found


def _number(count: int, of: str) -> str:
    return f"{count} {of}{'s' * (count != 1)}"


def _without_words(dataset: Dataset) -> int:
    return sum("no_words" in utterance.flags for utterance in dataset.utterances)


def _words_are_noise(config: ConfigDict, sweep: Sweep) -> bool:
    source = sweep.dataset.manifest.get("embeddings", {}).get("source")
    reads = "words" in sweep.trainer.model.needs
    return reads and source == "random" and not config.model.get("train_embeddings", True)


def save_models(folder: Path, config: ConfigDict, sweep: Sweep, trained: Trained, setting: str) -> None:
    """Every replica's selected parameters and what else prediction needs, without pickles: npz and JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        "params": trained.best.params,
        "batch_stats": trained.best.batch_stats,
        "normalisation": {name: value._asdict() for name, value in trained.normalisation.items()},
        "hyper": dict(trained.hyper),
    }
    np.savez(folder / "replicas.npz", **flax.traverse_util.flatten_dict(kept, sep="/"))
    dataset = sweep.dataset
    if dataset.embeddings is not None:
        np.save(folder / "embeddings.npy", dataset.embeddings)
    description = {
        "model": config.model.to_dict(),
        "classes": dataset.classes,
        "recipe": {
            "name": dataset.recipe,
            "version": dataset.version,
            "parameters": dataset.manifest.get("parameters", {}),
        },
        "arrays": {  # as in the manifest: None is the dimension whose length varies
            name: {"dtype": str(array.values.dtype), "shape": (None, *array.values.shape[1:])}
            for name, array in dataset.arrays.items()
        },
        "normalise": config.normalise,
        "setting": setting,  # the chosen one
        "vocabulary": dataset.vocabulary,
        "replicas": [
            {"fold": sweep.folds[r.fold].name, "seed": r.seed, "setting": run_folder.setting_name(r.setting)}
            for r in sweep.replicas
        ],
    }
    run_folder.write_json(folder / "model.json", description)


def _predictions(sweep: Sweep, r: int, found: Predicted) -> run_folder.Predictions:
    replica, dataset = sweep.replicas[r], sweep.dataset
    number = len(found.rows)
    return run_folder.Predictions(
        classes=dataset.classes,
        utterance=dataset.column("id")[found.rows],
        fold=np.full(number, sweep.folds[replica.fold].name),
        seed=np.full(number, replica.seed),
        setting=np.full(number, run_folder.setting_name(replica.setting)),
        split=np.where(np.arange(number) < found.validation, "validation", "test"),
        true=dataset.label[found.rows],
        predicted=found.log_probs.argmax(1),
        probabilities=np.exp(found.log_probs.astype(np.float64)),
    )


def _replica_results(sweep: Sweep, trained: Trained, predicted: Sequence[Predicted]) -> list[dict[str, Any]]:
    epochs, codes = trained.best.epoch, trained.status
    told = []
    for r, (replica, found) in enumerate(zip(sweep.replicas, predicted, strict=True)):
        true = sweep.dataset.label[found.rows]
        guess, ones = found.log_probs.argmax(1), np.ones(len(true))
        parts = {"validation": slice(found.validation), "test": slice(found.validation, None)}
        size = len(sweep.dataset.classes)
        confusions: dict[str, Any] = {
            name: metrics.confusion(true[part], guess[part], ones[part], size) if epochs[r] else None
            for name, part in parts.items()
        }
        told.append(
            summary.replica_result(
                fold=sweep.folds[replica.fold].name,
                seed=replica.seed,
                setting=run_folder.setting_name(replica.setting),
                best_epoch=int(epochs[r]) - 1 if epochs[r] else None,
                status=int(codes[r]),
                classes=sweep.dataset.classes,
                **confusions,
            )
        )
    return told


def _claim(folder: Path, asked: Mapping[str, Any], command: str) -> None:
    """Write what the run is asked for, or see that the folder was begun with the same."""
    path = folder / run_folder.CONFIG
    if not path.is_file():
        if leads():
            run_folder.write_json(path, {**asked, "command": command})
        return
    before = run_folder.read_json(path)
    if changed := _first_difference(before, asked):
        raise UsageError(
            f"{folder} holds a run of another {changed}; give another --workdir, or remove that folder"
        )


def _digest(dataset: Dataset) -> str:
    """Tells datasets apart: CRC-32C of the manifest's parts that say what is in the shards."""
    manifest = {
        name: dataset.manifest.get(name)
        for name in ("name", "recipe", "version", "shards", "labels", "embeddings")
    }
    return f"{google_crc32c.value(json.dumps(run_folder.plain(manifest), sort_keys=True).encode()):08x}"


def _first_difference(before: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    if before.get("dataset") != asked["dataset"]:
        return "version of the dataset"
    old, new = _flat(before.get("config", {})), _flat(asked["config"])
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            return f"config: {name} was {json.dumps(old.get(name))} and is now {json.dumps(new.get(name))}"
    return ""


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(dict(tree), sep=".")


def _check_values(config: ConfigDict) -> None:
    for name in ("epochs", "batch_size", "seeds", "buckets"):
        if config[name] < 1:
            raise UsageError(f"config.{name}={config[name]} must be at least 1")
    if config.patience < 0:
        raise UsageError(f"config.patience={config.patience} must be 0 (all epochs) or more")
    _choice("selection", config.selection, SELECTIONS)
    _choice("classes", config.classes, CLASSES)
    _choice("subset", config.subset, SUBSETS)
    _choice("normalise", config.normalise, NORMALISATIONS)
    _choice("class_weights", config.class_weights, ("none", "balanced"))
    _choice("precision", config.precision, PRECISIONS)
    _choice("copies", config.copies, ("none", "train", "train_and_validation"))
    _choice("optimizer.clip", config.optimizer.clip, CLIPS)
    _choice("optimizer.schedule", config.optimizer.schedule, SCHEDULES)


def _check_hyper(config: ConfigDict, known: Sequence[str]) -> None:
    for name in config.hyper:
        if name not in known:
            raise UsageError(f"config.hyper.{name} is read by nothing here; known are {', '.join(known)}")
        values = (config.hyper[name], *config.sweep.get(name, ()))
        is_rate = name.endswith("dropout_rate")
        for value in values:
            if not isinstance(value, int | float):
                raise UsageError(f"config.sweep.{name}: {value!r} is no number; write 1 or 1,2,3")
            if not (0 <= value < 1 if is_rate else value >= 0):
                allowed = "from 0 to below 1" if is_rate else "0 or more"
                raise UsageError(f"config.hyper.{name}={value} must be {allowed}")


def _choice(field: str, value: str, allowed: Sequence[str] | Mapping[str, Any]) -> None:
    if value not in allowed:
        raise UsageError(f"config.{field}={value!r} is not one of {', '.join(allowed)}")


def check_strategy(strategy: str) -> None:
    """Raises UsageError where a strategy's name is unknown; "" chooses by device."""
    if strategy and strategy not in STRATEGIES:
        raise UsageError(f"--strategy={strategy!r} is not one of {', '.join(STRATEGIES)}")
