"""Features of IEMOCAP by Yoon et al. (2020), in the authors' five folds.

The authors share them with licensees. The release consists of arrays such as `folds/fold01/train_audio_mfcc.npy`: 120
features of up to 1,000 frames, 35 prosodic features, 128 word ids, 32 x 2,048 video features. There is no audio; the
arrays are used as they are, as a dataset of recipe `self_cross`. Files are memory-mapped and never unpickled, so the
words themselves (`dic.pkl`) are unknown.

Every fold contains the whole corpus, and items have no names. An item is identified across folds by a digest of its
content, and named after its position in the first fold. Class numbers are mapped to emotions by their counts, since
all seven counts of the corpus differ; if the counts are others, by the order of the authors' table.
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
from jaxtyping import Float

from jaxser.features.recipes import ArraySpec
from jaxser.features.sources import file_stamp
from jaxser.features.text import PAD, Vocabulary
from jaxser.types import InputError, Reading, Utterance

EXPECTED = {"ang": 1103, "exc": 1041, "hap": 595, "sad": 1084, "fru": 1849, "sur": 107, "neu": 1708}
"""Utterances per label in the release, in the order of the authors' table."""

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
_ID = re.compile(r"(.+)_(train|dev|test)_([0-9]{5})", re.ASCII)
_HEAD = 16  # frames of a sequence that enter an item's digest


def read(root: Path) -> Reading:
    """Read the items of all folds, each once, and the folds as lists of ids.

    Raises:
        InputError: if a file is missing or has an unexpected shape.
    """
    folds = Folds(Path(root))
    ids: dict[tuple[str, int], str] = {}
    numbers: dict[str, int] = {}
    lists: list[dict[str, Any]] = []
    for fold in folds.names:
        seen: Counter[str] = Counter()
        entry: dict[str, Any] = {"name": fold} | {part: [] for part in PARTS.values()}
        for part, split in PARTS.items():
            labels = folds.labels(fold, part)
            for row, digest in enumerate(_digests(folds, fold, part)):
                identity = ids.setdefault((digest, seen[digest]), f"{fold}_{part}_{row:05d}")
                seen[digest] += 1  # keeps copies within a fold apart
                numbers.setdefault(identity, int(labels[row]))
                entry[split].append(identity)
        lists.append(entry)
    names, named_by = _label_names(Counter(numbers.values()))
    utterances = tuple(_utterance(folds, identity, names[number]) for identity, number in numbers.items())
    sizes = {sum(len(entry[part]) for part in PARTS.values()) for entry in lists}
    facts = {
        "folds": len(lists),
        "labels_told_by": named_by,
        "same_items_in_all_folds": sizes == {len(utterances)},
    }
    return Reading(utterances, (), EXPECTED, facts, tuple(lists))


def precomputed(root: Path) -> Folds:
    """Return the features of the corpus, which are used instead of audio."""
    return Folds(Path(root))


