"""The folds of EmoBox (Ma et al. 2024), read from its fold files as they are published.

`data/emodb/fold_1/emodb_train_fold_1.jsonl` and its like have one recording per line: `key`, such as "emodb-03a01Wa",
and `wav` (`audio` in older files), a path that begins with folders of its authors.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec
import numpy as np

from jaxser.types import Dataset, Fold, UsageError

_FOLD = re.compile(r"fold_?([0-9]+)")
_PART = re.compile(r".*_(train|valid|test)_fold(_?)([0-9]+)\.jsonl")
_LEVELS = 4

Key = TypeVar("Key")


@dataclass(frozen=True)
class Entry:
    """One line of a fold file."""

    key: str
    wav: str = ""
    audio: str = ""

    @property
    def path(self) -> str:
        """The path of the recording."""
        return self.wav or self.audio or self.key


@dataclass(frozen=True)
class PublishedFold:
    """A fold as published; few corpora have a validation part."""

    name: str
    train: tuple[Entry, ...]
    validation: tuple[Entry, ...]
    test: tuple[Entry, ...]


def published_folds(dataset: Dataset, file: str) -> tuple[Fold, ...]:
    """Return EmoBox's folds of a dataset.

    The validation part is empty where none is published.
    Recordings that are only in the files or only in the dataset, for example because their class was not chosen, are
    left out with a warning.

    Args:
        dataset: the dataset.
        file: the folder of the corpus in EmoBox's `data`, which holds `fold_1`, `fold_2`, ...

    Raises:
        UsageError: if no folder is given, it has no such files, a file is damaged, or no recording is in the dataset.
    """
    if not file:
        raise UsageError("protocol emobox needs --config.protocol.file=FOLDER, such as EmoBox/data/emodb")
    folds = read_folds(Path(file))
    entries = {entry.path: entry for f in folds for part in (f.train, f.validation, f.test) for entry in part}
    row = match(dataset, list(entries.values()))
    if not row:
        first = next(iter(entries.values()))
        raise UsageError(
            f"protocol.file={file}: none of its {len(entries)} recordings, such as {first.path}, is in "
            f"{dataset.name}, which has {dataset.utterances[0].id}: give the folder of the same corpus"
        )
    _warn_of_unmatched(dataset, file, entries, row)

    def rows(part: Iterable[Entry]) -> np.ndarray:
        return np.array(sorted({row[e.path] for e in part if e.path in row}), dtype=np.int64)

    return tuple(Fold(f.name, rows(f.train), rows(f.validation), rows(f.test)) for f in folds)


def read_folds(folder: Path) -> list[PublishedFold]:
    """Read the fold files of a corpus.

    Raises:
        UsageError: if there are none, a fold lacks its training or test part, or a line cannot be read.
    """
    given = f"protocol.file={folder}"
    places = _numbered(folder) if folder.is_dir() else {}
    if not places:
        within = sorted(path.name for path in folder.glob("*") if path.is_dir() and _numbered(path))
        advice = f"give one of its folders {', '.join(within)}" if within else "such as EmoBox/data/emodb"
        raise UsageError(f"{given} is not a folder with EmoBox's fold_1, fold_2, ...: {advice}")
    folds = []
    for number, place in sorted(places.items()):
        files = _parts(place, number)
        if missing := [part for part in ("train", "test") if part not in files]:
            raise UsageError(f"{given}: {place.name} has no file *_{missing[0]}_fold_{number}.jsonl")
        train, validation, test = (_read(files.get(part)) for part in ("train", "valid", "test"))
        folds.append(PublishedFold(str(number), train, validation, test))
    return folds


def match(dataset: Dataset, entries: Sequence[Entry]) -> dict[str, int]:
    """Return the row of the dataset's utterance that each entry is, by the entry's path.

    An entry is found by its key without the name of the corpus, or by the end of its path, which is compared with an
    utterance's id or the end of its path. The same rule, by which most entries are found, is used for all of them.
    Suffixes, letter case and characters other than letters and digits do not matter. Names that are not unique match
    nothing.
    """
    by_id = [_canonical(one.id) for one in dataset.utterances]
    by_path = {n: [_tail(one.wav, n) for one in dataset.utterances] for n in range(1, _LEVELS + 1)}
    rules: list[tuple[Callable[[Entry], str], list[str]]] = [(_key, by_id)]
    rules += [(partial(_tail_of, levels=n), names) for n in by_path for names in (by_id, by_path[n])]
    found = [_by_rule(entries, name, names) for name, names in rules]
    return max(found, key=len)


def _by_rule(entries: Sequence[Entry], name: Callable[[Entry], str], names: Sequence[str]) -> dict[str, int]:
    row_of = _unique(dict(enumerate(names)))
    of_entries = _unique({entry.path: name(entry) for entry in entries})
    return {path: row_of[own] for own, path in of_entries.items() if own in row_of}


def _unique(names: Mapping[Key, str]) -> dict[str, Key]:
    """Return what each name belongs to, without the names of several things and empty ones."""
    times = Counter(names.values())
    return {name: key for key, name in names.items() if name and times[name] == 1}


def _key(entry: Entry) -> str:
    return _canonical(entry.key.partition("-")[2])


def _tail_of(entry: Entry, levels: int) -> str:
    return _tail(entry.path, levels)


def _tail(path: str, levels: int) -> str:
    """Return the last parts of a path without its suffix, "" if it has fewer."""
    own = PurePosixPath(path.replace("\\", "/"))
    return _canonical("/".join(own.with_suffix("").parts[-levels:])) if len(own.parts) >= levels else ""


def _canonical(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def _warn_of_unmatched(
    dataset: Dataset, file: str, entries: Mapping[str, Entry], row: Mapping[str, int]
) -> None:
    lacking = [path for path in entries if path not in row]
    known = set(row.values())
    extra = [one.id for n, one in enumerate(dataset.utterances) if n not in known]
    sides = []
    if lacking:
        sides.append(
            f"{len(lacking)} of its {len(entries)} recordings are not in {dataset.name} with these classes, "
            f"such as {lacking[0]}"
        )
    if extra:
        sides.append(
            f"{len(extra)} of the {len(dataset.utterances)} utterances of {dataset.name} are not in its folds, "
            f"such as {extra[0]}"
        )
    if sides:
        warnings.warn(f"protocol.file={file}: {'; '.join(sides)}; they are left out", stacklevel=2)


def _numbered(folder: Path) -> dict[int, Path]:
    """Return the folders of the folds by number."""
    found = ((_FOLD.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return {int(match[1]): path for match, path in found if match}


def _parts(folder: Path, number: int) -> dict[str, Path]:
    """Return the file of each part; of two, the one that is written `fold_1` instead of `fold1`."""
    found = [
        (m, path) for path in folder.iterdir() if (m := _PART.fullmatch(path.name)) and int(m[3]) == number
    ]
    return {match[1]: path for match, path in sorted(found, key=lambda one: (one[0][2], one[1].name))}


def _read(path: Path | None) -> tuple[Entry, ...]:
    """Return the lines of a file, or an empty tuple if `path` is None."""
    entries: list[Entry] = []
    try:
        lines = path.read_bytes().splitlines() if path else []
        for line in lines:
            entries.append(msgspec.json.decode(line, type=Entry))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(
            f"protocol.file: {path}:{len(entries) + 1}: {error}; restore it from a copy"
        ) from None
    except OSError as error:
        raise UsageError(f"protocol.file: {path}: {error.strerror}") from None
    return tuple(entries)
