"""Runs on several datasets: files, scores by corpus, reports, predictions and messages."""

import csv
import dataclasses
import json
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

import jaxser
from helpers import small_runs
from jaxser import experiment
from jaxser.config import datasets_of, resolve
from jaxser.configs import common, mcsan
from jaxser.data.merging import load_merged
from jaxser.data_prep.prepare import prepare
from jaxser.evaluation import metrics, run_folder
from jaxser.experiment import resume
from jaxser.papers import emobox
from jaxser.report import comparison_page, comparison_tables, page
from jaxser.report.analysis import Analysis
from jaxser.report.page import Options
from jaxser.training.replica import ReplicaTrainer
from jaxser.types import UsageError

NAMES = {
    "ang": "anger",
    "hap": "happiness",
    "exc": "joy",
    "sad": "sadness",
    "neu": "neutral",
    "fru": "boredom",
}

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(scope="module")
def data():
    """The folder of the small demo corpus and of `mine`: forty of its recordings with labels of other names."""
    demo = small_runs.dataset("mcsan")
    root, out = small_runs.folder() / "mine_release", small_runs.folder()
    root.mkdir(exist_ok=True)
    kept = [one for one in demo.utterances if one.label in NAMES][:40]
    with open(root / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "speaker", "text"))
        for one in kept:
            (root / f"{one.id}.wav").write_bytes(small_runs.wav(one).read_bytes())
            table.writerow((f"{one.id}.wav", NAMES[one.label], one.speaker, one.transcript))
    prepare("folder", root=root, recipe="mcsan", name="mine", out=out, workers=1, quiet=True)
    return out


def config_of(**given):
    """The config of a command whose flags are `given`."""
    config = mcsan.get_config("demo")
    config.update({"seeds": 1, "epochs": 1, "buckets": 1, "batch_size": 8, "variant": "audio_only"})
    config.model.update(small_runs.FIELDS["mcsan"])
    given = {"classes": "four", **given}
    config.update_from_flattened_dict(given)
    return resolve(config, given)


def train(config, data, name):
    folder, said = data / "runs" / name, []
    one_device = mock.patch.object(jax, "devices", return_value=jax.devices()[:1])
    untrained = mock.patch.object(ReplicaTrainer, "step", small_runs.no_step)
    with one_device, untrained:
        dataset = experiment.load_dataset(config, data, said.append)
        experiment.run_experiment(config, dataset, folder, log=said.append)
    return run_folder.read_run(folder), "\n".join(said)


TESTED = {"test_on": "mine", "protocol.name": "speaker", "protocol.folds": 3, "across.normalise": "corpus"}


@pytest.fixture(scope="module")
def tested(data):
    """Trained on the demo, tested on `mine`; each is normalised by itself."""
    return train(config_of(**TESTED), data, "tested")


@pytest.fixture(scope="module")
def left_out(data):
    return train(config_of(datasets="demo+mine", **{"across.sampling": "equal"}), data, "left_out")


def test_every_fold_is_tested_on_the_other_corpus(tested, data):
    run, said = tested
    config = config_of(**TESTED)
    whole = load_merged(data, datasets_of(config), "mcsan", classes="four")
    other = {one.id for one in whole.utterances if one.id.startswith("mine/")}
    assert len(run.folds) == 3
    for fold in run.folds:
        assert set(fold.test) == other
        assert all(i.startswith("demo/") for i in (*fold.train, *fold.validation))
    counts = dict(whole.left_out)
    assert f"{counts['mine/boredom']} mine/boredom" in said
    for replica in run.results.reported:
        p = run.test_predictions
        own = p.fold == replica.fold
        matrix = np.zeros((4, 4), int)
        np.add.at(matrix, (p.true[own], p.predicted[own]), 1)
        assert replica.by_corpus["mine"]["ua"] == pytest.approx(metrics.scores(matrix)["ua"], abs=1e-6)
        assert replica.by_corpus == {"mine": replica.test}


def test_scores_by_corpus_survive_the_file(left_out):
    run, _ = left_out
    assert list(run.results.by_corpus) == ["demo", "mine"]
    for replica in run.results.reported:
        assert list(replica.by_corpus) == [replica.fold]
        assert run.results.by_corpus[replica.fold]["ua"] == replica.test["ua"]
    assert [set(fold.test) for fold in run.folds] == [
        {i for i in run.utterances if i.startswith(f"{name}/")} for name in ("demo", "mine")
    ]
    assert any("Byte-identical recordings" in warning for warning in run.results.warnings)
    assert run.results.synthetic  # one of the two is


def test_the_saved_model_predicts_what_training_predicted(tested, data):
    """Normalised by corpus: the statistics of the training corpus come with the networks."""
    run, _ = tested
    p, demo = run.predictions, small_runs.dataset("mcsan")
    ensemble = jaxser.load(run.folder, fold=run.folds[0].name)
    row = int(np.flatnonzero((p.split == "validation") & (p.fold == run.folds[0].name))[0])
    (utterance,) = [one for one in demo.utterances if f"demo/{one.id}" == p.utterance[row]]
    (found,) = ensemble.predict(small_runs.wav(utterance))
    np.testing.assert_allclose(found.probabilities, p.probabilities[row], atol=1e-4)