@dataclass(frozen=True)
class Folds:
    """The arrays of a release, opened on first use.

    An instance can therefore be sent to worker processes.
    """

    root: Path
    recipe: str = field(default=RECIPE, init=False)
    arrays: Mapping[str, ArraySpec] = field(default_factory=lambda: ARRAYS, init=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "recipe": self.recipe, "arrays": self.arrays}

    @cached_property
    def folders(self) -> dict[str, Path]:
        """The folder of each fold, by name."""
        paths = sorted(path.parent for path in self.root.rglob("train_label.npy"))
        found = {path.name: path for path in paths if _FOLD.fullmatch(path.name)}
        if not found:
            raise InputError(
                f"{self.root}: no folds of Yoon et al. found (folds/fold01/train_label.npy, ...)"
            )
        if len(found) < len([path for path in paths if _FOLD.fullmatch(path.name)]):
            raise InputError(
                f"{self.root}: several folders of one fold; choose the folder of one category set"
            )
        return found

    @property
    def names(self) -> list[str]:
        """The names of the folds."""
        return list(self.folders)

    def path(self, fold: str, part: str, kind: str) -> Path:
        """Return the path of an array of one part of a fold."""
        return self.folders[fold] / f"{part}_{kind}.npy"

    def array(self, fold: str, part: str, kind: str) -> np.ndarray:
        """Return a memory-mapped array of one part of a fold."""
        return self._opened[fold, part][kind]

    def labels(self, fold: str, part: str) -> np.ndarray:
        """Return the class numbers of one part of a fold, which may be stored one-hot."""
        return self.array(fold, part, "label")

    def read(self, utterance: Utterance) -> tuple[Utterance, dict[str, np.ndarray]]:
        """Return the item with its flags, and its arrays without padding. Flag: `no_words`.

        Items without a frame of video are rejected, since the code of Rajan et al. (smartcameras/SelfCrossAttn at
        df62166) drops them from every part.

        Raises:
            InputError: if the item has no frames of audio or video, unknown word ids, or values that are not finite.
        """
        fold, part, row = _parse_id(utterance.id)
        rows = {kind: self.array(fold, part, kind)[row] for kind in _SHAPES}
        words = rows["nlp_trans"].astype(np.int32)
        words = words[: (int(np.argmin(words != 0)) if (words == 0).any() else len(words))]
        audio_frames, video_frames = int(rows["audio_seqN"]), int(rows["video_seqN"])
        arrays = {
            "audio": np.asarray(rows["audio_mfcc"][:audio_frames], np.float32),
            "words": words if len(words) else np.zeros(1, np.int32),
            "video": np.asarray(rows["video"][:video_frames], np.float32),
            "prosody": np.asarray(rows["audio_prosody"], np.float32)[None],
        }
        if audio_frames < 1:
            raise InputError("no frames of audio (audio_seqN is 0)")
        if video_frames < 1:
            raise InputError("no frames of video (video_seqN is 0)")
        if words.size and not 0 <= words.min() <= words.max() < len(self.vocabulary().words):
            raise InputError("word ids outside W_embedding.npy")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise InputError("NaN or infinite features")
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
        return replace(utterance, sha256=digest, flags=() if len(words) else ("no_words",)), arrays

    def stamp(self, identity: str) -> list[Any]:
        """Return the size and modification time of every file that contains part of the item."""
        fold, part, _ = _parse_id(identity)
        return [file_stamp(self.path(fold, part, kind)) for kind in _SHAPES]

    def vocabulary(self) -> Vocabulary:
        """Return one placeholder word (`<number>`) per word vector."""
        return Vocabulary((PAD, *(f"<{number}>" for number in range(1, len(self.embeddings())))))

    def embeddings(self) -> Float[np.ndarray, "V E"]:
        """Return the word vectors of W_embedding.npy; the padding's vector is zero."""
        return self._embeddings

    @cached_property
    def _embeddings(self) -> Float[np.ndarray, "V E"]:
        paths = sorted(self.root.rglob("W_embedding.npy"), key=lambda path: (len(path.parts), path))
        if not paths:
            raise InputError(f"{self.root}: contains no W_embedding.npy")
        if len({path.read_bytes() for path in paths}) > 1:
            raise InputError(f"{self.root}: the folds have different W_embedding.npy")
        table = _load(paths[0])
        if table.ndim != 2 or table.dtype.kind != "f" or len(table) < 2 or not np.isfinite(table).all():
            raise InputError(f"{paths[0]}: expected numbers [words, dimensions], found {_describe(table)}")
        vectors = np.array(table, np.float32)
        vectors[0] = 0
        return vectors

    @cached_property
    def _opened(self) -> dict[tuple[str, str], dict[str, np.ndarray]]:
        return {(fold, part): self._open(fold, part) for fold in self.folders for part in PARTS}

    def _open(self, fold: str, part: str) -> dict[str, np.ndarray]:
        labels = _load_labels(self.path(fold, part, "label"))
        arrays = {"label": labels}
        for kind, shape in _SHAPES.items():
            path = self.path(fold, part, kind)
            array = _load(path)
            integers = kind in ("audio_seqN", "nlp_trans", "video_seqN")
            fits = array.ndim == len(shape) + 1 and all(
                expected in (None, found) for expected, found in zip(shape, array.shape[1:], strict=True)
            )
            if not fits or array.dtype.kind not in ("iu" if integers else "f") or len(array) != len(labels):
                sizes = ", ".join("any" if size is None else str(size) for size in (len(labels), *shape))
                raise InputError(
                    f"{path}: expected {'integers' if integers else 'floats'} [{sizes}], found {_describe(array)}"
                )
            arrays[kind] = array
        return arrays


def _parse_id(identity: str) -> tuple[str, str, int]:
    """Split an id into fold, part and row."""
    parts = _ID.fullmatch(identity)
    assert parts is not None  # `read` makes no others
    return parts[1], parts[2], int(parts[3])


def _utterance(folds: Folds, identity: str, label: str) -> Utterance:
    fold, part, _ = _parse_id(identity)
    path = folds.path(fold, part, "audio_mfcc").relative_to(folds.root)
    return Utterance(id=identity, wav=path.as_posix(), label=label)


def _digests(folds: Folds, fold: str, part: str) -> list[str]:
    """Digest each item's label, words, lengths, prosody, and the first frames of its audio and video."""
    arrays = {kind: folds.array(fold, part, kind) for kind in ("label", *_SHAPES)}
    digests = []
    for row in range(len(arrays["label"])):
        digest = hashlib.sha256()
        for array in arrays.values():
            values = array[row] if array.ndim < 3 else array[row, :_HEAD]
            digest.update(np.ascontiguousarray(values).tobytes())
        digests.append(digest.hexdigest())
    return digests


def _label_names(counts: Mapping[int, int]) -> tuple[dict[int, str], str]:
    """Return the names of the class numbers by their counts, and how they were identified."""
    by_count = {count: name for name, count in EXPECTED.items()}
    if len(counts) == len(EXPECTED) and set(counts.values()) == set(by_count):
        return {number: by_count[count] for number, count in counts.items()}, "their counts"
    names = list(EXPECTED)
    by_order = {number: names[number] if 0 <= number < len(names) else f"label{number}" for number in counts}
    return by_order, "the order of the authors' table"


def _load_labels(path: Path) -> np.ndarray:
    labels = _load(path)
    if labels.ndim == 2 and labels.shape[1] == len(EXPECTED) and labels.dtype.kind in "iufb":
        return np.argmax(labels, axis=1)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: expected class numbers [items], found {_describe(labels)}")
    return np.asarray(labels)


def _load(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: not a readable array ({' '.join(str(error).split())})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an archive of several arrays, not one array")
    return array


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"
