"""Validation of a config: from a config file and the user's values to a run's fields."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import numpy as np
from ml_collections import ConfigDict

from jaxser import corpora
from jaxser.configs import common
from jaxser.data.across import LEAVE_ONE_OUT
from jaxser.data.merging import Names
from jaxser.data.normalisation import NORMALISATIONS
from jaxser.encoders import Encoder, load
from jaxser.encoders.frames import Layers
from jaxser.encoders.masking import Masking
from jaxser.encoders.tuning import Tuning
from jaxser.evaluation.targets import (
    ATTRIBUTE_LOSSES,
    ATTRIBUTES,
    CLASS_BALANCED,
    CLASSES,
    KINDS,
    TARGETS,
    VOTE_LOSSES,
    VOTES,
    Attributes,
    Classes,
    Target,
    Votes,
)
from jaxser.models import MODELS, encoded
from jaxser.models.encoded import with_waveforms
from jaxser.models.layer_mix import with_layer_weights
from jaxser.models.network import Network
from jaxser.training import augment, scalars
from jaxser.training.mesh import STRATEGIES
from jaxser.training.optim import CLIPS, SCHEDULES, Adam
from jaxser.training.replica import PRECISIONS
from jaxser.training.scalars import OF_CLASSES, OPTIONAL
from jaxser.types import Dataset, FieldError, UsageError

_CHOICES: Mapping[str, Sequence[str] | Mapping[str, Any]] = {
    "training": common.TRAININGS,
    "target": TARGETS,
    "attributes.loss": ATTRIBUTE_LOSSES,
    "votes.loss": VOTE_LOSSES,
    "subset": corpora.SUBSETS,
    "normalise": NORMALISATIONS,
    "class_weights": ("none", "balanced"),
    "precision": PRECISIONS,
    "copies": ("none", "available", "train", "train_and_validation"),
    "optimizer.clip": CLIPS,
    "optimizer.schedule": SCHEDULES,
    "across.normalise": ("together", "corpus"),
    "across.sampling": ("size", "equal"),
}
"""The allowed values of fields that name a choice."""

BETA = 0.999
"""The `class_balance` of `config.votes.loss=class_balanced`, unless another one is given."""

_SELECTIONS = {target.kind: target.selections for target in KINDS}
"""The allowed values of `config.selection`, by target."""

_HEADLINES = {target.kind: target.headline for target in KINDS}
"""The score that selects the epoch if nothing else is stated, by target."""


def resolve(config: ConfigDict, given: Mapping[str, Any] | None = None) -> ConfigDict:
    """Complete a config with the fields of its variant and training, and check all values.

    Fields that `config.as_published` sets come before those of the variant, and those of `config.training` after them.

    Args:
        config: the config of a file in `jaxser.configs`.
        given: the user's own values by their paths, such as "hyper.learning_rate"; they override those of the variant
            and of `config.training`.

    Raises:
        UsageError: if a variant, field or value is not allowed.
    """
    config = config.copy_and_resolve_references()
    _apply_published(config)
    _apply_variant(config)
    _apply_training(config)
    _apply_target(config, (given or {}).get("target", config.target))
    _apply_across(config, given or {})
    if "epochs" in (given or {}):
        config.epochs_without_copies = 0
    config.sweep = ConfigDict({name: config.sweep.get(name, ()) for name in config.hyper})
    for path, value in (given or {}).items():
        if path.partition("[")[0] not in flatten(config.to_dict()):
            raise UsageError(f"config.{path}: variant {config.variant} has no such field")
        config.update_from_flattened_dict({path: value})
    config.dataset = config.datasets or config.dataset
    _check_values(config)
    _check_across(config)
    return config


def datasets_of(config: ConfigDict) -> Names:
    """Return the names of the datasets of a config.

    Raises:
        UsageError: if a name is empty, or there twice.
    """
    return Names.parse(config.datasets or config.dataset, config.test_on)


def build_target(config: ConfigDict, dataset: Dataset) -> Target:
    """Return what a resolved config predicts on a dataset.

    The scale of attributes is that of the corpus or, if it is unknown, reaches from the lowest to the highest value.

    Raises:
        UsageError: if the attributes do not vary, or there are no classes to train as well.
    """
    if config.target == CLASSES:
        return Classes(dataset.classes)
    values, share = dataset.target, config.attributes.class_share
    if values is None:
        raise UsageError(f"config.target={config.target}: {dataset.name} was loaded without {config.target}")
    if config.target == VOTES:
        return Votes(dataset.classes, config.votes.loss)
    if constant := [name for name, own in zip(dataset.attributes, values.T, strict=True) if not np.ptp(own)]:
        raise UsageError(
            f"config.attributes.names: {constant[0]} has the same value for all utterances of {dataset.name}; "
            "choose others"
        )
    if share and len(dataset.classes) < 2:
        raise UsageError(f"config.attributes.class_share={share}: {dataset.name} has fewer than two classes")
    low, high = corpora.find(dataset.manifest.get("corpus", "")).scale or (values.min(), values.max())
    if values.min() < low or values.max() > high:
        raise UsageError(
            f"config.target=attributes: {dataset.name} has values from {values.min():g} to {values.max():g}, which "
            f"are outside the scale of its corpus, {low:g} to {high:g}"
        )
    names, loss = dataset.attributes, config.attributes.loss
    return Attributes(names, float(low), float(high), loss, float(share), len(dataset.classes))


def build_model(
    config: ConfigDict,
    width: int,
    parameters: Mapping[str, Any] | None = None,
    encoder: Encoder | None = None,
) -> Network:
    """Build the network that a resolved config describes.

    Args:
        config: a resolved config.
        width: the number of outputs: of classes, or of what the target needs.
        parameters: the parameters of the recipe, from the manifest of the dataset.
        encoder: the pretrained encoder that the network is put behind.

    Raises:
        UsageError: if there is no such network, it has no field of that name, or it cannot be put behind an encoder.
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
    network = MODELS[name](num_classes=width, **fields)
    if encoder is None:
        return with_layer_weights(network, parameters or {})
    return _behind(encoder, network, config.encoder)


