"""Bootstrap intervals against SciPy and the binomial distribution."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from helpers.compared_runs import fake, redrawn, with_predictions, with_replicas
from helpers.fake_run import CLASSES
from jaxser.evaluation import intervals, metrics, run_scores


@pytest.mark.parametrize("metric", metrics.SCORES)
@pytest.mark.parametrize("by", ["utterance", "speaker"])
def test_intervals_are_about_the_pooled_score(metric, by):
    run = fake()
    found = intervals.interval(run, metric, by, resamples=250)
    assert found.value == pytest.approx(run.results.summary.pooled[metric])
    assert found.low < found.value < found.high
    assert found.drawn == (350 if by == "utterance" else 10)


def test_a_seed_that_lacks_a_fold_is_not_pooled():
    run = fake(seeds=3, not_finite=(("2", 1),))
    found = intervals.interval(run, "ua", resamples=250)
    assert found.value == pytest.approx(run.results.summary.pooled["ua"])


def test_interval_over_utterances_is_scipys():
    run = redrawn(fake(seeds=1), "a", 0.7)
    right = run_scores.correct(run)[:, 0]
    expected = scipy.stats.bootstrap((right,), np.mean, method="BCa", rng=np.random.default_rng(1))
    found = intervals.interval(run, "wa")
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval, abs=0.004)


def test_seeds_add_no_utterances():
    run = redrawn(fake(seeds=1), "a", 0.7)
    p = run.predictions
    columns = ("utterance", "fold", "setting", "split", "true", "predicted", "probabilities")
    twice = {column: np.concatenate([getattr(p, column)] * 2) for column in columns}
    twice = with_predictions(run, **twice, seed=np.repeat([0, 1], len(p.true)))
    replicas = [replace(r, seed=seed) for seed in (0, 1) for r in run.results.replicas]
    twice = with_replicas(twice, replicas)
    one, two = (intervals.interval(each, "ua", resamples=250) for each in (run, twice))
    assert (one.low, one.high) == pytest.approx((two.low, two.high), abs=1e-6)


@pytest.mark.parametrize("metric", ["wa", "ua"])
def test_units_of_equal_confusions_are_drawn_together_if_there_are_many(monkeypatch, metric):
    run = redrawn(fake(seeds=1), "a", 0.7)
    one_by_one = intervals.interval(run, metric)
    monkeypatch.setattr(intervals, "MAX_SINGLE", 100)
    monkeypatch.setattr("scipy.stats.bootstrap", None)
    together = intervals.interval(run, metric)
    assert together.value == one_by_one.value
    assert (together.low, together.high) == pytest.approx((one_by_one.low, one_by_one.high), abs=0.005)


@pytest.mark.parametrize("by", ["utterance", "speaker"])
def test_intervals_of_all_metrics_are_those_of_each(by):
    run = fake(seeds=2)
    each = {metric: intervals.interval(run, metric, by, resamples=250) for metric in metrics.SCORES}
    assert intervals.intervals(run, by, resamples=250) == each


def test_interval_over_speakers_draws_speakers():
    """Half of the speakers are always recognised, half never: then each speaker counts as one."""
    run = fake(seeds=1)
    p = run.predictions
    good = np.array([run.utterances[i].gender == "F" for i in p.utterance.tolist()])
    run = with_predictions(run, predicted=np.where(good, p.true, (p.true + 1) % len(CLASSES)))
    found = intervals.interval(run, "wa", "speaker")
    # of ten speakers (of 35 utterances each), binomial; Hesterberg's widening is 2.262 sqrt(10/9) = 2.384 errors
    tail = scipy.stats.norm.cdf(-2.384)
    expected = scipy.stats.binom.ppf([tail, 1 - tail], 10, 0.5) / 10
    assert (found.low, found.high) == pytest.approx(expected, abs=0.06)
    narrow = intervals.interval(run, "wa", "utterance")
    assert narrow.high - narrow.low < 0.25 * (found.high - found.low)


def test_intervals_at_the_limit():
    assert intervals.interval(redrawn(fake(), "a", 1.0), "ua", resamples=250).low == 1
    assert intervals.interval(fake(), "ua") == intervals.interval(fake(), "ua")


def test_difference_is_antisymmetric_and_narrower_than_unpaired():
    a, b = redrawn(fake(), "a", 0.75), fake()
    there, back = intervals.difference(a, b, "wa"), intervals.difference(b, a, "wa")
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-6)
    assert there.value == pytest.approx(run_scores.correct(a).mean() - run_scores.correct(b).mean())
    worse = with_predictions(
        a, predicted=np.where(np.arange(len(a.predictions.true)) % 50, a.predictions.predicted, 0)
    )
    paired = intervals.difference(a, replace(worse, folder=Path("worse")), "wa")
    alone = intervals.interval(a, "wa")
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