def test_the_report_has_a_table_by_corpus(tested, left_out):
    for (run, _), title, number in ((tested, "mine, trained on demo corpus", 1), (left_out, "merged", 2)):
        text = page.write_run(run, Options()).read_text(encoding="utf-8")
        assert 'id="corpora"' in text
        assert title in page.title(Analysis(run))
        with open(run.folder / "report" / "tables" / "corpora.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == number
        means = {"demo corpus": "demo", "mine": "mine"}
        for row in rows:
            assert float(row["UA"]) == pytest.approx(run.results.by_corpus[means[row["corpus"]]]["ua"])
    protocol = (tested[0].folder / "report" / "card.md").read_text(encoding="utf-8")
    assert "every fold is tested on all utterances of mine" in protocol
    assert "those of the test part included" in protocol


def test_the_comparison_has_a_matrix(tested, left_out, tmp_path):
    text = comparison_page.write([tested[0], left_out[0]], tmp_path, Options()).read_text(encoding="utf-8")
    assert 'id="across"' in text
    with open(tmp_path / "tables" / "across.csv", encoding="utf-8") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert rows["tested"]["trained on"] == "demo corpus"
    assert rows["tested"]["on demo corpus"] in ("", "–")
    assert float(rows["tested"]["on mine"]) == pytest.approx(tested[0].results.by_corpus["mine"]["ua"])
    assert rows["left_out"]["trained on"] == "the others of demo corpus and mine"
    assert float(rows["left_out"]["on demo corpus"]) == pytest.approx(
        left_out[0].results.by_corpus["demo"]["ua"]
    )


def test_figures_of_emobox_are_beside_the_same_pairs(tested):
    """Whisper large v3, trained on RAVDESS: 48.12 on IEMOCAP, 66.91 on SAVEE."""
    run = tested[0]
    replicas = [
        dataclasses.replace(one, by_corpus={"savee": one.test, "emodb": one.test})
        for one in run.results.replicas
    ]
    fields = {**run.config.fields, "dataset": "ravdess", "test_on": "savee,emodb"}
    results = dataclasses.replace(run.results, dataset="ravdess", replicas=tuple(replicas))
    run = dataclasses.replace(run, results=results, config=dataclasses.replace(run.config, fields=fields))
    table = comparison_tables.matrix([Analysis(run)])
    assert table.header[2:] == ("on SAVEE", "on EmoDB")
    (row,) = [row for row in table.rows if row[0] == "EmoBox: Whisper large v3"]
    assert (row[1], row[2].mean, row[3]) == ("RAVDESS", pytest.approx(0.6691), "–")
    assert emobox.ACCURACIES["Whisper large v3"]["ravdess", "iemocap"] == pytest.approx(0.4812)
    assert emobox.ACCURACIES["WavLM large"]["iemocap", "meld"] == pytest.approx(0.4859)
    assert all(len(of) == 12 for of in emobox.ACCURACIES.values())


def test_the_digest_of_a_run_covers_every_dataset(data):
    dataset = load_merged(data, datasets_of(config_of(**TESTED)), "mcsan", classes="four")
    digest = resume.digest_of(dataset)
    for change in (
        {"shards": {**dataset.manifest["shards"], "mine": []}},
        {"common": {**dataset.manifest["common"], "mine": {}}},
        {"labels": {**dataset.manifest["labels"], "demo": {}}},
    ):
        changed = dataclasses.replace(dataset, manifest={**dataset.manifest, **change})
        assert resume.digest_of(changed) != digest


def test_the_label_map_of_a_file_is_used(data, tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"mine": {"boredom": "neutral"}}))
    config = config_of(**TESTED, **{"across.label_map": str(path)})
    bored = experiment.load_dataset(config, data, lambda _: None)
    before = experiment.load_dataset(config_of(**TESTED), data, lambda _: None)
    number = before.left_out["mine/boredom"]
    assert len(bored.label) == len(before.label) + number
    assert (bored.label == 0).sum() == (before.label == 0).sum() + number


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"across.normalise": "corpus"}, "is for several datasets"),
        ({"across.sampling": "equal", "test_on": "mine"}, "one training dataset"),
        ({"datasets": "mine+other"}, "the settings are those for demo"),
        ({"test_on": "demo"}, "is there twice"),
        ({"test_on": "mine", "target": "attributes"}, "only be merged by their classes"),
        ({"test_on": "mine", "across.normalise": "corpus", "normalise": "utterance"}, "exclude each other"),
        ({"test_on": "mine", "across.normalise": "both"}, "not one of together, corpus"),
    ],
)
def test_contradictions_are_one_line(given, message):
    with pytest.raises(UsageError, match=message) as caught:
        config_of(**{"classes": "all", **given})
    assert "\n" not in str(caught.value)


def test_a_missing_dataset_is_named(data):
    with pytest.raises(UsageError, match="nowhere"):
        experiment.load_dataset(config_of(test_on="nowhere"), data, lambda _: None)


def test_protocols_of_several_datasets():
    assert config_of(datasets="demo+mine").protocol.name == "leave_corpus_out"
    several = config_of(datasets="demo+mine", test_on="other").protocol
    assert (several.name, several.folds, several.group_by) == ("random", 5, "speaker")
    assert config_of(test_on="mine").protocol == config_of(classes="seven").protocol
    assert config_of(datasets="demo+mine", **{"protocol.name": "speaker"}).protocol.name == "speaker"
    assert common.parse_dataset("demo+mine") == ("demo+mine", "")
    assert Path(datasets_of(config_of(test_on="a,b")).title).name == "demo-to-a+b"
