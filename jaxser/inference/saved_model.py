"""The `model/` folder of a run, written after training and read by other commands.

It holds `model.json` (network, recipe, classes, vocabulary), `replicas.npz` (parameters and statistics of all replicas,
stacked) and `embeddings.npy` (the word vectors). Nothing in it is pickled.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Array, Float

from jaxser import files
from jaxser.data.normalisation import NORMALISATIONS
from jaxser.encoders import load as load_encoder
from jaxser.encoders.frames import Layers
from jaxser.encoders.tuning import Tuning
from jaxser.evaluation import run_folder
from jaxser.evaluation.results import RunResults
from jaxser.evaluation.targets import Target
from jaxser.features.recipes import RECIPES, ArraySpec, Recipe
from jaxser.features.text import Vocabulary
from jaxser.files import CheckedFolder
from jaxser.inference.ensemble import Ensemble
from jaxser.inference.fit import check_fit
from jaxser.inference.networks import ReplicaParameters
from jaxser.models import MODELS
from jaxser.models.encoded import with_waveforms
from jaxser.models.layer_mix import with_layer_weights
from jaxser.models.network import Network
from jaxser.types import Dataset, FieldError, InputError, Normalisation, Trained, UsageError

DESCRIPTION = f"{run_folder.MODEL}/model.json"
REPLICAS = f"{run_folder.MODEL}/replicas.npz"
EMBEDDINGS = f"{run_folder.MODEL}/embeddings.npy"

ReplicaId = tuple[str, int, str]
"""The fold, seed and setting of a replica."""


def save_models(
    folder: Path,
    dataset: Dataset,
    trained: Trained,
    replicas: Sequence[tuple[str, int, str]],
    *,
    model: Mapping[str, Any],
    target: Mapping[str, Any],
    encoder: Mapping[str, Any] | None,
    normalise: str,
    setting: str,
) -> None:
    """Save the selected parameters of all replicas, and whatever else prediction needs.

    Args:
        folder: the folder of the run.
        dataset: the dataset that the replicas were trained on.
        trained: the replicas, stacked.
        replicas: fold, seed and setting of each replica.
        model: the name of the network and its fields, as in the config.
        target: what is predicted, as in results.json; empty for classes.
        encoder: what is in front of the network, see `Encoded.described`; its pretrained parameters are not saved.
        normalise: the config's `normalise`.
        setting: the reported setting, whose replicas predict.
    """
    stacked = {
        "params": trained.best.params,
        "batch_stats": trained.best.batch_stats,
        "normalisation": {name: value._asdict() for name, value in trained.normalisation.items()},
        "hyper": dict(trained.hyper),
    }
    with files.open_binary(folder, REPLICAS) as file:
        np.savez(file, **flax.traverse_util.flatten_dict(stacked, sep="/"))
    if dataset.embeddings is not None:
        with files.open_binary(folder, EMBEDDINGS) as file:
            np.save(file, dataset.embeddings, allow_pickle=False)
    description = {
        "model": model,
        "encoder": encoder,
        "classes": dataset.classes,
        "target": target,
        "recipe": {
            "name": dataset.recipe,
            "version": dataset.version,
            "parameters": dataset.manifest.get("parameters", {}),
        },
        "arrays": {  # as in the manifest: None is the dimension that varies in length
            name: {"dtype": str(array.values.dtype), "shape": (None, *array.values.shape[1:])}
            for name, array in dataset.arrays.items()
        },
        "normalise": normalise,
        "setting": setting,
        "vocabulary": dataset.vocabulary,
        "replicas": [{"fold": fold, "seed": seed, "setting": setting} for fold, seed, setting in replicas],
    }
    files.write_json(folder, DESCRIPTION, run_folder.plain(description))


def load(
    folder: str | Path,
    *,
    fold: str | int | None = None,
    seed: int | None = None,
    encoder: str | Path | None = None,
) -> Ensemble:
    """Load the networks of a finished run.

    If the run swept hyper-parameters, only the replicas of the reported setting are loaded.

    Args:
        folder: the folder that training wrote.
        fold: only the replicas of this fold, by its name in results.json, or by its index if no name is a number.
        seed: only the replicas of this seed.
        encoder: the folder of the pretrained encoder, if the run trained on waveforms; other runs do not read it here.

    Raises:
        InputError: if the folder is not a finished run, is damaged, or was written by an incompatible version.
        UsageError: if the run has no such fold or seed, or the encoder is missing or another one.
    """
    folder = Path(folder)
    _check_finished(folder)
    source = run_folder.checked(folder)
    description = source.read_json(DESCRIPTION, _Description)
    results = run_folder.read_results(folder)
    if contradiction := description.contradiction(results):
        raise source.damaged(DESCRIPTION, contradiction)
    model = _network(source, description, results.target, encoder)
    rows = _chosen_rows(folder, description, results, fold, seed)
    arrays = {name: description.arrays[name] for name in model.needs if name in description.arrays}
    if lacking := [name for name in model.needs if name not in arrays]:
        raise source.damaged(DESCRIPTION, f"it does not describe array {lacking[0]!r}")
    ensemble = Ensemble(
        folder=folder,
        run_results=results,
        classes=description.classes,
        target=results.target,
        members=tuple((one.fold, one.seed) for one in (description.replicas[row] for row in rows)),
        model=model,
        recipe=_recipe(source, description),
        arrays={name: ArraySpec(one.dtype, one.shape) for name, one in arrays.items()},
        normalise=description.normalise,
        vocabulary=Vocabulary(description.vocabulary),
        embeddings=_read_embeddings(source, description) if "words" in model.needs else None,
        replicas=_read_replicas(source, description, rows),
    )
    check_fit(ensemble)
    return ensemble


@dataclass(frozen=True)
class _Array:
    """An array of the recipe; None is the dimension that varies in length."""

    dtype: typing.Literal["int16", "float16", "float32", "float64", "int32", "int64"]
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class _Encoder:
    """What is in front of the network: `Encoded.described`."""

    family: str
    digest: str
    padding: str
    layers: tuple[int, ...]
    layers_mean: bool
    normalise: str
    tuning: Tuning

    def before(self, network: Network, folder: str | Path | None) -> Network:
        """Return the network behind the encoder in a folder.

        Raises:
            FieldError: if a value does not suit the network or the encoder.
            UsageError: if the folder is missing, or is not that of the run's encoder.
            InputError: if the folder cannot be used.
        """
        if folder is None:
            raise UsageError(
                f"this run was trained with a pretrained encoder ({self.family}): give --encoder=FOLDER"
            )
        encoder = load_encoder(folder, padding=self.padding)
        if encoder.digest != self.digest:
            raise UsageError(f"--encoder={folder}: not the weights that this run was trained with")
        layers = Layers(self.layers, self.layers_mean)
        return with_waveforms(network, encoder, layers, self.tuning, self.normalise)


@dataclass(frozen=True)
class _Recipe:
    """The recipe of the dataset."""

    name: str
    version: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class _Replica:
    """The fold, seed and setting of a row of replicas.npz."""

    fold: str
    seed: int
    setting: str

    @property
    def id(self) -> ReplicaId:
        return self.fold, self.seed, self.setting


@dataclass(frozen=True)
class _Description:
    """The contents of model.json."""

    model: Mapping[str, Any]
    classes: tuple[str, ...]
    recipe: _Recipe
    arrays: Mapping[str, _Array]
    normalise: str
    setting: str
    vocabulary: tuple[str, ...]
    replicas: tuple[_Replica, ...]
    encoder: _Encoder | None = None
    target: Mapping[str, Any] = field(default_factory=dict)

    def contradiction(self, results: RunResults) -> str:
        """Return what does not fit the results of the run, or an empty string."""
        if self.classes != results.classes or self.setting != results.setting:
            return f"its classes or its setting are not those of {run_folder.RESULTS}"
        if dict(self.target) != dict(results.described_target):
            return f"its target is not that of {run_folder.RESULTS}"
        known = {(one.fold, one.seed, one.setting) for one in results.replicas}
        if unknown := [one for one in self.replicas if one.id not in known]:
            return f"{run_folder.RESULTS} has no replica of fold {unknown[0].fold}, seed {unknown[0].seed}"
        if known - {one.id for one in self.replicas}:
            return f"it lacks replicas of {run_folder.RESULTS}"
        if any(one.shape[:1] != (None,) or None in one.shape[1:] for one in self.arrays.values()):
            return "an array has not one dimension that varies, which is the first"
        if self.normalise not in NORMALISATIONS:
            return f"there is no normalisation {self.normalise!r}"
        return ""


def _check_finished(folder: Path) -> None:
    if (folder / DESCRIPTION).is_file():
        return
    if (folder / run_folder.CONFIG).is_file() and not (folder / run_folder.RESULTS).is_file():
        raise InputError(f"{folder} is not finished: it has no {run_folder.RESULTS}; {run_folder.RESUME}")
    raise InputError(
        f"{folder} is not a finished run: it has no {DESCRIPTION}; give the folder that training wrote"
    )


def _chosen_rows(
    folder: Path, description: _Description, results: RunResults, fold: str | int | None, seed: int | None
) -> list[int]:
    """Return the rows of the reported setting's replicas that have a selected epoch."""
    rows = {n: one for n, one in enumerate(description.replicas) if one.setting == description.setting}
    folds = list(dict.fromkeys(one.fold for one in rows.values()))
    seeds = sorted({one.seed for one in rows.values()})
    if fold is not None:
        name = _fold_name(folds, str(fold))
        rows = {n: one for n, one in rows.items() if one.fold == name}
    if seed is not None:
        if seed not in seeds:
            raise UsageError(f"--seed={seed}: no such seed; {folder} has {', '.join(map(str, seeds))}")
        rows = {n: one for n, one in rows.items() if one.seed == seed}
    trained = {(r.fold, r.seed, r.setting) for r in results.replicas if r.best_epoch is not None}
    kept = [n for n, one in rows.items() if one.id in trained]
    if not kept:
        raise InputError(
            f"{folder}: none of the selected replicas reached a finite loss, so none can predict"
        )
    return kept


