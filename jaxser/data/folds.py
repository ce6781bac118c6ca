"""Protocols: how a dataset is split into training, validation and test.

Folds come from the corpus's utterances and the protocol's own seed, never from what a model or a training seed does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxser.data.leaks import KINDS
from jaxser.types import Dataset, Fold, UsageError

GROUP_BY = {"transcript": "transcript", "speaker": "speaker", "dialogue": "dialogue", "audio": "recording"}
"""What `group_by` keeps in one part, and the kind of leak (`jaxser.leaks.KINDS`) that it avoids."""


@dataclass(frozen=True)
class Protocol:
    """How to split. `folds` 0 means the protocol's own number: 10 random folds, one for every session or speaker group.

    `groups` names the speakers that are tested together (`speaker` protocol); without it, groups of consecutive
    speakers. `file` holds folds as id lists (`file` protocol). `group_by` (`random` protocol) keeps utterances of
    one transcript, speaker, dialogue or of byte-identical audio in one part; what is not known goes by itself.
    """

    name: str = "session"
    folds: int = 0
    split_seed: int = 0
    validation_share: float = 0.0  # in `random`; 0: the next fold validates
    validation_from: str = (
        "rest"  # what that share is of: "rest" (what is not tested) or "test" (the held-out fold)
    )
    select: str = "validation"  # what selects the epoch; "test" (Ramet 2018): validation is trained on too
    groups: tuple[tuple[str, ...], ...] = ()
    group_by: str = ""  # a key of `GROUP_BY`
    file: str = ""


def make_folds(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """The folds of a dataset, in order.

    Raises:
        UsageError: the protocol is unknown, or the dataset has not what it needs.
    """
    makers = {
        "random": _random,
        "session": _session,
        "holdout": _holdout,
        "speaker": _speaker,
        "official": _official,
        "file": _file,
    }
    if protocol.name not in makers:
        raise UsageError(f"protocol.name={protocol.name!r} is not one of {', '.join(makers)}")
    for field, allowed in (("validation_from", ("rest", "test")), ("select", ("validation", "test"))):
        if getattr(protocol, field) not in allowed:
            raise UsageError(
                f"protocol.{field}={getattr(protocol, field)!r} is not one of {', '.join(allowed)}"
            )
    if protocol.group_by not in ("", *GROUP_BY):
        raise UsageError(f"protocol.group_by={protocol.group_by!r} is not one of {', '.join(GROUP_BY)}")
    if protocol.group_by and protocol.name != "random":
        raise UsageError(
            f"protocol.group_by={protocol.group_by!r} is for protocol.name=random, not {protocol.name}"
        )
    folds = makers[protocol.name](dataset, protocol)
    for fold in folds:
        for part in ("train", "validation", "test"):
            if len(getattr(fold, part)) == 0:
                raise UsageError(f"protocol {protocol.name}: fold {fold.name} has no {part} utterances")
    return tuple(_selected_on_test(fold) for fold in folds) if protocol.select == "test" else folds


def _selected_on_test(fold: Fold) -> Fold:
    """Ramet et al. 2018 hold out a session alone, and report its best epoch: an upper bound."""
    train = np.sort(np.concatenate([fold.train, fold.validation]))
    return Fold(fold.name, train=train, validation=fold.test, test=fold.test)


def fold_ids(dataset: Dataset, folds: tuple[Fold, ...]) -> list[dict[str, object]]:
    """The folds as lists of utterance ids: what `folds.json` holds and the `file` protocol reads."""
    ids = dataset.column("id")
    parts = ("train", "validation", "test")
    return [
        {"name": fold.name} | {part: ids[getattr(fold, part)].tolist() for part in parts} for fold in folds
    ]


def _random(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Stratified by class, utterance by utterance or by groups: fold k tests; fold k + 1 or a share validates."""
    number = protocol.folds or 10
    counts = np.bincount(dataset.label, minlength=len(dataset.classes))
    if few := [f"{counts[n]} of {dataset.classes[n]}" for n in np.flatnonzero(counts < 3)]:
        raise UsageError(
            f"protocol random needs at least 3 utterances of each class; {dataset.name} has {', '.join(few)} "
            "(config.classes chooses the classes)"
        )
    rarest = counts.min()
    if not 3 <= number <= rarest:
        raise UsageError(
            f"protocol.folds={number} must be from 3 to the {rarest} utterances of the rarest class"
        )
    groups = _groups(dataset, protocol.group_by)
    everything = np.arange(len(dataset.label))
    tests = _dealt(dataset, everything, groups, number, protocol.split_seed)
    folds = []
    for k, test in enumerate(tests):
        rest = np.setdiff1d(everything, test)
        if protocol.validation_share:
            pool = {"rest": rest, "test": test}[protocol.validation_from]
            validation = _share(dataset, pool, groups, protocol.validation_share, protocol.split_seed + k)
            test = np.setdiff1d(test, validation)
        else:
            validation = tests[(k + 1) % number]
        folds.append(Fold(str(k + 1), np.setdiff1d(rest, validation), np.sort(validation), test))
    return tuple(folds)


def _groups(dataset: Dataset, group_by: str) -> np.ndarray | None:
    """A number for each utterance, the same for those that stay together; None where each goes by itself."""
    if not group_by:
        return None
    key = KINDS[GROUP_BY[group_by]]
    names = [key(vars(utterance)) for utterance in dataset.utterances]
    if not any(names):
        raise UsageError(f"protocol.group_by={group_by!r}: {dataset.name} does not say what it is by")
    return np.unique([name or f"\0{row}" for row, name in enumerate(names)], return_inverse=True)[1]


