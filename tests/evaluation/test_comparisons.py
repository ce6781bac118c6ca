"""Tests and intervals against SciPy, statsmodels, published examples and arithmetic, and what they refuse."""

import json
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from benchmarks import false_alarms
from helpers.fake_run import CLASSES, make_utterances, write_fake_run
from jaxser.evaluation import comparisons, hypothesis_tests, intervals, metrics, run_scores
from jaxser.evaluation.results import setting_name
from jaxser.evaluation.run_folder import Run, read_run
from jaxser.types import UsageError

DEMSAR = np.array(
    [
        [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.940, 0.619, 0.972, 0.957],
        [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978],
        [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.0, 0.965, 0.614, 0.975, 0.946],
        [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.0, 0.962, 0.669, 0.9749, 0.970],
    ]
)
"""AUC of C4.5 and its three tuned versions on 14 data sets (Demšar 2006, table 6, where the last
0.975 ranks below the other)."""

scores = st.floats(0, 1).map(lambda value: round(value, 3))


@cache
def fake(seeds: int = 2, not_finite: tuple = (), number: int = 350) -> Run:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "base"
        write_fake_run(path, seeds=seeds, not_finite=not_finite, epochs=1, utterances=make_utterances(number))
        return read_run(path)


def redrawn(run: Run, name: str, accuracy: float, draw: int = 0) -> Run:
    """The same run with other predictions, of which a share is correct."""
    rng, p = np.random.default_rng(draw), run.predictions
    wrong = (p.true + rng.integers(1, len(CLASSES), len(p.true))) % len(CLASSES)
    predicted = np.where(rng.random(len(p.true)) < accuracy, p.true, wrong)
    return replace(run, folder=Path(name), predictions=replace(p, predicted=predicted))


def with_predictions(run: Run, **columns) -> Run:
    return replace(run, predictions=replace(run.predictions, **columns))


def with_replicas(run: Run, replicas) -> Run:
    return replace(run, results=replace(run.results, replicas=tuple(replicas)))


# Tests on arrays


def test_corrected_t_test_by_hand():
    found = hypothesis_tests.corrected_t_test(np.array([0.01, 0.02, 0.03, 0.04, 0.05]), ratio=0.25)
    # mean 0.03, variance 2.5e-4: the error is sqrt((1/5 + 1/4) 2.5e-4) = 0.010607, t = sqrt(8), and for 4 degrees of
    # freedom P(|T| < t) = 1.5 (x - x³ / 3) with x = t / sqrt(4 + t²) = sqrt(2/3)
    x = np.sqrt(2 / 3)
    assert found.statistic == pytest.approx(np.sqrt(8))
    assert found.p == pytest.approx(1 - 1.5 * (x - x**3 / 3))
    half = 2.776445 * np.sqrt(0.45 * 2.5e-4)  # 2.776445: table of t, 4 degrees of freedom
    assert (found.low, found.high) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-8)


@given(arrays(float, st.integers(3, 12), elements=scores), arrays(float, st.integers(3, 12), elements=scores))
def test_t_tests_are_scipys(a, b):
    if np.ptp(a) > 0:
        paired = hypothesis_tests.corrected_t_test(a - 0.5, ratio=0.0)
        expected = scipy.stats.ttest_1samp(a, 0.5)
        assert (paired.statistic, paired.p) == pytest.approx((expected.statistic, expected.pvalue), abs=1e-9)
        assert (paired.low, paired.high) == pytest.approx(np.array(expected.confidence_interval()) - 0.5)
        assert hypothesis_tests.corrected_t_test(a - 0.5, ratio=0.3).p >= paired.p
    if np.ptp(a) > 0 and np.ptp(b) > 0:
        unpaired, expected = hypothesis_tests.unpaired_t_test(a, b), scipy.stats.ttest_ind(a, b)
        assert (unpaired.statistic, unpaired.p) == pytest.approx(
            (expected.statistic, expected.pvalue), abs=1e-9
        )


