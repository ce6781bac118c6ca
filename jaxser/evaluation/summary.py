"""Scores of replicas, and what they come to over folds and seeds.

A replica is an item of `replicas` in results.json, as `replica_result` makes it. What is not defined is None.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Num

from jaxser.evaluation import metrics
from jaxser.types import Status

Replica = Mapping[str, Any]


def replica_result(
    *,
    fold: str,
    seed: int,
    setting: str = "",
    best_epoch: int | None,
    status: int,
    classes: Sequence[str],
    validation: Num[np.ndarray, "C C"] | None,
    test: Num[np.ndarray, "C C"] | None,
) -> dict[str, Any]:
    """A replica's scores from the confusions that its best epoch's parameters gave.

    `best_epoch` counts from 0. `validation` is None where the protocol has no such part; all three are None
    for a replica whose loss was not finite before its first epoch ended.
    """
    return {
        "fold": fold,
        "seed": int(seed),
        "setting": setting,
        "best_epoch": None if best_epoch is None else int(best_epoch),
        "status": Status(status).final_label,
        "validation": None if validation is None else scored(validation, classes),
        "test": None if test is None else scored(test, classes),
    }


def scored(confusion: Num[np.ndarray, "C C"], classes: Sequence[str]) -> dict[str, Any]:
    """The scores of a confusion in float64, `recall` by class, and the confusion itself in whole numbers."""
    counts = np.rint(np.asarray(confusion, dtype=np.float64)).astype(int)
    values = metrics.scores(counts)
    return {
        **{name: _defined(values[name]) for name in metrics.SCORES},
        "recall": dict(zip(classes, map(_defined, values["recall"]), strict=True)),
        "confusion": counts.tolist(),
    }


def summarise(replicas: Sequence[Replica]) -> dict[str, Any]:
    """Mean and spread of the test scores of the replicas of one setting.

    `std_over_folds` averages the seeds within a fold first, `std_over_seeds` the folds within a seed, and
    `std_over_runs` takes every replica as it is; each divides by n - 1 and is None for n = 1. `mean` is over
    the folds' means; `std` is the one over folds, or over seeds where there is one fold: `std_over` says
    which. `pooled` scores the test confusions of all folds added up, a seed at a time, and averages over
    seeds. Replicas without a score are left out and counted; a seed that lacks a fold is not pooled.
    """
    scored = [replica for replica in replicas if replica["test"] is not None]
    folds, seeds = ({replica[axis] for replica in replicas} for axis in ("fold", "seed"))
    over = "folds" if len(folds) > 1 else "seeds"
    by_fold, by_seed, by_run = (_spread(scored, axis) for axis in ("fold", "seed", ""))
    classes = list(scored[0]["test"]["recall"]) if scored else []
    recall = {name: _moments(_means(scored, "fold", "test", "recall", name)) for name in classes}
    return {
        "runs": len(scored),
        "folds": len(folds),
        "seeds": len(seeds),
        "left_out": len(replicas) - len(scored),
        "mean": {name: mean for name, (mean, _) in by_fold.items()},
        "std": {name: std for name, (_, std) in (by_fold if over == "folds" else by_seed).items()},
        "std_over": over,
        "std_over_folds": {name: std for name, (_, std) in by_fold.items()},
        "std_over_seeds": {name: std for name, (_, std) in by_seed.items()},
        "std_over_runs": {name: std for name, (_, std) in by_run.items()},
        "recall": {
            "mean": {name: mean for name, (mean, _) in recall.items()},
            "std_over_folds": {name: std for name, (_, std) in recall.items()},
        },
        "validation": {name: mean for name, (mean, _) in _spread(scored, "fold", "validation").items()},
        "pooled": _pooled(scored, len(folds)),
    }


def replica_warnings(replicas: Sequence[Replica]) -> list[str]:
    """A sentence about the replicas that were not finite, if there are any."""
    failed = [replica for replica in replicas if replica["status"] == Status.NOT_FINITE.final_label]
    if not failed:
        return []
    names = [" ".join(filter(None, (f"fold {r['fold']} seed {r['seed']}", r["setting"]))) for r in failed]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    lost = sum(replica["test"] is None for replica in failed)
    return [
        f"{len(failed)} of {len(replicas)} replicas came to a loss that is not finite "
        f"({', '.join(names[:5])}{more}): {len(failed) - lost} of them count with the best epoch before that, "
        f"{lost} had none and are left out of the means."
    ]


def _defined(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _means(replicas: Sequence[Replica], axis: str, *keys: str) -> list[float]:
    """The value at `keys` averaged within each fold or seed; of every replica for axis "". None is left out."""
    groups = defaultdict(list)
    for number, replica in enumerate(replicas):
        found: Any = replica
        for key in keys:
            found = found and found[key]
        if found is not None:
            groups[replica[axis] if axis else number].append(found)
    return [float(np.mean(group)) for group in groups.values()]


def _moments(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation over n - 1."""
    mean = float(np.mean(values)) if values else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def _spread(
    replicas: Sequence[Replica], axis: str, part: str = "test"
) -> dict[str, tuple[float | None, float | None]]:
    return {name: _moments(_means(replicas, axis, part, name)) for name in metrics.SCORES}


def _pooled(replicas: Sequence[Replica], num_folds: int) -> dict[str, float] | None:
    by_seed = defaultdict(list)
    for replica in replicas:
        by_seed[replica["seed"]].append(np.array(replica["test"]["confusion"]))
    whole = [metrics.scores(np.sum(parts, axis=0)) for parts in by_seed.values() if len(parts) == num_folds]
    if not whole:
        return None
    return {name: float(np.mean([scores[name] for scores in whole])) for name in metrics.SCORES}
