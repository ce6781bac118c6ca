"""The settings of a run next to the paper's own, which `config.as_published` sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

from jaxser import papers
from jaxser.config import flatten, resolve
from jaxser.configs import common
from jaxser.papers import Printed
from jaxser.types import UsageError

_NAMES = {
    "training": "Training",
    "copies": "Copies of recordings in",
    "recipe": "Recipe",
    "normalise": "Normalised over",
    "class_weights": "Class weights",
    "selection": "Epoch selected by",
    "patience": "Patience",
    "epochs": "Epochs, at most",
    "batch_size": "Batch size",
    "hyper.learning_rate": "Learning rate",
    "hyper.l2": "L2",
    "hyper.weight_decay": "Weight decay",
    "hyper.dropout_rate": "Dropout",
    "optimizer.schedule": "Schedule of the learning rate",
    "optimizer.clip": "Gradient clipping",
    "protocol.select": "Part that selects the epoch",
    "model.as_published": "Padding as published",
    "model.train_embeddings": "Word vectors are trained",
}
"""The names of settings; others are called by their path in a config."""

_VALUES = {
    ("recipe", "cat"): "cat (padding is masked)",
    ("recipe", "cat_padded"): "cat_padded (zero-padded to 7.5 s, not masked)",
}

_COMPARED = (
    *("training", "copies", "recipe", "normalise", "class_weights", "selection", "patience", "epochs"),
    *("batch_size", "model", "hyper", "optimizer"),
)
"""The fields that are compared, besides `protocol.select`; folds and seeds are compared as numbers of the run."""


class Difference(NamedTuple):
    """A setting whose value in a run is not the paper's own.

    Attributes:
        paper: "not stated" if the paper does not state it.
    """

    name: str
    paper: str
    here: str


def differences(row: Printed, config: Mapping[str, Any]) -> list[Difference]:
    """Return the settings of a run that differ from the paper's own.

    Args:
        row: the row of the paper's table that the run is compared with.
        config: the config of the run, as in its config.json; fields that it lacks have their defaults.
    """
    published = _published(config)
    here = _flat(common.base_config("", paper="").to_dict()) | _flat(config)
    found = []
    for path, value in published.items():
        if path in here and here[path] != value:
            stated = "not stated" if path in row.not_stated else _shown(path, value)
            stated += " (published code)" if (path, value) == ("normalise", "none") else ""
            found.append(Difference(_NAMES.get(path, path), stated, _shown(path, here[path])))
    return found


def _published(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paper's own settings for the variant and corpus of a run.

    They are empty if this version has no such variant.
    """
    dataset, corpus = str(config["dataset"]), config.get("corpus")
    module = import_module(f"jaxser.configs.{papers.CONFIGS[config['paper']]}")
    own = module.get_config(dataset if corpus is None else f"{dataset}:{corpus}")
    own.variant, own.as_published = config["variant"], True
    try:
        fields = _flat(resolve(own).to_dict())
    except UsageError:
        return {}
    return {
        path: value
        for path, value in fields.items()
        if path.partition(".")[0] in _COMPARED or path == "protocol.select"
    }


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields by their paths, as they are after writing and reading JSON."""
    flat: dict[str, Any] = flatten(json.loads(json.dumps(fields)))
    return flat


def _shown(path: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _VALUES.get((path, value), value)
    return f"{value:g}" if isinstance(value, int | float) else json.dumps(value)
