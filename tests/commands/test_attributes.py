"""A run that predicts attributes: its files, statistics, reports, predictions and export."""

import csv
import io
import json
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import replace

import jax.export
import numpy as np
import pytest
import scipy.stats

import jaxser
from helpers import small_runs
from jaxser import export, predict, report
from jaxser.config import build_target, resolve
from jaxser.configs import mcsan
from jaxser.evaluation import comparisons, intervals, run_folder, run_scores
from jaxser.evaluation.hypothesis_tests import paired_t_test
from jaxser.report import comparison_page
from jaxser.report.page import Options
from jaxser.types import InputError, UsageError

NAMES = ("valence", "activation", "dominance")

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(scope="module")
def folder():
    return small_runs.run("mcsan", "attributes")


@pytest.fixture(scope="module")
def run(folder):
    return run_folder.read_run(folder)


def ccc(true, predicted) -> float:
    both = true.var() + predicted.var() + (true.mean() - predicted.mean()) ** 2
    return 1 - ((true - predicted) ** 2).mean() / both


def test_all_utterances_are_used_and_scored(run):
    data = small_runs.dataset("mcsan", "attributes")
    assert len(data.utterances) == len(run.utterances) == 60
    assert "" in {utterance.label for utterance in run.utterances.values()}  # without a majority
    p = run.test_predictions
    for replica in run.results.reported:
        own = (p.fold == replica.fold) & (p.seed == replica.seed)
        for n, name in enumerate(NAMES):
            true, predicted = p.true[own, n], p.predicted[own, n]
            assert replica.test[f"ccc_{name}"] == pytest.approx(ccc(true, predicted), abs=1e-4)
            assert replica.test[f"rmse_{name}"] == pytest.approx(
                np.sqrt(((true - predicted) ** 2).mean()), rel=1e-4
            )
        mean = np.mean([replica.test[f"ccc_{name}"] for name in NAMES])
        assert replica.test["ccc"] == pytest.approx(mean)


def test_predictions_are_on_the_scale_of_the_corpus(run):
    true = {
        u.id: [u.attributes[name] for name in NAMES]
        for u in small_runs.dataset("mcsan", "attributes").utterances
    }
    for identity, values in zip(run.predictions.utterance.tolist(), run.predictions.true, strict=True):
        np.testing.assert_allclose(values, true[identity], rtol=1e-5)
    assert (run.results.target.low, run.results.target.high) == (1, 5)


def test_best_possible_scores_are_those_of_the_demo_corpus(run):
    best = run.results.best_possible
    assert 0 < best["audio"]["ccc"] < best["joint"]["ccc"] < 1
    assert best["prior"]["ccc"] == 0 < best["prior"]["rmse"]


