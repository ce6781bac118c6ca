"""Shards to arrays: a prepared dataset with the label set chosen at loading."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxser.data import shards
from jaxser.features.recipes import RECIPES, ArraySpec
from jaxser.types import Dataset, Fold, InputError, Ragged, UsageError, Utterance

CLASSES: dict[str, dict[str, str] | None] = {
    "seven": {name: name for name in ("ang", "hap", "exc", "sad", "neu", "fru", "sur")},
    "four_merged": {"ang": "ang", "hap": "hap", "exc": "hap", "sad": "sad", "neu": "neu"},
    "four": {name: name for name in ("ang", "hap", "neu", "sad")},
    "all": None,
}
"""Which class a label belongs to, in the order of the classes; `all` takes the labels as they are found."""

SUBSETS = ("all", "improvised")

VOCABULARY, EMBEDDINGS = "vocabulary.json", "embeddings.npy"


def load(
    directory: str | Path,
    recipe: str | None = None,
    version: str | None = None,
    *,
    corpus: str | None = None,
    classes: str = "all",
    subset: str = "all",
) -> Dataset:
    """The utterances of a prepared dataset, sorted by id, and their arrays laid end to end.

    `directory` is `<out>/<name>`, or the folder with the manifest itself. `version` is that of this code
    where it is not given. Raises `UsageError` where the dataset is missing or another than was asked for,
    with the command that makes it, and `InputError` where a file is damaged.
    """
    if classes not in CLASSES:
        raise UsageError(f"classes={classes!r}: must be one of {', '.join(CLASSES)}")
    if subset not in SUBSETS:
        raise UsageError(f"subset={subset!r}: must be one of {', '.join(SUBSETS)}")
    folder = find(directory, recipe, version, corpus)
    manifest = read_manifest(folder)
    found = Counter(manifest["labels"]["found"])
    mapping = CLASSES[classes] or {label: label for label in sorted(found)}
    utterances, arrays, left_out = _read(folder, manifest, mapping, subset)
    names = tuple(dict.fromkeys(mapping.values()))
    if not utterances:
        raise UsageError(
            f"{folder}: no utterance is left by classes={classes}, subset={subset}; "
            f"the labels found are {', '.join(sorted(found))}"
        )
    return Dataset(
        name=manifest["name"],
        recipe=manifest["recipe"],
        version=manifest["version"],
        classes=names,
        utterances=tuple(utterances),
        label=np.array([names.index(mapping[u.label]) for u in utterances], dtype=np.int32),
        arrays=arrays,
        vocabulary=read_vocabulary(folder),
        embeddings=_read_embeddings(folder),
        left_out=dict(sorted(left_out.items())),
        manifest=manifest,
    )


def with_copies(
    dataset: Dataset, folds: Sequence[Fold], in_validation: bool
) -> tuple[Dataset, tuple[Fold, ...]]:
    """The dataset with the noisy copies of its N utterances as rows N to 2N, and folds that train on both (He 2021).

    Raises UsageError where the recipe has no copies.
    """
    if "audio_noisy" not in dataset.arrays:
        raise UsageError(f"config.copies: recipe {dataset.recipe} has no noisy copies; recipe cat has")
    arrays = {name: array for name, array in dataset.arrays.items() if name != "audio_noisy"}
    copied = {**arrays, "audio": dataset.arrays["audio_noisy"]}
    number = len(dataset.label)

    def both(rows):
        return np.concatenate([rows, rows + number])

    doubled = dataclasses.replace(
        dataset,
        utterances=dataset.utterances * 2,
        label=np.tile(dataset.label, 2),
        arrays={name: _joined(arrays[name], copied[name]) for name in arrays},
    )
    return doubled, tuple(
        dataclasses.replace(
            fold,
            train=both(fold.train),
            validation=both(fold.validation) if in_validation else fold.validation,
        )
        for fold in folds
    )


def _joined(first: Ragged, second: Ragged) -> Ragged:
    return Ragged(
        np.concatenate([first.values, second.values]), np.concatenate([first.length, second.length])
    )


def find(
    directory: str | Path, recipe: str | None = None, version: str | None = None, corpus: str | None = None
) -> Path:
    """The folder of the dataset that is asked for; `UsageError` says what is there instead, what makes it."""
    directory = Path(directory)
    if recipe is not None and recipe not in RECIPES:
        raise UsageError(f"recipe={recipe!r}: must be one of {', '.join(RECIPES)}")
    if version is None and recipe is not None:
        version = RECIPES[recipe].version
    candidates = _prepared(directory)
    wanted = {"recipe": recipe, "version": version, "corpus": corpus}
    fitting = [path for path in candidates if _fits(read_manifest(path), wanted)]
    if len(fitting) == 1:
        return fitting[0]
    need = ", ".join(f"{name} {value}" for name, value in wanted.items() if value)
    if fitting:
        found = ", ".join(str(path.relative_to(directory)) for path in fitting)
        raise UsageError(f"{directory} holds several datasets ({found}): say which recipe and version")
    found = "; ".join(_described(read_manifest(path)) for path in candidates) or "no prepared dataset"
    raise UsageError(
        f"{directory}: found {found}; needed {need or 'a dataset'}. "
        f"Make it by: {_command(directory, candidates, recipe, corpus)}"
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `prepare` wrote about a dataset."""
    path = folder / shards.MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        missing = {"name", "corpus", "recipe", "version", "arrays", "shards", "labels"} - manifest.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a manifest of a prepared dataset ({error})") from None
    if missing:
        raise InputError(f"{path}: not a manifest of a prepared dataset (no {', '.join(sorted(missing))})")
    return manifest


