"""Prepared datasets: finding one, and loading its shards with a label set."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxser import corpora
from jaxser.data import shards
from jaxser.data.manifest import array_specs, read_manifest
from jaxser.data.votes import count_votes, has_votes, voted_classes
from jaxser.features.recipes import RECIPES, ArraySpec
from jaxser.files import CheckedFolder
from jaxser.types import Dataset, Fold, InputError, Ragged, UsageError, Utterance

VOCABULARY, EMBEDDINGS = "vocabulary.json", "embeddings.npy"

_COPY = re.compile(r"(\w+)_copy(\d+)")
"""The name of an array of an augmented copy, such as `audio_copy1`."""


def load_prepared(
    directory: str | Path,
    recipe: str | None = None,
    version: str | None = None,
    *,
    corpus: str | None = None,
    classes: str = "all",
    subset: str = "all",
    attributes: str | None = None,
    votes: bool = False,
) -> Dataset:
    """Load a prepared dataset into memory, with its utterances sorted by id.

    Args:
        directory: `<out>/<name>`, or the folder that contains the manifest.
        recipe: the expected recipe; None accepts any.
        version: the expected version of the recipe; None is the version of the installed code.
        corpus: the expected corpus; None accepts any.
        classes: a label set of the corpus, such as "four", or a list such as "ang,hap+exc,sad" (`jaxser.corpora`).
        subset: a key of `jaxser.corpora.SUBSETS`.
        attributes: the numeric attributes to predict, separated by commas; "" is all that the dataset has. All
            utterances with these attributes are used, whatever their label. None predicts the labels.
        votes: whether the raters' votes are predicted. All utterances with a vote for one of the classes are used,
            whatever their label.

    Raises:
        UsageError: if the dataset is missing or does not match, with the command that prepares it, or if no utterance
            has a label of the label set, the attributes, or votes.
        InputError: if a file of the dataset is damaged.
    """
    corpora.check_classes(classes)
    _check_choice("subset", subset, corpora.SUBSETS)
    folder = find_prepared(directory, recipe, version, corpus)
    manifest = read_manifest(folder)
    labels = sorted(manifest["labels"]["found"])
    class_of = _class_of(folder, manifest, classes)
    class_of.pop("", None)  # utterances without a label
    vocabulary = read_vocabulary(folder)
    wanted = None if attributes is None else _names(attributes)
    is_used = _selection(class_of, wanted) if not votes else lambda one: has_votes(one, class_of)
    utterances, arrays, left_out = _read(folder, manifest, is_used, subset)
    _check_words(folder, arrays, vocabulary)
    if not utterances and wanted is not None:
        raise UsageError(
            f"{folder}: no utterance has {', '.join(wanted) or 'attributes'}, which config.target=attributes needs"
        )
    if not utterances and votes:
        raise UsageError(
            f"{folder}: no utterance has votes for classes={classes}, which config.target=votes needs; prepare the "
            "dataset from a release with the raters' votes, or a table with a column votes"
        )
    if not utterances and labels == [""]:
        raise UsageError(
            f"{folder}: the utterances have attributes and no labels: set --config.target=attributes"
        )
    if not utterances:
        raise UsageError(
            f"{folder}: no utterance matches classes={classes}, subset={subset}; "
            f"the dataset has the labels {', '.join(labels)}"
        )
    if votes and classes == "all":
        class_of = voted_classes(utterances, class_of)
    names = tuple(dict.fromkeys(class_of.values()))
    if wanted is not None:
        wanted = _attributes_of(folder, utterances, wanted)
    index = {label: names.index(name) for label, name in class_of.items()}
    return Dataset(
        name=manifest["name"],
        recipe=manifest["recipe"],
        version=manifest["version"],
        classes=names,
        utterances=tuple(utterances),
        label=np.array([index.get(u.label, -1) for u in utterances], dtype=np.int32),
        arrays=arrays,
        vocabulary=vocabulary,
        embeddings=_read_embeddings(folder, len(vocabulary)),
        left_out=dict(sorted(left_out.items())),
        manifest=manifest,
        folder=folder,
        attributes=wanted or (),
        target=_values(utterances, wanted)
        if wanted
        else count_votes(utterances, class_of)
        if votes
        else None,
    )


def copies_of(dataset: Dataset) -> list[dict[str, str]]:
    """Return the copies of recordings that a dataset has.

    A copy is a mapping from the names of the originals' arrays to those of its own. They are the noisy copies of recipe
    `cat` (He et al. 2021), and augmented copies (`data_prep.augment`).
    """
    noisy = [{"audio": "audio_noisy"}] if "audio_noisy" in dataset.arrays else []
    augmented: dict[int, dict[str, str]] = {}
    for name in dataset.arrays:
        if parts := _COPY.fullmatch(name):
            augmented.setdefault(int(parts[2]), {})[parts[1]] = name
    return noisy + [augmented[number] for number in sorted(augmented)]


def with_copies(
    dataset: Dataset, folds: Sequence[Fold], in_validation: bool
) -> tuple[Dataset, tuple[Fold, ...]]:
    """Append the copies of a dataset's N utterances: copy k is rows k N to (k + 1) N - 1.

    Returns:
        The larger dataset, and the folds with the copies in their training parts and, if `in_validation`, in their
        validation parts.

    Raises:
        UsageError: if the dataset has no copies.
    """
    copies = copies_of(dataset)
    if not copies:
        raise UsageError(
            f"config.copies: {dataset.name} has no copies of its recordings; prepare it with --augment, or with recipe "
            "cat, which has noisy copies"
        )
    copied = {name for copy in copies for name in copy.values()}
    arrays = {
        name: _concatenate([array, *(dataset.arrays[copy.get(name, name)] for copy in copies)])
        for name, array in dataset.arrays.items()
        if name not in copied
    }
    number, times = len(dataset.label), 1 + len(copies)

    def with_their_copies(rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
        return np.concatenate([rows + copy * number for copy in range(times)])

    larger = dataclasses.replace(
        dataset,
        utterances=dataset.utterances * times,
        label=np.tile(dataset.label, times),
        target=None if dataset.target is None else np.tile(dataset.target, (times, 1)),
        arrays=arrays,
    )
    return larger, tuple(
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
    """Return the folder with the manifest of the dataset that matches.

    The arguments are those of `load_prepared`.

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