def _behind(encoder: Encoder, network: Network, fields: ConfigDict) -> Network:
    """Return the network behind an encoder within the training step."""
    targets = tuple(part.strip() for part in fields.lora_targets.split(","))
    tuning = Tuning(fields.train, fields.lora_rank, fields.lora_alpha, targets)
    masking = Masking(
        fields.mask_time_prob, fields.mask_time_length, fields.mask_feature_prob, fields.mask_feature_length
    )
    try:
        layers = Layers.parse(fields.layers, encoder.layers)
        return with_waveforms(network, encoder, layers, tuning, fields.normalise, masking)
    except FieldError as error:
        raise UsageError(f"config.encoder.{error}") from None
    except UsageError as error:
        raise UsageError(str(error).replace("--layers", "config.encoder.layers", 1)) from None


def load_encoder(config: ConfigDict) -> Encoder:
    """Load the pretrained encoder of a resolved config whose recipe has waveforms.

    Raises:
        UsageError: if no folder is given, or a field has an unknown value.
        InputError: if the folder cannot be used.
    """
    fields = config.encoder
    if not fields.folder:
        raise UsageError(
            f"recipe {config.recipe} needs --config.encoder.folder, the folder of a pretrained encoder"
        )
    return load(fields.folder, padding=fields.padding or None, remat=fields.remat)


def check_hyper(config: ConfigDict, known: Sequence[str]) -> None:
    """Check the hyper-parameters and the values to sweep.

    Args:
        config: a resolved config.
        known: the hyper-parameters that the network and the optimizer read.

    Raises:
        UsageError: if one is unknown, not a number or out of range.
    """
    for name in config.hyper:
        if name not in known and name not in OPTIONAL:
            raise UsageError(f"config.hyper.{name} is not read by this run; it reads {', '.join(known)}")
        least, below = OPTIONAL.get(name, (0, 1 if name.endswith("dropout_rate") else math.inf))
        for value in (config.hyper[name], *config.sweep.get(name, ())):
            if not isinstance(value, int | float):
                raise UsageError(f"config.sweep.{name}: {value!r} is not a number; write 1 or 1,2,3")
            if not least <= value < below:
                allowed = f"at least {least:g}" + ("" if below == math.inf else f" and less than {below:g}")
                raise UsageError(f"config.hyper.{name}={value} must be {allowed}")


