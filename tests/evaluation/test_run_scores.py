"""The scores of a run's replicas."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.compared_runs import fake, with_predictions, with_replicas
from jaxser.evaluation import metrics, run_scores
from jaxser.evaluation.results import setting_name


def test_scores_are_those_of_the_results():
    run = fake(seeds=3, not_finite=(("2", 1),))
    for metric in metrics.SCORES:
        expected = [[np.nan] * 3 for _ in run.folds]
        for replica in run.results.replicas:
            if replica.test:
                expected[int(replica.fold) - 1][replica.seed] = replica.test[metric]
        np.testing.assert_allclose(run_scores.replica_scores(run, metric), expected)
        summary = run.results.summary.mean[metric]
        assert run_scores.fold_means(run, metric).mean() == pytest.approx(summary)
    right = run_scores.correct(fake())
    assert right.mean() == pytest.approx(fake().results.summary.pooled["wa"])


def test_predictions_of_a_replica_without_a_score_do_not_count():
    run = fake()
    replicas = [replace(r, test=None) if (r.fold, r.seed) == ("3", 1) else r for r in run.results.replicas]
    found = run_scores.replica_scores(with_replicas(run, replicas), "ua")
    assert np.argwhere(np.isnan(found)).tolist() == [[2, 1]]


def test_only_the_summarised_setting_counts():
    run = fake()
    chosen, other = setting_name({"alpha": 1}), setting_name({"alpha": 2})
    p = run.predictions
    both = {
        column: np.concatenate([getattr(p, column)] * 2)
        for column in ("utterance", "fold", "seed", "split", "true", "probabilities")
    }
    swept = with_predictions(
        run,
        **both,
        setting=np.repeat([other, chosen], len(p.true)),
        predicted=np.concatenate([np.zeros_like(p.predicted), p.predicted]),
    )
    replicas = [replace(r, setting=name) for name in (other, chosen) for r in run.results.replicas]
    swept = replace(swept, results=replace(run.results, setting=chosen, replicas=tuple(replicas)))
    found = run_scores.replica_scores(swept, "ua")
    np.testing.assert_array_equal(found, run_scores.replica_scores(run, "ua"))


def test_spread_names_what_it_is_over():
    run = fake()
    found, summary = run_scores.spread(run, "f1_macro"), run.results.summary
    assert found.over_folds == summary.std_over_folds["f1_macro"]
    assert found.over_seeds == summary.std_over_seeds["f1_macro"]
    assert "over 5 folds (seeds averaged)" in str(found)
    assert "over 2 seeds (folds averaged)" in str(found)