def with_corpus(name: str, data_dir: Path) -> str:
    """Return "NAME:CORPUS", the argument of a config file, for a prepared dataset.

    The corpus is that of its manifest. A name that already has a corpus, or that no prepared dataset has, is returned
    unchanged.

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


def read_vocabulary(folder: Path) -> tuple[str, ...]:
    """Read the words of a prepared dataset, in the order of their ids.

    They are empty if the recipe has no words.

    Raises:
        InputError: if the vocabulary is damaged, or is missing although the manifest lists it.
    """
    checked = _checked(folder)
    if not checked.has(VOCABULARY) and VOCABULARY not in checked.digests:
        return ()
    return checked.read_json(VOCABULARY, _Vocabulary).words


@dataclasses.dataclass(frozen=True)
class _Vocabulary:
    """The contents of vocabulary.json."""

    words: tuple[str, ...]


def _checked(folder: Path) -> CheckedFolder:
    """Return the folder of a dataset, with the digests in its manifest."""
    return CheckedFolder(folder, shards.REMEDY, read_manifest(folder).get("files", {}))


def _check_words(folder: Path, arrays: Mapping[str, Ragged], vocabulary: Sequence[str]) -> None:
    """Check that every word of the utterances is in the vocabulary."""
    words = arrays["words"].values if "words" in arrays else np.zeros(0, np.int32)
    if len(words) and (words.min() < 0 or words.max() >= len(vocabulary)):
        raise InputError(
            f"{folder / VOCABULARY} is of another dataset: it lacks words of the utterances; {shards.REMEDY}"
        )


def _class_of(folder: Path, manifest: Mapping[str, Any], classes: str) -> dict[str, str]:
    """Return the class of each label.

    A dataset prepared with `--classes` already has the classes as its labels.
    """
    corpus, prepared = corpora.find(manifest["corpus"]), manifest["labels"].get("classes")
    if not prepared:
        return corpora.class_of_labels(corpus, classes, manifest["labels"]["found"])
    names = list(dict.fromkeys(prepared.values()))
    if (
        classes != "all"
        and dict(corpora.LABEL_SETS.get(classes) or corpora.parse_classes(classes)) != prepared
    ):
        raise UsageError(
            f"{folder}: was prepared with the classes {', '.join(names)}, so classes={classes} cannot be chosen; "
            "write --config.classes=all, or prepare the dataset again without --classes"
        )
    return {name: name for name in names}


def _check_choice(name: str, value: str, choices: Mapping[str, Any]) -> None:
    if value not in choices:
        raise UsageError(f"{name}={value!r}: must be one of {', '.join(choices)}")


def _concatenate(parts: Sequence[Ragged]) -> Ragged:
    return Ragged(
        np.concatenate([part.values for part in parts]), np.concatenate([part.length for part in parts])
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
    """Return the command that prepares a missing dataset.

    FOLDER stands for what cannot be inferred.
    """
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
    """Return the corpus in the suggested command for a missing dataset.

    It is meld for `meld_final`, and else a folder of recordings.
    """
    stem = name.partition("_")[0]
    return stem if stem in corpora.CORPORA else "folder"


def _names(attributes: str) -> tuple[str, ...]:
    """Return the names in a list that is separated by commas."""
    names = tuple(name.strip() for name in attributes.split(",") if name.strip())
    if len(set(names)) < len(names):
        raise UsageError(f"attributes={attributes}: names one twice")
    return names


def _selection(class_of: Mapping[str, str], attributes: Sequence[str] | None) -> Callable[[Utterance], bool]:
    """Return what tells whether an utterance is used: by its label, or by the attributes that it has."""
    if attributes is None:
        return lambda utterance: utterance.label in class_of
    return lambda utterance: bool(utterance.attributes) and utterance.attributes.keys() >= set(attributes)


def _attributes_of(folder: Path, utterances: Sequence[Utterance], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the attributes to predict; by default, all that occur."""
    found = Counter(name for utterance in utterances for name in utterance.attributes)
    if lacking := [name for name in wanted or found if found[name] < len(utterances)]:
        raise UsageError(
            f"{folder}: {found[lacking[0]]} of {len(utterances)} utterances have {lacking[0]}; choose attributes, "
            f"such as --config.attributes.names={','.join(name for name in found if name not in lacking) or lacking[0]}"
        )
    return wanted or tuple(found)


