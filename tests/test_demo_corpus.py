"""The demo corpus: what is planted is what is drawn, spoken, written and read again."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from corpora import make_demo
from data_prep import demo, demo_plan, demo_truth
from data_prep.demo_plan import Settings, compose, plan, quotas, truth_of
from data_prep.demo_speech import Speaker
from data_prep.demo_truth import (
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
from jaxser.types import InputError, Reading, UsageError

IEMOCAP_SHARES = tuple(count / sum(COUNTS.values()) for count in COUNTS.values())


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All mechanisms; three words in another voice, so that each utterance holds its own comparison."""
    root = tmp_path_factory.mktemp("planted") / "corpus"
    return make_demo(root, utterances=120, mix="R=.6,B=.2,O=.15,X=.05", burst="3", seed=3)


@pytest.fixture(scope="session")
def reading(planted: Path) -> Reading:
    return demo.read(planted)


@pytest.fixture(scope="session")
def truth(planted: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (planted / "truth.jsonl").read_text(encoding="utf-8").splitlines()]


# What is planned


@pytest.mark.parametrize("seed", range(6))
def test_the_default_has_eight_of_each_class_in_each_session(seed: int) -> None:
    turns = plan(Settings(seed=seed))
    assert len(turns) == len({turn.id for turn in turns}) == 800
    assert Counter(turn.session for turn in turns) == dict.fromkeys(range(1, 6), 160)
    labels = Counter((turn.session, turn.label) for turn in turns)
    assert min(labels[session, name] for session in range(1, 6) for name in CLASSES) >= 8
    assert sum(count for (_, label), count in labels.items() if label == "xxx") > 0
    assert len({turn.speaker for turn in turns}) == 10
    assert sum("impro" in turn.dialogue for turn in turns) == 400


def test_a_large_corpus_has_the_counts_of_iemocap() -> None:
    emotions = Counter(turn.emotion for turn in plan(Settings(utterances=7487)))
    assert all(abs(emotions[name] - COUNTS[name]) <= 5 for name in CLASSES)


