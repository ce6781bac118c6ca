"""The features that Yoon et al. (2020) made of IEMOCAP and share with its licensees, in their own five folds.

`folds/fold01/train_audio_mfcc.npy` and so on: 120 features of up to 1,000 frames, 35 prosodic features, 128 word ids,
32 x 2,048 video features. There is no sound: the arrays are taken as they are, as a dataset of recipe `self_cross`.
Files are memory-mapped and never unpickled, so the words themselves (`dic.pkl`) stay unknown.

Every fold holds the whole corpus, and no item has a name. The same item is found in all folds by a digest of its
content, and is named after its place in the first. Which number is which emotion is told by how many there are, since
all seven counts of the corpus differ; otherwise it is the order in which the authors' table lists them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from jaxser.features.recipes import ArraySpec
from jaxser.features.sources import file_stamp
from jaxser.features.text import PAD, Vocabulary
from jaxser.types import InputError, Reading, Utterance

EXPECTED = {"ang": 1103, "exc": 1041, "hap": 595, "sad": 1084, "fru": 1849, "sur": 107, "neu": 1708}
"""In the order of the authors' table."""

RECIPE = "self_cross"
ARRAYS = {
    "audio": ArraySpec("float32", (None, 120)),
    "words": ArraySpec("int32", (None,)),
    "video": ArraySpec("float32", (None, 2048)),
    "prosody": ArraySpec("float32", (None, 35)),
}
PARTS = {"train": "train", "dev": "validation", "test": "test"}

_SHAPES: dict[str, tuple[int | None, ...]] = {
    "audio_mfcc": (None, 120),
    "audio_prosody": (35,),
    "audio_seqN": (),
    "nlp_trans": (None,),
    "video": (None, 2048),
    "video_seqN": (),
}
_FOLD = re.compile(r"fold_?[0-9]+", re.ASCII)
_PLACE = re.compile(r"(.+)_(train|dev|test)_([0-9]{5})", re.ASCII)


def read(root: Path) -> Reading:
    """The items of all folds, each once, and the folds by their ids.

    Raises `InputError` where a file is missing or of another shape.
    """
    folds = Folds(Path(root))
    ids: dict[tuple[str, int], str] = {}
    numbers: dict[str, int] = {}
    lists: list[dict[str, Any]] = []
    for fold in folds.names:
        seen: Counter[str] = Counter()
        entry: dict[str, Any] = {"name": fold} | {part: [] for part in PARTS.values()}
        for part, ours in PARTS.items():
            labels = folds.labels(fold, part)
            for row, digest in enumerate(_digests(folds, fold, part)):
                identity = ids.setdefault((digest, seen[digest]), f"{fold}_{part}_{row:05d}")
                seen[digest] += 1  # copies within a fold stay apart
                numbers.setdefault(identity, int(labels[row]))
                entry[ours].append(identity)
        lists.append(entry)
    names, told = _label_names(Counter(numbers.values()))
    utterances = tuple(_utterance(folds, identity, names[number]) for identity, number in numbers.items())
    each_fold = {sum(len(entry[part]) for part in PARTS.values()) for entry in lists}
    facts = {
        "folds": len(lists),
        "labels_told_by": told,
        "same_items_in_all_folds": each_fold == {len(utterances)},
    }
    return Reading(utterances, (), EXPECTED, facts, tuple(lists))


def ready(root: Path) -> Folds:
    """The features of the corpus, which take the place of sound."""
    return Folds(Path(root))


