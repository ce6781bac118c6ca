"""Several prepared datasets as one, with common classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Float

from jaxser import corpora
from jaxser.corpora import COMMON_CLASSES
from jaxser.data.dataset import copies_of, find_prepared, load_prepared
from jaxser.data.manifest import read_manifest
from jaxser.data.normalisation import FrameSums, is_standardised
from jaxser.features import vectors
from jaxser.features.text import Vocabulary
from jaxser.files import CheckedFolder
from jaxser.types import Dataset, InputError, Ragged, UsageError, Utterance

FOUR = ("neutral", "happy", "sad", "angry")
"""The classes of `classes=four`: those of most corpora, and of EmoBox's test sets across corpora."""

SEPARATOR = "/"
"""What separates the name of a dataset from the id of its utterance."""


@dataclass(frozen=True)
class Names:
    """The names of the datasets of a run.

    Attributes:
        training: the datasets that are trained on, and tested unless there are others.
        tested: the datasets that are only tested.
    """

    training: tuple[str, ...]
    tested: tuple[str, ...] = ()

    @classmethod
    def parse(cls, datasets: str, test_on: str) -> Names:
        """Read names joined by +, and those of test datasets, separated by commas.

        Raises:
            UsageError: if a name is empty, or there twice.
        """
        training = tuple(name.strip() for name in datasets.split("+"))
        tested = tuple(name.strip() for name in test_on.split(",")) if test_on else ()
        names = training + tested
        if not all(names) and len(names) > 1:
            raise UsageError(f"config.datasets={datasets}, config.test_on={test_on}: a name is empty")
        stems = [Path(name).name for name in names]
        if twice := [name for name in names if stems.count(Path(name).name) > 1]:
            raise UsageError(
                f"config.datasets={datasets}, config.test_on={test_on}: {twice[0]} is there twice"
            )
        return cls(training, tested)

    @property
    def all(self) -> tuple[str, ...]:
        """All names, those of training first."""
        return self.training + self.tested

    @property
    def title(self) -> str:
        """The name of the run's folder ends with it, such as "ravdess" or "ravdess-to-emodb"."""
        return "-to-".join("+".join(names) for names in (self.training, self.tested) if names)

    @property
    def is_merged(self) -> bool:
        """Whether there are several datasets."""
        return len(self.all) > 1


def corpus_of(utterance: str) -> str:
    """Return the dataset in the id of an utterance of a merged dataset."""
    return utterance.partition(SEPARATOR)[0]


def load_merged(
    data_dir: Path,
    names: Names,
    recipe: str,
    *,
    classes: str = "all",
    subset: str = "all",
    label_map: str = "",
) -> Dataset:
    """Load several prepared datasets as one, with common classes (`common_labels`).

    Args:
        data_dir: the folder of the datasets.
        names: their names.
        recipe: the recipe of all.
        classes: as in `chosen_classes`.
        subset: as in `load_prepared`.
        label_map: a JSON file, as in `read_label_map`; "" is none.

    Raises:
        UsageError: if a dataset is missing, the datasets do not fit together, or they have no common classes.
        InputError: if a file is damaged.
    """
    manifests = {name: read_manifest(find_prepared(data_dir / name, recipe)) for name in names.all}
    own_maps = read_label_map(label_map, manifests) if label_map else {}
    common = {name: common_labels(manifest, own_maps.get(name, {})) for name, manifest in manifests.items()}
    class_of = chosen_classes(classes, common)
    used = {
        name: {label: class_of[one] for label, one in of.items() if one in class_of}
        for name, of in common.items()
    }
    for name, of in used.items():
        if len(set(of.values())) < 2:
            found = ", ".join(sorted(set(of.values()))) or "none"
            raise UsageError(
                f"{name} has {found} of the classes {', '.join(dict.fromkeys(class_of.values()))}, and two at least "
                "are needed: choose other --config.classes, or map its labels with --config.across.label_map"
            )
    order = tuple(dict.fromkeys(class_of.values()))
    parts = {
        name: load_prepared(data_dir / name, recipe, classes=_list_of_classes(of, order), subset=subset)
        for name, of in used.items()
    }
    return merge(parts, order, used)