@pytest.mark.parametrize("utterances", [1, 7, 12, 35, 120, 160, 1000])
def test_quotas_add_up(utterances: int) -> None:
    found = quotas(utterances)
    assert sum(found.values()) == utterances
    assert min(found.values()) >= min(10, utterances // 12)


def test_words_are_distinct_in_what_they_say() -> None:
    groups = [*demo_plan.CUE_WORDS.values(), *demo_plan.TONE_WORDS.values(), demo_plan.NEUTRAL_WORDS]
    assert [len(group) for group in groups] == [4] * 9 + [20]
    assert len(set(itertools.chain(*groups))) == 56


def test_sentences_carry_their_symbols() -> None:
    settings = Settings(mix="planted", utterances=400)
    for turn in plan(settings):
        sentence = compose(turn, settings)
        said = [sentence.words[place] for place in sentence.cues]
        assert 8 <= len(sentence.words) <= 14
        kind, _, detail = turn.words.partition(":")
        if kind == "cue":
            assert len(said) == 1
            assert said[0] in demo_plan.CUE_WORDS[detail]
        elif kind == "pair":
            first, second = detail.split(",")
            assert said[0] in demo_plan.CUE_WORDS[first]
            assert said[1] in demo_plan.CUE_WORDS[second]
            assert sentence.cues[1] - sentence.cues[0] == 2
            stressed = sentence.cues[int(turn.voice[-1])]
            assert sentence.styles == ((stressed, stressed + 1, "stress"),)
        elif kind in demo_plan.TONE_WORDS:
            assert set(said) <= set(demo_plan.TONE_WORDS[kind])
            assert sentence.styles == ((0, len(sentence.words), turn.voice),)
        else:
            assert said == []
        rest = [word for place, word in enumerate(sentence.words) if place not in sentence.cues]
        assert set(rest) <= {*demo_plan.NEUTRAL_WORDS, demo_plan.ACCENTED}


def test_the_tutorial_repeats_its_cues() -> None:
    settings = Settings(utterances=300)
    cues = Counter(len(compose(turn, settings).cues) for turn in plan(settings) if turn.words != "none")
    assert cues.keys() == {2, 3}


@pytest.mark.parametrize(("burst", "lengths"), [("1", {1}), ("3", {3}), ("all", set(range(8, 15)))])
def test_bursts(burst: str, lengths: set[int]) -> None:
    settings = Settings(utterances=300, burst=burst)
    styles = [style for turn in plan(settings) for style in compose(turn, settings).styles]
    assert {end - first for first, end, _ in styles} <= lengths
    assert {kind for _, _, kind in styles} == set(CLASSES)


# What is best possible


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


def test_what_deafness_costs() -> None:
    found: Any = Truth(MIXES["planted"], IEMOCAP_SHARES).best()["joint_without"]
    assert {name: round(100 * value["wa"], 1) for name, value in found.items()} == {
        "B": 67.3,
        "O": 70.3,
        "X": 72.6,
    }


def test_each_mechanism_needs_what_it_claims_to_need() -> None:
    best: Any = Truth(MIXES["planted"], IEMOCAP_SHARES).best()["mechanisms"]
    assert sum(value["share"] for value in best.values()) == pytest.approx(1)
    for name in "BX":  # no sum of two scores beats the words alone
        assert best[name]["late_fusion"]["wa"] == pytest.approx(best[name]["text"]["wa"])
        assert best[name]["joint"]["wa"] > best[name]["late_fusion"]["wa"] + 0.09
    assert best["O"]["audio"] == best["O"]["joint"]
    assert best["B"]["audio"]["ua"] == pytest.approx(1 / 7)
    assert best["N"]["joint"]["ua"] == pytest.approx(1 / 7)


def test_the_tutorial_rewards_both_modalities() -> None:
    best: Any = truth_of(plan(Settings()), Settings()).best()
    assert best["joint"]["ua"] > max(best["text"]["ua"], best["audio"]["ua"]) + 0.08


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_probabilities_add_up(mix: Mix) -> None:
    for emotion, mechanism in itertools.product(CLASSES, MECHANISMS):
        assert sum(outcome.probability for outcome in outcomes(emotion, mechanism, mix)) == pytest.approx(1)
    table = demo_truth.rater_table()
    assert 1 - table.sum(axis=1) == pytest.approx(np.full(7, 6 * 0.85 * 0.105 * 0.045))


def story(emotion: str, rng: random.Random, mix: Mix) -> tuple[str, str]:
    """The mechanisms told as a story, apart from the table of the package."""
    mechanism = rng.choices(list(mix.shares), list(mix.shares.values()))[0]
    others = [name for name in CLASSES if name != emotion]

    def cue(kind: str, own: float, none: float) -> str:
        luck = rng.random()
        if luck < own:
            return f"{kind}:{emotion}"
        return "none" if luck < own + none else f"{kind}:{rng.choice(others)}"

    holds = rng.random() < 0.9
    if mechanism == "R":
        return cue("cue", mix.words.own, mix.words.none), cue("like", mix.voice.own, mix.voice.none)
    if mechanism == "B":
        pair = [emotion, rng.choice(others)]
        rng.shuffle(pair)
        place = pair.index(emotion)
        return f"pair:{pair[0]},{pair[1]}", f"stress:{place if holds else 1 - place}"
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
def test_best_accuracies_against_a_hundred_thousand_samples(mix: str) -> None:
    rng = random.Random(5)
    truth = truth_of(plan(Settings(mix=mix)), Settings(mix=mix))
    counts: Counter[tuple[str, str, str]] = Counter()
    for emotion in rng.choices(CLASSES, truth.prior, k=100_000):
        votes = rng.choices([emotion, *demo_truth.NEAR[emotion]], [0.85, 0.105, 0.045], k=3)
        label = max(votes, key=votes.count)
        if votes.count(label) > 1:
            counts[(label, *story(emotion, rng, truth.mix))] += 1
    best: Any = truth.best()
    labels = np.array([sum(n for key, n in counts.items() if key[0] == name) for name in CLASSES])
    beliefs = {key[1:]: truth.posterior(*key[1:]) for key in counts}
    prior = np.array(list(best["label_prior"].values()))
    assert labels / labels.sum() == pytest.approx(prior, abs=0.005)
    for observer in OBSERVERS:
        hits = {"wa": np.zeros(7), "ua": np.zeros(7)}
        for (label, words, voice), count in counts.items():
            belief, row = np.array(beliefs[words, voice][observer]), CLASSES.index(label)
            hits["wa"][row] += count * (belief.argmax() == row)
            hits["ua"][row] += count * ((belief / prior).argmax() == row)
        assert hits["wa"].sum() / labels.sum() == pytest.approx(best[observer]["wa"], abs=0.005), observer
        if observer != "prior":  # there all rules are equally good
            assert (hits["ua"] / labels).mean() == pytest.approx(best[observer]["ua"], abs=0.008), observer


def test_a_gender_gap_costs_accuracy() -> None:
    gap = Settings(gender_gap=True, utterances=2000)
    turns = plan(gap)
    silent = Counter(turn.gender for turn in turns if turn.mechanism == "N")
    assert silent["M"] > 5 * silent["F"]
    best: Any = truth_of(turns, gap).best()
    whole: Any = truth_of(turns, Settings(utterances=2000)).best()
    expected = (whole["joint"]["wa"] + (whole["joint"]["wa"] + whole["prior"]["wa"]) / 2) / 2
    assert best["joint"]["wa"] == pytest.approx(expected, abs=0.01)


# What is spoken and written


def test_the_reader_finds_what_was_planted(reading: Reading, truth: list[dict[str, Any]]) -> None:
    assert reading.rejected == ()
    assert reading.expected == {}
    assert [u.id for u in reading.utterances] == sorted(line["utterance"] for line in truth)
    planned = {turn.id: turn for turn in plan(Settings(120, 3, "R=.6,B=.2,O=.15,X=.05", "3"))}
    by_id = {line["utterance"]: line for line in truth}
    for utterance in reading.utterances:
        turn, line = planned[utterance.id], by_id[utterance.id]
        assert (utterance.label, utterance.votes, utterance.speaker) == (turn.label, turn.votes, turn.speaker)
        assert utterance.transcript[:-1].lower().split() == [word["word"] for word in line["words"]]
        for heard, word in zip(utterance.words or (), line["words"], strict=utterance.words is not None):
            assert heard.text == word["word"].replace("é", "e")
            assert heard.start == pytest.approx(word["start"], abs=0.0051)
            assert heard.end == pytest.approx(word["end"], abs=0.0051)


def test_the_quirks_of_the_release_are_there(planted: Path, reading: Reading) -> None:
    assert Counter(u.flags for u in reading.utterances) == {(): 119, ("no_alignment",): 1}
    texts = {p: p.read_bytes() for suffix in ("txt", "wdseg") for p in planted.rglob(f"[!.]*.{suffix}")}
    everything = b"".join(texts.values())
    for quirk in (b"++", b"(2)", b"M: sorry", b"caf\xe9", b"_MXX0", b"C-F1", b"\txxx\t", b"<sil>"):
        assert quirk in everything, quirk
    folders = {p.parent for p in planted.rglob("*.wav")} | {p.parent for p in planted.rglob("*.wdseg")}
    assert all(list(folder.glob("._*")) for folder in folders)
    assert list(planted.rglob("EmoEvaluation/*.anvil"))
    assert list(planted.rglob("EmoEvaluation/Categorical/*.txt"))


def test_facts_say_that_it_is_synthetic(reading: Reading) -> None:
    facts = reading.facts
    assert (facts["synthetic"], facts["mix"], facts["seed"]) == (True, "R=.6,B=.2,O=.15,X=.05", 3)
    assert all(0 < facts["bayes"][name][metric] < 1 for name in OBSERVERS for metric in ("wa", "ua"))


def load(root: Path, utterance: str) -> np.ndarray:
    dialogue = utterance.rpartition("_")[0]
    path = root / f"Session{utterance[4]}/sentences/wav/{dialogue}/{utterance}.wav"
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    return soundfile.read(path)[0]


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt((samples**2).mean()))