def _fold_name(folds: Sequence[str], asked: str) -> str:
    if asked in folds:
        return asked
    if asked.isdecimal() and int(asked) < len(folds) and not any(name.isdecimal() for name in folds):
        return folds[int(asked)]
    raise UsageError(f"--fold={asked}: no such fold; the run has {', '.join(folds)}")


def _network(
    source: CheckedFolder, description: _Description, target: Target, encoder: str | Path | None
) -> Network:
    fields = dict(description.model)
    name = fields.pop("name", None)
    if not isinstance(name, str) or name not in MODELS:
        raise source.damaged(DESCRIPTION, f"unknown network {name!r}")
    network = MODELS[name]
    kinds = typing.get_type_hints(network)
    known = {field.name for field in dataclasses.fields(network)} - {"parent", "name", "num_classes"}
    if unknown := sorted(fields.keys() - known):
        raise source.damaged(DESCRIPTION, f"network {name} has no field {unknown[0]!r}")
    try:
        typed = {key: msgspec.convert(value, kinds[key]) for key, value in fields.items()}
    except msgspec.ValidationError as error:
        raise source.damaged(DESCRIPTION, f"network {name}: {error}") from None
    built = network(num_classes=target.width, **typed)
    if description.encoder is None:
        return with_layer_weights(built, description.recipe.parameters)
    try:
        return description.encoder.before(built, encoder)
    except FieldError as error:
        raise source.damaged(DESCRIPTION, f"encoder: {error}") from None


