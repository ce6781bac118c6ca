"""The demo corpus: recordings, files and command line."""

import itertools
import json
import os
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

from helpers.corpora import make_demo
from jaxser.data_prep.demo import corpus, synthesis
from jaxser.data_prep.demo.plan import Settings, compose, plan_turns
from jaxser.data_prep.demo.speech import Speaker
from jaxser.data_prep.demo.truth import CLASSES, OBSERVERS
from jaxser.types import InputError, Reading, UsageError


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with all mechanisms; bursts of three words, so that every utterance has plain words to compare with."""
    root = tmp_path_factory.mktemp("planted") / "corpus"
    return make_demo(root, utterances=120, mix="R=.6,B=.2,O=.15,X=.05", burst="3", seed=3)


@pytest.fixture(scope="session")
def reading(planted: Path) -> Reading:
    return corpus.read(planted)


@pytest.fixture(scope="session")
def truth(planted: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (planted / "truth.jsonl").read_text(encoding="utf-8").splitlines()]


# Recordings and files


def test_reader_recovers_the_plan(reading: Reading, truth: list[dict[str, Any]]) -> None:
    assert reading.rejected == ()
    assert reading.expected == {}
    assert [u.id for u in reading.utterances] == sorted(line["utterance"] for line in truth)
    planned = {turn.id: turn for turn in plan_turns(Settings(120, 3, "R=.6,B=.2,O=.15,X=.05", "3"))}
    by_id = {line["utterance"]: line for line in truth}
    for utterance in reading.utterances:
        turn, line = planned[utterance.id], by_id[utterance.id]
        assert (utterance.label, utterance.votes, utterance.speaker) == (turn.label, turn.votes, turn.speaker)
        assert utterance.transcript[:-1].lower().split() == [word["word"] for word in line["words"]]
        for heard, word in zip(utterance.words or (), line["words"], strict=utterance.words is not None):
            assert heard.text == word["word"].replace("é", "e")
            assert heard.start == pytest.approx(word["start"], abs=0.0051)
            assert heard.end == pytest.approx(word["end"], abs=0.0051)


def test_files_have_the_quirks_of_the_iemocap_release(planted: Path, reading: Reading) -> None:
    assert Counter(u.flags for u in reading.utterances) == {(): 119, ("no_alignment",): 1}
    texts = {p: p.read_bytes() for suffix in ("txt", "wdseg") for p in planted.rglob(f"[!.]*.{suffix}")}
    everything = b"".join(texts.values())
    for quirk in (b"++", b"(2)", b"M: sorry", b"caf\xe9", b"_MXX0", b"C-F1", b"\txxx\t", b"<sil>"):
        assert quirk in everything, quirk
    folders = {p.parent for p in planted.rglob("*.wav")} | {p.parent for p in planted.rglob("*.wdseg")}
    assert all(list(folder.glob("._*")) for folder in folders)
    assert list(planted.rglob("EmoEvaluation/*.anvil"))
    assert list(planted.rglob("EmoEvaluation/Categorical/*.txt"))


def test_facts_contain_settings_and_best_accuracies(reading: Reading) -> None:
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


def test_word_times_match_the_recordings(planted: Path, truth: list[dict[str, Any]]) -> None:
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


def test_voices_of_mechanism_o_are_a_second_apart(truth: list[dict[str, Any]]) -> None:
    ordered = [line["styled"] for line in truth if line["audio"].startswith("turn")]
    assert len(ordered) >= 10
    assert min(styled[2]["start"] - styled[1]["end"] for styled in ordered) >= 1


def pitch(samples: np.ndarray) -> float:
    """Median pitch of the voiced frames in Hz, by autocorrelation."""
    found = []
    for start in range(0, len(samples) - 800, 400):
        frame = samples[start : start + 800] - samples[start : start + 800].mean()
        correlation = np.correlate(frame, frame, "full")[799:]
        lag = 30 + int(correlation[30:270].argmax())  # 59 to 533 Hz
        if correlation[lag] > 0.5 * correlation[0] > 0:
            found.append(16_000 / lag)
    return float(np.median(found)) if found else float("nan")


def test_recordings_have_the_planned_prosody(planted: Path, truth: list[dict[str, Any]]) -> None:
    """Compares the styled words with the plain words of the same utterances."""
    ratios: dict[str, list[tuple[float, float, float]]] = {}
    for line in truth:
        kind, _, emotion = line["audio"].partition(":")
        if kind != "like":
            continue
        samples = load(planted, line["utterance"])
        styled_indices = {word["place"] for word in line["styled"]}
        plain = [word for word in line["words"] if word["place"] not in styled_indices]
        plain = plain[:-1]  # the last word is lengthened
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


def test_stressed_words_are_louder_and_higher(planted: Path, truth: list[dict[str, Any]]) -> None:
    lines = [line for line in truth if line["audio"].startswith("stress")]
    louder, higher = [], []
    for line in lines:
        samples = load(planted, line["utterance"])
        stressed = line["cues"][int(line["audio"][-1])]
        other = line["cues"][1 - int(line["audio"][-1])]
        assert line["styled"] == [stressed]
        louder.append(rms(cut(samples, [stressed])) / rms(cut(samples, [other])))
        higher.append(pitch(cut(samples, [stressed])) / pitch(cut(samples, [other])))
    assert np.median(louder) > 1.5
    assert np.nanmedian(higher) > 1.3


def test_truth_contains_posteriors(truth: list[dict[str, Any]]) -> None:
    for line in truth:
        assert line["posterior"].keys() == set(OBSERVERS)
        for posterior in line["posterior"].values():
            assert sum(posterior) == pytest.approx(1, abs=1e-5)
        if line["text"] == f"cue:{line['emotion']}" and line["audio"] == f"like:{line['emotion']}":
            assert CLASSES[int(np.argmax(line["posterior"]["joint"]))] == line["emotion"]


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = content(make_demo(tmp_path / "a", utterances=20, mix="planted", seed=4, processes=1))
    again = content(make_demo(tmp_path / "b", utterances=20, mix="planted", seed=4, processes=2))
    assert first == again
    turns = [plan_turns(Settings(20, seed)) for seed in (4, 5)]
    assert [turn.emotion for turn in turns[0]] != [turn.emotion for turn in turns[1]]


def test_leaks_and_biases_are_planted(tmp_path: Path) -> None:
    switches = {"leak": True, "speaker_prior": True, "duplicates": True}
    root = make_demo(tmp_path / "traps", utterances=60, **switches)
    lines = [json.loads(line) for line in (root / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    copies = [(line["utterance"], line["copy_of"]) for line in lines if line["copy_of"]]
    assert copies
    for copy, source in copies:
        assert copy[:5] != source[:5]
        assert np.array_equal(load(root, copy), load(root, source))
    settings = Settings(2000, leak=True, speaker_prior=True, duplicates=True)
    turns = plan_turns(settings)
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
    female = Counter((turn.session, turn.emotion) for turn in turns if turn.gender == "F")
    total = Counter((turn.session, turn.emotion) for turn in turns)
    shares = [female[key] / total[key] for key in total if total[key] > 20]
    assert all(abs(share - 0.8) < 0.25 or abs(share - 0.2) < 0.25 for share in shares)
    assert min(shares) < 0.35 < 0.65 < max(shares)


def test_speaker_reports_merged_words(tmp_path: Path) -> None:
    padding = {"path": str(tmp_path / "x.wav"), "lead": 0.1, "noise": 0.0, "tail": 0.1, "seed": 1}
    with Speaker("en-us+m1") as speaker:
        text = "it was a disaster"
        spans = [(1, 2), (4, 3), (8, 1), (10, 8)]
        assert speaker.say(ssml=text, spans=spans, **padding) == {"words": None}
        assert not (tmp_path / "x.wav").exists()
        assert len(speaker.say(ssml="garden table", spans=[(1, 6), (8, 5)], **padding)["words"]) == 2


class ThirdSentenceSpeaker(Speaker):
    """A speaker without a subprocess that accepts only the third sentence."""

    def __init__(self, refused: list[list[float]] | None) -> None:
        self.refused, self.said = refused, []

    def say(self, **sentence: Any) -> dict[str, Any]:
        self.said.append(sentence["ssml"])
        times = [[0.5 * index, 0.5 * index + 0.4] for index in range(len(sentence["spans"]))]
        return {"words": times if len(self.said) == 3 else self.refused, "noise": [0.0, 0.0], "duration": 9.0}


@pytest.mark.parametrize(("mechanism", "refused"), [("N", None), ("O", [[0.0, 0.1]] * 14)])
def test_unsuitable_sentences_are_drawn_again(
    tmp_path: Path, mechanism: str, refused: list[list[float]] | None
) -> None:
    """If words are merged, or if the two voices of mechanism O are too close."""
    settings = Settings(mix="O=.5,N=.5")
    turns = [
        t
        for t in plan_turns(settings)
        if t.mechanism == mechanism and (t.voice != "none") == (mechanism == "O")
    ]
    speaker = ThirdSentenceSpeaker(refused)
    synthesis.speak_turn(tmp_path, turns[0], settings, speaker)
    assert len(set(speaker.said)) == 3


@pytest.mark.parametrize("voice", ["m1", "m2", "f2", "f4"])
def test_word_ends_exclude_the_echo(tmp_path: Path, voice: str) -> None:
    text = '<speak>garden table <break time="1000ms"/>window paper.</speak>'
    spans = [(text.index(word) + 1, len(word)) for word in ("garden", "table", "window", "paper")]
    with Speaker(f"en-us+{voice}") as speaker:
        path = str(tmp_path / "x.wav")
        answer = speaker.say(ssml=text, spans=spans, path=path, lead=0.1, noise=0.2, tail=0.3, seed=1)
    assert answer["noise"] == [0.1, pytest.approx(0.3)]
    assert answer["words"][0][0] == pytest.approx(0.3, abs=0.01)
    assert answer["words"][2][0] - answer["words"][1][1] == pytest.approx(1.0, abs=0.08)
    assert answer["duration"] - answer["words"][-1][1] == pytest.approx(0.3, abs=0.001)


def test_failed_speaker_reports_the_error(tmp_path: Path) -> None:
    with Speaker("en-us+nobody-of-this-name") as speaker, pytest.raises(RuntimeError, match="no voice"):
        speaker.say(ssml="a", spans=[], path=str(tmp_path / "x.wav"), lead=0, noise=0, tail=0, seed=0)


# Command line


def test_making_an_existing_corpus_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--out={tmp_path / 'demo'}", "--utterances=5", "--mix=R=.5,N=.5"]
    assert corpus.main(arguments) == 0
    before = content(tmp_path)
    assert corpus.main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert content(tmp_path) == before
    assert corpus.main([*arguments, "--seed=1"]) == 2
    message = capsys.readouterr().err
    assert "seed is 0, not 1" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--utterances=4", "must be at least 5"),
        ("--utterances=many", "invalid int value"),
        ("--seed=-1", "must be 0 or more"),
        ("--mix=everything", "tutorial, redundant, planted"),
        ("--mix=R=.5", "add up to 0.5"),
        ("--mix=R=.5,R=.5", "not the share of a mechanism"),
        ("--mix=R=1,Q=0", "not the share of a mechanism"),
        ("--mix=R=nan", "not the share of a mechanism"),
        ("--burst=2", "invalid choice"),
        ("--processes=0", "must be 1 or more"),
        ("--unknown=1", "unrecognized arguments"),
    ],
)
def test_usage_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    try:
        status = corpus.main([f"--out={tmp_path / 'demo'}", argument])
    except SystemExit as exit_:
        status = exit_.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_left_alone(tmp_path: Path, planted: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="is not a demo corpus"):
        corpus.make(tmp_path, utterances=5)
    with pytest.raises(UsageError, match="utterances is 120, not 5"):
        corpus.make(planted, utterances=5)
    with pytest.raises(InputError, match=r"demo\.json: unreadable"):
        corpus.read(tmp_path)
    with pytest.raises(InputError, match="cannot be made"):
        corpus.make(tmp_path / "mine.txt" / "demo", utterances=5)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_unfinished_corpus_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    command = [sys.executable, "-m", "data_prep.demo", f"--out={root}", "--utterances=30"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.wav")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not root.exists()
    assert len(list(tmp_path.iterdir())) == 1
    make_demo(root, utterances=30)
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]
    assert len(corpus.read(root).utterances) == 30


@pytest.mark.slow
def test_voices_are_recognisable_across_sessions(tmp_path: Path) -> None:
    """A linear classifier on MFCC statistics predicts the voice symbol in sessions it was not trained on."""
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