def training_hyper(config: ConfigDict, model: Network) -> dict[str, float]:
    """Return the hyper-parameters that a run uses.

    Optional ones that are off and not swept are left out. Of those that `config.training` sets, the ones that do not
    suit the network are left out.

    Raises:
        UsageError: if one that the user has set does not suit the network, or contradicts another.
    """
    used = scalars.used(config.hyper.to_dict(), config.sweep.to_dict())
    by_training = common.TRAININGS[config.training].get("hyper", {})
    for name in [name for name in used if name in OPTIONAL]:
        if reason := _unsuitable(name, model, config):
            if config.sweep.get(name) or config.hyper[name] != by_training.get(name):
                raise UsageError(f"config.hyper.{name} {reason}; set it to {OPTIONAL[name].off:g}")
            del used[name]
    if {"ema_decay", "swa_share"} <= used.keys():
        raise UsageError("config.hyper.swa_share and config.hyper.ema_decay exclude each other; set one to 0")
    if "class_balance" in used and config.class_weights != "none":
        raise UsageError(
            f"config.hyper.class_balance and config.class_weights={config.class_weights} exclude each other"
        )
    return used


def swept(config: ConfigDict) -> dict[str, Sequence[float]]:
    """Return the values of the hyper-parameters that are swept."""
    return {name: values for name, values in config.sweep.items() if values}


def describe_training(config: ConfigDict, hyper: Mapping[str, float]) -> str:
    """Describe how a resolved config trains, in one line.

    Args:
        config: a resolved config.
        hyper: the hyper-parameters that the run uses.
    """
    parts = [f"batches of {config.batch_size}", f"at most {config.epochs} epochs"]
    parts += [f"patience {config.patience}"] * bool(config.patience)
    parts += [
        f"schedule {config.optimizer.schedule}",
        f"copies {config.copies}",
        f"selection {config.selection}",
    ]
    parts += [f"mean of {config.best_epochs} epochs"] * (config.best_epochs > 1)
    parts += [
        f"{name} {'swept' if name in swept(config) else format(value, 'g')}" for name, value in hyper.items()
    ]
    return f"{config.training}: {', '.join(parts)}"


def check_strategy(strategy: str) -> None:
    """Check the value of `--strategy`; "" chooses by device.

    Raises:
        UsageError: if the strategy is unknown.
    """
    if strategy and strategy not in STRATEGIES:
        raise UsageError(f"--strategy={strategy!r} is not one of {', '.join(STRATEGIES)}")


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a nested mapping by their paths, such as "hyper.learning_rate"."""
    return flax.traverse_util.flatten_dict(dict(tree), sep=".")


def _apply_published(config: ConfigDict) -> None:
    """Set the paper's own settings if the config says `as_published`."""
    published = config.get("published", {})
    if config.get("as_published") and not published:
        raise UsageError("config.as_published: this config file does not state the settings of a paper")
    with config.unlocked():
        if config.get("as_published"):
            config.update(published)
        if "published" in config:
            del config.published


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
            read = (*MODELS[config.model.name].hyper, *Adam.hyper, *OPTIONAL)
            config.hyper = ConfigDict({name: value for name, value in config.hyper.items() if name in read})
    config.update(variant)


def _apply_training(config: ConfigDict) -> None:
    """Set the fields of `config.training`; its `dropout_rate` is that of all layers with dropout."""
    _check_choice("training", config.training, common.TRAININGS)
    fields = dict(common.TRAININGS[config.training])
    if (rate := fields.pop("dropout_rate", None)) is not None:
        config.hyper.update({name: rate for name in config.hyper if name.endswith("dropout_rate")})
    config.update(fields)


def _apply_target(config: ConfigDict, target: str) -> None:
    """Select the epoch by the target's headline score if a paper or corpus states a score of classes."""
    if target in _SELECTIONS and config.selection not in _SELECTIONS[target]:
        config.selection = _HEADLINES[target]


