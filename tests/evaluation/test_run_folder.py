"""The run's folder: what is written is read back, summaries are right, leaks are found."""

import json
import math
import os

import numpy as np
import pytest

from helpers.fake_run import CLASSES, make_utterances, session_folds, with_fields, write_fake_run
from jaxser.data.leaks import FoldIds, leaks, normalised
from jaxser.evaluation import run_folder
from jaxser.evaluation.summary import replica_result, scored, summarise
from jaxser.types import Fold, InputError, Status


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, write_fake_run(folder)


def warned(utterances, folds, replicas=()):
    return run_folder.warnings(
        folds, run_folder.utterance_rows(utterances, [u.label for u in utterances]), replicas
    )


# Reading and writing


def test_a_run_is_read_back_as_it_was_written(fake):
    folder, value = fake
    run = run_folder.read_run(folder)
    utterances = make_utterances()
    assert run.results == value
    assert run.folds == tuple(session_folds(utterances))
    assert run.utterances[utterances[7].id]["flags"] == ["no_alignment"]
    assert len(run.epochs) == 5 * 2 * 12
    tested = [i for fold in run.folds for i in fold.test]
    assert sorted(tested) == sorted(u.id for u in utterances)
    assert not list(folder.glob("*.tmp"))


def test_every_score_follows_from_predictions_csv(fake):
    run = run_folder.read_run(fake[0])
    p = run.predictions
    for replica in run.results["replicas"]:
        for split in ("validation", "test"):
            own = (p.fold == replica["fold"]) & (p.seed == replica["seed"]) & (p.split == split)
            matrix = np.zeros((len(CLASSES), len(CLASSES)), int)
            np.add.at(matrix, (p.true[own], p.predicted[own]), 1)
            assert replica[split] == scored(matrix, CLASSES)


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
    run_folder.write_predictions(tmp_path, [made, made])
    read = run_folder.read_predictions(tmp_path, classes)
    for name in ("utterance", "fold", "seed", "setting", "split", "true", "predicted"):
        np.testing.assert_array_equal(getattr(read, name), np.tile(getattr(made, name), 2))
    np.testing.assert_allclose(read.probabilities, np.tile(made.probabilities, (2, 1)), atol=1e-6)


def test_metrics_are_cut_at_the_epoch_that_is_trained_again(tmp_path):
    for epoch in range(4):
        run_folder.append_epochs(
            tmp_path, [{"epoch": epoch, "fold": f, "train_loss": math.nan} for f in "12"]
        )
    with (tmp_path / run_folder.METRICS).open("a") as file:
        file.write('{"epoch": 4, "fo')  # a kill
    assert len(run_folder.read_epochs(tmp_path)) == 8
    run_folder.truncate_epochs(tmp_path, lambda row: row["epoch"] < 2)
    assert [(row["epoch"], row["fold"]) for row in run_folder.read_epochs(tmp_path)] == [
        (0, "1"),
        (0, "2"),
        (1, "1"),
        (1, "2"),
    ]
    assert run_folder.read_epochs(tmp_path)[0]["train_loss"] is None
    run_folder.truncate_epochs(tmp_path, lambda row: False)
    assert run_folder.read_epochs(tmp_path) == []


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
    [("config.json", "is no run"), ("results.json", "is not finished"), ("folds.json", "whole")],
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


def test_the_environment_names_no_machine_and_no_user():
    class Device:
        device_kind = "cpu"

    text = json.dumps(run_folder.environment([Device(), Device()]))
    assert json.loads(text)["devices"] == [{"kind": "cpu", "number": 2}]
    assert json.loads(text)["numpy"] == np.__version__
    for private in (os.uname().nodename, os.path.expanduser("~")):
        assert private not in text


def test_a_printed_command_has_no_absolute_path():
    command = [
        "python",
        "-m",
        "jaxser.main",
        "--config=/home/me/configs/mcsan.py:demo",
        "--workdir",
        "/home/me/my run",
    ]
    assert (
        run_folder.command_line(command) == "python -m jaxser.main --config=mcsan.py:demo --workdir 'my run'"
    )


def test_a_setting_has_one_name():
    assert run_folder.setting_name({}) == ""
    assert run_folder.setting_name({"b": np.float32(0.1), "a": 1}) == "a=1 b=0.1"


# Summaries


