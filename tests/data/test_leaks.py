"""Planted leaks are found, and `protocol.group_by` prevents them."""

import dataclasses

import numpy as np
import pytest

from helpers import tiny
from jaxser.data.folds import Protocol, make_folds
from jaxser.data.leaks import FoldIds, leaks
from jaxser.data.strata import GROUP_BY
from jaxser.types import UsageError

PLANTED = {
    "transcript": {"transcript": "I told you so, again."},
    "speaker": {"speaker": "shared"},
    "dialogue": {"dialogue": "shared"},
    "audio": {"sha256": "00"},
}


def planted(field: str):
    """Ninety utterances, of which every seventh has the same value of a field; the others have none."""
    data = tiny.dataset(90)
    own = {"transcript": "", "speaker": "", "dialogue": "", "sha256": ""}
    utterances = [
        dataclasses.replace(u, **own | (PLANTED[field] if row % 7 == 0 else {}))
        for row, u in enumerate(data.utterances)
    ]
    return dataclasses.replace(data, utterances=tuple(utterances))


def found(data, folds, kind):
    ids = [u.id for u in data.utterances]
    utterances = {u.id: u for u in data.utterances}
    every = leaks([FoldIds.of(fold, ids) for fold in folds], utterances)
    return [leak for leak in every if leak.kind == kind]


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize("field", GROUP_BY)
def test_a_planted_leak_is_found_and_group_by_prevents_it(field, share):
    data, kind = planted(field), GROUP_BY[field]
    protocol = Protocol("random", folds=5, validation_share=share)
    (leak, *_) = found(data, make_folds(data, protocol), kind)
    assert len(leak.values) == 1
    assert 0 < len(leak.utterances) < 13
    grouped = make_folds(data, dataclasses.replace(protocol, group_by=field))
    assert found(data, grouped, kind) == []
    tests = np.concatenate([fold.test for fold in grouped])
    assert sorted(tests.tolist()) == list(range(90))
    for fold in grouped:
        assert sorted([*fold.train, *fold.validation, *fold.test]) == list(range(90))
        assert np.bincount(data.label[fold.test], minlength=3).min() >= 4  # still stratified


def test_invalid_group_by_is_rejected():
    data = planted("speaker")
    for protocol, message in (
        (Protocol("random", group_by="session"), "protocol.group_by='session' is not one of transcript"),
        (
            Protocol("session", group_by="speaker"),
            "is for protocol.name=random, official or emobox, not session",
        ),
        (Protocol("random", folds=5, group_by="dialogue"), "no utterance of tiny has a known dialogue"),
    ):
        with pytest.raises(UsageError, match=message):
            make_folds(data, protocol)
