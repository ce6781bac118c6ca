"""A run that predicts raters' votes: its files, statistics, reports, predictions and export."""

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
from scipy.spatial.distance import jensenshannon

import jaxser
from helpers import small_runs
from jaxser import export, predict, report
from jaxser.config import build_target, resolve
from jaxser.configs import mcsan
from jaxser.data_prep.demo.truth import CLASSES
from jaxser.evaluation import comparisons, intervals, run_folder
from jaxser.report import comparison_page
from jaxser.report.page import Options
from jaxser.types import UsageError

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(scope="module")
def folder():
    return small_runs.run("mcsan", "votes")


@pytest.fixture(scope="module")
def run(folder):
    return run_folder.read_run(folder)


@pytest.fixture(scope="module")
def other(run):
    """The same run with better predictions."""
    p = run.predictions
    shares = p.true / p.true.sum(1, keepdims=True)
    return replace(
        run,
        predictions=replace(p, predicted=(shares + p.predicted) / 2),
        folder=run.folder.parent / "other_votes",
    )


def test_all_utterances_are_used_and_scored(run):
    data = small_runs.dataset("mcsan", "votes")
    assert len(data.utterances) == len(run.utterances) == 60
    assert "" in {utterance.label for utterance in run.utterances.values()}  # without a majority
    votes = {u.id: [u.votes.count(name) for name in data.classes] for u in data.utterances}
    p = run.test_predictions
    for identity, counts in zip(p.utterance.tolist(), p.true, strict=True):
        assert counts.tolist() == votes[identity]
    for replica in run.results.reported:
        own = (p.fold == replica.fold) & (p.seed == replica.seed)
        wanted = np.mean(jensenshannon(p.true[own], p.predicted[own], base=2, axis=1) ** 2)
        assert replica.test["js"] == pytest.approx(wanted, abs=1e-6)


def test_best_possible_scores_are_those_of_the_demo_corpus(run):
    best = run.results.best_possible
    assert 0 < best["joint"]["js"] < min(best["audio"]["js"], best["text"]["js"]) < best["prior"]["js"] < 1
    assert best["joint"]["wa"] > best["text"]["wa"]
    data = small_runs.dataset("mcsan", "votes")
    target = build_target(resolve(mcsan.get_config("demo"), {"target": "votes"}), data)
    bayes = data.manifest["facts"]["bayes"]
    assert target.best_possible(bayes) == best
    assert target.best_possible({name: own for name, own in bayes.items() if name != "votes"}) is None
    assert replace(target, names=CLASSES[:4]).best_possible(bayes) is None


def test_intervals_contain_the_pooled_score(run):
    for by in ("utterance", "speaker"):
        found = intervals.intervals(run, by, resamples=200)
        for metric in ("js", "f1_threshold", "entropy_error"):
            assert found[metric].low <= found[metric].value <= found[metric].high
            assert found[metric].value == pytest.approx(run.results.summary.pooled[metric], abs=1e-6)


def test_runs_are_compared_by_the_divergences_of_utterances(run, other):
    found = comparisons.compare(other, run, "js")
    assert found.difference < 0
    each = [
        jensenshannon(r.test_predictions.true, r.test_predictions.predicted, base=2, axis=1) ** 2
        for r in (run, other)
    ]
    order = np.argsort(run.test_predictions.utterance, kind="stable")
    wanted = scipy.stats.ttest_rel(*(one[order].reshape(60, -1).mean(1) for one in each))
    assert found.by_utterance.p == pytest.approx(wanted.pvalue, rel=1e-6)
    with pytest.raises(UsageError, match="predict votes and classes"):
        comparisons.compare(run, run_folder.read_run(small_runs.run("mcsan")))


def test_the_report(folder, run):
    page = report.write(folder).read_text(encoding="utf-8")
    ET.fromstring(page.replace("<!DOCTYPE html>", ""))
    assert f"Jensen-Shannon divergence {run.results.summary.mean['js']:.3f}" in page
    assert "Best possible scores" in page
    table = (folder / "report/tables/votes.csv").read_text()
    rows = list(csv.reader(io.StringIO(table)))
    assert [row[0] for row in rows][1:] == list(run.results.classes)
    assert "Distribution of votes over classes" in (folder / "report/card.md").read_text()


def test_the_comparison_page(run, other, tmp_path):
    path = comparison_page.write([run, other], tmp_path / "comparison", Options(), "ua")
    page = path.read_text(encoding="utf-8")
    ET.fromstring(page.replace("<!DOCTYPE html>", ""))
    assert "p divergences" in page


def test_predict_and_export_give_distributions(folder, tmp_path, capsys):
    wav = small_runs.wav(small_runs.dataset("mcsan", "votes").utterances[0])
    shared = [f"--run={folder}", str(wav), "--text=lovely day", "--cache_dir="]
    assert predict.main([*shared, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    [prediction] = jaxser.load(folder).predict(wav, text="lovely day")
    assert printed["target"] == {"kind": "votes", "loss": "cross_entropy"}
    shown = printed["predictions"][0]["probabilities"]
    np.testing.assert_allclose(list(shown.values()), prediction.probabilities, atol=1e-6)
    assert prediction.probabilities.sum() == pytest.approx(1)
    ensemble = jaxser.load(folder, fold="1", seed=0)
    [window] = ensemble.reader([wav]).read(wav, "lovely day")
    sizes = {name: -(-len(window.arrays[name]) // 9) * 9 for name in ensemble.model.needs}
    out, flags = tmp_path / "network.zip", [f"--{name}={size}" for name, size in sizes.items()]
    assert export.main([f"--run={folder}", "--fold=1", "--seed=0", f"--out={out}", "--batch=1", *flags]) == 0
    with zipfile.ZipFile(out) as archive:
        network = jax.export.deserialize(bytearray(archive.read("network.bin")))
        assert json.loads(archive.read("description.json"))["target"]["kind"] == "votes"
    inputs = {}
    for name, size in sizes.items():
        x = window.arrays[name]
        inputs[name] = np.zeros((1, size, *x.shape[1:]), x.dtype)
        inputs[name][0, : len(x)] = x
        inputs[f"{name}_length"] = np.array([len(x)], np.int32)
    found = network.call(inputs)["probabilities"]
    np.testing.assert_allclose(found, ensemble.outputs([window]).mean(1), rtol=1e-4)


def test_bad_settings_are_refused():
    def config(**given):
        return resolve(mcsan.get_config("demo"), {"target": "votes", **given})

    assert config().selection == "js"
    assert config(**{"votes.loss": "class_balanced"}).hyper.class_balance == 0.999
    for given, message in (
        ({"selection": "ccc"}, "config.selection='ccc' is not one of js, f1_threshold, entropy_error, loss"),
        ({"votes.loss": "mse"}, "config.votes.loss='mse' is not one of cross_entropy, kl, class_balanced"),
    ):
        with pytest.raises(UsageError, match=message):
            config(**given)
