"""Prepared datasets: finding one, reading its manifest, and loading its shards with a label set."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxser import corpora
from jaxser.data import shards
from jaxser.features.recipes import RECIPES, ArraySpec
from jaxser.types import Dataset, Fold, InputError, Ragged, UsageError, Utterance

VOCABULARY, EMBEDDINGS = "vocabulary.json", "embeddings.npy"


def load_prepared(
    directory: str | Path,
    recipe: str | None = None,
    version: str | None = None,
    *,
    corpus: str | None = None,
    classes: str = "all",
    subset: str = "all",
) -> Dataset:
    """Load a prepared dataset into memory, with its utterances sorted by id.

    Args:
        directory: `<out>/<name>`, or the folder that contains the manifest.
        recipe: the expected recipe; None accepts any.
        version: the expected version of the recipe; None is the version of the installed code.
        corpus: the expected corpus; None accepts any.
        classes: a label set of the corpus, such as "four" (`jaxser.corpora`).
        subset: a key of `jaxser.corpora.SUBSETS`.

    Raises:
        UsageError: if the dataset is missing or does not match, with the command that prepares it, or if no utterance
            has a label of the label set.
        InputError: if a file of the dataset is damaged.
    """
    _check_choice("classes", classes, corpora.LABEL_SETS)
    _check_choice("subset", subset, corpora.SUBSETS)
    folder = find_prepared(directory, recipe, version, corpus)
    manifest = read_manifest(folder)
    labels = sorted(manifest["labels"]["found"])
    label_sets = corpora.find(manifest["corpus"]).label_sets
    class_of = label_sets.get(classes, corpora.LABEL_SETS[classes]) or {label: label for label in labels}
    utterances, arrays, left_out = _read(folder, manifest, class_of, subset)
    if not utterances:
        raise UsageError(
            f"{folder}: no utterance matches classes={classes}, subset={subset}; "
            f"the dataset has the labels {', '.join(labels)}"
        )
    names = tuple(dict.fromkeys(class_of.values()))
    return Dataset(
        name=manifest["name"],
        recipe=manifest["recipe"],
        version=manifest["version"],
        classes=names,
        utterances=tuple(utterances),
        label=np.array([names.index(class_of[u.label]) for u in utterances], dtype=np.int32),
        arrays=arrays,
        vocabulary=read_vocabulary(folder),
        embeddings=_read_embeddings(folder),
        left_out=dict(sorted(left_out.items())),
        manifest=manifest,
    )


def with_copies(
    dataset: Dataset, folds: Sequence[Fold], in_validation: bool
) -> tuple[Dataset, tuple[Fold, ...]]:
    """Append the noisy copies of a dataset's N utterances as rows N to 2N - 1 (He et al. 2021).

    Returns:
        The dataset of 2N rows, and the folds with the copies in their training parts and, if `in_validation`, in their
        validation parts.

    Raises:
        UsageError: if the recipe has no noisy copies.
    """
    if "audio_noisy" not in dataset.arrays:
        raise UsageError(f"config.copies: recipe {dataset.recipe} has no noisy copies; recipe cat does")
    arrays = {name: array for name, array in dataset.arrays.items() if name != "audio_noisy"}
    copied = {**arrays, "audio": dataset.arrays["audio_noisy"]}
    number = len(dataset.label)

    def with_their_copies(rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " 2*n"]:
        return np.concatenate([rows, rows + number])

    doubled = dataclasses.replace(
        dataset,
        utterances=dataset.utterances * 2,
        label=np.tile(dataset.label, 2),
        arrays={name: _concatenate(arrays[name], copied[name]) for name in arrays},
    )
    return doubled, tuple(
        dataclasses.replace(
            fold,
            train=with_their_copies(fold.train),
            validation=with_their_copies(fold.validation) if in_validation else fold.validation,
        )
        for fold in folds
    )


def find_prepared(
    directory: str | Path, recipe: str | None = None, version: str | None = None, corpus: str | None = None
) -> Path:
    """Return the folder with the manifest of the dataset that matches; see `load_prepared` for the arguments.

    Raises:
        UsageError: if none or several match. The message lists what was found, and the command that prepares the
            dataset.
    """
    directory = Path(directory)
    if recipe is not None:
        _check_choice("recipe", recipe, RECIPES)
        version = version or RECIPES[recipe].version
    candidates = _manifest_folders(directory)
    wanted = {"recipe": recipe, "version": version, "corpus": corpus}
    matching = [path for path in candidates if _matches(read_manifest(path), wanted)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        found = ", ".join(str(path.relative_to(directory)) for path in matching)
        raise UsageError(f"{directory} contains several datasets ({found}): specify recipe and version")
    found = "; ".join(_described(read_manifest(path)) for path in candidates) or "no prepared dataset"
    needed = ", ".join(f"{name} {value}" for name, value in wanted.items() if value) or "a dataset"
    raise UsageError(
        f"{directory}: found {found}; needed {needed}. "
        f"Prepare it with: {_prepare_command(directory, candidates, recipe, corpus)}"
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a prepared dataset.

    Raises:
        InputError: if the manifest is missing, damaged or incomplete.
    """
    path = folder / shards.MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        missing = {"name", "corpus", "recipe", "version", "arrays", "shards", "labels"} - manifest.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a manifest of a prepared dataset ({error})") from None
    if missing:
        raise InputError(f"{path}: not a manifest of a prepared dataset (no {', '.join(sorted(missing))})")
    return manifest


