"""The plan of the demo corpus, and the best possible accuracies on it."""

import itertools
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from jaxser.data_prep.demo import plan as plans
from jaxser.data_prep.demo import truth
from jaxser.data_prep.demo.plan import Settings, compose, plan_turns, quotas, truth_of
from jaxser.data_prep.demo.truth import (
    CLASSES,
    COUNTS,
    MECHANISMS,
    MIXES,
    OBSERVERS,
    Mix,
    Truth,
    outcomes,
    parse_mix,
)

IEMOCAP_SHARES = tuple(count / sum(COUNTS.values()) for count in COUNTS.values())


@pytest.mark.parametrize("seed", range(6))
def test_default_has_eight_labels_per_class_and_session(seed: int) -> None:
    turns = plan_turns(Settings(seed=seed))
    assert len(turns) == len({turn.id for turn in turns}) == 1000
    assert Counter(turn.session for turn in turns) == dict.fromkeys(range(1, 6), 200)
    labels = Counter((turn.session, turn.label) for turn in turns)
    assert min(labels[session, name] for session in range(1, 6) for name in CLASSES) >= 8
    assert sum(count for (_, label), count in labels.items() if label == "xxx") > 0
    assert len({turn.speaker for turn in turns}) == 10
    assert sum("impro" in turn.dialogue for turn in turns) == 600


def test_large_corpus_has_the_counts_of_iemocap() -> None:
    emotions = Counter(turn.emotion for turn in plan_turns(Settings(utterances=7487)))
    assert all(abs(emotions[name] - COUNTS[name]) <= 5 for name in CLASSES)


