"""Parts of a dataset, of single utterances or whole groups, with equal shares of classes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxser.data.leaks import KINDS
from jaxser.types import Dataset, UsageError

GROUP_BY = {"transcript": "transcript", "speaker": "speaker", "dialogue": "dialogue", "audio": "recording"}
"""What utterances can be grouped by, and the kind of leak that each prevents (`jaxser.data.leaks.KINDS`)."""

MAX_SWAPPED = 2000
"""The largest number of groups for which `assign_groups` tries to exchange each pair."""

_MAX_STEPS = 1000


def groups_of(dataset: Dataset, group_by: str) -> np.ndarray | None:
    """Return the number of each utterance's group; None if utterances are split one by one.

    An utterance whose value is unknown is a group of its own.

    Args:
        dataset: the dataset.
        group_by: a key of `GROUP_BY`, or "".

    Raises:
        UsageError: if no utterance has a known value.
    """
    if not group_by:
        return None
    kind = GROUP_BY[group_by]
    names = [KINDS[kind](utterance) for utterance in dataset.utterances]
    if not any(names):
        raise UsageError(f"protocol.group_by={group_by!r}: no utterance of {dataset.name} has a known {kind}")
    return np.unique([name or f"\0{row}" for row, name in enumerate(names)], return_inverse=True)[1]


def stratified_parts(
    dataset: Dataset, rows: np.ndarray, groups: np.ndarray | None, number: int, seed: int
) -> list[np.ndarray]:
    """Split rows into `number` parts, stratified by class."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    label = dataset.label[rows]
    if groups is None:
        parts = StratifiedKFold(number, shuffle=True, random_state=seed).split(label, label)
    else:
        splitter = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
        parts = splitter.split(label, label, groups[rows])
    return [rows[test] for _, test in parts]


def stratified_fraction(
    dataset: Dataset, pool: np.ndarray, groups: np.ndarray | None, share: float, seed: int
) -> np.ndarray:
    """Return a fraction of `pool`, stratified by class; of groups, the nearest of 1 / n.

    Raises:
        UsageError: if a class is too rare, or the share is not between 0 and 1.
    """
    from sklearn.model_selection import train_test_split

    if groups is not None:
        return stratified_parts(dataset, pool, groups, max(2, round(1 / share)), seed)[0]
    try:
        return train_test_split(pool, test_size=share, stratify=dataset.label[pool], random_state=seed)[1]
    except ValueError as error:  # a class has one utterance in the pool, or the share is outside (0, 1)
        reason = " ".join(str(error).split())
        raise UsageError(
            f"protocol.validation_share={share} of {len(pool)} utterances cannot be stratified by class: {reason}"
        ) from None


def class_counts(
    dataset: Dataset, rows: Int[np.ndarray, " n"], group: Int[np.ndarray, " N"], number: int
) -> Int[np.ndarray, "groups C"]:
    """Count the utterances of each group and class; attributes are counted as one class."""
    classes = 1 if dataset.target is not None else len(dataset.classes)
    label = np.zeros_like(dataset.label) if dataset.target is not None else dataset.label
    counts = np.zeros((number, classes), dtype=int)
    np.add.at(counts, (group[rows], label[rows]), 1)
    return counts


def assign_groups(
    counts: Int[np.ndarray, "groups C"], targets: Float[np.ndarray, "parts C"]
) -> Int[np.ndarray, " groups"]:
    """Assign each group to a part, so that sizes and class counts are near their targets.

    The groups are assigned from the largest to the smallest, each where the squared deviations of the parts' sizes and
    class counts from their targets become smallest. Then groups are moved and exchanged as long as this lowers the
    deviations. The result is deterministic, and no part is empty.

    Args:
        counts: the utterances of each group and class. There are at least as many groups as parts.
        targets: the wanted number of utterances of each part and class.
    """
    sizes = _with_total(counts.astype(float))
    excess = -_with_total(targets)  # of what is assigned, over the targets
    part = np.zeros(len(counts), dtype=int)
    order = np.argsort(-sizes[:, -1], kind="stable")
    for position, group in enumerate(order.tolist()):
        cost = 2 * excess @ sizes[group]
        empty = ~np.isin(np.arange(len(targets)), part[order[:position]])
        if empty.sum() == len(order) - position:  # every group that is left is needed
            cost[~empty] = np.inf
        part[group] = int(np.argmin(cost))
        excess[part[group]] += sizes[group]
    for _ in range(_MAX_STEPS):
        if not _improve(sizes, excess, part):
            break
    return part


def _improve(
    sizes: Float[np.ndarray, "groups D"],
    excess: Float[np.ndarray, "parts D"],
    part: Int[np.ndarray, " groups"],
) -> bool:
    """Move a group, or exchange two, if that lowers the deviations; the best of both is done in place."""
    along = sizes @ excess.T  # [groups, parts]
    own = along[np.arange(len(part)), part]
    squares = (sizes**2).sum(axis=1)
    move = 2 * (along - own[:, None] + squares[:, None])
    move[np.arange(len(part)), part] = 0
    move[np.bincount(part, minlength=len(excess))[part] == 1] = 0  # no part becomes empty
    group, to = np.unravel_index(np.argmin(move), move.shape)
    best, moved = move[group, to], {int(group): int(to)}
    if len(part) <= MAX_SWAPPED:
        there = along[:, part]  # of each group, along the excess of the other one's part
        apart = squares[:, None] + squares[None, :] - 2 * sizes @ sizes.T
        swap = 2 * (there + there.T - own[:, None] - own[None, :] + apart)
        swap[part[:, None] == part[None, :]] = 0
        one, other = (int(row) for row in np.unravel_index(np.argmin(swap), swap.shape))
        if swap[one, other] < best:
            best, moved = swap[one, other], {one: int(part[other]), other: int(part[one])}
    if best >= -1e-9 * squares.sum():
        return False
    for row, new in moved.items():
        excess[part[row]] -= sizes[row]
        excess[new] += sizes[row]
        part[row] = new
    return True


def _with_total(counts: Float[np.ndarray, "n C"]) -> Float[np.ndarray, "n D"]:
    """Append the sum over the classes, which weighs sizes as much as all classes together."""
    return np.hstack([counts, counts.sum(axis=1, keepdims=True)])
