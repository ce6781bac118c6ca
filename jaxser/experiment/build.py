"""The sweep of a config: folds, batches, networks and settings."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from jaxser.config import build_model, build_target, datasets_of, swept, training_hyper
from jaxser.data.across import make_folds_across, with_equal_corpora
from jaxser.data.batch_schedule import make_buckets
from jaxser.data.dataset import with_copies
from jaxser.data.folds import Protocol
from jaxser.experiment.checks import check_fit
from jaxser.experiment.dataset import fit_to_dataset
from jaxser.training.mesh import replica_mesh
from jaxser.training.optim import Adam
from jaxser.training.programs import ProgramCache
from jaxser.training.replica import ReplicaTrainer
from jaxser.training.streaming import choose_data_source
from jaxser.training.sweep import Sweep, grid
from jaxser.types import Dataset, FieldError, UsageError


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
        sweep = _sweep(fit_to_dataset(config, dataset), dataset, devices, strategy, budget)
        sweep.shapes()
    except FieldError as error:
        raise UsageError(f"config.model.{error}") from None
    return sweep


def _sweep(
    config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device], strategy: str, budget: int
) -> Sweep:
    target = build_target(config, dataset)
    model = build_model(config, target.width, dataset.manifest.get("parameters"), dataset.encoder)
    optimizer = Adam(**config.optimizer)
    check_fit(config, dataset, model, optimizer, devices, strategy)
    protocol = Protocol(**config.protocol)
    original_folds = folds = make_folds_across(dataset, protocol, datasets_of(config).tested)
    if config.copies != "none":
        dataset, folds = with_copies(dataset, folds, in_validation=config.copies == "train_and_validation")
    if config.across.sampling == "equal":
        folds = with_equal_corpora(dataset, folds, protocol.split_seed)
    lengths = {name: dataset.arrays[name].length for name in model.needs}
    buckets = make_buckets(lengths, config.buckets, config.batch_size, fixed=model.lengths)
    trainer = ReplicaTrainer(
        model=model,
        optimizer=optimizer,
        widths=tuple(tuple(widths.items()) for widths in buckets.widths),
        target=target,
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
        original_folds=original_folds,
        buckets=buckets,
        replicas=grid(len(folds), range(config.seeds), swept(config)),
        hyper=training_hyper(config, model),
        source=choose_data_source(trainer, dataset, buckets, programs, config.normalise, budget),
        programs=programs,
        split_seed=config.protocol.split_seed,
        balanced=config.class_weights == "balanced",
        normalise=config.normalise,
    )