@pytest.mark.parametrize(("mean", "p"), [(0.0, 1.0), (0.1, 0.0)])
def test_differences_that_do_not_vary(mean, p):
    assert hypothesis_tests.corrected_t_test(np.full(5, mean), ratio=0.25).p == p
    assert hypothesis_tests.unpaired_t_test(np.full(5, mean), np.zeros(5)).p == p


@pytest.mark.parametrize("number", [3, 5, 10, 50])
def test_detectable_difference_is_statsmodels(number):
    effect = TTestPower().solve_power(nobs=number, alpha=0.05, power=0.8)
    assert hypothesis_tests.detectable_errors(number - 1) == pytest.approx(effect * np.sqrt(number), rel=1e-4)


@pytest.mark.parametrize("number", [3, 5, 24])
@pytest.mark.parametrize("family", [3, 105])
def test_detectable_difference_by_integration(number, family):
    """At small levels statsmodels fails (NaN in the other tail): integrate over the chi-square of the variance."""
    level, df = hypothesis_tests.LEVEL / family, number - 1
    found, critical = hypothesis_tests.detectable_errors(df, level), scipy.stats.t.ppf(1 - level / 2, df)

    def weighted(v: float) -> float:
        return scipy.stats.norm.sf(critical * np.sqrt(v / df) - found) * scipy.stats.chi2.pdf(v, df)

    assert scipy.integrate.quad(weighted, 0, 100)[0] == pytest.approx(0.8, abs=1e-4)


def test_detectable_difference_is_found_in_four_of_five_cases():
    rng = np.random.default_rng(0)
    least = hypothesis_tests.detectable_errors(4) / np.sqrt(5)
    found = [hypothesis_tests.corrected_t_test(rng.normal(least, 1, 5), 0.0).p < 0.05 for _ in range(1000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_signed_rank_on_demsars_data():
    # The two equal data sets are dropped; |-0.005| shares the ranks 1 and 2, |-0.008| is rank 5: 6.5 in all.
    assert hypothesis_tests.signed_rank(DEMSAR[1] - DEMSAR[0]).statistic == 6.5


def test_signed_rank_finds_nothing_in_fewer_folds_than_it_needs():
    fewest = comparisons.MIN_FOLDS_FOR_RANKS
    rising = np.arange(1.0, fewest + 1) / 100
    assert hypothesis_tests.signed_rank(rising).p == pytest.approx(2 / 2**fewest)
    assert hypothesis_tests.signed_rank(rising[:-1]).p > hypothesis_tests.LEVEL > 2 / 2**fewest
    assert hypothesis_tests.signed_rank(np.zeros(6)).p == 1


def rights(both: int, won: int, lost: int, neither: int) -> np.ndarray:
    return np.repeat([0.0, 1.0, -1.0, 0.0], [both, won, lost, neither])


def test_mcnemar_on_agrestis_approval_ratings():
    # Agresti, Categorical Data Analysis, table 10.1: (150 - 86)² / (150 + 86) = 17.36
    differences = rights(794, 150, 86, 570)
    exact = statsmodels_mcnemar([[794, 150], [86, 570]], exact=True)
    assert hypothesis_tests.mcnemar(differences).p == pytest.approx(exact.pvalue)
    clustered = hypothesis_tests.mcnemar(
        differences / 2
    )  # two seeds, in one of which the models never differ
    assert clustered.statistic == pytest.approx(64**2 / 236)
    assert clustered.p == pytest.approx(
        statsmodels_mcnemar([[794, 150], [86, 570]], exact=False, correction=False).pvalue
    )
    assert clustered.detectable == pytest.approx(2.801585 / 2 * np.sqrt(236) / 1600)  # z(.975) + z(.8)
    assert hypothesis_tests.mcnemar(rights(5, 0, 0, 3)).p == 1


def test_seeds_that_agree_add_nothing_to_mcnemar():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 400, 1)) < [[[0.7]], [[0.6]]]
    one = hypothesis_tests.mcnemar((a.astype(float) - b).mean(axis=1))
    many = hypothesis_tests.mcnemar(
        (np.repeat(a, 7, axis=1).astype(float) - np.repeat(b, 7, axis=1)).mean(axis=1)
    )
    assert one == many


