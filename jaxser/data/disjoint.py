"""Folds that test no speakers, or neither speakers nor sentences, of their training part."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxser.data.leaks import KINDS
from jaxser.data.strata import assign_groups, class_counts, stratified_fraction
from jaxser.types import Dataset, Fold, UsageError


def speaker_disjoint(dataset: Dataset, folds: Sequence[Fold], seed: int) -> tuple[Fold, ...]:
    """Return the speaker-disjoint twin of folds: the same utterances, divided by speakers.

    There are as many folds, and the parts have the same sizes and class counts as nearly as whole speakers allow
    (`assign_groups`). Test parts that share no speaker with the rest of their fold are kept. Where a fold has only one
    speaker besides those that it tests, the validation part is a share of that speaker's utterances.

    Args:
        dataset: the dataset.
        folds: folds whose test parts have no utterance in common.
        seed: the seed by which that share is drawn.

    Raises:
        UsageError: if the speakers are unknown or fewer than the parts, or if test parts have utterances in common.
    """
    used = np.unique(np.concatenate([part for f in folds for part in (f.train, f.validation, f.test)]))
    speakers, names = _numbers(dataset, "speaker", used, "protocol.twin=speaker")
    tests = np.concatenate([fold.test for fold in folds])
    if len(np.unique(tests)) < len(tests):
        raise UsageError("protocol.twin=speaker: the folds test some utterances twice; use another protocol")
    used = used[speakers[used] >= 0]
    untested = np.setdiff1d(used, tests)
    parts = [fold.test for fold in folds] + [untested] * bool(len(untested))
    if names < len(parts):
        raise UsageError(
            f"protocol.twin=speaker: {dataset.name} has {names} speaker{'s' * (names > 1)} for {len(parts)} parts; "
            "use protocol.name=random with protocol.group_by=transcript, or another corpus"
        )
    part_of = _part_of_speakers(dataset, parts, speakers, used, names)
    return tuple(_twin(dataset, fold, speakers, used, part_of != k, seed + k) for k, fold in enumerate(folds))


def speakers_and_sentences(dataset: Dataset, number: int) -> tuple[Fold, ...]:
    """Return folds that test neither speakers nor sentences of their training part.

    Speakers are divided into `number` groups, sentences into as many (or as many as there are). Fold k tests group k of
    the speakers with group k of the sentences, numbered cyclically. It validates on the next group of speakers and
    trains on all others, both with the other sentences. Everything else is left out of the fold.

    Raises:
        UsageError: if there are too few speakers or sentences.
    """
    given = "protocol.group_by='speaker+transcript'"
    rows = np.arange(len(dataset.label))
    sentences, num_sentences = _numbers(dataset, "transcript", rows, given)
    speakers, num_speakers = _numbers(dataset, "speaker", rows[sentences >= 0], given)
    rows = rows[speakers >= 0]
    if not 3 <= number <= num_speakers:
        raise UsageError(
            f"{given}: protocol.folds={number} must be from 3 to the {num_speakers} speakers of {dataset.name}"
        )
    if num_sentences < 2:
        raise UsageError(f"{given}: {dataset.name} has only one sentence")
    speaker_group = _equal_parts(dataset, rows, speakers, num_speakers, number)[speakers]
    parts = min(number, num_sentences)
    sentence_group = _equal_parts(dataset, rows, sentences, num_sentences, parts)[sentences]
    folds = []
    for k in range(number):
        is_known = (speakers >= 0) & (sentences >= 0)
        is_tested, is_other = sentence_group == k % parts, sentence_group != k % parts
        is_validation = speaker_group == (k + 1) % number
        is_train = (speaker_group != k) & ~is_validation
        folds.append(
            Fold(
                str(k + 1),
                train=np.flatnonzero(is_known & is_train & is_other),
                validation=np.flatnonzero(is_known & is_validation & is_other),
                test=np.flatnonzero(is_known & (speaker_group == k) & is_tested),
            )
        )
    return tuple(folds)


def _numbers(
    dataset: Dataset, kind: str, rows: Int[np.ndarray, " n"], given: str
) -> tuple[Int[np.ndarray, " N"], int]:
    """Return the number of each utterance's speaker or sentence, and how many there are.

    The number is -1 outside of `rows` or if it is unknown, in which case a warning is given.
    """
    numbers = np.full(len(dataset.label), -1)
    values = np.array([KINDS[kind](dataset.utterances[row]) for row in rows.tolist()], dtype=str)
    unknown = int((values == "").sum())
    if unknown == len(values):
        raise UsageError(f"{given}: no utterance of {dataset.name} has a known {kind}")
    if unknown:
        first = dataset.utterances[rows[np.argmax(values == "")]].id
        warnings.warn(
            f"{given}: {unknown} utterances of {dataset.name} without a known {kind}, such as {first}, are left out",
            stacklevel=2,
        )
    names, number = np.unique(values[values != ""], return_inverse=True)
    numbers[rows[values != ""]] = number
    return numbers, len(names)


def _part_of_speakers(
    dataset: Dataset,
    parts: Sequence[np.ndarray],
    speakers: Int[np.ndarray, " N"],
    used: Int[np.ndarray, " n"],
    number: int,
) -> Int[np.ndarray, " speakers"]:
    """Return the part that each speaker is moved to."""
    part = np.full(len(speakers), -1)
    for k, rows in enumerate(parts):
        part[rows] = k
    by_speaker = np.full(number, -1)
    by_speaker[speakers[used]] = part[used]
    if np.array_equal(by_speaker[speakers[used]], part[used]):  # no speaker is in two parts
        return by_speaker
    targets = np.stack([_counts(dataset, rows) for rows in parts]).astype(float)
    return assign_groups(class_counts(dataset, used, speakers, number), targets)


def _twin(
    dataset: Dataset,
    fold: Fold,
    speakers: Int[np.ndarray, " N"],
    used: Int[np.ndarray, " n"],
    is_rest: np.ndarray,
    seed: int,
) -> Fold:
    """Return a fold that tests the speakers that are not in the rest, and validates on some of the rest."""
    test, rest = used[~is_rest[speakers[used]]], used[is_rest[speakers[used]]]
    present, own = np.unique(speakers[rest], return_inverse=True)
    share = len(fold.validation) / (len(fold.train) + len(fold.validation))
    if len(present) < 2:
        validation = stratified_fraction(dataset, rest, None, share, seed)
    else:
        counts = class_counts(dataset, rest, np.searchsorted(present, speakers), len(present))
        wanted = counts.sum(axis=0)
        part = assign_groups(counts, np.stack([(1 - share) * wanted, share * wanted]))
        validation = rest[part[own] == 1]
    return Fold(fold.name, np.setdiff1d(rest, validation), np.sort(validation), test)


def _equal_parts(
    dataset: Dataset, rows: Int[np.ndarray, " n"], group: Int[np.ndarray, " N"], number: int, parts: int
) -> Int[np.ndarray, " groups"]:
    """Assign groups to parts of equal size."""
    counts = class_counts(dataset, rows, group, number)
    return assign_groups(counts, np.tile(counts.sum(axis=0) / parts, (parts, 1)))


def _counts(dataset: Dataset, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " C"]:
    return class_counts(dataset, rows, np.zeros(len(dataset.label), dtype=int), 1)[0]
