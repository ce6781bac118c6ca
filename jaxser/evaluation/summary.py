"""The results of a run from those of its replicas: summaries and warnings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from jaxser.data.leaks import FoldIds, class_warnings, heard_speakers, leak_warnings
from jaxser.evaluation.metrics import describe
from jaxser.evaluation.results import ReplicaResult, RunResults, Summary
from jaxser.evaluation.scores import Moments, Scores
from jaxser.evaluation.targets import ANY_CLASSES, CLASSES, Target
from jaxser.types import Utterance


def with_summaries(
    results: RunResults, folds: Sequence[FoldIds], utterances: Iterable[Utterance]
) -> RunResults:
    """Complete the results of a run.

    The summary of each setting, the reported setting and the warnings are added. The reported setting is the one that
    lost the fewest replicas; among those, the one with the best mean validation score of `protocol["metric"]`, which
    also selects the epochs.

    Args:
        results: the results with their replicas, as yet without summaries.
        folds: the utterances of each fold's parts.
        utterances: the utterances, labelled with classes of the run.
    """
    metric = str(results.protocol.get("metric", "ua"))
    names = list(dict.fromkeys(replica.setting for replica in results.replicas))
    summaries = {
        name: summarise([r for r in results.replicas if r.setting == name], results.target) for name in names
    }

    def rank(name: str) -> tuple[int, float]:
        score = summaries[name].validation_score(metric)
        return -summaries[name].left_out, -math.inf if score is None else score

    setting = max(names, key=rank)
    utterances = tuple(utterances)
    warnings = [
        *_protocol_warnings(results.protocol, folds, {one.id: one for one in utterances}),
        *_too_good(results, summaries[setting], folds),
        *run_warnings(folds, utterances, results.replicas, has_classes=results.target.kind == CLASSES),
    ]
    return replace(
        results,
        setting=setting,
        chosen_by=f"validation {metric}",
        summaries=summaries,
        warnings=tuple(warnings),
    )


def summarise(replicas: Sequence[ReplicaResult], target: Target = ANY_CLASSES) -> Summary:
    """Summarise the scores of the replicas of one setting.

    Replicas without a score are left out and counted. A seed that lacks a fold is not pooled.
    """
    scored = [replica for replica in replicas if replica.test is not None]
    folds, seeds = {replica.fold for replica in replicas}, {replica.seed for replica in replicas}
    over = "folds" if len(folds) > 1 else "seeds"
    tests = [replica.test for replica in scored if replica.test is not None]
    validations = [replica.validation for replica in scored]
    fold_of, seed_of = [replica.fold for replica in scored], [replica.seed for replica in scored]
    names = target.score_names
    by_fold, by_seed = _moments_by(tests, fold_of, names), _moments_by(tests, seed_of, names)
    by_run = _moments_by(tests, range(len(scored)), names)
    recall = {
        name: _moments(_group_means([test.recall[name] for test in tests], fold_of))
        for name in (tests[0].recall if tests else ())
    }
    return Summary(
        runs=len(scored),
        folds=len(folds),
        seeds=len(seeds),
        left_out=len(replicas) - len(scored),
        mean=_means(by_fold),
        std=_stds(by_fold if over == "folds" else by_seed),
        std_over=over,
        std_over_folds=_stds(by_fold),
        std_over_seeds=_stds(by_seed),
        std_over_runs=_stds(by_run),
        recall_mean=_means(recall),
        recall_std_over_folds=_stds(recall),
        validation=_means(_moments_by(validations, fold_of, names)),
        pooled=_pooled(tests, seed_of, len(folds), target),
        validation_loss=_moments(_group_means([one.validation_loss for one in scored], fold_of))[0],
    )


def run_warnings(
    folds: Sequence[FoldIds],
    utterances: Iterable[Utterance],
    replicas: Sequence[ReplicaResult],
    has_classes: bool = True,
) -> list[str]:
    """Return warnings about leaks, absent classes and failed replicas, one sentence each."""
    by_id = {utterance.id: utterance for utterance in utterances}
    absent = class_warnings(folds, by_id) if has_classes else []
    return [*leak_warnings(folds, by_id), *absent, *replica_warnings(replicas)]


def replica_warnings(replicas: Sequence[ReplicaResult]) -> list[str]:
    """Return one sentence about the replicas whose loss was not finite, if there are any."""
    failed = [replica for replica in replicas if not replica.is_finite]
    if not failed:
        return []
    names = [replica.name for replica in failed]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    lost = sum(replica.test is None for replica in failed)
    return [
        f"The loss of {len(failed)} of {len(replicas)} replicas became infinite or NaN "
        f"({', '.join(names[:5])}{more}): {len(failed) - lost} of them count with their best epoch before that, "
        f"{lost} had none and are left out of the means."
    ]


def _protocol_warnings(
    protocol: Mapping[str, object], folds: Sequence[FoldIds], utterances: Mapping[str, Utterance]
) -> list[str]:
    sentences = []
    if protocol.get("select") == "test":
        sentences.append(
            "The epoch was selected on the test part, as in the paper: these scores are optimistic."
        )
    if protocol.get("name") == "emobox":
        heard, tested = heard_speakers(folds, utterances)
        if heard:
            sentences.append(
                f"EmoBox's published folds share speakers between training and test: {len(heard)} of {len(tested)} "
                "test speakers are also heard in training, so these scores are optimistic for new speakers. "
                "--config.protocol.twin=speaker trains on folds of whole speakers."
            )
    return sentences


def _too_good(results: RunResults, summary: Summary, folds: Sequence[FoldIds]) -> list[str]:
    """Return a warning if the pooled headline score is more than three standard errors better than possible."""
    best_possible, target = results.best_possible, results.target
    if not best_possible or "joint" not in best_possible or not summary.pooled:
        return []
    name = target.bounded[0]
    best, pooled, metric = best_possible["joint"][name], summary.pooled[name], describe(name)
    tested = len({i for fold in folds for i in fold.test})
    if pooled is None or metric.gain(pooled) <= metric.gain(best) + 3 * target.deviation(best, tested):
        return []
    side = "below" if metric.lower_is_better else "above"
    return [
        f"{metric.title} {metric.show(pooled)}{metric.unit} is more than three standard errors {side} the best "
        f"possible {metric.show(best)}{metric.unit}: something leaks the labels."
    ]


_Pairs = Mapping[str, tuple[float | None, float | None]]
"""Mean and standard deviation by name."""


def _means(pairs: _Pairs) -> dict[str, float | None]:
    return {name: mean for name, (mean, _) in pairs.items()}


def _stds(pairs: _Pairs) -> dict[str, float | None]:
    return {name: std for name, (_, std) in pairs.items()}


def _moments_by(scores: Sequence[Scores | None], group: Iterable[object], names: Sequence[str]) -> _Pairs:
    """Return mean and standard deviation of each score over groups, such as folds.

    Scores are averaged within each group first.
    """
    group = list(group)
    values = {name: [None if one is None else one[name] for one in scores] for name in names}
    return {name: _moments(_group_means(values[name], group)) for name in names}


def _group_means(values: Sequence[float | None], group: Iterable[object]) -> list[float]:
    """Return the mean of the defined values of each group."""
    groups = defaultdict(list)
    for value, key in zip(values, group, strict=True):
        if value is not None:
            groups[key].append(value)
    return [float(np.mean(values)) for values in groups.values()]


def _moments(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the mean, and the standard deviation over n - 1."""
    mean = float(np.mean(values)) if values else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def _pooled(
    tests: Sequence[Scores], seed_of: Sequence[int], num_folds: int, target: Target
) -> Moments | None:
    """Return the score of each seed's summed statistics, averaged over seeds.

    Only seeds that have all folds count.
    """
    by_seed = defaultdict(list)
    for test, seed in zip(tests, seed_of, strict=True):
        by_seed[seed].append(test.statistics)
    complete = [target.scores(np.sum(parts, axis=0)) for parts in by_seed.values() if len(parts) == num_folds]
    if not complete:
        return None
    return {name: float(np.mean([scores[name] for scores in complete])) for name in target.score_names}