def array_specs(manifest: Mapping[str, Any]) -> dict[str, ArraySpec]:
    """The arrays of a manifest's records."""
    return {name: ArraySpec(spec["dtype"], tuple(spec["shape"])) for name, spec in manifest["arrays"].items()}


def _prepared(directory: Path) -> list[Path]:
    if (directory / shards.MANIFEST).is_file():
        return [directory]
    return sorted(path.parent for path in directory.glob(f"*/*/{shards.MANIFEST}"))


def _fits(manifest: Mapping[str, Any], wanted: Mapping[str, str | None]) -> bool:
    return all(value is None or manifest[name] == value for name, value in wanted.items())


def _described(manifest: Mapping[str, Any]) -> str:
    return f"corpus {manifest['corpus']}, recipe {manifest['recipe']}, version {manifest['version']}"


def _command(directory: Path, candidates: Sequence[Path], recipe: str | None, corpus: str | None) -> str:
    """How the dataset that is asked for would be made."""
    name, out = directory.name, directory.parent
    if candidates == [directory]:  # the folder of the shards itself: <out>/<name>/<recipe>/<version>
        name, out = directory.parents[1].name, directory.parents[2]
    if corpus is None:
        corpus = read_manifest(candidates[0])["corpus"] if candidates else _corpus(name)
    root = "" if corpus == "demo" else " --root=FOLDER"
    named = "" if name == corpus else f" --name={name}"
    frames = " --frames=FOLDER" if recipe == "frames" else ""
    return (
        f"python -m data_prep.prepare --corpus={corpus}{root} --recipe={recipe or 'mcsan'} "
        f"--out={out}{named}{frames}"
    )


def _corpus(name: str) -> str:
    """The corpus that a dataset of this name is probably of (`meld_final` of meld); else one's own folder."""
    stem = name.partition("_")[0]
    return stem if stem in ("demo", "emodb", "iemocap", "meld", "ravdess", "yoon") else "folder"


def _read(
    folder: Path, manifest: Mapping[str, Any], mapping: Mapping[str, str], subset: str
) -> tuple[list[Utterance], dict[str, Ragged], Counter[str]]:
    """The chosen utterances; arrays go straight to their place, so that there is never a second copy."""
    specs = array_specs(manifest)
    infos = [shards.shard_info(entry) for entry in manifest["shards"]]
    values = {name: _room(spec, sum(info.rows[name] for info in infos)) for name, spec in specs.items()}
    filled = dict.fromkeys(specs, 0)
    lengths: dict[str, list[int]] = {name: [] for name in specs}
    utterances: list[Utterance] = []
    left_out: Counter[str] = Counter()
    for utterance, arrays in _records(folder, infos, specs):
        if subset == "improvised" and "impro" not in utterance.dialogue:
            continue
        if utterance.label not in mapping:
            left_out[utterance.label] += 1
            continue
        utterances.append(utterance)
        for name, array in arrays.items():
            values[name][filled[name] : filled[name] + len(array)] = array
            filled[name] += len(array)
            lengths[name].append(len(array))
    ragged = {
        name: Ragged(values[name][: filled[name]], np.array(lengths[name], dtype=np.int32)) for name in specs
    }
    return utterances, ragged, left_out


def _room(spec: ArraySpec, rows: int) -> np.ndarray:
    """Memory for so many rows of an array; what stays unused is never touched, so costs nothing."""
    return np.empty((rows, *(size or 0 for size in spec.shape[1:])), spec.dtype)


def _records(
    folder: Path, infos: Sequence[shards.ShardInfo], specs: Mapping[str, ArraySpec]
) -> Iterator[tuple[Utterance, shards.Arrays]]:
    for info in infos:
        path, count = folder / info.file, 0
        try:
            for record in shards.read_shard(path, specs):
                count += 1
                yield record
        except InputError as error:
            raise InputError(f"{error}; the command that prepared the dataset remakes this shard") from None
        if count != info.records:
            raise InputError(
                f"{path}: record {count} is missing ({info.records} were written); "
                "the command that prepared the dataset remakes this shard"
            )


def read_vocabulary(folder: Path) -> tuple[str, ...]:
    path = folder / VOCABULARY
    if not path.exists():
        return ()
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8"))["words"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a vocabulary ({error}); prepare the dataset again") from None


def _read_embeddings(folder: Path) -> np.ndarray | None:
    path = folder / EMBEDDINGS
    if not path.exists():
        return None
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not word vectors ({error}); prepare the dataset again") from None
