"""Summaries over folds, seeds and settings, and the warnings of a run."""

import numpy as np
import pytest

from helpers.fake_run import make_utterances, session_folds, with_fields, write_fake_run
from jaxser.data.leaks import FoldIds, leaks, normalise_transcript
from jaxser.evaluation.results import ReplicaResult, RunResults, setting_name
from jaxser.evaluation.scores import Scores
from jaxser.evaluation.summary import run_warnings, summarise, with_summaries
from jaxser.types import Fold, Status


def test_a_setting_has_one_name():
    assert setting_name({}) == ""
    assert setting_name({"b": np.float32(0.1), "a": 1}) == "a=1 b=0.1"


def test_a_model_is_compared_with_an_observer_of_the_same_inputs():
    def observer(*reads):
        return RunResults("m", "", "d", {}, (), 1, (), reads=reads).observer

    assert observer("audio", "words") == observer("segments", "words") == "joint"
    assert observer("audio") == "audio"
    assert observer("words") == "text"
    assert observer() == observer("video", "audio") == ""


def replica(fold, seed, right, wrong, **changes):
    """A replica with two classes of equal size, of which `right` utterances each are recognised."""
    matrix = [[right, wrong], [wrong, right]]
    own = {"best_epoch": 0, "status": "complete", "validation": matrix, "test": matrix, **changes}
    for part in ("validation", "test"):
        own[part] = None if own[part] is None else Scores.of(np.array(own[part]), ("a", "b"))
    return ReplicaResult(fold, seed, **own)


LOST = {"best_epoch": None, "status": Status.NOT_FINITE.final_label, "validation": None, "test": None}
"""Fields of a replica whose loss was not finite in its first epoch."""


def summarised(replicas, **protocol):
    results = RunResults(
        model="m",
        variant="",
        dataset="d",
        protocol={"name": "session", **protocol},
        classes=("a", "b"),
        epochs=1,
        replicas=tuple(replicas),
    )
    return with_summaries(results, folds=[], utterances=[])


def test_each_spread_is_over_what_it_says():
    wa = {("1", 0): 0.5, ("1", 1): 0.7, ("2", 0): 0.8, ("2", 1): 0.9}
    runs = [replica(fold, seed, round(100 * x), round(100 * (1 - x))) for (fold, seed), x in wa.items()]
    found = summarise(runs)
    assert found.mean["wa"] == pytest.approx(0.725)
    assert found.std_over_folds["wa"] == pytest.approx(np.std([0.6, 0.85], ddof=1))
    assert found.std_over_seeds["wa"] == pytest.approx(np.std([0.65, 0.8], ddof=1))
    assert found.std_over_runs["wa"] == pytest.approx(np.std(list(wa.values()), ddof=1))
    assert found.std == found.std_over_folds
    assert found.std_over == "folds"
    assert (found.runs, found.folds, found.seeds, found.left_out) == (4, 2, 2, 0)


