"""Validation of a config: from a config file and the user's own values to fields that can be run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
from ml_collections import ConfigDict

from jaxser import corpora
from jaxser.data.normalisation import NORMALISATIONS
from jaxser.models import MODELS
from jaxser.models.network import Network
from jaxser.training.mesh import STRATEGIES
from jaxser.training.optim import CLIPS, SCHEDULES, Adam
from jaxser.training.replica import PRECISIONS, SELECTIONS
from jaxser.types import UsageError

_CHOICES: Mapping[str, Sequence[str] | Mapping[str, Any]] = {
    "selection": SELECTIONS,
    "classes": corpora.LABEL_SETS,
    "subset": corpora.SUBSETS,
    "normalise": NORMALISATIONS,
    "class_weights": ("none", "balanced"),
    "precision": PRECISIONS,
    "copies": ("none", "train", "train_and_validation"),
    "optimizer.clip": CLIPS,
    "optimizer.schedule": SCHEDULES,
}
"""The allowed values of fields that name a choice."""


def resolve(config: ConfigDict, given: Mapping[str, Any] | None = None) -> ConfigDict:
    """Return the config with the fields of its variant set and every value checked.

    Args:
        config: the config of a file in `jaxser.configs`.
        given: the user's own values by their paths, such as "hyper.learning_rate"; they override the variant's.

    Raises:
        UsageError: if a variant, field or value is not allowed.
    """
    config = config.copy_and_resolve_references()
    _apply_variant(config)
    config.sweep = ConfigDict({name: config.sweep.get(name, ()) for name in config.hyper})
    for path, value in (given or {}).items():
        if path.partition("[")[0] not in flatten(config.to_dict()):
            raise UsageError(f"config.{path}: variant {config.variant} has no such field")
        config.update_from_flattened_dict({path: value})
    _check_values(config)
    return config


def build_model(config: ConfigDict, num_classes: int) -> Network:
    """Build the network that a resolved config describes.

    Raises:
        UsageError: if there is no such network, or it has no field of that name.
    """
    fields = dict(config.model)
    name = fields.pop("name")
    _check_choice("model.name", name, MODELS)
    allowed = {f.name for f in dataclasses.fields(MODELS[name])} - {"parent", "name", "num_classes"}
    for field in fields:
        if field not in allowed:
            raise UsageError(
                f"config.model.{field}: {name} has no such field; it has {', '.join(sorted(allowed))}"
            )
    return MODELS[name](num_classes=num_classes, **fields)


def check_hyper(config: ConfigDict, known: Sequence[str]) -> None:
    """Check the hyper-parameters and the values to sweep.

    Args:
        config: a resolved config.
        known: the hyper-parameters that the network and the optimizer read.

    Raises:
        UsageError: if one is unknown, not a number or out of range.
    """
    for name in config.hyper:
        if name not in known:
            raise UsageError(f"config.hyper.{name} is not read by this run; it reads {', '.join(known)}")
        is_rate = name.endswith("dropout_rate")
        for value in (config.hyper[name], *config.sweep.get(name, ())):
            if not isinstance(value, int | float):
                raise UsageError(f"config.sweep.{name}: {value!r} is not a number; write 1 or 1,2,3")
            if not (0 <= value < 1 if is_rate else value >= 0):
                allowed = "at least 0 and less than 1" if is_rate else "at least 0"
                raise UsageError(f"config.hyper.{name}={value} must be {allowed}")


def check_strategy(strategy: str) -> None:
    """Check the value of `--strategy`; "" chooses by device.

    Raises:
        UsageError: if the strategy is unknown.
    """
    if strategy and strategy not in STRATEGIES:
        raise UsageError(f"--strategy={strategy!r} is not one of {', '.join(STRATEGIES)}")


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a nested mapping by their paths, such as "hyper.learning_rate"."""
    return flax.traverse_util.flatten_dict(dict(tree), sep=".")


def _apply_variant(config: ConfigDict) -> None:
    """Set the fields of the chosen variant; a baseline brings a network of its own."""
    variants = config.variants.to_dict()
    if config.variant not in variants:
        raise UsageError(f"config.variant={config.variant!r} is not one of {', '.join(variants)}")
    variant = variants[config.variant]
    with config.unlocked():
        del config.variants
        if "name" in variant.get("model", {}):
            config.model = ConfigDict()
            config.update(variant)
            read = MODELS[config.model.name].hyper + Adam.hyper
            config.hyper = ConfigDict({name: value for name, value in config.hyper.items() if name in read})
    config.update(variant)


def _check_values(config: ConfigDict) -> None:
    for name in ("epochs", "batch_size", "seeds", "buckets"):
        if config[name] < 1:
            raise UsageError(f"config.{name}={config[name]} must be at least 1")
    if config.patience < 0:
        raise UsageError(f"config.patience={config.patience} must be at least 0 (0 trains all epochs)")
    values = flatten(config.to_dict())
    for field, allowed in _CHOICES.items():
        _check_choice(field, values[field], allowed)


def _check_choice(field: str, value: str, allowed: Sequence[str] | Mapping[str, Any]) -> None:
    if value not in allowed:
        raise UsageError(f"config.{field}={value!r} is not one of {', '.join(allowed)}")