def read_label_map(path: str, manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Read the common classes of labels from a JSON file: {dataset: {label: class}}.

    A label of class "" is left out.

    Args:
        path: the file.
        manifests: the manifests of the datasets by name.

    Raises:
        UsageError: if the file is unsuitable, or names a dataset or label that there is not.
    """
    file = Path(path)
    try:
        value = CheckedFolder(file.parent, "restore it from a copy").read_json(file.name, object)
        content = msgspec.convert(value, dict[str, dict[str, str]])
    except (InputError, msgspec.ValidationError) as error:
        raise UsageError(f"config.across.label_map={path}: {error}") from None
    for name, of in content.items():
        if name not in manifests:
            raise UsageError(
                f"config.across.label_map={path}: {name} is none of the datasets {', '.join(manifests)}"
            )
        if unknown := of.keys() - manifests[name]["labels"]["found"].keys():
            known = ", ".join(manifests[name]["labels"]["found"])
            raise UsageError(
                f"config.across.label_map={path}: {name} has no label {min(unknown)!r}; its labels are {known}"
            )
    return content


def common_labels(manifest: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, str]:
    """Return the common class of each label of a dataset; labels without one are left out.

    Args:
        manifest: the manifest of the dataset.
        own: the common classes of some labels, which come before those of the corpus.
    """
    corpus = corpora.find(manifest["corpus"])
    found = {
        label: own.get(label, corpus.common_class(label)) for label in sorted(manifest["labels"]["found"])
    }
    return {label: name for label, name in found.items() if name}


def chosen_classes(classes: str, common: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the class of the run for each common class, in class order.

    Args:
        classes: "all" is the classes that all datasets have, "four" is `FOUR`, and a list such as
            "neutral+calm,happy,sad,angry" is of common classes (`jaxser.corpora.parse_classes`).
        common: the common class of each label, by dataset.

    Raises:
        UsageError: if there are fewer than two, or no dataset has one of those that are listed.
    """
    has = {name: set(of.values()) for name, of in common.items()}
    ranks = {name: rank for rank, name in enumerate(COMMON_CLASSES)}
    known = sorted(set().union(*has.values()), key=lambda name: (ranks.get(name, len(ranks)), name))
    if classes == "four":
        return {name: name for name in FOUR}
    if classes != "all":
        if classes in corpora.LABEL_SETS:
            raise UsageError(
                f"config.classes={classes}: a label set of one corpus; of several datasets it is all, four, or a list "
                f"of {', '.join(known)}"
            )
        class_of = corpora.parse_classes(classes)
        if unknown := [name for name in class_of if name not in known]:
            raise UsageError(
                f"config.classes={classes}: no dataset has the class {unknown[0]}; the classes are {', '.join(known)}"
            )
        return class_of
    shared = [name for name in known if all(name in of for of in has.values())]
    if len(shared) < 2:
        own = "; ".join(f"{name}: {', '.join(sorted(of)) or 'none'}" for name, of in has.items())
        raise UsageError(
            f"the datasets have fewer than two classes in common ({own}): map their labels with "
            "--config.across.label_map=FILE.json"
        )
    return {name: name for name in shared}


def _list_of_classes(class_of: Mapping[str, str], order: Sequence[str]) -> str:
    """Return the argument `classes` of `load_prepared`."""
    members = {name: [label for label, own in class_of.items() if own == name] for name in order}
    return ",".join(f"{name}={'+'.join(labels)}" for name, labels in members.items() if labels)


def merge(
    parts: Mapping[str, Dataset], classes: tuple[str, ...], class_of: Mapping[str, Mapping[str, str]]
) -> Dataset:
    """Return several datasets as one, whose rows are theirs one after the other.

    Ids of utterances, speakers, sessions and dialogues begin with the name of the dataset.

    Args:
        parts: the datasets by name, loaded with classes that are among `classes`.
        classes: the classes, in order.
        class_of: the class of each label, by dataset, for the manifest.

    Raises:
        UsageError: if the datasets do not have the same recipe, parameters, arrays and kind of word vectors.
    """
    names = {Path(name).name: part for name, part in parts.items()}
    (first, own), *others = names.items()
    for name, part in others:
        if reason := _misfit(own, part):
            raise UsageError(
                f"{name} and {first} do not fit together: {reason}; prepare both with the same flags"
            )
    datasets = tuple(_with_classes(name, part, classes) for name, part in names.items())
    vocabulary, embeddings, ids = _merged_words(datasets)
    return Dataset(
        name="+".join(names),
        recipe=own.recipe,
        version=own.version,
        classes=classes,
        utterances=tuple(u for part in datasets for u in _prefixed(part)),
        label=np.concatenate([part.label for part in datasets]),
        arrays={name: _joined(name, datasets, ids) for name in own.arrays},
        vocabulary=vocabulary,
        embeddings=embeddings,
        left_out={
            f"{part.name}{SEPARATOR}{label}": number
            for part in datasets
            for label, number in part.left_out.items()
        },
        manifest=_merged_manifest({part.name: part.manifest for part in datasets}, class_of),
        sources=tuple(dataclasses.replace(part, arrays={}) for part in datasets),
    )


def _misfit(a: Dataset, b: Dataset) -> str:
    """Return why two datasets cannot be merged, or an empty string."""
    if (a.recipe, a.version) != (b.recipe, b.version):
        return f"recipes {a.recipe} {a.version} and {b.recipe} {b.version}"
    first, second = (one.manifest.get("parameters", {}) for one in (a, b))
    for key in sorted(first.keys() | second.keys()):
        if first.get(key) != second.get(key):
            if key == "encoder":
                return "their frames are of different encoders, layers or windows"
            return f"{key} is {second.get(key)} and {first.get(key)}"
    if a.arrays.keys() != b.arrays.keys():
        return f"only one of them has {', '.join(sorted(a.arrays.keys() ^ b.arrays.keys()))}"
    for name, array in a.arrays.items():
        other = b.arrays[name].values
        if (array.values.dtype, array.values.shape[1:]) != (other.dtype, other.shape[1:]):
            return f"{name} has other features"
    return ""


def _with_classes(name: str, part: Dataset, classes: tuple[str, ...]) -> Dataset:
    index = np.array([classes.index(one) for one in part.classes], dtype=np.int32)
    return dataclasses.replace(part, name=name, classes=classes, label=index[part.label])


def _prefixed(part: Dataset) -> list[Utterance]:
    """Return the utterances, with their dataset's name before what may recur in another."""

    def prefixed(value: str) -> str:
        return f"{part.name}{SEPARATOR}{value}" if value else ""

    return [
        dataclasses.replace(
            one,
            id=prefixed(one.id),
            wav=prefixed(one.wav),
            speaker=prefixed(one.speaker),
            session=prefixed(one.session),
            dialogue=prefixed(one.dialogue),
        )
        for one in part.utterances
    ]


def _joined(name: str, datasets: Sequence[Dataset], ids: Sequence[np.ndarray]) -> Ragged:
    """Return an array of all datasets; words get the ids of the merged vocabulary."""
    arrays = [part.arrays[name] for part in datasets]
    values = [array.values for array in arrays]
    if name == "words":
        values = [own[array] for own, array in zip(ids, values, strict=True)]
    return Ragged(np.concatenate(values), np.concatenate([array.length for array in arrays]))


def _merged_words(
    datasets: Sequence[Dataset],
) -> tuple[tuple[str, ...], Float[np.ndarray, "V E"] | None, list[np.ndarray]]:
    """Return the merged vocabulary, its vectors, and the new id of each word of each dataset."""
    words = tuple(dict.fromkeys(word for part in datasets for word in part.vocabulary))
    index = {word: n for n, word in enumerate(words)}
    ids = [np.array([index[word] for word in part.vocabulary], dtype=np.int32) for part in datasets]
    tables = [part.embeddings for part in datasets if part.embeddings is not None]
    if not tables:
        return words, None, ids
    sources = {part.manifest.get("embeddings", {}).get("source") for part in datasets}
    if len(tables) < len(datasets) or len(sources) > 1 or len({table.shape[1] for table in tables}) > 1:
        names = ", ".join(part.name for part in datasets)
        raise UsageError(
            f"{names} have word vectors of different kinds; prepare all with the same --glove=FILE"
        )
    if sources == {"random"}:  # drawn by a word's place in the vocabulary, so those of two datasets coincide
        entry = datasets[0].manifest["embeddings"]
        return words, vectors.random_embeddings(Vocabulary(words), entry["seed"], tables[0].shape[1]), ids
    merged = np.zeros((len(words), tables[0].shape[1]), np.float32)
    for own, table in zip(reversed(ids), reversed(tables), strict=True):
        merged[own] = table  # of a word of several datasets, the first one's vector
    return words, merged, ids


def _merged_manifest(
    manifests: Mapping[str, Mapping[str, Any]], class_of: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Return what a manifest says of the merged dataset; the digest of a run covers all datasets."""
    first = next(iter(manifests.values()))
    whole = ("recipe", "version", "parameters", "arrays")
    each = ("shards", "labels")
    return {
        "name": "+".join(manifests),
        "corpus": "+".join(str(manifest.get("corpus", "")) for manifest in manifests.values()),
        **{key: first[key] for key in whole if key in first},
        **{key: {name: manifest.get(key) for name, manifest in manifests.items()} for key in each},
        "embeddings": {
            "source": first.get("embeddings", {}).get("source"),
            "of": {name: manifest.get("embeddings") for name, manifest in manifests.items()},
        },
        "common": {name: dict(of) for name, of in class_of.items()},
        "facts": {"synthetic": any(m.get("facts", {}).get("synthetic") for m in manifests.values())},
    }


def normalised_by_corpus(dataset: Dataset, tested: Sequence[str]) -> Dataset:
    """Convert each dataset of a merged one to z-scores of its own mean and standard deviation.

    The statistics are of all utterances of a dataset, as in Schuller et al. 2010 ("Cross-corpus acoustic emotion
    recognition: variances and strategies"), and need no labels. Copies of recordings have those of the originals.

    Args:
        dataset: a merged dataset.
        tested: the names of the datasets that are only tested. Those of the others, together, are kept in `raw`.

    Raises:
        UsageError: if no array is normalised.
    """
    original = {copy: name for of in copies_of(dataset) for name, copy in of.items()}
    names = [name for name, one in dataset.arrays.items() if is_standardised(name, one.values.dtype)]
    if not names:
        raise UsageError(f"config.across.normalise=corpus: recipe {dataset.recipe} has nothing to normalise")
    corpus = np.repeat([one.name for one in dataset.sources], [len(one.label) for one in dataset.sources])
    trained = np.flatnonzero(~np.isin(corpus, [Path(name).name for name in tested]))
    sums = {name: FrameSums.of(dataset.arrays[name]) for name in names if name not in original}
    arrays = dict(dataset.arrays)
    for name in names:
        array, own = dataset.arrays[name], sums[original.get(name, name)]
        values = array.values.copy()
        for one in dataset.sources:
            rows = np.flatnonzero(corpus == one.name)
            mean, std = own.normalisation(rows)
            begin = int(array.offset[rows[0]])
            block = slice(begin, begin + int(array.length[rows].sum()))
            values[block] = (array.values[block] - mean) / std
        arrays[name] = Ragged(values, array.length)
    raw = {name: own.normalisation(trained) for name, own in sums.items()}
    return dataclasses.replace(dataset, arrays=arrays, raw=raw)