@dataclass(frozen=True)
class Folds:
    """The files, opened when they are asked for: this goes to worker processes."""

    root: Path
    recipe: str = field(default=RECIPE, init=False)
    arrays: Mapping[str, ArraySpec] = field(default_factory=lambda: ARRAYS, init=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "recipe": self.recipe, "arrays": self.arrays}

    @cached_property
    def folders(self) -> dict[str, Path]:
        """Each fold's, by name."""
        paths = sorted(path.parent for path in self.root.rglob("train_label.npy"))
        found = {path.name: path for path in paths if _FOLD.fullmatch(path.name)}
        if not found:
            raise InputError(
                f"{self.root}: no folds of Yoon et al. there (folds/fold01/train_label.npy, ...)"
            )
        if len(found) < len([path for path in paths if _FOLD.fullmatch(path.name)]):
            raise InputError(f"{self.root}: several folders of one fold; name the folder of one category set")
        return found

    @property
    def names(self) -> list[str]:
        return list(self.folders)

    def path(self, fold: str, part: str, kind: str) -> Path:
        return self.folders[fold] / f"{part}_{kind}.npy"

    def array(self, fold: str, part: str, kind: str) -> np.ndarray:
        """An array of a part of a fold, mapped into memory."""
        return self._opened[fold, part][kind]

    def labels(self, fold: str, part: str) -> np.ndarray:
        """As numbers, whether they are stored so or one-hot."""
        return self.array(fold, part, "label")

    def read(self, utterance: Utterance) -> tuple[Utterance, dict[str, np.ndarray]]:
        """The item with its flags, and its arrays without their padding; `InputError` says what is wrong with it.

        Without a frame of video it is refused, as the published code of Rajan et al. (2022) drops such items from
        every part. Flag: `no_words`.
        """
        fold, part, row = _place(utterance.id)
        rows = {kind: self.array(fold, part, kind)[row] for kind in _SHAPES}
        words = rows["nlp_trans"].astype(np.int32)
        words = words[: (int(np.argmin(words != 0)) if (words == 0).any() else len(words))]
        frames, pictures = int(rows["audio_seqN"]), int(rows["video_seqN"])
        arrays = {
            "audio": np.asarray(rows["audio_mfcc"][:frames], np.float32),
            "words": words if len(words) else np.zeros(1, np.int32),
            "video": np.asarray(rows["video"][:pictures], np.float32),
            "prosody": np.asarray(rows["audio_prosody"], np.float32)[None],
        }
        if frames < 1:
            raise InputError("no frames of sound (audio_seqN is 0)")
        if pictures < 1:
            raise InputError("no frames of video (video_seqN is 0)")
        if words.size and not 0 <= words.min() <= words.max() < len(self.vocabulary().words):
            raise InputError("word ids outside W_embedding.npy")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise InputError("NaN or infinite features")
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
        return replace(utterance, sha256=digest, flags=() if len(words) else ("no_words",)), arrays

    def stamp(self, identity: str) -> list[Any]:
        """Size and time of change of every file that holds something of the item."""
        fold, part, _ = _place(identity)
        return [file_stamp(self.path(fold, part, kind)) for kind in _SHAPES]

    def vocabulary(self) -> Vocabulary:
        """As many words as there are vectors, by number."""
        return Vocabulary((PAD, *(f"<{number}>" for number in range(1, len(self.embeddings())))))

    def embeddings(self) -> np.ndarray:
        """W_embedding.npy, [V, E]; the padding's is zero."""
        return self._embeddings

    @cached_property
    def _embeddings(self) -> np.ndarray:
        paths = sorted(self.root.rglob("W_embedding.npy"), key=lambda path: (len(path.parts), path))
        if not paths:
            raise InputError(f"{self.root}: no W_embedding.npy in it")
        if len({path.read_bytes() for path in paths}) > 1:
            raise InputError(f"{self.root}: the folds have different W_embedding.npy")
        table = _load(paths[0])
        if table.ndim != 2 or table.dtype.kind != "f" or len(table) < 2 or not np.isfinite(table).all():
            raise InputError(f"{paths[0]}: numbers [words, dimensions] were expected, found {_kind(table)}")
        vectors = np.array(table, np.float32)
        vectors[0] = 0
        return vectors

    @cached_property
    def _opened(self) -> dict[tuple[str, str], dict[str, np.ndarray]]:
        return {(fold, part): self._open(fold, part) for fold in self.folders for part in PARTS}

    def _open(self, fold: str, part: str) -> dict[str, np.ndarray]:
        labels = _numbered(self.path(fold, part, "label"))
        arrays = {"label": labels}
        for kind, shape in _SHAPES.items():
            path = self.path(fold, part, kind)
            array = _load(path)
            whole = kind in ("audio_seqN", "nlp_trans", "video_seqN")
            fits = array.ndim == len(shape) + 1 and all(
                wanted in (None, found) for wanted, found in zip(shape, array.shape[1:], strict=True)
            )
            if not fits or array.dtype.kind not in ("iu" if whole else "f") or len(array) != len(labels):
                sizes = ", ".join("any" if size is None else str(size) for size in (len(labels), *shape))
                raise InputError(
                    f"{path}: {'whole ' if whole else ''}numbers [{sizes}] were expected, found {_kind(array)}"
                )
            arrays[kind] = array
        return arrays


def _place(identity: str) -> tuple[str, str, int]:
    parts = _PLACE.fullmatch(identity)
    assert parts is not None  # only such ids are made
    return parts[1], parts[2], int(parts[3])


def _utterance(folds: Folds, identity: str, label: str) -> Utterance:
    fold, part, _ = _place(identity)
    place = folds.path(fold, part, "audio_mfcc").relative_to(folds.root)
    return Utterance(id=identity, wav=place.as_posix(), label=label)


def _digests(folds: Folds, fold: str, part: str) -> list[str]:
    """What tells items apart, without reading whole sequences: text, lengths, prosody and how sound and video begin."""
    arrays = {kind: folds.array(fold, part, kind) for kind in ("label", *_SHAPES)}
    digests = []
    for row in range(len(arrays["label"])):
        digest = hashlib.sha256()
        for array in arrays.values():
            part_of_row = array[row] if array.ndim < 3 else array[row, :_HEAD]
            digest.update(np.ascontiguousarray(part_of_row).tobytes())
        digests.append(digest.hexdigest())
    return digests


_HEAD = 16  # frames


def _label_names(counts: Counter[int]) -> tuple[dict[int, str], str]:
    by_count = {count: name for name, count in EXPECTED.items()}
    if len(counts) == len(EXPECTED) and set(counts.values()) == set(by_count):
        return {number: by_count[count] for number, count in counts.items()}, "their counts"
    names = list(EXPECTED)
    return {
        n: names[n] if 0 <= n < len(names) else f"label{n}" for n in counts
    }, "the order of the authors' table"


def _numbered(path: Path) -> np.ndarray:
    labels = _load(path)
    if labels.ndim == 2 and labels.shape[1] == len(EXPECTED) and labels.dtype.kind in "iufb":
        return np.argmax(labels, axis=1)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: numbers of classes [items] were expected, found {_kind(labels)}")
    return np.asarray(labels)


def _load(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: not an array that can be read ({' '.join(str(error).split())})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: not one array, but an archive of several")
    return array


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"
