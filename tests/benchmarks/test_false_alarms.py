"""Rates of false alarms of the tests between runs."""

import sys
from functools import cache

import numpy as np
import pytest

from benchmarks import false_alarms
from helpers.compared_runs import fake, redrawn
from helpers.fake_run import make_utterances, write_fake_run
from jaxser.evaluation import comparisons, run_scores


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
    assert (found["corrected"], found["mcnemar"]) == pytest.approx((compared.p, compared.by_utterance.p))
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