def _apply_across(config: ConfigDict, given: Mapping[str, Any]) -> None:
    """Set the classes, metric and protocol of a run on several datasets, where those of one corpus do not suit."""
    datasets = given.get("datasets", config.datasets)
    names = Names.parse(datasets or config.dataset, given.get("test_on", config.test_on))
    if not names.is_merged:
        return
    if datasets and config.dataset not in (*names.training, datasets):
        raise UsageError(
            f"config.datasets={datasets}: the settings are those for {config.dataset}, which is none of them; write "
            f"--config=FILE.py:{datasets}, or name one of them"
        )
    config.classes = "all"
    if len(names.training) > 1:
        config.selection = "ua"
        name = "random" if names.tested else LEAVE_ONE_OUT
        config.protocol.update({"name": name, "folds": 5 * bool(names.tested), "groups": ()})
        config.protocol.update({"group_by": "speaker" if names.tested else "", "validation_share": 0.0})


def _check_across(config: ConfigDict) -> None:
    """Check the fields of a run on several datasets."""
    is_merged, fields = datasets_of(config).is_merged, config.across
    if not is_merged:
        for name, off in (("normalise", "together"), ("sampling", "size"), ("label_map", "")):
            if fields[name] != off:
                raise UsageError(
                    f"config.across.{name}={fields[name]} is for several datasets (config.datasets)"
                )
        return
    if config.target != CLASSES:
        raise UsageError(
            f"config.target={config.target}: several datasets can only be merged by their classes"
        )
    if fields.normalise == "corpus" and config.normalise not in ("train", "train_neutral"):
        raise UsageError(
            f"config.across.normalise=corpus and config.normalise={config.normalise} exclude each other; set the "
            "latter to train"
        )
    if fields.sampling == "equal" and len(datasets_of(config).training) == 1:
        raise UsageError("config.across.sampling=equal: there is one training dataset (config.datasets)")


def _check_values(config: ConfigDict) -> None:
    for name in ("epochs", "batch_size", "seeds", "buckets", "best_epochs"):
        if config[name] < 1:
            raise UsageError(f"config.{name}={config[name]} must be at least 1")
    for name, meaning in (("patience", "trains all epochs"), ("epochs_without_copies", "is config.epochs")):
        if config[name] < 0:
            raise UsageError(f"config.{name}={config[name]} must be at least 0 (0 {meaning})")
    try:
        corpora.check_classes(config.classes)
    except UsageError as error:
        raise UsageError(f"config.{error}") from None
    values = flatten(config.to_dict())
    for field, allowed in _CHOICES.items():
        _check_choice(field, values[field], allowed)
    _check_choice("selection", config.selection, _SELECTIONS[config.target])
    if not 0 <= config.attributes.class_share < 1:
        share = config.attributes.class_share
        raise UsageError(f"config.attributes.class_share={share} must be at least 0 and less than 1")
    if config.target == ATTRIBUTES and config.class_weights != "none" and not config.attributes.class_share:
        config.class_weights = "none"  # those of a paper: there are no classes
    if config.target == VOTES and config.votes.loss == CLASS_BALANCED:
        config.class_weights = "none"
        if not config.hyper.get("class_balance", 0) and not config.sweep.get("class_balance"):
            config.hyper.class_balance = BETA


def _unsuitable(name: str, model: Network, config: ConfigDict) -> str:
    """Return why a run cannot use an optional hyper-parameter; "" if it can."""
    if name in OF_CLASSES and config.target == ATTRIBUTES and not config.attributes.class_share:
        return "needs classes (config.target, config.attributes.class_share)"
    if name == "focal_gamma" and config.target == VOTES:
        return "needs labels, not votes (config.target)"
    if name == "stochastic_depth_rate" and name not in model.optional_hyper:
        return "needs a network with transformers"
    if name in encoded.HYPER and name not in model.optional_hyper:
        return "needs an encoder that is trained (config.encoder.train)"
    return augment.unusable(name, model.needs) if name in augment.NAMES else ""


def _check_choice(field: str, value: str, allowed: Sequence[str] | Mapping[str, Any]) -> None:
    if value not in allowed:
        raise UsageError(f"config.{field}={value!r} is not one of {', '.join(allowed)}")
