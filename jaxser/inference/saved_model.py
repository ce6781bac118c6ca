"""The `model/` folder of a run: written when training ends, read by prediction, report and export.

It holds `model.json` (network, recipe, classes, vocabulary), `replicas.npz` (parameters and statistics of all replicas,
stacked) and `embeddings.npy` (the word vectors). Nothing in it is pickled.
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxser.evaluation import run_folder
from jaxser.evaluation.results import RunResults
from jaxser.features.recipes import RECIPES, ArraySpec, Recipe
from jaxser.features.text import Vocabulary
from jaxser.inference.ensemble import Ensemble, ReplicaParameters
from jaxser.models import MODELS
from jaxser.models.network import Network
from jaxser.types import Dataset, InputError, Normalisation, Trained, UsageError

_DESCRIPTION = "model.json"
_REPLICAS = "replicas.npz"
_EMBEDDINGS = "embeddings.npy"

Content = TypeVar("Content")


class ReplicaId(NamedTuple):
    """The fold, seed and setting of a replica."""

    fold: str
    seed: int
    setting: str = ""


def save_models(
    folder: Path,
    dataset: Dataset,
    trained: Trained,
    replicas: Sequence[tuple[str, int, str]],
    *,
    model: Mapping[str, Any],
    normalise: str,
    setting: str,
) -> None:
    """Save the selected parameters of every replica, and everything else that prediction needs.

    Args:
        folder: the `model/` folder of the run; created if it is missing.
        dataset: the dataset that the replicas were trained on.
        trained: the replicas, stacked.
        replicas: fold, seed and setting of each replica.
        model: the name of the network and its fields, as in the config.
        normalise: the config's `normalise`.
        setting: the reported setting, whose replicas predict.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stacked = {
        "params": trained.best.params,
        "batch_stats": trained.best.batch_stats,
        "normalisation": {name: value._asdict() for name, value in trained.normalisation.items()},
        "hyper": dict(trained.hyper),
    }
    np.savez(folder / _REPLICAS, **flax.traverse_util.flatten_dict(stacked, sep="/"))
    if dataset.embeddings is not None:
        np.save(folder / _EMBEDDINGS, dataset.embeddings)
    description = {
        "model": model,
        "classes": dataset.classes,
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
        "replicas": [ReplicaId(*replica)._asdict() for replica in replicas],
    }
    run_folder.write_json(folder / _DESCRIPTION, description)


def load(folder: str | Path, *, fold: str | int | None = None, seed: int | None = None) -> Ensemble:
    """Load the networks of a finished run.

    If the run swept hyper-parameters, only the replicas of the reported setting are loaded.

    Args:
        folder: the folder that training wrote.
        fold: only the replicas of this fold, by its name in results.json, or by its index if no name is a number.
        seed: only the replicas of this seed.

    Raises:
        InputError: if the folder is not a finished run, is damaged, or was written by an incompatible version.
        UsageError: if the run has no such fold or seed.
    """
    folder = Path(folder)
    inside = folder / run_folder.MODEL
    _check_finished(folder, inside / _DESCRIPTION)
    description = _read(
        inside / _DESCRIPTION, lambda path: _Description.from_json(run_folder.read_json(path))
    )
    results = run_folder.read_results(folder)
    model = _network(inside / _DESCRIPTION, description)
    rows = _chosen_rows(folder, description, results, fold, seed)
    if lacking := [name for name in model.needs if name not in description.arrays]:
        raise _damaged(inside / _DESCRIPTION, f"it does not describe array {lacking[0]!r}")
    return Ensemble(
        folder=folder,
        run_results=results,
        classes=description.classes,
        members=tuple((description.replicas[row].fold, description.replicas[row].seed) for row in rows),
        model=model,
        recipe=_recipe(folder, description),
        arrays={name: description.arrays[name] for name in model.needs},
        normalise=description.normalise,
        vocabulary=Vocabulary(description.vocabulary),
        embeddings=_read(inside / _EMBEDDINGS, _read_embeddings) if "words" in model.needs else None,
        replicas=_read(inside / _REPLICAS, lambda path: _read_replicas(path, rows)),
    )