def replica(fold, seed, right, wrong, **changes):
    """Two classes of equal size; `right` of each are recognised."""
    matrix = np.array([[right, wrong], [wrong, right]])
    own = {"best_epoch": 0, "status": Status.RUNNING, "validation": matrix, "test": matrix, **changes}
    return replica_result(fold=fold, seed=seed, classes=("a", "b"), **own)


def test_each_spread_is_over_what_it_says():
    wa = {("1", 0): 0.5, ("1", 1): 0.7, ("2", 0): 0.8, ("2", 1): 0.9}
    runs = [replica(fold, seed, round(100 * x), round(100 * (1 - x))) for (fold, seed), x in wa.items()]
    found = summarise(runs)
    assert found["mean"]["wa"] == pytest.approx(0.725)
    assert found["std_over_folds"]["wa"] == pytest.approx(np.std([0.6, 0.85], ddof=1))
    assert found["std_over_seeds"]["wa"] == pytest.approx(np.std([0.65, 0.8], ddof=1))
    assert found["std_over_runs"]["wa"] == pytest.approx(np.std(list(wa.values()), ddof=1))
    assert found["std"] == found["std_over_folds"]
    assert found["std_over"] == "folds"
    assert (found["runs"], found["folds"], found["seeds"], found["left_out"]) == (4, 2, 2, 0)