def with_corpus(name: str, data_dir: Path) -> str:
    """Return "NAME:CORPUS", the argument of a config file, for a prepared dataset and the corpus in its manifest.

    A name that already has a corpus, or that no prepared dataset has, is returned unchanged.

    Raises:
        UsageError: if datasets of several corpora have this name.
    """
    if not name or ":" in name:
        return name
    found = sorted({read_manifest(folder)["corpus"] for folder in _manifest_folders(data_dir / name)})
    if len(found) > 1:
        raise UsageError(
            f"{data_dir / name} was prepared from several corpora ({', '.join(found)}); "
            f"choose one, such as {name}:{found[0]}"
        )
    return f"{name}:{found[0]}" if found else name


def array_specs(manifest: Mapping[str, Any]) -> dict[str, ArraySpec]:
    """Return the specs of the arrays that a manifest lists."""
    return {name: ArraySpec(spec["dtype"], tuple(spec["shape"])) for name, spec in manifest["arrays"].items()}


def read_vocabulary(folder: Path) -> tuple[str, ...]:
    """Read the words of a prepared dataset, in the order of their ids; empty if the recipe has no words."""
    path = folder / VOCABULARY
    if not path.exists():
        return ()
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8"))["words"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a vocabulary ({error}); prepare the dataset again") from None


def _check_choice(name: str, value: str, choices: Mapping[str, Any]) -> None:
    if value not in choices:
        raise UsageError(f"{name}={value!r}: must be one of {', '.join(choices)}")


def _concatenate(first: Ragged, second: Ragged) -> Ragged:
    return Ragged(
        np.concatenate([first.values, second.values]), np.concatenate([first.length, second.length])
    )


def _manifest_folders(directory: Path) -> list[Path]:
    if (directory / shards.MANIFEST).is_file():
        return [directory]
    return sorted(path.parent for path in directory.glob(f"*/*/{shards.MANIFEST}"))


def _matches(manifest: Mapping[str, Any], wanted: Mapping[str, str | None]) -> bool:
    return all(value is None or manifest[name] == value for name, value in wanted.items())


def _described(manifest: Mapping[str, Any]) -> str:
    return f"corpus {manifest['corpus']}, recipe {manifest['recipe']}, version {manifest['version']}"


def _prepare_command(
    directory: Path, candidates: Sequence[Path], recipe: str | None, corpus: str | None
) -> str:
    """The command that prepares a missing dataset; FOLDER stands for what cannot be inferred."""
    name, out = directory.name, directory.parent
    if candidates == [directory]:  # the folder with the manifest: <out>/<name>/<recipe>/<version>
        name, out = directory.parents[1].name, directory.parents[2]
    if corpus is None:
        corpus = read_manifest(candidates[0])["corpus"] if candidates else _likely_corpus(name)
    root = "" if corpus == "demo" else " --root=FOLDER"
    named = "" if name == corpus else f" --name={name}"
    frames = " --frames=FOLDER" if recipe == "frames" else ""
    return (
        f"python -m jaxser.data_prep.prepare --corpus={corpus}{root} --recipe={recipe or 'mcsan'} "
        f"--out={out}{named}{frames}"
    )


def _likely_corpus(name: str) -> str:
    """The corpus in the suggested command for a missing dataset: meld for `meld_final`; else a folder of recordings."""
    stem = name.partition("_")[0]
    return stem if stem in corpora.CORPORA else "folder"


def _read(
    folder: Path, manifest: Mapping[str, Any], class_of: Mapping[str, str], subset: str
) -> tuple[list[Utterance], dict[str, Ragged], Counter[str]]:
    """Read the selected utterances. Arrays are copied to their final position, so that memory holds them once."""
    specs = array_specs(manifest)
    infos = [shards.shard_info(entry) for entry in manifest["shards"]]
    values = {name: _allocate(spec, sum(info.rows[name] for info in infos)) for name, spec in specs.items()}
    filled = dict.fromkeys(specs, 0)
    lengths: dict[str, list[int]] = {name: [] for name in specs}
    utterances: list[Utterance] = []
    left_out: Counter[str] = Counter()
    for utterance, arrays in _records(folder, infos, specs):
        if corpora.SUBSETS[subset] not in utterance.dialogue:
            continue
        if utterance.label not in class_of:
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


def _allocate(spec: ArraySpec, rows: int) -> np.ndarray:
    """Memory for `rows` rows of an array. Rows that stay unused are never touched, so they occupy no memory."""
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
            raise InputError(f"{error}; run the preparation command again to rebuild this shard") from None
        if count != info.records:
            raise InputError(
                f"{path}: record {count} is missing ({info.records} were written); "
                "run the preparation command again to rebuild this shard"
            )


def _read_embeddings(folder: Path) -> np.ndarray | None:
    path = folder / EMBEDDINGS
    if not path.exists():
        return None
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not word vectors ({error}); prepare the dataset again") from None