def cut(samples: np.ndarray, words: list[dict[str, Any]]) -> np.ndarray:
    return np.concatenate([samples[round(w["start"] * 16_000) : round(w["end"] * 16_000)] for w in words])


def test_words_sound_where_they_should_and_pauses_are_silent(
    planted: Path, truth: list[dict[str, Any]]
) -> None:
    seconds, pauses = [], 0
    for line in truth:
        samples, words = load(planted, line["utterance"]), line["words"]
        seconds.append(len(samples) / 16_000)
        assert np.abs(samples).max() < 1  # nothing clips
        assert min(rms(cut(samples, [word])) for word in words) > 0.002
        for before, after in itertools.pairwise(words):
            gap = {"start": before["end"] + 0.01, "end": after["start"] - 0.01}
            if gap["end"] > gap["start"]:
                pauses += 1
                assert rms(cut(samples, [gap])) < 0.0002
        assert rms(samples[round((words[-1]["end"] + 0.01) * 16_000) :]) < 0.0002
    assert pauses >= 5
    assert 2 < np.mean(seconds) < 3.2


def test_order_has_a_second_between_its_voices(truth: list[dict[str, Any]]) -> None:
    ordered = [line["styled"] for line in truth if line["audio"].startswith("turn")]
    assert len(ordered) >= 10
    assert min(styled[2]["start"] - styled[1]["end"] for styled in ordered) >= 1


