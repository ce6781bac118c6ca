"""Protocols: how a dataset is split into folds of training, validation and test part.

Folds depend only on the utterances and on the protocol with its own seed, not on the model or on training seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxser.data.disjoint import speaker_disjoint, speakers_and_sentences
from jaxser.data.emobox import published_folds
from jaxser.data.strata import GROUP_BY, groups_of, stratified_fraction, stratified_parts
from jaxser.files import CheckedFolder, digests_in
from jaxser.types import Dataset, Fold, InputError, UsageError

BOTH = "speaker+transcript"
"""The value of `Protocol.group_by` with which neither speakers nor sentences of training are tested (`random`)."""

EMOBOX_SHARE = 0.2
"""The fraction of the training part that validates in EmoBox's folds without a validation part: 80 to 20."""


@dataclass(frozen=True)
class Protocol:
    """How a dataset is split.

    Attributes:
        name: "random", "session", "holdout", "speaker", "official", "corpus", "emobox" or "file".
        folds: the number of folds; 0 means 10 random folds, or one fold per session or group of speakers.
        split_seed: the seed of random splits.
        validation_share: the fraction that validates (`random`); 0 means that the next fold validates. In `official`
            and `emobox`, the fraction of the training part that validates if there is no validation part; 0 means
            `EMOBOX_SHARE` in `emobox`.
        validation_from: what this is a fraction of: "rest" (everything but the held-out fold) or "test" (that fold).
        select: the part that selects the epoch. With "test" (Ramet et al. 2018) the validation part is trained on.
        groups: the speakers that are tested together (`speaker`); () makes groups of consecutive speakers.
        group_by: a key of `GROUP_BY` (`random`, `official`, `emobox`): utterances with the same value stay in one part.
            Those whose value is unknown are split one by one. In `emobox`, this holds for training and validation part.
            `BOTH` (`random`): see `speakers_and_sentences`.
        file: a JSON file of folds as lists of utterance ids (`file`), or a folder of EmoBox's fold files (`emobox`).
        twin: "speaker" moves whole speakers between the parts of any protocol, so that no speaker is tested and trained
            on (`speaker_disjoint`).
    """

    name: str = "session"
    folds: int = 0
    split_seed: int = 0
    validation_share: float = 0.0
    validation_from: str = "rest"
    select: str = "validation"
    groups: tuple[tuple[str, ...], ...] = ()
    group_by: str = ""
    file: str = ""
    twin: str = ""