def test_a_damaged_score_is_found(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "run")
    (copy / "digests.json").unlink()
    value = json.loads((copy / "results.json").read_text())
    value["replicas"][0]["test"]["ccc"] += 0.01
    (copy / "results.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="do not follow from its statistics"):
        run_folder.read_run(copy)


def test_intervals_contain_the_pooled_score(run):
    for by in ("utterance", "speaker"):
        found = intervals.interval(run, "ccc_valence", by, resamples=200)
        assert found.low <= found.value <= found.high
        assert found.value == pytest.approx(run.results.summary.pooled["ccc_valence"], abs=1e-4)
    assert "CCC of valence of mcsan_attributes" in str(found)


@pytest.fixture(scope="module")
def other(run):
    """The same run with better predictions."""
    p = run.predictions
    better = replace(p, predicted=(p.true + p.predicted) / 2)
    return replace(run, predictions=better, folder=run.folder.parent / "other")


def test_runs_are_compared_by_their_scores_and_squared_errors(run, other):
    found = comparisons.compare(other, run, "rmse")
    assert found.difference < 0
    assert "points" not in str(found)
    errors = [((r.test_predictions.true - r.test_predictions.predicted) ** 2).mean(1) for r in (run, other)]
    order = np.argsort(run.test_predictions.utterance, kind="stable")
    by_utterance = [error[order].reshape(60, -1).mean(1) for error in errors]
    wanted = scipy.stats.ttest_rel(*by_utterance)
    assert found.by_utterance.p == pytest.approx(wanted.pvalue, rel=1e-6)
    assert paired_t_test(by_utterance[0] - by_utterance[1]).statistic == pytest.approx(wanted.statistic)


def test_a_run_of_classes_cannot_be_compared(run):
    with pytest.raises(UsageError, match="predict attributes and classes"):
        comparisons.compare(run, run_folder.read_run(small_runs.run("mcsan")))
    with pytest.raises(UsageError, match="'ua' is not one of ccc, pearson, rmse"):
        run_scores.spread(run, "ua")


def test_the_report_shows_every_attribute(folder, run):
    page = report.write(folder).read_text(encoding="utf-8")
    ET.fromstring(page.replace("<!DOCTYPE html>", ""))
    for name in NAMES:
        assert f"True and predicted {name}" in page
    assert "confusion" not in page.lower()
    shown = f"{run.results.summary.mean['ccc']:.3f}"
    assert f"CCC {shown}" in page
    table = (folder / "report/tables/attributes.csv").read_text()
    assert [row[0] for row in csv.reader(io.StringIO(table))][1:] == list(NAMES)
    assert "CCC" in (folder / "report/card.md").read_text()


def test_the_report_scores_speakers_and_genders_by_themselves(folder, run):
    report.write(folder)
    p = run.test_predictions
    for field in ("speaker", "gender"):
        values = np.array([getattr(run.utterances[i], field) for i in p.utterance])
        with (folder / f"report/tables/{field}s.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row[field] for row in rows] == sorted(set(values.tolist()))
        assert any(row["CCC of valence"] for row in rows)  # a speaker of few utterances may have no interval
        for row in rows:
            own = [(values == row[field]) & (p.seed == seed) for seed in sorted(set(p.seed.tolist()))]
            assert int(row["utterances"]) == len(set(p.utterance[own[0]].tolist()))
            for n, name in enumerate(NAMES):
                expected = np.mean([ccc(p.true[rows_of, n], p.predicted[rows_of, n]) for rows_of in own])
                shown = row[f"CCC of {name}"]
                assert not shown or float(shown) == pytest.approx(expected, abs=1e-4)


def test_the_comparison_page(run, other, tmp_path):
    path = comparison_page.write([run, other], tmp_path / "comparison", Options(), "ua")
    page = path.read_text(encoding="utf-8")
    ET.fromstring(page.replace("<!DOCTYPE html>", ""))
    assert "has the highest mean CCC" in page
    assert "p squared errors" in page


def test_predict_prints_attributes(folder, capsys):
    wav = str(small_runs.wav(small_runs.dataset("mcsan", "attributes").utterances[0]))
    shared = [f"--run={folder}", wav, "--text=lovely day", "--cache_dir="]
    assert predict.main([*shared, "--csv"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert predict.main([*shared, "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["predictions"]
    [prediction] = jaxser.load(folder).predict(wav, text="lovely day")
    assert prediction.replicas.shape == (6, 3)
    for n, name in enumerate(NAMES):
        assert float(row[name]) == pytest.approx(prediction.values[n], rel=1e-4)
        assert found["attributes"][name] == pytest.approx(prediction.values[n], rel=1e-4)
        assert found["std"][name] == pytest.approx(prediction.std[n], abs=1e-5)
    assert predict.main(shared) == 0
    assert f"{prediction.values[0]:.2f}" in capsys.readouterr().out


def test_the_export_predicts_the_same(folder, tmp_path):
    ensemble = jaxser.load(folder, fold="1", seed=0)
    wav = small_runs.wav(small_runs.dataset("mcsan", "attributes").utterances[0])
    [window] = ensemble.reader([wav]).read(wav, "lovely day")
    sizes = {name: -(-len(window.arrays[name]) // 9) * 9 for name in ensemble.model.needs}
    out, flags = tmp_path / "network.zip", [f"--{name}={size}" for name, size in sizes.items()]
    assert export.main([f"--run={folder}", "--fold=1", "--seed=0", f"--out={out}", "--batch=1", *flags]) == 0
    with zipfile.ZipFile(out) as archive:
        network = jax.export.deserialize(bytearray(archive.read("network.bin")))
        description = json.loads(archive.read("description.json"))
    assert description["target"]["attributes"] == list(NAMES)
    inputs = {}
    for name, size in sizes.items():
        x = window.arrays[name]
        inputs[name] = np.zeros((1, size, *x.shape[1:]), x.dtype)
        inputs[name][0, : len(x)] = x
        inputs[f"{name}_length"] = np.array([len(x)], np.int32)
    found = network.call(inputs)["attributes"]
    np.testing.assert_allclose(found, ensemble.outputs([window]).mean(1), rtol=1e-4)


def test_bad_settings_are_refused():
    data = small_runs.dataset("mcsan", "attributes")

    def config(**given):
        return resolve(mcsan.get_config("demo"), {"target": "attributes", **given})

    assert config().selection == "ccc"
    assert config(selection="loss").selection == "loss"
    for given, message in (
        ({"selection": "ua"}, "config.selection='ua' is not one of ccc, pearson, rmse, loss"),
        ({"attributes.loss": "mae"}, "config.attributes.loss='mae' is not one of ccc, mse"),
        ({"attributes.class_share": 1.0}, "config.attributes.class_share=1.0 must be"),
    ):
        with pytest.raises(UsageError, match=message):
            config(**given)
    with pytest.raises(UsageError, match="valence has the same value"):
        build_target(config(), replace(data, target=np.full_like(data.target, 3)))
    with pytest.raises(UsageError, match="outside the scale of its corpus, 1 to 5"):
        build_target(config(), replace(data, target=data.target * 2))