def pitch(samples: np.ndarray) -> float:
    """Median pitch in Hz of the voiced frames, by autocorrelation."""
    found = []
    for start in range(0, len(samples) - 800, 400):
        frame = samples[start : start + 800] - samples[start : start + 800].mean()
        correlation = np.correlate(frame, frame, "full")[799:]
        lag = 30 + int(correlation[30:270].argmax())  # 59 to 533 Hz
        if correlation[lag] > 0.5 * correlation[0] > 0:
            found.append(16_000 / lag)
    return float(np.median(found)) if found else float("nan")


def test_prosody_measured_on_the_wavs(planted: Path, truth: list[dict[str, Any]]) -> None:
    """Of the words in another voice against the plain words of the same utterances."""
    ratios: dict[str, list[tuple[float, float, float]]] = {}
    for line in truth:
        kind, _, emotion = line["audio"].partition(":")
        if kind != "like":
            continue
        samples = load(planted, line["utterance"])
        places = {word["place"] for word in line["styled"]}
        plain = [word for word in line["words"] if word["place"] not in places][
            :-1
        ]  # the last word is drawn out
        styled = [word for word in line["styled"] if word["place"] < len(line["words"]) - 1]
        lengths = [np.mean([w["end"] - w["start"] for w in words]) for words in (plain, styled)]
        a, b = cut(samples, plain), cut(samples, styled)
        ratios.setdefault(emotion, []).append(
            (pitch(b) / pitch(a), rms(b) / rms(a), float(lengths[0] / lengths[1]))
        )
    assert ratios.keys() == set(CLASSES)
    median = {emotion: np.nanmedian(np.array(values), axis=0) for emotion, values in ratios.items()}
    for emotion in ("hap", "exc", "sur"):
        assert median[emotion][0] > 1.4, (emotion, median)
    for emotion in ("sad", "neu", "fru"):
        assert median[emotion][0] < 0.9, (emotion, median)
    for emotion in ("ang", "fru", "exc"):
        assert median[emotion][1] > 1.5, (emotion, median)
    for emotion in ("hap", "sad", "neu"):
        assert median[emotion][1] < 0.7, (emotion, median)
    for emotion in ("ang", "exc", "neu"):
        assert median[emotion][2] > 1.15, (emotion, median)
    for emotion in ("sad", "fru", "sur"):
        assert median[emotion][2] < 0.85, (emotion, median)


def test_stress_is_loud_high_and_long(planted: Path, truth: list[dict[str, Any]]) -> None:
    lines = [line for line in truth if line["audio"].startswith("stress")]
    louder, higher = [], []
    for line in lines:
        samples = load(planted, line["utterance"])
        here = line["cues"][int(line["audio"][-1])]
        there = line["cues"][1 - int(line["audio"][-1])]
        assert line["styled"] == [here]
        louder.append(rms(cut(samples, [here])) / rms(cut(samples, [there])))
        higher.append(pitch(cut(samples, [here])) / pitch(cut(samples, [there])))
    assert np.median(louder) > 1.5
    assert np.nanmedian(higher) > 1.3


def test_posteriors_are_written_out(truth: list[dict[str, Any]]) -> None:
    for line in truth:
        assert line["posterior"].keys() == set(OBSERVERS)
        for belief in line["posterior"].values():
            assert sum(belief) == pytest.approx(1, abs=1e-5)
        if line["text"] == f"cue:{line['emotion']}" and line["audio"] == f"like:{line['emotion']}":
            assert CLASSES[int(np.argmax(line["posterior"]["joint"]))] == line["emotion"]


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = content(make_demo(tmp_path / "a", utterances=20, mix="planted", seed=4, processes=1))
    again = content(make_demo(tmp_path / "b", utterances=20, mix="planted", seed=4, processes=2))
    assert first == again
    turns = [plan(Settings(20, seed)) for seed in (4, 5)]
    assert [turn.emotion for turn in turns[0]] != [turn.emotion for turn in turns[1]]


