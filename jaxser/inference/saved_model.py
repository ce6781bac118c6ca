"""The saved models of a run's folder, which `jaxser.experiment` wrote: nothing in it is unpickled."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from jaxser.evaluation import run_folder
from jaxser.features.recipes import RECIPES, ArraySpec, Recipe
from jaxser.features.text import Vocabulary
from jaxser.inference.ensemble import Ensemble, Replica
from jaxser.models import MODELS
from jaxser.models.network import Network
from jaxser.types import InputError, Normalisation, UsageError


def load(folder: str | Path, *, fold: str | int | None = None, seed: int | None = None) -> Ensemble:
    """The networks of a finished run: of the chosen setting of a sweep, and of one fold or seed where they are given.

    A fold is named as in run_folder.json, or counted from 0 where no name is a number.

    Raises:
        InputError: the folder is no finished run, is damaged, or was made by another version of jaxser.
        UsageError: the run has no such fold or seed.
    """
    folder = Path(folder)
    inside = folder / run_folder.MODEL
    if not (inside / "model.json").is_file():
        if (folder / run_folder.CONFIG).is_file() and not (folder / run_folder.RESULTS).is_file():
            raise InputError(f"{folder} is not finished: it has no {run_folder.RESULTS}; {run_folder.GO_ON}")
        raise InputError(
            f"{folder} is no finished run: it has no model/model.json; give the folder that training wrote"
        )
    told, found = (
        run_folder.read_json(inside / "model.json"),
        run_folder.read_json(folder / run_folder.RESULTS),
    )
    try:
        return _ensemble(folder, told, found, fold, seed)
    except (InputError, UsageError):
        raise
    except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{inside} is damaged, or of another version of jaxser ({type(error).__name__}: {error}); train again"
        ) from None


def _ensemble(
    folder: Path, told: Mapping[str, Any], found: Mapping[str, Any], fold: str | int | None, seed: int | None
) -> Ensemble:
    rows = _chosen(folder, told, found, fold, seed)
    model, inside = _model(told), folder / run_folder.MODEL
    reads_words = "words" in model.needs
    return Ensemble(
        folder=folder,
        results=found,
        classes=tuple(told["classes"]),
        members=tuple((told["replicas"][row]["fold"], told["replicas"][row]["seed"]) for row in rows),
        model=model,
        recipe=_recipe(folder, **told["recipe"]),
        arrays={name: ArraySpec(**_tuples(told["arrays"][name])) for name in model.needs},
        normalise=told["normalise"],
        vocabulary=Vocabulary(tuple(told["vocabulary"])),
        embeddings=jnp.asarray(np.load(inside / "embeddings.npy", allow_pickle=False))
        if reads_words
        else None,
        replicas=_replicas(inside / "replicas.npz", rows),
    )


def _chosen(
    folder: Path, told: Mapping[str, Any], found: Mapping[str, Any], fold: str | int | None, seed: int | None
) -> list[int]:
    """The rows of the replicas of the chosen setting, without those that never had a finite loss."""
    rows = {n: one for n, one in enumerate(told["replicas"]) if one["setting"] == told["setting"]}
    folds = list(dict.fromkeys(one["fold"] for one in rows.values()))
    seeds = sorted({one["seed"] for one in rows.values()})
    if fold is not None:
        name = _fold_name(folds, str(fold))
        rows = {n: one for n, one in rows.items() if one["fold"] == name}
    if seed is not None:
        if seed not in seeds:
            raise UsageError(f"--seed={seed}: no such seed; {folder} has {', '.join(map(str, seeds))}")
        rows = {n: one for n, one in rows.items() if one["seed"] == seed}
    trained = {(r["fold"], r["seed"], r["setting"]) for r in found["replicas"] if r["best_epoch"] is not None}
    kept = [n for n, one in rows.items() if (one["fold"], one["seed"], one["setting"]) in trained]
    if not kept:
        raise InputError(
            f"{folder}: no replica that is asked for came to a finite loss; there is nothing to use"
        )
    return kept


def _fold_name(folds: Sequence[str], asked: str) -> str:
    if asked in folds:
        return asked
    if asked.isdecimal() and int(asked) < len(folds) and not any(name.isdecimal() for name in folds):
        return folds[int(asked)]
    raise UsageError(f"--fold={asked}: no such fold; the run has {', '.join(folds)}")


def _model(told: Mapping[str, Any]) -> Network:
    fields = {name: _tuples(value) for name, value in told["model"].items() if name != "name"}
    return MODELS[told["model"]["name"]](num_classes=len(told["classes"]), **fields)


def _recipe(folder: Path, name: str, version: str, parameters: Mapping[str, Any]) -> Recipe:
    """The recipe, with the parameters by which the run's dataset was made."""
    if RECIPES[name].version != version:
        raise InputError(
            f"{folder} was trained on recipe {name} {version}, this jaxser makes {RECIPES[name].version}: "
            "prepare and train again"
        )
    if corpus := parameters.get("made_by"):
        raise InputError(
            f"{folder} was trained on features that corpus {corpus} brings; no recording has them"
        )
    return dataclasses.replace(RECIPES[name], parameters=parameters)


def _replicas(path: Path, rows: Sequence[int]) -> Replica:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
        flat = {name: jnp.asarray(kept[name][list(rows)]) for name in kept.files}
    tree = flax.traverse_util.unflatten_dict(flat, sep="/")
    normalisation = {name: Normalisation(**of) for name, of in tree.get("normalisation", {}).items()}
    return Replica(tree["params"], tree.get("batch_stats", {}), normalisation, tree.get("hyper", {}))


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