def _values(utterances: Sequence[Utterance], names: Sequence[str]) -> Float[np.ndarray, "N A"]:
    return np.array([[one.attributes[name] for name in names] for one in utterances], dtype=np.float32)


def _read(
    folder: Path, manifest: Mapping[str, Any], is_used: Callable[[Utterance], bool], subset: str
) -> tuple[list[Utterance], dict[str, Ragged], Counter[str]]:
    """Read the selected utterances. Arrays are copied to their final position, so that memory holds them once."""
    specs = array_specs(manifest)
    infos = [shards.shard_info(entry) for entry in manifest["shards"]]
    values = {name: _allocate(spec, sum(info.rows[name] for info in infos)) for name, spec in specs.items()}
    filled = dict.fromkeys(specs, 0)
    lengths: dict[str, list[int]] = {name: [] for name in specs}
    utterances: list[Utterance] = []
    left_out: Counter[str] = Counter()
    read = (record for info in infos for record in shards.read_shard(folder / info.file, specs, info))
    for utterance, arrays in read:
        if corpora.SUBSETS[subset] not in utterance.dialogue:
            continue
        if not is_used(utterance):
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
    """Allocate memory for `rows` rows of an array.

    Rows that stay unused are never touched, so they occupy no memory.
    """
    return np.empty((rows, *(size or 0 for size in spec.shape[1:])), spec.dtype)


def _read_embeddings(folder: Path, words: int) -> Float[np.ndarray, "V E"] | None:
    """Read the word vectors, one for each word of the vocabulary; None if there are none."""
    checked = _checked(folder)
    if not checked.has(EMBEDDINGS) and EMBEDDINGS not in checked.digests:
        return None
    table = checked.read_array(EMBEDDINGS)
    if table.dtype != np.float32 or table.ndim != 2 or len(table) != words or not np.isfinite(table).all():
        raise checked.damaged(EMBEDDINGS, f"not a finite vector for each of the {words} words")
    return table
