"""Batch schedules: which utterances each step of an epoch sees. Computed on the host.

Utterances of similar length share a batch, so that little time is spent on padding. The order of the buckets depends
only on the epoch, and the number of batches only on the folds of the protocol. Replicas can therefore run side by side,
each exactly as it would alone: a step whose weights are all zero changes nothing and is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxser.types import AnyArray

Widths = Mapping[str, int]
"""Padded length of each array ("audio", "words") in a bucket."""

EVALUATION_BUCKETS = 3
"""Maximum number of evaluation buckets. Each is compiled, and padding costs little without gradients."""


class BatchSchedule(NamedTuple):
    """The batches of an epoch, one per step.

    Attributes:
        bucket: the bucket of each step, which determines its padded lengths.
        rows: the dataset rows of each batch.
        weight: 1, or 0 for a padding row. A step without any utterance is idle.
    """

    bucket: Int[AnyArray, " steps"]
    rows: Int[AnyArray, "steps B"]
    weight: Float[AnyArray, "steps B"]


@dataclass(frozen=True, eq=False)
class Buckets:
    """Utterances grouped by length.

    Attributes:
        of: the bucket of each row of the dataset.
        widths: the padded lengths of each bucket, the shortest bucket first.
        lengths: the length of each utterance, by array.
        batch_size: utterances per batch.
    """

    of: Int[np.ndarray, " N"]
    widths: tuple[Widths, ...]
    lengths: Mapping[str, Int[np.ndarray, " N"]]
    batch_size: int

    @property
    def main(self) -> str:
        """The array with the most steps in total, by whose length utterances are grouped."""
        return max(self.lengths, key=lambda name: self.lengths[name].sum())

    def joined(self) -> Buckets:
        """Merge neighbouring buckets for evaluation, each padded to the longest of its group."""
        last = last_of_merged(len(self.widths))
        of = np.searchsorted(last, self.of).astype(np.int32)
        return Buckets(of, tuple(self.widths[b] for b in last), self.lengths, self.batch_size)

    def train_schedule(
        self, rows: Int[np.ndarray, " n"], batches: Sequence[int], key: tuple[int, ...], epoch: int
    ) -> BatchSchedule:
        """Visit each row once, in random order.

        Args:
            rows: the rows of the training part.
            batches: number of steps for each bucket, from `batches`.
            key: seeds the order together with `epoch`.
            epoch: the epoch, which alone determines the order of the buckets.
        """
        rng = np.random.default_rng([*key, epoch])
        own = [rng.permutation(batch) for batch in self._deal(rng.permutation(rows))]
        order = np.random.default_rng(epoch).permutation(np.repeat(np.arange(len(batches)), batches))
        return self._in_order(order, own)

    def evaluation_schedule(self, rows: Int[np.ndarray, " n"], batches: Sequence[int]) -> BatchSchedule:
        """Visit each row once, bucket by bucket."""
        return self._in_order(np.repeat(np.arange(len(batches)), batches), self._deal(rows))

    def batches(self, parts: Sequence[Int[np.ndarray, _]]) -> list[int]:
        """Return the number of steps per bucket that is enough for any of several sets of rows."""
        return np.max([[len(own) for own in self._deal(rows)] for rows in parts], axis=0).tolist()

    def valid_frame_fraction(self, schedule: BatchSchedule, array: str) -> float:
        """Return the fraction of the computed time steps of `array` that are not padding.

        Idle steps are not counted.
        """
        busy = schedule.weight.sum(1) > 0
        widths = np.array([widths[array] for widths in self.widths])
        computed = widths[schedule.bucket[busy]].sum() * self.batch_size
        valid = np.minimum(self.lengths[array][schedule.rows], widths[schedule.bucket][:, None])
        return float((valid * (schedule.weight > 0)).sum() / max(computed, 1))

    def _deal(self, rows: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, "_ B"]]:
        """Cut each bucket's rows into batches, the longest bucket first, filled up from the next shorter one.

        As a result, only the shortest bucket has padding rows (-1).
        """
        bucket = self.of[rows]
        queue = rows[np.argsort(-bucket, kind="stable")]
        batches, begin = [], 0
        for b in reversed(range(len(self.widths))):
            steps = max(-(-((bucket >= b).sum() - begin) // self.batch_size), 0)
            end = begin + steps * self.batch_size
            own = np.pad(queue[begin:end], (0, max(end - len(queue), 0)), constant_values=-1)
            batches.append(own.reshape(steps, self.batch_size))
            begin = min(end, len(queue))
        return batches[::-1]

    def _in_order(self, order: Int[np.ndarray, " steps"], own: list[Int[np.ndarray, "_ B"]]) -> BatchSchedule:
        """Put the batches into a given order of buckets; the remaining steps are idle."""
        index = np.full((len(order), self.batch_size), -1, np.int32)
        for b, batches in enumerate(own):
            index[np.flatnonzero(order == b)[: len(batches)]] = batches
        return BatchSchedule(order.astype(np.int32), np.maximum(index, 0), (index >= 0).astype(np.float32))


def last_of_merged(number: int) -> list[int]:
    """Return the last bucket of each group of neighbours that evaluation merges.

    `number` is the number of buckets.
    """
    return [int(group[-1]) for group in np.array_split(np.arange(number), min(number, EVALUATION_BUCKETS))]


def make_buckets(
    lengths: Mapping[str, Int[np.ndarray, " N"]],
    number: int,
    batch_size: int,
    multiple: int | None = None,
    fixed: Widths | None = None,
) -> Buckets:
    """Group utterances into the buckets that waste the fewest time steps on padding.

    Buckets follow the array with the most steps. The other arrays are padded to the longest sequence in the bucket or
    in a shorter one, from which the bucket may be filled up.

    Args:
        lengths: the length of each utterance, by array.
        number: maximum number of buckets.
        batch_size: utterances per batch.
        multiple: padded lengths are multiples of it. Defaults to one word, or to 9 frames, which two poolings by 3
            divide without remainder.
        fixed: padded lengths that the network requires. They make up a single bucket; longer sequences are truncated.
    """
    if fixed:
        return Buckets(
            np.zeros(len(next(iter(lengths.values()))), np.int32), (fixed,), dict(lengths), batch_size
        )
    main = max(lengths, key=lambda name: lengths[name].sum())
    multiple = multiple or (1 if main == "words" else 9)
    rounded = -(-np.maximum(lengths[main], 1) // multiple) * multiple
    edges = best_edges(rounded, number)
    of = np.searchsorted(edges, rounded).astype(np.int32)
    widths = []
    for b, edge in enumerate(edges):
        others = {name: int(length[of <= b].max(initial=1)) for name, length in lengths.items()}
        widths.append(others | {main: int(edge)})
    return Buckets(of, tuple(widths), dict(lengths), batch_size)


def best_edges(lengths: Int[np.ndarray, " N"], number: int) -> Int[np.ndarray, " b"]:
    """Return the upper edges of at most `number` intervals that are closest to the lengths.

    The total distance of lengths to edges is minimised.
    """
    values, counts = np.unique(lengths, return_counts=True)
    number = min(number, len(values))
    below = np.concatenate([[0], np.cumsum(counts)])
    # cost[k, j]: padding of the j shortest lengths in k intervals
    cost = np.full((number + 1, len(values) + 1), np.inf)
    cost[0, 0] = 0
    begin = np.zeros((number + 1, len(values) + 1), np.int64)
    for k in range(1, number + 1):
        for j in range(1, len(values) + 1):
            totals = cost[k - 1, :j] + values[j - 1] * (below[j] - below[:j])
            begin[k, j] = totals.argmin()
            cost[k, j] = totals[begin[k, j]]
    edges, j = [], len(values)
    for k in range(number, 0, -1):
        edges.append(values[j - 1])
        j = begin[k, j]
    return np.array(edges[::-1])