def make_folds(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Split a dataset into the folds of a protocol.

    Raises:
        UsageError: if a field of the protocol is invalid, or if the dataset cannot be split as it demands.
    """
    _check(protocol)
    folds = _PROTOCOLS[protocol.name](dataset, protocol)
    if protocol.twin:
        folds = speaker_disjoint(dataset, folds, protocol.split_seed)
    for fold in folds:
        for part in ("train", "validation", "test"):
            if len(getattr(fold, part)) == 0:
                raise UsageError(f"protocol {protocol.name}: fold {fold.name} has no {part} utterances")
    return tuple(_selected_on_test(fold) for fold in folds) if protocol.select == "test" else folds


def fold_ids(dataset: Dataset, folds: tuple[Fold, ...]) -> list[dict[str, object]]:
    """Return the folds as lists of utterance ids.

    This is the format of `folds.json` and of the `file` protocol.
    """
    ids = dataset.column("id")
    parts = ("train", "validation", "test")
    return [
        {"name": fold.name} | {part: ids[getattr(fold, part)].tolist() for part in parts} for fold in folds
    ]


def _check(protocol: Protocol) -> None:
    choices = {
        "name": tuple(_PROTOCOLS),
        "validation_from": ("rest", "test"),
        "select": ("validation", "test"),
        "group_by": ("", *GROUP_BY, BOTH),
        "twin": ("", "speaker"),
    }
    for field, allowed in choices.items():
        if (value := getattr(protocol, field)) not in allowed:
            raise UsageError(f"protocol.{field}={value!r} is not one of {', '.join(filter(None, allowed))}")
    if protocol.twin and protocol.group_by:
        raise UsageError(
            f"protocol.twin={protocol.twin!r} moves utterances that protocol.group_by={protocol.group_by!r} keeps "
            "together: give one of both"
        )
    suited = ("random",) if protocol.group_by == BOTH else ("random", "official", "emobox")
    if protocol.group_by and protocol.name not in suited:
        names = ", ".join(suited).replace(", emobox", " or emobox")
        raise UsageError(
            f"protocol.group_by={protocol.group_by!r} is for protocol.name={names}, not {protocol.name}"
        )


def _selected_on_test(fold: Fold) -> Fold:
    """Return a fold whose test part selects the epoch, as in Ramet et al. 2018.

    The best epoch's score is an upper bound.
    """
    train = np.sort(np.concatenate([fold.train, fold.validation]))
    return Fold(fold.name, train=train, validation=fold.test, test=fold.test)


def _random(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Return folds stratified by class unless attributes are predicted, of single utterances or groups.

    Part k tests; part k + 1 or a fraction validates.
    """
    number = protocol.folds or 10
    if protocol.group_by == BOTH:
        return speakers_and_sentences(dataset, number)
    if dataset.target is not None:  # numbers have no strata
        dataset = replace(dataset, classes=("any",), label=np.zeros_like(dataset.label))
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
    groups = groups_of(dataset, protocol.group_by)
    everything = np.arange(len(dataset.label))
    tests = stratified_parts(dataset, everything, groups, number, protocol.split_seed)
    folds = []
    for k, test in enumerate(tests):
        rest = np.setdiff1d(everything, test)
        if protocol.validation_share:
            pool = {"rest": rest, "test": test}[protocol.validation_from]
            validation = stratified_fraction(
                dataset, pool, groups, protocol.validation_share, protocol.split_seed + k
            )
            test = np.setdiff1d(test, validation)
        else:
            validation = tests[(k + 1) % number]
        folds.append(Fold(str(k + 1), np.setdiff1d(rest, validation), np.sort(validation), test))
    return tuple(folds)


def _session(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Return one fold per session: session k tests, and session k + 1 validates."""
    return _by_group(dataset.column("session"), "session", protocol)


def _holdout(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Return one fold: the last session tests, and the one before validates.

    Speakers replace sessions if there are none.
    """
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
    """Return one fold per group of speakers: group k tests, and group k + 1 validates."""
    speakers = dataset.column("speaker")
    names = sorted(set(speakers.tolist()) - {""})
    groups = protocol.groups or _consecutive(names, protocol.folds or len(names))
    group_of = {speaker: str(g + 1) for g, group in enumerate(groups) for speaker in group}
    if missing := [name for name in names if name not in group_of]:
        raise UsageError(f"protocol.groups leaves out the speakers {', '.join(missing)}")
    return _by_group(
        np.array([group_of.get(s, "") for s in speakers]), "speaker", protocol, number=len(groups)
    )


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
    """Return one fold: the official split of the corpus (MELD).

    If it has no validation part, the training part gives it.
    """
    split = dataset.column("split")
    parts = {name: np.flatnonzero(split == name) for name in ("train", "validation", "test")}
    missing = [name for name, rows in parts.items() if len(rows) == 0]
    if len(missing) == 3:
        raise UsageError(
            f"protocol official: {dataset.name} has no official split; use session, speaker or random"
        )
    if missing == ["validation"] and protocol.validation_share:
        groups = groups_of(dataset, protocol.group_by)
        validation = stratified_fraction(
            dataset, parts["train"], groups, protocol.validation_share, protocol.split_seed
        )
        return (
            Fold("official", np.setdiff1d(parts["train"], validation), np.sort(validation), parts["test"]),
        )
    if missing == ["validation"]:
        raise UsageError(
            f"protocol official: the split of {dataset.name} has no validation part; "
            "--config.protocol.validation_share=0.1 takes a tenth of its training part "
            "(with --config.protocol.group_by=speaker, of whole speakers)"
        )
    if missing:
        raise UsageError(
            f"protocol official: the split of {dataset.name} has no {' and no '.join(missing)} part"
        )
    return (Fold("official", **parts),)


def _emobox(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Return the folds of EmoBox, from its files.

    Where no validation part is published, the training part gives it.
    """
    groups = groups_of(dataset, protocol.group_by)
    share = protocol.validation_share or EMOBOX_SHARE
    folds = []
    for k, fold in enumerate(published_folds(dataset, protocol.file)):
        if len(fold.train) and not len(fold.validation):
            validation = stratified_fraction(dataset, fold.train, groups, share, protocol.split_seed + k)
            fold = replace(fold, train=np.setdiff1d(fold.train, validation), validation=np.sort(validation))
        folds.append(fold)
    return tuple(folds)


def _file(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Read folds of utterance ids from a file, such as the `folds.json` of another run."""
    return _read(dataset, Path(protocol.file), f"protocol.file={protocol.file!r}")


def _corpus(dataset: Dataset, protocol: Protocol) -> tuple[Fold, ...]:
    """Return the folds that were published with the corpus (Yoon et al. 2020).

    Preparation stores them with the dataset.
    """
    path = dataset.folder / "folds.json" if dataset.folder else None
    if path is None or not path.is_file():
        raise UsageError(
            f"protocol corpus: no folds were published with {dataset.name}; use another protocol"
        )
    return _read(dataset, path, f"protocol corpus: {path}")


@dataclass(frozen=True)
class _StoredFold:
    """A fold in a file."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    name: str | int | None = None


@dataclass(frozen=True)
class _StoredFolds:
    """The contents of a file of folds."""

    folds: tuple[_StoredFold, ...]


def _read(dataset: Dataset, path: Path, named: str) -> tuple[Fold, ...]:
    try:
        source = CheckedFolder(path.parent, "restore it from a copy", digests_in(path.parent))
        content = source.read(path.name)
        if content.lstrip().startswith(b"["):  # the folds alone
            content = b'{"folds": ' + content + b"}"
        entries = source.decode(path.name, content, _StoredFolds).folds
    except InputError as error:
        raise UsageError(f"{named} is not a file of folds ({error})") from None
    parts = [{"train": one.train, "validation": one.validation, "test": one.test} for one in entries]
    names = [str(k if one.name is None else one.name) for k, one in enumerate(entries, 1)]
    row = {name: n for n, name in enumerate(dataset.column("id").tolist())}
    for part in parts:
        for ids in part.values():
            if unknown := [name for name in ids if name not in row]:
                raise UsageError(
                    f"{named}: {len(unknown)} utterances are not in {dataset.name} with these classes, the first "
                    f"{unknown[0]!r}"
                )
    rows = [{p: np.array([row[i] for i in ids], dtype=np.int64) for p, ids in part.items()} for part in parts]
    return tuple(Fold(name, **part) for name, part in zip(names, rows, strict=True))


_PROTOCOLS: Mapping[str, Callable[[Dataset, Protocol], tuple[Fold, ...]]] = {
    "random": _random,
    "session": _session,
    "holdout": _holdout,
    "speaker": _speaker,
    "official": _official,
    "corpus": _corpus,
    "emobox": _emobox,
    "file": _file,
}
