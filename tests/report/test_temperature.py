"""Temperature scaling on validation, and predictions that are withheld."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from helpers.fake_run import write_fake_run
from jaxser.evaluation import run_folder
from jaxser.report import run_tables, tables
from jaxser.report.analysis import Analysis
from jaxser.report.temperature import RANGE, fit_temperature, tempered


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two seeds."""
    folder = tmp_path_factory.mktemp("run")
    write_fake_run(folder, epochs=1)
    return run_folder.read_run(folder)


def drawn(sharpness: float, number: int = 4000):
    """Labels drawn from a softmax, and probabilities whose logits are `sharpness` times as large."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(number, 4))
    true = np.array([rng.choice(4, p=own) for own in softmax(logits, axis=1)])
    return softmax(sharpness * logits, axis=1), true


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(sharpness):
    probabilities, true = drawn(sharpness)
    assert fit_temperature(probabilities, true) == pytest.approx(sharpness, rel=0.06)


def test_the_temperature_has_the_smallest_loss_of_a_grid():
    probabilities, true = drawn(2.0, 200)
    found = fit_temperature(probabilities, true)

    def loss(temperature):
        powers = probabilities ** (1 / temperature)
        return -np.log(powers[np.arange(200), true] / powers.sum(axis=1)).mean()

    best = min(map(loss, np.geomspace(*RANGE, 2000)))
    assert loss(found) == pytest.approx(best, abs=1e-5)


def test_a_temperature_of_one_changes_nothing_and_others_keep_the_order():
    probabilities, _ = drawn(2.0, 50)
    np.testing.assert_allclose(tempered(probabilities, 1.0), probabilities, rtol=1e-12)
    hot = tempered(probabilities, 3.0)
    np.testing.assert_allclose(hot.sum(axis=1), 1)
    np.testing.assert_array_equal(hot.argsort(axis=1), probabilities.argsort(axis=1))
    assert (hot.max(axis=1) < probabilities.max(axis=1)).all()


def test_probabilities_that_are_rounded_to_zero():
    certain = np.eye(3)[[0, 1, 2, 0]]
    assert np.isfinite(fit_temperature(certain, np.array([0, 1, 2, 1])))
    assert RANGE[0] <= fit_temperature(certain, np.array([0, 1, 2, 0])) < 1


def test_scaling_of_a_run_is_fitted_on_validation_of_each_replica(run):
    """An own computation of the error after scaling, from predictions.csv."""
    analysis, p = Analysis(run), run.predictions
    found = analysis.scaling
    replicas = sorted(set(zip(p.fold.tolist(), p.seed.tolist(), strict=True)))
    bins, errors = np.linspace(0, 1, 16), {}
    temperatures = []
    for fold, seed in replicas:
        own = (p.fold == fold) & (p.seed == seed)
        held_out, tested = own & (p.split == "validation"), own & (p.split == "test")
        temperatures.append(fit_temperature(p.probabilities[held_out], p.true[held_out]))
        powers = p.probabilities[tested] ** (1 / temperatures[-1])
        sure = powers.max(axis=1) / powers.sum(axis=1)
        errors.setdefault(seed, []).append((sure, p.predicted[tested] == p.true[tested]))
    np.testing.assert_allclose(found.temperatures, temperatures)
    of_seeds = []
    for parts in errors.values():
        sure, correct = (np.concatenate(column) for column in zip(*parts, strict=True))
        index = np.digitize(sure, bins, right=True)
        differences = [abs((sure - correct)[index == one].sum()) / len(sure) for one in np.unique(index)]
        of_seeds.append(sum(differences))
    assert found.error == (analysis.calibration.error, pytest.approx(np.mean(of_seeds), abs=1e-4))


def test_answers_that_are_withheld(run):
    found = Analysis(run).scaling.answers
    assert found[0].coverage == 1
    assert found[0].accuracy == pytest.approx(np.mean([one.test["wa"] for one in run.results.replicas]))
    thresholds, coverage = [one.threshold for one in found], [one.coverage for one in found]
    assert thresholds == sorted(thresholds)
    assert coverage == sorted(coverage, reverse=True)
    assert all(abs(one.coverage - one.share) < 0.15 for one in found)
    assert found[-1].accuracy > found[0].accuracy
    assert tables.markdown(run_tables.answers(Analysis(run))).count("\n| ") >= len(found)


def test_a_run_without_a_validation_part_is_not_scaled(run):
    p = run.predictions
    without = replace(run, predictions=p.select(p.split == "test"))
    assert Analysis(without).scaling is None
    assert run_tables.answers(Analysis(without)) is None