def test_friedman_on_demsars_data():
    found = hypothesis_tests.friedman(DEMSAR)
    ranks = scipy.stats.rankdata(-DEMSAR, axis=0).mean(axis=1)
    assert ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=1e-3)
    # His chi-square is 9.28 without correction for ties: here 4 equal once and pairs three times.
    assert found.statistic * (1 - (60 + 3 * 6) / (14 * 60)) == pytest.approx(9.28, abs=0.01)
    assert hypothesis_tests.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert hypothesis_tests.friedman(np.ones((3, 5))).p == 1


def test_critical_difference_has_demsars_table_of_q():
    table = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for runs, q in table.items():
        found = hypothesis_tests.critical_difference(runs, 1) / np.sqrt(runs * (runs + 1) / 6)
        assert found == pytest.approx(q, abs=1.01e-3)


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(p):
    assert hypothesis_tests.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


# Runs


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
    assert found.mcnemar.number == 350
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


# False alarms


@cache
def alarms(splits: str, same: bool, trials: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    return false_alarms.rates(false_alarms.simulated(rng, splits, 10, same=same) for _ in range(trials))


def test_only_the_corrected_test_keeps_its_level_between_equal_models():
    """A small version of the table in docs/explanation/statistics.md: two networks, equally good over all corpora."""
    sessions, random = alarms("session", False, 300), alarms("random", False, 60)
    assert sessions["corrected"] <= 0.06
    assert random["corrected"] <= 0.1
    for found in (sessions, random):
        assert found["unpaired_runs"] > 0.3
        assert found["paired_runs"] > 0.3
    assert random["paired"] > 0.12


def test_seeds_alone_show_the_unpaired_test_too_cautious():
    """Runs that differ only by seeds do not differ by fold, and the spread over folds hides this from the test."""
    found = alarms("session", True, 300)
    assert found["unpaired_runs"] < 0.03
    assert 0.02 < found["paired"] < 0.08
    assert found["corrected"] < 0.05


def test_false_alarms_are_those_of_the_tests_that_compare_uses():
    a, b = redrawn(fake(), "a", 0.7), redrawn(fake(), "b", 0.6, draw=1)
    compared = comparisons.compare(a, b, "wa")
    trial = false_alarms.Trial(
        *(run_scores.replica_scores(run, "wa") for run in (a, b)),
        advantage=run_scores.correct(a).mean(axis=1) - run_scores.correct(b).mean(axis=1),
        ratio=run_scores.test_train_ratio(a),
    )
    found = false_alarms.p_values(trial)
    assert (found["corrected"], found["mcnemar"]) == pytest.approx((compared.p, compared.mcnemar.p))
    assert found["unpaired_runs"] == pytest.approx(compared.unpaired.p)
    assert false_alarms.rates([trial])["corrected"] == (compared.p < 0.05)


def test_halves_of_a_runs_seeds(tmp_path, monkeypatch, capsys):
    run = fake(4, (), 140)
    trial = next(false_alarms.halves(run, "wa", np.random.default_rng(0)))
    assert trial.a.shape == trial.b.shape == (5, 2)
    every = run_scores.replica_scores(run, "wa")
    np.testing.assert_allclose(np.sort(np.hstack([trial.a, trial.b])), np.sort(every))
    assert trial.advantage.mean() == pytest.approx((trial.a - trial.b).mean())  # folds of equal size
    write_fake_run(tmp_path / "run", seeds=4, epochs=1, utterances=make_utterances(140))
    monkeypatch.setattr(sys, "argv", ["false_alarms", str(tmp_path / "run"), "--trials=20"])
    assert false_alarms.main() == 0
    assert "other seeds | " in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["false_alarms", str(tmp_path), "--trials=20"])
    assert false_alarms.main() == 1
    assert "is not a run" in capsys.readouterr().err