def test_one_fold_is_spread_over_seeds_and_one_run_over_nothing():
    two = summarise([replica("1", 0, 50, 50), replica("1", 1, 70, 30)])
    assert two["std_over"] == "seeds"
    assert two["std"]["wa"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    one = summarise([replica("1", 0, 50, 50)])
    assert one["std"] == dict.fromkeys(one["mean"])


def test_pooled_scores_add_the_folds_up_before_scoring():
    runs = [replica("1", 0, 10, 0), replica("2", 0, 45, 45)]
    found = summarise(runs)
    assert found["mean"]["wa"] == pytest.approx(0.75)
    assert found["pooled"]["wa"] == pytest.approx(55 / 100)


def test_a_class_absent_from_a_fold_does_not_pull_its_recall_down():
    absent = replica("2", 0, 0, 0, test=np.array([[4, 0], [0, 0]]))
    assert absent["test"]["recall"] == {"a": 1.0, "b": None}
    assert absent["test"]["ua"] == 1.0
    found = summarise([replica("1", 0, 1, 1), absent])
    assert found["recall"]["mean"] == {"a": 0.75, "b": 0.5}
    assert found["recall"]["std_over_folds"]["b"] is None


def test_a_replica_without_a_score_is_left_out_and_told():
    lost = replica("2", 0, 1, 1, best_epoch=None, status=Status.NOT_FINITE, validation=None, test=None)
    found = summarise([replica("1", 0, 3, 1), lost])
    assert (found["runs"], found["left_out"], found["mean"]["wa"], found["pooled"]) == (1, 1, 0.75, None)
    (sentence,) = run_folder.warnings([], [], [replica("1", 0, 3, 1), lost])
    assert "1 of 2 replicas" in sentence
    assert "fold 2 seed 0" in sentence


def test_settings_are_summarised_apart_and_chosen_by_validation(tmp_path):
    good = np.array([[9, 1], [1, 9]])
    bad = np.array([[6, 4], [4, 6]])
    runs = [
        replica("1", 0, 0, 0, setting="a", validation=good, test=bad),
        replica("1", 0, 0, 0, setting="b", validation=bad, test=good),
    ]
    value = run_folder.results(
        model="m", variant="", dataset="d", protocol={"name": "session"}, classes=("a", "b"), epochs=1,
        replicas=runs, folds=[], utterances=[], environment={},
    )  # fmt: skip
    assert value["summary"]["setting"] == "a"
    assert value["summary"]["mean"]["ua"] == pytest.approx(0.6)
    assert value["summaries"]["b"]["mean"]["ua"] == pytest.approx(0.9)


def chosen(metric, **validation):
    """The setting that is chosen by a metric from confusions on validation."""
    good = np.array([[10, 0], [0, 10]])
    runs = [
        replica("1", 0, 0, 0, setting=name, validation=np.array(c), test=good)
        for name, c in validation.items()
    ]
    lost = replica(
        "2", 0, 0, 0, setting="lost", best_epoch=None, status=Status.NOT_FINITE, validation=None, test=None
    )
    first = replica("1", 0, 0, 0, setting="lost", validation=good, test=good)
    value = run_folder.results(
        model="m", variant="", dataset="d", protocol={"name": "session", "metric": metric}, classes=("a", "b"),
        epochs=1, replicas=[lost, first, *runs], folds=[], utterances=[], environment={},
    )  # fmt: skip
    assert value["summary"]["chosen_by"] == f"validation {metric}"
    return value["summary"]["setting"]


def test_a_setting_is_chosen_by_what_selects_epochs_and_a_lost_replica_counts_against_it():
    frequent, even = [[18, 0], [2, 0]], [[13, 5], [0, 2]]  # WA .9 and .75, UA .5 and .86
    assert chosen("wa", frequent=frequent, even=even) == "frequent"
    assert chosen("ua", frequent=frequent, even=even) == "even"
    assert chosen("wa_plus_ua", frequent=frequent, even=even) == "even"


# Leaks


def test_session_folds_leak_nothing():
    utterances = make_utterances()
    assert warned(utterances, session_folds(utterances)) == []


def test_a_speaker_in_two_parts_is_found():
    utterances = make_utterances()
    folds = session_folds(utterances)
    moved = with_fields(utterances, 0, speaker=utterances[14].speaker)
    found = {(leak.fold, leak.parts): leak for leak in leaks(folds, _rows(moved)) if leak.kind == "speaker"}
    assert found["1", ("validation", "test")].values == (utterances[14].speaker,)
    assert found["1", ("validation", "test")].utterances == (utterances[0].id,)
    (sentence,) = warned(moved, folds)
    assert sentence.startswith("Speakers are in both")
    assert utterances[14].speaker in sentence


@pytest.mark.parametrize(
    ("fields", "starts"),
    [
        ({"sha256": f"{20:064x}"}, "Byte-identical recordings"),
        ({"dialogue": "Ses02F_impro01"}, "Dialogues"),
        ({"transcript": "This is: sentence, number 20 of the CORPUS!"}, "Sentences of 4 words"),
    ],
)
def test_planted_leaks_are_found(fields, starts):
    utterances = make_utterances()
    (sentence,) = warned(with_fields(utterances, 0, **fields), session_folds(utterances))
    assert sentence.startswith(starts)
    assert "fold" in sentence


def test_the_same_utterance_in_two_parts_is_told_once():
    utterances = make_utterances()
    first, *rest = session_folds(utterances)
    folds = [FoldIds(first.name, (*first.train, first.test[0]), first.validation, first.test), *rest]
    sentences = warned(utterances, folds)
    assert sentences[0].startswith("The same utterances are in both training and test")
    assert first.test[0] in sentences[0]
    assert not any(s.startswith(("Byte", "Sentences")) for s in sentences)


def test_short_sentences_and_unknown_values_are_no_leaks():
    utterances = [_without_facts(u) for u in make_utterances()]
    sentences = warned(utterances, session_folds(utterances))
    assert sentences == ["The corpus names no speakers: whether the parts share speakers is not known."]
    assert normalised("It's fine — isn’t it?") == "it's fine isn’t it"
    assert normalised("I don't know.") == ""


def test_absent_classes_are_told_by_part():
    utterances = [u for u in make_utterances() if not (u.label == "sur" and u.session == "3")]
    sentences = warned(utterances, session_folds(utterances))
    assert [s for s in sentences if "sur" in s and "test part of fold 3" in s]
    assert [s for s in sentences if "sur" in s and "validation part of fold 2" in s]
    assert len(sentences) == 2


def test_a_result_above_the_best_possible_is_an_alarm(tmp_path):
    best = {"joint": {"wa": 0.3, "ua": 0.3}}
    assert (
        "leaks the labels" in write_fake_run(tmp_path, seeds=1, epochs=1, best_possible=best)["warnings"][0]
    )


def test_selection_on_the_test_part_is_told(tmp_path):
    value = write_fake_run(tmp_path, seeds=1, epochs=1, protocol={"name": "session", "select": "test"})
    assert "optimistic" in value["warnings"][0]


def test_folds_of_rows_become_ids():
    fold = Fold("1", np.array([2, 0]), np.array([1]), np.array([], dtype=int))
    assert FoldIds.of(fold, ["a", "b", "c"]) == FoldIds("1", ("c", "a"), ("b",), ())


def _rows(utterances):
    return {row["id"]: row for row in run_folder.utterance_rows(utterances, [u.label for u in utterances])}


def _without_facts(utterance):
    return with_fields([utterance], 0, speaker="", dialogue="", sha256="", transcript="I don't know.")[0]
