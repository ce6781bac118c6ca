"""The dataset of a config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from jaxser import corpora
from jaxser.config import datasets_of, load_encoder
from jaxser.data.dataset import copies_of, load_prepared
from jaxser.data.merging import load_merged, normalised_by_corpus
from jaxser.data.shards import MANIFEST
from jaxser.evaluation.targets import ATTRIBUTES, VOTES
from jaxser.training.multihost import run_on_primary
from jaxser.types import Dataset, UsageError


def load_dataset(config: ConfigDict, data_dir: Path, log: Callable[[str], None] = print) -> Dataset:
    """Load the prepared dataset of a resolved config, or merge its datasets.

    A missing demo dataset is made on the spot.

    Raises:
        UsageError: if the dataset is missing or of another recipe; the message has the command that makes it.
        InputError: if a shard is damaged.
    """
    names = datasets_of(config)
    for name in names.all:
        if name in corpora.DEMO_DATASETS:
            run_on_primary(partial(_make_demo, name, config.recipe, data_dir))
    dataset = _merged(config, data_dir) if names.is_merged else _single(config, data_dir)
    if "waveform" in dataset.arrays:
        dataset = replace(dataset, encoder=load_encoder(config))
    elif config.encoder.folder:
        raise UsageError(
            f"config.encoder.folder: recipe {config.recipe} has no waveforms; use recipe waveform"
        )
    target = ", ".join(dataset.attributes) or f"{len(dataset.classes)} classes"
    log(f"{dataset.name}: {len(dataset.label)} utterances, {target}")
    if dataset.left_out:
        log(
            "left out: "
            + ", ".join(f"{n} {label or 'without a label'}" for label, n in dataset.left_out.items())
        )
    for one in dataset.sources:
        log(f"{one.name}: {len(one.label)} utterances, corpus {one.manifest['corpus']}")
    corpus, expected = dataset.manifest["corpus"], config.get("corpus", "")
    if not dataset.sources and corpora.CORPORA.get(corpus) != corpora.CORPORA.get(expected):
        log(
            f"note: {dataset.name} was prepared from corpus {corpus}, but the config is for "
            f"{expected or 'an unknown corpus'}; get_config('{config.dataset}:{corpus}') returns one that fits"
        )
    return dataset


def _single(config: ConfigDict, data_dir: Path) -> Dataset:
    return load_prepared(
        data_dir / config.dataset,
        config.recipe,
        classes=config.classes,
        subset=config.subset,
        attributes=config.attributes.names if config.target == ATTRIBUTES else None,
        votes=config.target == VOTES,
    )


def _merged(config: ConfigDict, data_dir: Path) -> Dataset:
    names = datasets_of(config)
    dataset = load_merged(
        data_dir,
        names,
        config.recipe,
        classes=config.classes,
        subset=config.subset,
        label_map=config.across.label_map,
    )
    return normalised_by_corpus(dataset, names.tested) if config.across.normalise == "corpus" else dataset


def fit_to_dataset(config: ConfigDict, dataset: Dataset) -> ConfigDict:
    """Return a resolved config fitted to whether the dataset has copies of recordings.

    `copies="available"` becomes "train" or "none"; without copies, `epochs_without_copies` replaces `epochs`.
    """
    fitted = config.copy_and_resolve_references()
    if fitted.copies == "available":
        fitted.copies = "train" if copies_of(dataset) else "none"
    if fitted.copies == "none":
        fitted.epochs = fitted.epochs_without_copies or fitted.epochs
    fitted.epochs_without_copies = 0
    return fitted


def _make_demo(name: str, recipe: str, data_dir: Path) -> None:
    """Make a demo dataset if it is missing."""
    if not list((data_dir / name).glob(f"{recipe}/*/{MANIFEST}")):
        from jaxser.data_prep.prepare import prepare  # heavy imports, needed only here

        settings = {} if (data_dir / f"{name}_release").is_dir() else corpora.DEMO_DATASETS[name]
        prepare("demo", name=name, recipe=recipe, out=data_dir, demo=settings)
