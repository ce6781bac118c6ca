"""Plans: which utterances each step of an epoch sees, made on the host.

Utterances of similar length share a batch, so that little is computed on padding. The order of the buckets depends on
the epoch alone and the number of batches on all folds of the protocol, so that replicas may run side by side, and a
replica runs as it would alone: a step whose weights are all zero changes nothing and does not count.
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
"""At most so many for evaluation: each is compiled, and a pass without gradients wastes little on padding."""


class Plan(NamedTuple):
    """The batches of an epoch, step by step."""

    bucket: Int[AnyArray, " steps"]
    rows: Int[AnyArray, "steps B"]
    weight: Float[AnyArray, "steps B"]  # 0 = filler


@dataclass(frozen=True, eq=False)
class Buckets:
    """Utterances grouped by length: `of[n]` is the bucket of row n, padded to `widths[of[n]]`."""

    of: Int[np.ndarray, " N"]
    widths: tuple[Widths, ...]
    lengths: Mapping[str, Int[np.ndarray, " N"]]
    batch_size: int

    @property
    def main(self) -> str:
        """The array that makes most of the work, by which utterances are grouped."""
        return max(self.lengths, key=lambda name: self.lengths[name].sum())

    def joined(self) -> Buckets:
        """The same utterances in the buckets of evaluation: neighbours joined, padded to the longest of them."""
        last = last_joined(len(self.widths))
        of = np.searchsorted(last, self.of).astype(np.int32)
        return Buckets(of, tuple(self.widths[b] for b in last), self.lengths, self.batch_size)

    def train_plan(
        self, rows: Int[np.ndarray, " n"], batches: Sequence[int], key: tuple[int, ...], epoch: int
    ) -> Plan:
        """Each of `rows` once, in an order drawn from `key` and `epoch`; `batches[b]` steps for bucket b."""
        rng = np.random.default_rng([*key, epoch])
        own = [rng.permutation(batch) for batch in self._deal(rng.permutation(rows))]
        order = np.random.default_rng(epoch).permutation(np.repeat(np.arange(len(batches)), batches))
        return self._lay_out(order, own)

    def evaluation_plan(self, rows: Int[np.ndarray, " n"], batches: Sequence[int]) -> Plan:
        """Each of `rows` once, bucket by bucket."""
        return self._lay_out(np.repeat(np.arange(len(batches)), batches), self._deal(rows))

    def batches(self, parts: Sequence[Int[np.ndarray, _]]) -> list[int]:
        """Steps for each bucket that hold any of several sets of rows."""
        return np.max([[len(own) for own in self._deal(rows)] for rows in parts], axis=0).tolist()

    def real_share(self, plan: Plan, array: str) -> float:
        """The share of the computed steps of `array` (frames, words) that are real, idle steps left out."""
        busy = plan.weight.sum(1) > 0
        widths = np.array([widths[array] for widths in self.widths])
        computed = widths[plan.bucket[busy]].sum() * self.batch_size
        shown = np.minimum(self.lengths[array][plan.rows], widths[plan.bucket][:, None])
        return float((shown * (plan.weight > 0)).sum() / max(computed, 1))

    def _deal(self, rows: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, "_ B"]]:
        """Cut each bucket's rows into batches, the longest bucket first, filled up from the next shorter one.

        So only the shortest bucket has fillers (-1).
        """
        bucket = self.of[rows]
        queue = rows[np.argsort(-bucket, kind="stable")]
        dealt, begin = [], 0
        for b in reversed(range(len(self.widths))):
            steps = max(-(-((bucket >= b).sum() - begin) // self.batch_size), 0)
            end = begin + steps * self.batch_size
            own = np.pad(queue[begin:end], (0, max(end - len(queue), 0)), constant_values=-1)
            dealt.append(own.reshape(steps, self.batch_size))
            begin = min(end, len(queue))
        return dealt[::-1]

    def _lay_out(self, order: Int[np.ndarray, " steps"], own: list[Int[np.ndarray, "_ B"]]) -> Plan:
        """The buckets' batches in the order of buckets; steps that are left over are idle."""
        index = np.full((len(order), self.batch_size), -1, np.int32)
        for b, batches in enumerate(own):
            index[np.flatnonzero(order == b)[: len(batches)]] = batches
        return Plan(order.astype(np.int32), np.maximum(index, 0), (index >= 0).astype(np.float32))


def last_joined(number: int) -> list[int]:
    """Of `number` buckets, the last one of each group of neighbours that evaluation joins."""
    return [int(group[-1]) for group in np.array_split(np.arange(number), min(number, EVALUATION_BUCKETS))]


def make_buckets(
    lengths: Mapping[str, Int[np.ndarray, " N"]],
    number: int,
    batch_size: int,
    multiple: int | None = None,
    fixed: Widths | None = None,
) -> Buckets:
    """At most `number` buckets of the longest array's lengths that waste the fewest steps on padding.

    Widths are multiples of `multiple` steps, if none is given of 9 frames (two poolings by three leave no remainder) or
    of one word. The other arrays are padded to the longest in the bucket or in one before it, from which it may be
    filled up. Where a network fixes the padded lengths, they make the one bucket, and what is longer is cut.
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
    """The upper edges of at most `number` intervals that minimise the sum of each length's distance to its edge."""
    values, counts = np.unique(lengths, return_counts=True)
    number = min(number, len(values))
    below = np.concatenate([[0], np.cumsum(counts)])
    cost = np.full(
        (number + 1, len(values) + 1), np.inf
    )  # cost[k, j]: padded steps of the j shortest in k intervals
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
