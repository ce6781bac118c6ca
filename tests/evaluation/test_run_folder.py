"""The folder of a run: what is written is read back, and damaged files are reported."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest

from helpers.fake_run import CLASSES, make_utterances, session_folds, write_fake_run
from jaxser.evaluation import run_folder
from jaxser.evaluation.records import EpochRecord, RunConfig
from jaxser.evaluation.results import RunResults
from jaxser.evaluation.scores import Scores
from jaxser.evaluation.targets import Classes
from jaxser.types import InputError


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, write_fake_run(folder)


def test_a_run_is_read_back_as_it_was_written(fake):
    folder, value = fake
    run = run_folder.read_run(folder)
    utterances = make_utterances()
    assert run.results.to_json() == value
    assert run.folds == tuple(session_folds(utterances))
    assert run.utterances[utterances[7].id].flags == ("no_alignment",)
    assert len(run.epochs) == 5 * 2 * 12
    tested = [i for fold in run.folds for i in fold.test]
    assert sorted(tested) == sorted(u.id for u in utterances)
    assert not list(folder.glob("*.tmp"))


def test_every_score_follows_from_predictions_csv(fake):
    run = run_folder.read_run(fake[0])
    p = run.predictions
    for replica in run.results.replicas:
        for split in ("validation", "test"):
            own = (p.fold == replica.fold) & (p.seed == replica.seed) & (p.split == split)
            matrix = np.zeros((len(CLASSES), len(CLASSES)), int)
            np.add.at(matrix, (p.true[own], p.predicted[own]), 1)
            assert getattr(replica, split) == Scores.of(matrix, CLASSES)


def test_predictions_keep_ids_and_probabilities(tmp_path):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 4)
    classes = ("a", "b,c", 'd"e')
    made = run_folder.Predictions(
        classes=classes,
        utterance=np.array(["one", "two, three", 'é"4', "=5"]),
        fold=np.array(["1"] * 4),
        seed=np.arange(4),
        setting=np.array(["", "", "learning_rate=0.1", ""]),
        split=np.array(["test"] * 4),
        true=np.array([0, 1, 2, 0]),
        predicted=probabilities.argmax(axis=1),
        probabilities=np.where(np.arange(4)[:, None] == 3, np.nan, probabilities),
    )
    run_folder.write_predictions(tmp_path, [made, replace(made, fold=np.array(["2"] * 4))])
    read = run_folder.read_predictions(tmp_path, Classes(classes))
    assert read.fold.tolist() == ["1"] * 4 + ["2"] * 4
    for name in ("utterance", "seed", "setting", "split", "true", "predicted"):
        np.testing.assert_array_equal(getattr(read, name), np.tile(getattr(made, name), 2))
    np.testing.assert_allclose(read.probabilities, np.tile(made.probabilities, (2, 1)), atol=1e-6)


def record(epoch, fold, train_loss=1.0):
    return EpochRecord(epoch, fold, 0, "", train_loss, 1.5, {"wa": 0.5, "ua": 0.4}, 0.001, "running")


def test_metrics_are_cut_at_the_epoch_that_is_trained_again(tmp_path):
    for epoch in range(4):
        run_folder.append_epochs(tmp_path, [record(epoch, fold, math.nan) for fold in "12"])
    with (tmp_path / run_folder.METRICS).open("a") as file:
        file.write('{"epoch": 4, "fo')  # the process was killed
    assert len(run_folder.read_epochs(tmp_path)) == 8
    run_folder.truncate_epochs(tmp_path, lambda record: record.epoch < 2)
    kept = run_folder.read_epochs(tmp_path)
    assert [record.replica for record in kept] == [("1", 0, ""), ("2", 0, "")] * 2
    assert [record.epoch for record in kept] == [0, 0, 1, 1]
    assert kept[0] == record(0, "1", None)
    run_folder.truncate_epochs(tmp_path, lambda record: False)
    assert run_folder.read_epochs(tmp_path) == []


def test_a_missing_log_has_no_epochs(tmp_path):
    assert run_folder.read_epochs(tmp_path) == []


def test_the_log_of_an_earlier_version_is_read(tmp_path):
    line = replace(record(0, "1"), valid_frame_fraction=0.87).to_json()
    line["real_share"] = line.pop("valid_frame_fraction")
    (tmp_path / run_folder.METRICS).write_text(json.dumps(line) + "\n")
    assert run_folder.read_epochs(tmp_path)[0].valid_frame_fraction == 0.87


def test_configs_are_read_back(tmp_path):
    ours = RunConfig({"dataset": "demo", "epochs": 3}, "67c3d922", "python")
    for config in (ours, RunConfig({}, imported="theirs.csv")):
        run_folder.write_config(tmp_path, config)
        assert run_folder.read_config(tmp_path) == config


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.json"
    run_folder.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        run_folder.write_json(path, {"a": object()})
    assert run_folder.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_plain_values_are_json():
    value = {1: np.float32(0.5), "a": np.array([1, 2]), "b": (math.inf, math.nan, np.bool_(True))}
    assert json.dumps(run_folder.plain(value)) == '{"1": 0.5, "a": [1, 2], "b": [null, null, true]}'


@pytest.mark.parametrize(
    ("missing", "says"),
    [("config.json", "is not a run"), ("results.json", "is not finished"), ("folds.json", "is missing")],
)
def test_a_folder_that_is_no_finished_run_is_named_in_one_line(tmp_path, missing, says):
    write_fake_run(tmp_path, seeds=1, epochs=1)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=says) as error:
        run_folder.read_run(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["results.json", "utterances.jsonl", "predictions.csv"])
def test_a_damaged_file_is_named(tmp_path, name):
    write_fake_run(tmp_path, seeds=1, epochs=1)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=name):
        run_folder.read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", '{"model": "mcsan"}', "it has no 'summary'"),
        ("results.json", "[]", "'summary' was expected in an object, not in list"),
        ("folds.json", "{}", "it has no 'folds'"),
        ("utterances.jsonl", '{"id": "1"}\n', "it has no 'label'"),
        ("metrics.jsonl", '{"epoch": 0}\n', "it has no 'validation'"),
    ],
)
def test_a_missing_key_is_reported_with_its_file(tmp_path, name, content, message):
    write_fake_run(tmp_path, seeds=1, epochs=1)
    (tmp_path / name).write_text(content)
    run_folder.write_digests(tmp_path)
    with pytest.raises(InputError) as error:
        run_folder.read_run(tmp_path)
    assert name in str(error.value)
    assert message in str(error.value)


def test_results_keep_their_keys(fake):
    folder, value = fake
    assert list(value) == [
        "model", "variant", "dataset", "synthetic", "protocol", "classes", "epochs", "settings", "summary",
        "summaries", "warnings", "reads", "best_possible", "environment", "training", "encoder", "replicas",
    ]  # fmt: skip
    text = (folder / "results.json").read_text()
    results = RunResults.from_json(json.loads(text))
    run_folder.write_results(folder, results)
    assert (folder / "results.json").read_text() == text