def test_one_fold_is_spread_over_seeds_and_one_run_over_nothing():
    two = summarise([replica("1", 0, 50, 50), replica("1", 1, 70, 30)])
    assert two.std_over == "seeds"
    assert two.std["wa"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    one = summarise([replica("1", 0, 50, 50)])
    assert one.std == dict.fromkeys(one.mean)


def test_pooled_scores_add_the_folds_up_before_scoring():
    runs = [replica("1", 0, 10, 0), replica("2", 0, 45, 45)]
    found = summarise(runs)
    assert found.mean["wa"] == pytest.approx(0.75)
    assert found.pooled["wa"] == pytest.approx(55 / 100)


def test_a_class_absent_from_a_fold_does_not_pull_its_recall_down():
    absent = replica("2", 0, 0, 0, test=np.array([[4, 0], [0, 0]]))
    assert absent.test.recall == {"a": 1.0, "b": None}
    assert absent.test["ua"] == 1.0
    found = summarise([replica("1", 0, 1, 1), absent])
    assert found.recall_mean == {"a": 0.75, "b": 0.5}
    assert found.recall_std_over_folds["b"] is None


def test_a_replica_without_a_score_is_left_out_with_a_warning():
    lost = replica("2", 0, 1, 1, **LOST)
    found = summarise([replica("1", 0, 3, 1), lost])
    assert (found.runs, found.left_out, found.mean["wa"], found.pooled) == (1, 1, 0.75, None)
    (sentence,) = run_warnings([], [], [replica("1", 0, 3, 1), lost])
    assert "1 of 2 replicas" in sentence
    assert "fold 2 seed 0" in sentence


def test_settings_are_summarised_separately_and_chosen_by_validation():
    good = np.array([[9, 1], [1, 9]])
    bad = np.array([[6, 4], [4, 6]])
    runs = [
        replica("1", 0, 0, 0, setting="a", validation=good, test=bad),
        replica("1", 0, 0, 0, setting="b", validation=bad, test=good),
    ]
    results = summarised(runs)
    assert results.setting == "a"
    assert results.is_sweep
    assert results.summary.mean["ua"] == pytest.approx(0.6)
    assert results.summaries["b"].mean["ua"] == pytest.approx(0.9)
    assert [one.setting for one in results.reported] == ["a"]


def chosen(metric, **validation):
    """The setting that is chosen by a metric, given the validation confusion of each setting."""
    good = np.array([[10, 0], [0, 10]])
    runs = [
        replica("1", 0, 0, 0, setting=name, validation=np.array(c), test=good)
        for name, c in validation.items()
    ]
    lost = replica("2", 0, 0, 0, setting="lost", **LOST)
    first = replica("1", 0, 0, 0, setting="lost", validation=good, test=good)
    results = summarised([lost, first, *runs], metric=metric)
    assert results.chosen_by == f"validation {metric}"
    return results.setting


def test_a_setting_is_chosen_by_what_selects_epochs_and_a_lost_replica_counts_against_it():
    frequent, even = [[18, 0], [2, 0]], [[13, 5], [0, 2]]  # WA .9 and .75, UA .5 and .86
    assert chosen("wa", frequent=frequent, even=even) == "frequent"
    assert chosen("ua", frequent=frequent, even=even) == "even"
    assert chosen("wa_plus_ua", frequent=frequent, even=even) == "even"


# Leaks


def leak_sentences(utterances, folds):
    return run_warnings(folds, utterances, [])


def test_session_folds_leak_nothing():
    utterances = make_utterances()
    assert leak_sentences(utterances, session_folds(utterances)) == []


def test_a_speaker_in_two_parts_is_found():
    utterances = make_utterances()
    folds = session_folds(utterances)
    moved = with_fields(utterances, 0, speaker=utterances[14].speaker)
    found = {(leak.fold, leak.parts): leak for leak in leaks(folds, _by_id(moved)) if leak.kind == "speaker"}
    assert found["1", ("validation", "test")].values == (utterances[14].speaker,)
    assert found["1", ("validation", "test")].utterances == (utterances[0].id,)
    (sentence,) = leak_sentences(moved, folds)
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
    (sentence,) = leak_sentences(with_fields(utterances, 0, **fields), session_folds(utterances))
    assert sentence.startswith(starts)
    assert "fold" in sentence


def test_the_same_utterance_in_two_parts_is_reported_once():
    utterances = make_utterances()
    first, *rest = session_folds(utterances)
    folds = [FoldIds(first.name, (*first.train, first.test[0]), first.validation, first.test), *rest]
    sentences = leak_sentences(utterances, folds)
    assert sentences[0].startswith("The same utterances are in both training and test")
    assert first.test[0] in sentences[0]
    assert not any(s.startswith(("Byte", "Sentences")) for s in sentences)


def test_short_sentences_and_unknown_values_are_no_leaks():
    utterances = [_without_facts(u) for u in make_utterances()]
    sentences = leak_sentences(utterances, session_folds(utterances))
    assert sentences == ["The corpus does not name its speakers, so shared speakers cannot be detected."]
    assert normalise_transcript("It's fine — isn’t it?") == "it's fine isn’t it"
    assert normalise_transcript("I don't know.") == ""


def test_absent_classes_are_reported_by_part():
    utterances = [u for u in make_utterances() if not (u.label == "sur" and u.session == "3")]
    sentences = leak_sentences(utterances, session_folds(utterances))
    assert [s for s in sentences if "sur" in s and "test part of fold 3" in s]
    assert [s for s in sentences if "sur" in s and "validation part of fold 2" in s]
    assert len(sentences) == 2


def test_a_result_above_the_best_possible_is_an_alarm(tmp_path):
    best = {"joint": {"wa": 0.3, "ua": 0.3}}
    assert (
        "leaks the labels" in write_fake_run(tmp_path, seeds=1, epochs=1, best_possible=best)["warnings"][0]
    )


def test_selection_on_the_test_part_is_reported(tmp_path):
    value = write_fake_run(tmp_path, seeds=1, epochs=1, protocol={"name": "session", "select": "test"})
    assert "optimistic" in value["warnings"][0]


def test_folds_of_rows_become_ids():
    fold = Fold("1", np.array([2, 0]), np.array([1]), np.array([], dtype=int))
    assert FoldIds.of(fold, ["a", "b", "c"]) == FoldIds("1", ("c", "a"), ("b",), ())


def _by_id(utterances):
    return {utterance.id: utterance for utterance in utterances}


def _without_facts(utterance):
    return with_fields([utterance], 0, speaker="", dialogue="", sha256="", transcript="I don't know.")[0]


def test_published_folds_that_share_speakers_are_named_with_counts(tmp_path):
    utterances = make_utterances(70)  # speakers of sessions 1 to 5
    by_session = session_folds(utterances)
    first, second = by_session[0], by_session[1]
    mixed = FoldIds(first.name, first.train, (*first.validation, first.test[0]), first.test[1:])
    for name, folds, found in (
        ("emobox", [mixed, second], "1 of 4 test speakers are also heard in training"),
        ("emobox", by_session, ""),
        ("file", [mixed, second], ""),
    ):
        results = RunResults("m", "", "d", {"name": name}, ("a", "b"), 1, (replica("1", 0, 3, 1),))
        warnings = " ".join(with_summaries(results, folds, utterances).warnings)
        assert ("EmoBox's published folds share speakers" in warnings) == bool(found)
        assert found in warnings