def _recipe(source: CheckedFolder, description: _Description) -> Recipe:
    """Return the recipe, with the parameters of the dataset that the run was trained on."""
    folder, name, version = source.root, description.recipe.name, description.recipe.version
    parameters = description.recipe.parameters
    if name not in RECIPES:
        raise InputError(f"{folder} was trained on recipe {name}, which this version of jaxser does not have")
    recipe = RECIPES[name]
    if recipe.version != version:
        raise InputError(
            f"{folder} was trained on version {version} of recipe {name}, but this jaxser has version "
            f"{recipe.version}: prepare the dataset and train again"
        )
    if corpus := parameters.get("made_by"):
        raise InputError(
            f"{folder} was trained on the published features of corpus {corpus}, which cannot be extracted "
            "from a recording"
        )
    for key, value in run_folder.plain(recipe.parameters).items():
        if type(parameters.get(key, value)) is not type(value):
            raise source.damaged(DESCRIPTION, f"recipe {name} has no {key}={parameters[key]!r}")
    return dataclasses.replace(recipe, parameters={**recipe.parameters, **parameters})


def _read_embeddings(source: CheckedFolder, description: _Description) -> Float[Array, "V E"]:
    table = source.read_array(EMBEDDINGS)
    words = len(description.vocabulary)
    if table.dtype.kind != "f" or table.ndim != 2 or len(table) != words or not np.isfinite(table).all():
        raise source.damaged(EMBEDDINGS, f"not a finite vector for each of the {words} words")
    return jnp.asarray(table)


def _read_replicas(
    source: CheckedFolder, description: _Description, rows: Sequence[int]
) -> ReplicaParameters:
    """Return the parameters and statistics of some replicas, which must be finite."""
    flat = {}
    for name, stacked in source.read_arrays(REPLICAS):
        if stacked.ndim == 0 or len(stacked) != len(description.replicas):
            raise source.damaged(REPLICAS, f"{name} has not a row for each of the replicas in {DESCRIPTION}")
        values = stacked[list(rows)]
        if (
            stacked.dtype.kind == "f"
            and not (is_finite := np.isfinite(values.reshape(len(rows), -1)).all(1)).all()
        ):
            lost = description.replicas[rows[int(np.argmin(is_finite))]]
            raise source.damaged(REPLICAS, f"{name} of fold {lost.fold}, seed {lost.seed} is not finite")
        flat[tuple(name.split("/"))] = values
    groups: dict[str, dict[tuple[str, ...], Any]] = {
        key: {} for key in ("params", "batch_stats", "normalisation", "hyper")
    }
    for path, values in flat.items():
        if path[0] not in groups:
            raise source.damaged(REPLICAS, f"unknown array {'/'.join(path)}")
        groups[path[0]][path[1:]] = jnp.asarray(values)
    try:
        trees = {key: flax.traverse_util.unflatten_dict(own) for key, own in groups.items()}
        normalisation = {name: Normalisation(**own) for name, own in trees["normalisation"].items()}
    except (TypeError, ValueError) as error:
        raise source.damaged(REPLICAS, f"its arrays are not those of a network: {error}") from None
    return ReplicaParameters(trees["params"], trees["batch_stats"], normalisation, trees["hyper"])
