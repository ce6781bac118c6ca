"""What shared speakers are worth: the predictions of the utterances that two runs test are compared."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import recall_score

from helpers.compared_runs import fake, redrawn, with_predictions
from jaxser.data.leaks import FoldIds
from jaxser.evaluation import run_scores
from jaxser.evaluation.fold_twins import worth
from jaxser.evaluation.hypothesis_tests import mcnemar
from jaxser.types import UsageError


def refolded(run, seed=0):
    """The run with its predictions in other folds, which share speakers."""
    ids = np.array(sorted(run.utterances))
    parts = np.array_split(np.random.default_rng(seed).permutation(ids), 5)
    folds = [
        FoldIds(fold.name, (), tuple(parts[(k + 1) % 5].tolist()), tuple(parts[k].tolist()))
        for k, fold in enumerate(run.folds)
    ]
    name_of = {i: fold.name for fold in folds for i in fold.test}
    fold = np.array([name_of[i] for i in run.predictions.utterance.tolist()])
    is_test = run.predictions.split == "test"
    fold = np.where(is_test, fold, run.predictions.fold)
    return replace(with_predictions(run, fold=fold), folds=tuple(folds))


def ua(run, ids):
    """The UA of all folds together, of each seed by itself, by scikit-learn."""
    p = run.test_predictions
    kept = np.isin(p.utterance, sorted(ids))
    scores = [
        recall_score(p.true[kept & (p.seed == s)], p.predicted[kept & (p.seed == s)], average="macro")
        for s in np.unique(p.seed)
    ]
    return np.mean(scores)


def test_runs_on_different_folds_are_compared_on_all_utterances():
    published, twin = refolded(redrawn(fake(), "published", 0.8)), redrawn(fake(), "twin", 0.5, draw=1)
    found = worth(published, twin)
    every = set(fake().utterances)
    assert (found.tested, found.of) == (350, (350, 350))
    assert found.heard == ((10, 10), (0, 10))
    between = found.differences["ua"]
    assert between.value == pytest.approx(ua(published, every) - ua(twin, every), abs=1e-6)
    assert (between.by, between.drawn) == ("speaker", 10)
    assert 0 < between.low < between.value < between.high
    hits = [run_scores.correct(run).mean(axis=1) for run in (published, twin)]
    assert found.test.p == pytest.approx(mcnemar(hits[0] - hits[1]).p)
    text = str(found)
    assert "published: UA " in text
    assert "published: 10 of 10 test speakers are also heard in training" in text
    assert "pooled over the 350 utterances that both runs test:" in text
    assert "is significant at 5 % (McNemar's test, p = " in text


def test_a_single_fold_is_compared_on_what_both_runs_test():
    run = redrawn(fake(), "published", 0.7)
    base = redrawn(fake(), "twin", 0.4, draw=1)
    first, second = run.folds[0], run.folds[1]
    both = FoldIds(first.name, first.train, (), (*first.test, *second.test[:20]))

    def only(run, fold, ids):
        p = run.predictions
        kept = (p.split == "test") & np.isin(p.utterance, sorted(ids))
        p = p.select(kept)
        results = replace(
            run.results, replicas=tuple(r for r in run.results.replicas if r.fold == first.name)
        )
        folds = np.full(len(p.utterance), first.name)
        return replace(run, folds=(fold,), predictions=replace(p, fold=folds), results=results)

    published, twin = only(run, both, both.test), only(base, first, first.test)
    found = worth(published, twin)
    assert (found.tested, found.of) == (70, (90, 70))
    assert found.differences["ua"].by == "utterance"  # a session has two speakers
    expected = ua(published, first.test) - ua(twin, first.test)
    assert found.differences["ua"].value == pytest.approx(expected, abs=1e-6)
    assert "pooled over the 70 utterances that both runs test, of 90 and 70:" in str(found)


def test_runs_that_have_nothing_in_common_are_refused():
    run = fake()
    with pytest.raises(UsageError, match="two runs are called base"):
        worth(run, run)
    other = replace(run, folder=Path("other"), predictions=replace(run.predictions, classes=tuple("abcdefg")))
    with pytest.raises(UsageError, match="base and other have different classes"):
        worth(run, other)
    p = run.predictions
    renamed = np.array([f"x{i}" for i in p.utterance.tolist()])
    folds = tuple(replace(f, test=tuple(f"x{i}" for i in f.test)) for f in run.folds)
    strangers = replace(with_predictions(run, utterance=renamed), folder=Path("strangers"), folds=folds)
    with pytest.raises(UsageError, match="base and strangers have no test utterance in common"):
        worth(run, strangers)
    wrong = with_predictions(run, true=(p.true + 1) % 7)
    with pytest.raises(UsageError, match="have different true labels for 350 utterances"):
        worth(run, replace(wrong, folder=Path("wrong")))
