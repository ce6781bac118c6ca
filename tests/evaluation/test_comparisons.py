"""Comparisons of two or more runs, and which runs are refused."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from benchmarks import false_alarms
from helpers.compared_runs import fake, redrawn, with_predictions, with_replicas
from helpers.fake_run import CLASSES
from jaxser.evaluation import comparisons, intervals, run_scores
from jaxser.evaluation.run_folder import Run
from jaxser.types import UsageError


def test_compare_by_hand():
    a, b = redrawn(fake(), "a", 0.8), redrawn(fake(), "b", 0.6, draw=1)
    found = comparisons.compare(a, b, "ua")
    by_fold = run_scores.replica_scores(a, "ua").mean(axis=1) - run_scores.replica_scores(b, "ua").mean(
        axis=1
    )
    # three sessions of 70 train, one tests: the ratio is 1/3
    t = by_fold.mean() / np.sqrt((1 / 5 + 1 / 3) * by_fold.var(ddof=1))
    assert found.corrected.statistic == pytest.approx(t)
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(abs(t), 4))
    assert found.by_fold == pytest.approx(by_fold)
    assert found.difference == pytest.approx(found.mean_a - found.mean_b)
    runs = [run_scores.replica_scores(run, "ua").ravel() for run in (a, b)]
    assert found.unpaired.p == pytest.approx(scipy.stats.ttest_ind(*runs).pvalue)
    assert found.wilcoxon is None
    assert found.by_utterance.number == 350
    back = comparisons.compare(b, a, "ua")
    assert (back.difference, back.p) == pytest.approx((-found.difference, found.p))


def test_the_verdict_comes_with_what_the_test_could_have_missed():
    better = comparisons.compare(redrawn(fake(), "a", 0.9), redrawn(fake(), "b", 0.4))
    assert better.significant
    alike = comparisons.compare(redrawn(fake(), "a", 0.6), redrawn(fake(), "b", 0.6, draw=1))
    assert not alike.significant
    least = f"found with 80 % power is {100 * alike.corrected.detectable:.1f} points."
    assert "not significant" in str(alike)
    assert str(alike).endswith(least)
    assert "not significant" not in str(better)
    assert "80 % power" in str(better)
    same = comparisons.compare(fake(), replace(fake(), folder=Path("copy")))
    assert str(same) == "base and copy have the same UA in every fold."
    assert same.p == 1


def test_ranking_of_runs():
    runs = [
        redrawn(fake(), name, share, draw)
        for draw, (name, share) in enumerate([("c", 0.3), ("a", 0.9), ("b", 0.6)])
    ]
    found = comparisons.compare_all(runs)
    assert found.runs == ("a", "b", "c")
    assert found.ranks == (1, 2, 3)
    assert found.means == tuple(sorted(found.means, reverse=True))
    # one rank apart in each of 5 folds; the critical difference is 2.343 sqrt(12 / 30) = 1.48
    assert found.groups == ((0, 1), (1, 2))
    assert found.friedman.statistic == pytest.approx(10)  # the largest for 3 runs of 5 folds: 5 (3 - 1)
    alone = comparisons.compare(runs[1], runs[0])
    (pair,) = [each for each in found.comparisons if {each.a, each.b} == {"a", "c"}]
    raw = [each.corrected.p for each in found.comparisons]
    assert [each.p for each in found.comparisons] == pytest.approx(multipletests(raw, method="holm")[1])
    assert pair.corrected.detectable > alone.corrected.detectable  # of three comparisons, each has less power
    assert "Holm's correction for 3 comparisons" in str(pair)


def test_groups_of_ranks():
    groups = comparisons._groups
    assert groups((1.0, 1.5, 3.0, 3.2, 5.0), 1.0) == ((0, 1), (2, 3))
    assert groups((1.0, 1.5, 2.2, 2.9), 1.5) == ((0, 1, 2), (1, 2, 3))
    assert groups((1.0, 2.0, 3.0), 0.5) == ()
    assert groups((1.5, 1.5, 3.0), 9.0) == ((0, 1, 2),)


def test_everything_can_be_written_as_json():
    runs = [redrawn(fake(), name, 0.6, draw) for draw, name in enumerate("abc")]
    values = [
        comparisons.compare_all(runs),
        intervals.interval(runs[0], resamples=250),
        run_scores.spread(runs[0]),
    ]
    for value in values:
        assert json.loads(json.dumps(asdict(value), allow_nan=False))


def one_fold(run: Run) -> Run:
    first = run.folds[0].name
    replicas = [replica for replica in run.results.replicas if replica.fold == first]
    chosen = run.predictions.fold == first
    columns = ("utterance", "fold", "seed", "setting", "split", "true", "predicted", "probabilities")
    kept = {column: getattr(run.predictions, column)[chosen] for column in columns}
    run = with_replicas(replace(run, folds=run.folds[:1]), replicas)
    return with_predictions(run, **kept)


def test_one_fold_is_enough_for_predictions():
    a, b = one_fold(redrawn(fake(), "a", 0.9)), one_fold(redrawn(fake(), "b", 0.3))
    assert intervals.difference(a, b).low > 0
    assert comparisons.compare_predictions(a, b).p < 1e-6
    with pytest.raises(UsageError, match=r"use intervals.difference.*compare_predictions"):
        comparisons.compare(a, b)


def other_fold(run: Run, **parts) -> Run:
    return replace(run, folds=(replace(run.folds[0], **parts), *run.folds[1:]))


def without_some(run: Run) -> Run:
    p = run.predictions
    return with_predictions(
        run, split=np.where((p.fold == "2") & (p.utterance == run.folds[1].test[0]), "", p.split)
    )


B = redrawn(fake(), "b", 0.6)
NOT_COMPARABLE = {
    "called base": replace(B, folder=Path("base")),
    "different classes": with_predictions(B, classes=(*CLASSES[:-1], "fear")),
    "no test utterance in common": replace(
        B, folds=tuple(replace(fold, test=tuple(f"other/{i}" for i in fold.test)) for fold in B.folds)
    ),
    "different folds": replace(B, folds=B.folds[:4]),
    "test different utterances in fold 1": other_fold(B, test=(*B.folds[0].test[1:], B.folds[1].test[0])),
    "train on different utterances in fold 1": other_fold(
        B, train=(*B.folds[0].train[1:], B.folds[0].validation[0])
    ),
    "different true labels": with_predictions(B, true=np.roll(B.predictions.true, 1)),
    "no prediction for 1 of the 70 utterances that fold 2": without_some(B),
}


@pytest.mark.parametrize("says", NOT_COMPARABLE)
@pytest.mark.parametrize(
    "function", [comparisons.compare, intervals.difference, comparisons.compare_predictions]
)
def test_runs_that_cannot_be_compared(says, function):
    with pytest.raises(UsageError, match=says) as caught:
        function(fake(), NOT_COMPARABLE[says])
    assert "\n" not in str(caught.value)


def test_imported_folds_without_training_parts_are_compared():
    bare = replace(B, folds=tuple(replace(fold, train=()) for fold in B.folds))
    assert run_scores.test_train_ratio(bare) == pytest.approx(1 / 4)
    assert comparisons.compare(fake(), bare).p == comparisons.compare(fake(), B).p
    assert comparisons.compare(bare, fake()).p < comparisons.compare(B, fake()).p


def test_what_else_is_refused():
    run = fake()
    nameless = {i: replace(row, speaker="") for i, row in run.utterances.items()}
    two = {i: replace(row, speaker=row.gender) for i, row in run.utterances.items()}
    for says, refused in {
        "metric 'war' is not one of": lambda: intervals.interval(run, "war"),
        "not by 'session'": lambda: intervals.interval(run, "ua", "session"),
        "unknown speakers": lambda: intervals.interval(replace(run, utterances=nameless), "ua", "speaker"),
        "2 speakers": lambda: intervals.interval(replace(run, utterances=two), "ua", "speaker"),
        "no seed with a score": lambda: intervals.interval(fake(1, (("1", 0),)), "ua"),
        "at least three runs": lambda: comparisons.compare_all([run, B]),
        "four or more": lambda: next(false_alarms.halves(run, "ua", np.random.default_rng(0))),
    }.items():
        with pytest.raises(UsageError, match=says):
            refused()