def _dealt(
    dataset: Dataset, rows: np.ndarray, groups: np.ndarray | None, number: int, seed: int
) -> list[np.ndarray]:
    """`rows` in `number` parts, stratified by class."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    label = dataset.label[rows]
    if groups is None:
        parts = StratifiedKFold(number, shuffle=True, random_state=seed).split(label, label)
    else:
        splitter = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
        parts = splitter.split(label, label, groups[rows])
    return [rows[test] for _, test in parts]


def _share(
    dataset: Dataset, pool: np.ndarray, groups: np.ndarray | None, share: float, seed: int
) -> np.ndarray:
    """A share of `pool`, stratified by class; by groups the nearest 1 / n of it."""
    from sklearn.model_selection import train_test_split

    if groups is not None:
        return _dealt(dataset, pool, groups, max(2, round(1 / share)), seed)[0]
    try:
        return train_test_split(pool, test_size=share, stratify=dataset.label[pool], random_state=seed)[1]
    except ValueError as error:  # of a class with one utterance in the pool, or a share outside (0, 1)
        reason = " ".join(str(error).split())
        raise UsageError(
            f"protocol.validation_share={share} of {len(pool)} utterances cannot be taken by class: {reason}"
        ) from None


def _session(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Fold k tests session k; session k + 1 validates."""
    return _by_group(dataset.column("session"), "session", protocol)


def _holdout(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """One fold: the last session (or speaker, where there are no sessions) tests, the one before it validates."""
    column = "session" if any(dataset.column("session")) else "speaker"
    group = dataset.column(column)
    names = sorted(set(group.tolist()) - {""})
    if len(names) < 3:
        raise UsageError(f"protocol holdout needs at least 3 {column}s; the dataset has {len(names)}")
    *others, validation, test = names
    return (
        Fold(
            test,
            train=np.flatnonzero(np.isin(group, others)),
            validation=np.flatnonzero(group == validation),
            test=np.flatnonzero(group == test),
        ),
    )


def _speaker(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Fold k tests the k-th group of speakers; the next group validates."""
    speakers = dataset.column("speaker")
    names = sorted(set(speakers.tolist()) - {""})
    groups = protocol.groups or _consecutive(names, protocol.folds or len(names))
    of = {speaker: str(g + 1) for g, group in enumerate(groups) for speaker in group}
    if missing := [name for name in names if name not in of]:
        raise UsageError(f"protocol.groups leaves out the speakers {', '.join(missing)}")
    return _by_group(np.array([of.get(s, "") for s in speakers]), "speaker", protocol, number=len(groups))


def _consecutive(names: list[str], number: int) -> list[list[str]]:
    if len(names) < 3:
        raise UsageError(f"protocol speaker needs at least 3 speakers; the dataset has {len(names)}")
    if not 3 <= number <= len(names):
        raise UsageError(f"protocol.folds={number} must be from 3 to the {len(names)} speakers")
    return [part.tolist() for part in np.array_split(np.array(names), number)]


def _by_group(group: np.ndarray, what: str, protocol: Protocol, number: int = 0) -> tuple[Fold, ...]:
    names = sorted(set(group.tolist()) - {""}, key=lambda name: (len(name), name))
    if len(names) < 3:
        raise UsageError(f"protocol {protocol.name} needs at least 3 {what}s; the dataset has {len(names)}")
    if number == 0 and protocol.folds not in (0, len(names)):
        raise UsageError(
            f"protocol.folds={protocol.folds}, but the dataset has {len(names)} {what}s (0: all)"
        )
    folds = []
    for k, name in enumerate(names):
        validation = names[(k + 1) % len(names)]
        train = np.flatnonzero((group != name) & (group != validation) & (group != ""))
        folds.append(Fold(name, train, np.flatnonzero(group == validation), np.flatnonzero(group == name)))
    return tuple(folds)


def _official(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """The corpus's own split (MELD)."""
    split = dataset.column("split")
    parts = {name: np.flatnonzero(split == name) for name in ("train", "validation", "test")}
    if any(len(rows) == 0 for rows in parts.values()):
        raise UsageError(
            f"protocol official: {dataset.name} has no official split; use session, speaker or random"
        )
    return (Fold("official", **parts),)


def _file(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Folds as id lists, such as another run's `folds.json`."""
    try:
        stored = json.loads(Path(protocol.file).read_text(encoding="utf-8"))
        entries = stored["folds"] if isinstance(stored, Mapping) else stored
        parts = [{p: entry[p] for p in ("train", "validation", "test")} for entry in entries]
        names = [str(entry.get("name", k + 1)) for k, entry in enumerate(entries)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"protocol.file={protocol.file!r} is no file of folds ({error})") from error
    row = {name: n for n, name in enumerate(dataset.column("id").tolist())}
    for part in parts:
        for ids in part.values():
            if unknown := [name for name in ids if name not in row]:
                raise UsageError(
                    f"protocol.file={protocol.file!r}: {len(unknown)} utterances are not in {dataset.name} "
                    f"with these classes, the first {unknown[0]!r}"
                )
    rows = [{p: np.array([row[i] for i in ids], dtype=np.int64) for p, ids in part.items()} for part in parts]
    return tuple(Fold(name, **part) for name, part in zip(names, rows, strict=True))