@pytest.mark.parametrize("utterances", [1, 7, 12, 35, 120, 160, 1000])
def test_quotas_add_up(utterances: int) -> None:
    found = quotas(utterances)
    assert sum(found.values()) == utterances
    assert min(found.values()) >= min(10, utterances // 12)


def test_word_lists_are_disjoint() -> None:
    groups = [*plans.CUE_WORDS.values(), *plans.TONE_WORDS.values(), plans.NEUTRAL_WORDS]
    assert [len(group) for group in groups] == [4] * 9 + [20]
    assert len(set(itertools.chain(*groups))) == 56


def test_sentences_contain_the_words_of_their_symbol() -> None:
    settings = Settings(mix="planted", utterances=400)
    for turn in plan_turns(settings):
        sentence = compose(turn, settings)
        cue_words = [sentence.words[index] for index in sentence.cues]
        assert 8 <= len(sentence.words) <= 14
        kind, _, detail = turn.words.partition(":")
        if kind == "cue":
            assert len(cue_words) == 1
            assert cue_words[0] in plans.CUE_WORDS[detail]
        elif kind == "pair":
            first, second = detail.split(",")
            assert cue_words[0] in plans.CUE_WORDS[first]
            assert cue_words[1] in plans.CUE_WORDS[second]
            assert sentence.cues[1] - sentence.cues[0] == 2
            stressed = sentence.cues[int(turn.voice[-1])]
            assert sentence.styles == ((stressed, stressed + 1, "stress"),)
        elif kind in plans.TONE_WORDS:
            assert set(cue_words) <= set(plans.TONE_WORDS[kind])
            assert sentence.styles == ((0, len(sentence.words), turn.voice),)
        else:
            assert cue_words == []
        rest = [word for index, word in enumerate(sentence.words) if index not in sentence.cues]
        assert set(rest) <= {*plans.NEUTRAL_WORDS, plans.ACCENTED}


def test_tutorial_mix_repeats_cue_words() -> None:
    settings = Settings(utterances=300)
    cues = Counter(len(compose(turn, settings).cues) for turn in plan_turns(settings) if turn.words != "none")
    assert cues.keys() == {2, 3}


@pytest.mark.parametrize(("burst", "lengths"), [("1", {1}), ("3", {3}), ("all", set(range(8, 15)))])
def test_burst_sets_the_number_of_styled_words(burst: str, lengths: set[int]) -> None:
    settings = Settings(utterances=300, burst=burst)
    styles = [style for turn in plan_turns(settings) for style in compose(turn, settings).styles]
    assert {end - first for first, end, _ in styles} <= lengths
    assert {kind for _, _, kind in styles} == set(CLASSES)


# Best possible accuracies


@pytest.mark.parametrize(
    ("mix", "best"),
    [
        ("planted", {"prior": 25.0, "text": 53.1, "audio": 47.7, "late_fusion": 65.8, "joint": 74.1}),
        ("redundant", {"prior": 25.0, "late_fusion": 70.7, "joint": 70.8}),
    ],
)
def test_best_accuracies_of_the_named_mixes(mix: str, best: dict[str, float]) -> None:
    found: Any = Truth(MIXES[mix], IEMOCAP_SHARES).best()
    assert {name: round(100 * found[name]["wa"], 1) for name in best} == best


def test_best_accuracies_without_a_mechanism() -> None:
    found: Any = Truth(MIXES["planted"], IEMOCAP_SHARES).best()["joint_without"]
    assert {name: round(100 * value["wa"], 1) for name, value in found.items()} == {
        "B": 67.3,
        "O": 70.3,
        "X": 72.6,
    }


def test_each_mechanism_requires_its_modality() -> None:
    best: Any = Truth(MIXES["planted"], IEMOCAP_SHARES).best()["mechanisms"]
    assert sum(value["share"] for value in best.values()) == pytest.approx(1)
    for name in "BX":  # late fusion is no better than the words alone
        assert best[name]["late_fusion"]["wa"] == pytest.approx(best[name]["text"]["wa"])
        assert best[name]["joint"]["wa"] > best[name]["late_fusion"]["wa"] + 0.09
    assert best["O"]["audio"] == best["O"]["joint"]
    assert best["B"]["audio"]["ua"] == pytest.approx(1 / 7)
    assert best["N"]["joint"]["ua"] == pytest.approx(1 / 7)


def test_tutorial_mix_rewards_both_modalities() -> None:
    best: Any = truth_of(plan_turns(Settings()), Settings()).best()
    assert best["joint"]["ua"] > max(best["text"]["ua"], best["audio"]["ua"]) + 0.08


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_probabilities_add_up_to_one(mix: Mix) -> None:
    for emotion, mechanism in itertools.product(CLASSES, MECHANISMS):
        assert sum(outcome.probability for outcome in outcomes(emotion, mechanism, mix)) == pytest.approx(1)
    table = truth.rater_table()
    assert 1 - table.sum(axis=1) == pytest.approx(np.full(7, 6 * 0.85 * 0.105 * 0.045))


def draw_symbols(emotion: str, rng: random.Random, mix: Mix) -> tuple[str, str]:
    """Draw the symbols of an utterance, independently of the table of outcomes."""
    mechanism = rng.choices(list(mix.shares), list(mix.shares.values()))[0]
    others = [name for name in CLASSES if name != emotion]

    def cue(kind: str, own: float, none: float) -> str:
        draw = rng.random()
        if draw < own:
            return f"{kind}:{emotion}"
        return "none" if draw < own + none else f"{kind}:{rng.choice(others)}"

    holds = rng.random() < 0.9
    if mechanism == "R":
        return cue("cue", mix.words.own, mix.words.none), cue("like", mix.voice.own, mix.voice.none)
    if mechanism == "B":
        pair = [emotion, rng.choice(others)]
        rng.shuffle(pair)
        index = pair.index(emotion)
        return f"pair:{pair[0]},{pair[1]}", f"stress:{index if holds else 1 - index}"
    pairs = [pair for pair in (("fru", "ang"), ("exc", "hap"), ("neu", "sad")) if emotion in pair]
    if mechanism == "O" and pairs:
        order = pairs[0] if (emotion == pairs[0][0]) == holds else pairs[0][::-1]
        return "none", f"turn:{order[0]},{order[1]}"
    if mechanism == "X" and emotion in ("exc", "fru"):
        positive = rng.random() < 0.5
        bright = (positive == (emotion == "exc")) == holds
        return "positive" if positive else "negative", "bright" if bright else "harsh"
    return "none", "none"


@pytest.mark.parametrize("mix", ["tutorial", "planted"])
def test_best_accuracies_match_simulated_observers(mix: str) -> None:
    rng = random.Random(6)
    exact = truth_of(plan_turns(Settings(mix=mix)), Settings(mix=mix))
    counts: Counter[tuple[str, str, str]] = Counter()
    for emotion in rng.choices(CLASSES, exact.prior, k=100_000):
        votes = rng.choices([emotion, *truth.NEAR[emotion]], [0.85, 0.105, 0.045], k=3)
        label = max(votes, key=votes.count)
        if votes.count(label) > 1:
            counts[(label, *draw_symbols(emotion, rng, exact.mix))] += 1
    best: Any = exact.best()
    labels = np.array([sum(n for key, n in counts.items() if key[0] == name) for name in CLASSES])
    posteriors = {key[1:]: exact.posterior(*key[1:]) for key in counts}
    prior = np.array(list(best["label_prior"].values()))
    assert labels / labels.sum() == pytest.approx(prior, abs=0.005)
    for observer in OBSERVERS:
        hits = {"wa": np.zeros(7), "ua": np.zeros(7)}
        for (label, words, voice), count in counts.items():
            posterior, row = np.array(posteriors[words, voice][observer]), CLASSES.index(label)
            hits["wa"][row] += count * (posterior.argmax() == row)
            hits["ua"][row] += count * ((posterior / prior).argmax() == row)
        assert hits["wa"].sum() / labels.sum() == pytest.approx(best[observer]["wa"], abs=0.005), observer
        if observer != "prior":  # for which all rules are equally good
            assert (hits["ua"] / labels).mean() == pytest.approx(best[observer]["ua"], abs=0.008), observer


def test_gender_gap_lowers_the_best_accuracies() -> None:
    gap = Settings(gender_gap=True, utterances=2000)
    turns = plan_turns(gap)
    without_cue = Counter(turn.gender for turn in turns if turn.mechanism == "N")
    assert without_cue["M"] > 5 * without_cue["F"]
    best: Any = truth_of(turns, gap).best()
    whole: Any = truth_of(turns, Settings(utterances=2000)).best()
    expected = (whole["joint"]["wa"] + (whole["joint"]["wa"] + whole["prior"]["wa"]) / 2) / 2
    assert best["joint"]["wa"] == pytest.approx(expected, abs=0.01)


def test_parses_a_mix_of_shares() -> None:
    mix = parse_mix("R=.5, B=.3,N=.2")
    assert mix.shares == {"R": 0.5, "B": 0.3, "N": 0.2}
    assert mix.words == MIXES["planted"].words