def test_traps_for_leak_checks(tmp_path: Path) -> None:
    switches = {"leak": True, "speaker_prior": True, "duplicates": True}
    root = make_demo(tmp_path / "traps", utterances=60, **switches)
    lines = [json.loads(line) for line in (root / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    copies = [(line["utterance"], line["copy_of"]) for line in lines if line["copy_of"]]
    assert copies
    for copy, source in copies:
        assert copy[:5] != source[:5]
        assert np.array_equal(load(root, copy), load(root, source))
    settings = Settings(2000, leak=True, speaker_prior=True, duplicates=True)
    turns = plan(settings)
    by_id = {turn.id: turn for turn in turns}
    pairs = [(turn, by_id[turn.copy_of]) for turn in turns if turn.copy_of]
    assert len(pairs) == 40
    assert all((a.emotion, a.words) == (b.emotion, b.words) and not b.copy_of for a, b in pairs)
    assert all(a.session > b.session for a, b in pairs)
    frames = Counter(
        (turn.label, compose(turn, settings).words[:4])
        for turn in turns
        if turn.words == "none" and turn.label != "xxx"
    )
    assert {label for (label, _), count in frames.items() if count >= 5} >= {
        "fru",
        "neu",
        "ang",
        "sad",
        "exc",
    }
    women = Counter((turn.session, turn.emotion) for turn in turns if turn.gender == "F")
    total = Counter((turn.session, turn.emotion) for turn in turns)
    shares = [women[key] / total[key] for key in total if total[key] > 20]
    assert all(abs(share - 0.8) < 0.25 or abs(share - 0.2) < 0.25 for share in shares)
    assert min(shares) < 0.35 < 0.65 < max(shares)


def test_merged_words_are_noticed_and_drawn_again(tmp_path: Path) -> None:
    around = {"path": str(tmp_path / "x.wav"), "lead": 0.1, "noise": 0.0, "tail": 0.1, "seed": 1}
    with Speaker("en-us+m1") as speaker:
        text = "it was a disaster"
        spans = [(1, 2), (4, 3), (8, 1), (10, 8)]
        assert speaker.say(ssml=text, spans=spans, **around) == {"words": None}
        assert not (tmp_path / "x.wav").exists()
        assert len(speaker.say(ssml="garden table", spans=[(1, 6), (8, 5)], **around)["words"]) == 2


class Stubborn:
    """A speaker that accepts the third sentence only."""

    def __init__(self, refused: list[list[float]] | None) -> None:
        self.refused, self.said = refused, []

    def say(self, **sentence: Any) -> dict[str, Any]:
        self.said.append(sentence["ssml"])
        times = [[0.5 * place, 0.5 * place + 0.4] for place in range(len(sentence["spans"]))]
        return {"words": times if len(self.said) == 3 else self.refused, "noise": [0, 0], "duration": 9.0}


@pytest.mark.parametrize(("mechanism", "refused"), [("N", None), ("O", [[0.0, 0.1]] * 14)])
def test_sentences_are_drawn_again(tmp_path: Path, mechanism: str, refused: list[list[float]] | None) -> None:
    """Where words are merged, and where the two voices of mechanism O are too close."""
    settings = Settings(mix="O=.5,N=.5")
    turns = [
        t for t in plan(settings) if t.mechanism == mechanism and (t.voice != "none") == (mechanism == "O")
    ]
    speaker = Stubborn(refused)
    demo._speak_turn(tmp_path, turns[0], settings, speaker)  # type: ignore[arg-type]
    assert len(set(speaker.said)) == 3


@pytest.mark.parametrize("voice", ["m1", "m2", "f2", "f4"])
def test_words_end_before_their_echo(tmp_path: Path, voice: str) -> None:
    text = '<speak>garden table <break time="1000ms"/>window paper.</speak>'
    spans = [(text.index(word) + 1, len(word)) for word in ("garden", "table", "window", "paper")]
    with Speaker(f"en-us+{voice}") as speaker:
        path = str(tmp_path / "x.wav")
        answer = speaker.say(ssml=text, spans=spans, path=path, lead=0.1, noise=0.2, tail=0.3, seed=1)
    assert answer["noise"] == [0.1, pytest.approx(0.3)]
    assert answer["words"][0][0] == pytest.approx(0.3, abs=0.01)
    assert answer["words"][2][0] - answer["words"][1][1] == pytest.approx(1.0, abs=0.08)
    assert answer["duration"] - answer["words"][-1][1] == pytest.approx(0.3, abs=0.001)


def test_a_speaker_that_fails_says_why(tmp_path: Path) -> None:
    with Speaker("en-us+nobody-of-this-name") as speaker, pytest.raises(RuntimeError, match="no voice"):
        speaker.say(ssml="a", spans=[], path=str(tmp_path / "x.wav"), lead=0, noise=0, tail=0, seed=0)


# What a user types


def test_made_twice_there_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--out={tmp_path / 'demo'}", "--utterances=5", "--mix=R=.5,N=.5"]
    assert demo.run(arguments) == 0
    before = content(tmp_path)
    assert demo.run(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert content(tmp_path) == before
    assert demo.run([*arguments, "--seed=1"]) == 2
    message = capsys.readouterr().err
    assert "seed is 0, not 1" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--utterances=4", "at least 5"),
        ("--utterances=many", "invalid int value"),
        ("--seed=-1", "0 or more"),
        ("--mix=everything", "tutorial, redundant, planted"),
        ("--mix=R=.5", "add up to 0.5"),
        ("--mix=R=.5,R=.5", "no share of a mechanism"),
        ("--mix=R=1,Q=0", "no share of a mechanism"),
        ("--mix=R=nan", "no share of a mechanism"),
        ("--burst=2", "invalid choice"),
        ("--processes=0", "1 or more"),
        ("--unknown=1", "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    try:
        status = demo.run([f"--out={tmp_path / 'demo'}", argument])
    except SystemExit as exit_:
        status = exit_.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_folders_that_hold_something_else(tmp_path: Path, planted: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="is no demo corpus"):
        demo.make(tmp_path, utterances=5)
    with pytest.raises(UsageError, match="utterances is 120, not 5"):
        demo.make(planted, utterances=5)
    with pytest.raises(InputError, match=r"demo\.json: unreadable"):
        demo.read(tmp_path)
    with pytest.raises(InputError, match="cannot be made"):
        demo.make(tmp_path / "mine.txt" / "demo", utterances=5)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_killed_while_making_and_made_again(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    command = [sys.executable, "-m", "data_prep.demo", f"--out={root}", "--utterances=30"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(demo.__file__).parents[1])
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.wav")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not root.exists()
    assert len(list(tmp_path.iterdir())) == 1
    make_demo(root, utterances=30)
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]
    assert len(demo.read(root).utterances) == 30


def test_parse_mix_of_shares() -> None:
    mix = parse_mix("R=.5, B=.3,N=.2")
    assert mix.shares == {"R": 0.5, "B": 0.3, "N": 0.2}
    assert mix.words == MIXES["planted"].words


@pytest.mark.slow
def test_voices_can_be_told_apart_across_sessions(tmp_path: Path) -> None:
    """Voice symbols from the mean, deviation and change of MFCCs, on sessions that were not trained on."""
    import librosa
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    root = make_demo(tmp_path / "demo")
    features, symbols, sessions = [], [], []
    for line in map(json.loads, (root / "truth.jsonl").read_text(encoding="utf-8").splitlines()):
        mfcc = librosa.feature.mfcc(
            y=load(root, line["utterance"]), sr=16_000, n_mfcc=40, n_fft=512, hop_length=160
        )
        features.append([*mfcc.mean(1), *mfcc.std(1), *np.abs(np.diff(mfcc)).mean(1)])
        symbols.append(line["audio"])
        sessions.append(line["utterance"][4])
    x, y, session = np.array(features), np.array(symbols), np.array(sessions)
    hits = [
        LinearDiscriminantAnalysis().fit(x[session != k], y[session != k]).predict(x[session == k])
        == y[session == k]
        for k in "12345"
    ]
    assert np.concatenate(hits).mean() > 0.95