@dataclass(frozen=True)
class _Description:
    """The contents of model.json."""

    model: str
    fields: Mapping[str, Any]
    classes: tuple[str, ...]
    recipe: str
    recipe_version: str
    recipe_parameters: Mapping[str, Any]
    arrays: Mapping[str, ArraySpec]
    normalise: str
    setting: str
    vocabulary: tuple[str, ...]
    replicas: tuple[ReplicaId, ...]

    @classmethod
    def from_json(cls, value: Any) -> _Description:
        fields = {name: _tuples(field) for name, field in value["model"].items()}
        recipe = value["recipe"]
        return cls(
            model=fields.pop("name"),
            fields=fields,
            classes=tuple(value["classes"]),
            recipe=recipe["name"],
            recipe_version=recipe["version"],
            recipe_parameters=recipe["parameters"],
            arrays={name: ArraySpec(**_tuples(spec)) for name, spec in value["arrays"].items()},
            normalise=value["normalise"],
            setting=value["setting"],
            vocabulary=tuple(value["vocabulary"]),
            replicas=tuple(ReplicaId(**replica) for replica in value["replicas"]),
        )


def _check_finished(folder: Path, description: Path) -> None:
    if description.is_file():
        return
    if (folder / run_folder.CONFIG).is_file() and not (folder / run_folder.RESULTS).is_file():
        raise InputError(f"{folder} is not finished: it has no {run_folder.RESULTS}; {run_folder.RESUME}")
    raise InputError(
        f"{folder} is not a finished run: it has no {run_folder.MODEL}/{_DESCRIPTION}; "
        "give the folder that training wrote"
    )


def _read(path: Path, read: Callable[[Path], Content]) -> Content:
    """Read one file; a file with unexpected contents is an `InputError`."""
    try:
        return read(path)
    except InputError as error:
        raise error if str(path) in str(error) else _damaged(path, str(error)) from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, str(error)) from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None


def _damaged(path: Path, reason: str) -> InputError:
    reason = " ".join(reason.split())
    return InputError(f"{path} is damaged or was written by an incompatible version ({reason}); train again")


def _chosen_rows(
    folder: Path, description: _Description, results: RunResults, fold: str | int | None, seed: int | None
) -> list[int]:
    """The rows of the reported setting's replicas that have a selected epoch."""
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
    kept = [n for n, one in rows.items() if one in trained]
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


def _network(path: Path, description: _Description) -> Network:
    if description.model not in MODELS:
        raise _damaged(path, f"unknown network {description.model!r}")
    network = MODELS[description.model]
    known = {field.name for field in dataclasses.fields(network)} - {"parent", "name", "num_classes"}
    if unknown := sorted(description.fields.keys() - known):
        raise _damaged(path, f"network {description.model} has no field {unknown[0]!r}")
    return network(num_classes=len(description.classes), **description.fields)


def _recipe(folder: Path, description: _Description) -> Recipe:
    """The recipe, with the parameters of the dataset that the run was trained on."""
    name, version = description.recipe, description.recipe_version
    if name not in RECIPES:
        raise InputError(f"{folder} was trained on recipe {name}, which this version of jaxser does not have")
    recipe = RECIPES[name]
    if recipe.version != version:
        raise InputError(
            f"{folder} was trained on version {version} of recipe {name}, but this jaxser has version "
            f"{recipe.version}: prepare the dataset and train again"
        )
    if corpus := description.recipe_parameters.get("made_by"):
        raise InputError(
            f"{folder} was trained on the published features of corpus {corpus}, which cannot be extracted "
            "from a recording"
        )
    return dataclasses.replace(recipe, parameters=description.recipe_parameters)


def _read_embeddings(path: Path) -> Float[Array, "V E"]:
    return jnp.asarray(np.load(path, allow_pickle=False))


def _read_replicas(path: Path, rows: Sequence[int]) -> ReplicaParameters:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stacked:
        flat = {name: jnp.asarray(stacked[name][list(rows)]) for name in stacked.files}
    tree = flax.traverse_util.unflatten_dict(flat, sep="/")
    normalisation = {name: Normalisation(**own) for name, own in tree.get("normalisation", {}).items()}
    return ReplicaParameters(
        tree["params"], tree.get("batch_stats", {}), normalisation, tree.get("hyper", {})
    )


def _tuples(value: Any) -> Any:
    """JSON with tuples in place of lists, since fields of a network must be hashable."""
    if isinstance(value, dict):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
