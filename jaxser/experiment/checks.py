"""Checks of a config that depend on the dataset, the network or the devices."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from jaxser.config import check_hyper, swept, training_hyper
from jaxser.evaluation.targets import ATTRIBUTES
from jaxser.features.audio import SAMPLE_RATE
from jaxser.models.network import Network
from jaxser.training.optim import Adam
from jaxser.types import Dataset, UsageError


def check_fit(
    config: ConfigDict,
    dataset: Dataset,
    model: Network,
    optimizer: Adam,
    devices: Sequence[jax.Device],
    strategy: str,
) -> None:
    """Check a resolved config against its dataset, its network and the devices.

    Raises:
        UsageError: if they do not fit.
    """
    if config.target != ATTRIBUTES and len(dataset.classes) < 2:
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
    if config.protocol.select == "test" and any(len(values) > 1 for values in swept(config).values()):
        raise UsageError(
            "config.protocol.select=test has no validation part by which to choose among settings: sweep nothing"
        )
