"""Folds and samples of merged datasets: training and testing across corpora."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from jaxser.data.folds import Protocol, make_folds
from jaxser.data.strata import groups_of, stratified_parts
from jaxser.types import Dataset, Fold, UsageError

LEAVE_ONE_OUT = "leave_corpus_out"
"""The protocol in which each dataset is the test part of a fold."""

PARTS = 5
"""Under `LEAVE_ONE_OUT`, one of `PARTS` parts of each training dataset is for validation."""


def make_folds_across(dataset: Dataset, protocol: Protocol, tested: Sequence[str] = ()) -> tuple[Fold, ...]:
    """Split a dataset, which may be merged of several, into the folds of a protocol.

    With `tested`, the protocol splits the other datasets, whose test parts are not used. A single training dataset is
    split as it would be by itself.

    Args:
        dataset: the dataset.
        protocol: the protocol, which may be `LEAVE_ONE_OUT`.
        tested: the names of the datasets that are the test part of every fold.

    Raises:
        UsageError: if the dataset cannot be split as the protocol demands.
    """
    if not dataset.sources:
        if protocol.name == LEAVE_ONE_OUT:
            raise UsageError(
                f"protocol {LEAVE_ONE_OUT} needs several datasets, such as --config.datasets=A+B"
            )
        return make_folds(dataset, protocol)
    if protocol.select == "test":
        raise UsageError("config.protocol.select=test: no test part may select the epoch across corpora")
    if protocol.name == LEAVE_ONE_OUT:
        if tested:
            raise UsageError(
                f"protocol {LEAVE_ONE_OUT} tests each of config.datasets: leave out config.test_on"
            )
        fields = ("folds", "groups", "group_by", "validation_share", "twin", "file")
        if given := [name for name in fields if getattr(protocol, name)]:
            raise UsageError(f"protocol {LEAVE_ONE_OUT} has no protocol.{given[0]}: leave it out")
        return _leave_one_out(dataset, protocol.split_seed)
    names = [Path(name).name for name in tested]
    training = [one for one in dataset.sources if one.name not in names]
    number = sum(len(one.label) for one in training)
    first = replace(
        dataset, utterances=dataset.utterances[:number], label=dataset.label[:number], arrays={}, sources=()
    )
    folds = make_folds(training[0] if len(training) == 1 else first, protocol)
    if not tested:
        return folds
    others = np.arange(number, len(dataset.label))
    return tuple(replace(fold, test=others) for fold in folds)


def _leave_one_out(dataset: Dataset, seed: int) -> tuple[Fold, ...]:
    """Return one fold per dataset, which it tests; a fifth of each of the others validates."""
    rows = rows_by_source(dataset)
    validations = [own[_validation(one, seed)] for own, one in zip(rows, dataset.sources, strict=True)]
    folds = []
    for k, one in enumerate(dataset.sources):
        others = [n for n in range(len(rows)) if n != k]
        validation = np.concatenate([validations[n] for n in others])
        train = np.setdiff1d(np.concatenate([rows[n] for n in others]), validation)
        folds.append(Fold(one.name, train, np.sort(validation), rows[k]))
    return tuple(folds)


def _validation(dataset: Dataset, seed: int) -> Int[np.ndarray, " n"]:
    """Return a fifth of a dataset, stratified by class: whole speakers if three at least are known.

    If a class has fewer than five utterances, it is as many parts.
    """
    everything, speakers = np.arange(len(dataset.label)), set(dataset.column("speaker").tolist()) - {""}
    number = max(min(PARTS, int(np.unique(dataset.label, return_counts=True)[1].min())), 2)
    groups = None
    if len(speakers) >= 3:
        number, groups = min(number, len(speakers)), groups_of(dataset, "speaker")
    return stratified_parts(dataset, everything, groups, number, seed)[0]


def rows_by_source(dataset: Dataset) -> list[Int[np.ndarray, " n"]]:
    """Return the rows of each dataset that a dataset was merged from."""
    ends = np.cumsum([len(one.label) for one in dataset.sources])
    return np.split(np.arange(ends[-1]), ends[:-1])


def with_equal_corpora(dataset: Dataset, folds: Sequence[Fold], seed: int) -> tuple[Fold, ...]:
    """Repeat training utterances so that an epoch sees the same number of each dataset.

    The largest dataset is seen once. Every utterance of a smaller one is repeated equally often, and those that are
    seen once more, to make up the number, are drawn at random.

    Args:
        dataset: a merged dataset.
        folds: its folds, which may include copies of recordings: rows k N to (k + 1) N - 1.
        seed: the seed of the draw.
    """
    number = sum(len(one.label) for one in dataset.sources)
    source = np.repeat(np.arange(len(dataset.sources)), [len(one.label) for one in dataset.sources])
    balanced = []
    for index, fold in enumerate(folds):
        of = source[fold.train % number]
        parts = [fold.train[of == n] for n in np.unique(of)]
        most = max(map(len, parts))
        rng = np.random.default_rng((seed, index))
        drawn = [
            np.concatenate([np.repeat(own, most // len(own)), rng.permutation(own)[: most % len(own)]])
            for own in parts
        ]
        balanced.append(replace(fold, train=np.sort(np.concatenate(drawn))))
    return tuple(balanced)
