"""Forced alignment: which utterances, kept results, refusals; pocketsphinx itself if it is installed."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile

from helpers.small_corpus import RATE, noise
from jaxser.data_prep import align, align_pocketsphinx
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep.corpora import ravdess
from jaxser.features.audio import read_audio
from jaxser.types import Reading, UsageError, Utterance, Word


class FakeDecoder:
    """Words last 0.1 s each, after 0.1 s of silence, or 0.05 s at higher frame rates."""

    made = 0

    def __init__(self, lm, samprate, frate, bestpath, loglevel):
        type(self).made += 1
        self.rate = frate

    def lookup_word(self, word):
        return None if word == "xyzzy" else "P"

    def set_align_text(self, text):
        self.words = text.split()

    def start_utt(self):
        pass

    def process_raw(self, pcm, full_utt):
        seconds = len(pcm) / 2 / RATE
        step = 0.1 if self.rate == 100 else 0.05
        fitting = self.words[: int((seconds - 0.1) / step + 1e-6)]
        frames = round(step * self.rate)
        first = round(0.1 * self.rate)
        self.segments = [SimpleNamespace(word="<sil>", start_frame=0, end_frame=first - 1)]
        for number, word in enumerate(fitting):
            start = first + number * frames
            variant = f"{word}(2)" if word == "are" else word
            self.segments.append(
                SimpleNamespace(word=variant, start_frame=start, end_frame=start + frames - 1)
            )

    def end_utt(self):
        pass

    def seg(self):
        return self.segments


@pytest.fixture
def pocketsphinx(monkeypatch):
    module = ModuleType("pocketsphinx")
    module.Decoder = FakeDecoder
    monkeypatch.setitem(sys.modules, "pocketsphinx", module)
    monkeypatch.setattr(align_pocketsphinx, "version", lambda: "pocketsphinx 5.0")
    FakeDecoder.made = 0


def write(root, *seconds: float) -> list[Utterance]:
    for number, length in enumerate(seconds):
        soundfile.write(root / f"{number}.wav", noise(length, seed=number), RATE)
    return [
        Utterance(str(number), f"{number}.wav", "x", "Kids are, talking!") for number in range(len(seconds))
    ]


def run(root, utterances, corpus="folder", **options):
    reading = Reading(tuple(utterances))
    return align.align_words(
        corpus, reading, root, "pocketsphinx", root / "kept" / "words.jsonl", quiet=True, **options
    )


def test_words_get_times_in_seconds(pocketsphinx, tmp_path):
    [one] = run(tmp_path, write(tmp_path, 0.5)).utterances
    assert [word.text for word in one.words] == ["kids", "are", "talking"]
    assert [(word.start, word.end) for word in one.words] == [
        pytest.approx(times) for times in ((0.1, 0.2), (0.2, 0.3), (0.3, 0.4))
    ]
    assert one.flags == ("forced_alignment",)


def test_fast_speech_is_aligned_with_more_frames(pocketsphinx, tmp_path):
    one, other = run(tmp_path, write(tmp_path, 0.27, 0.2)).utterances
    assert [(word.start, word.end) for word in one.words] == [
        pytest.approx(times) for times in ((0.1, 0.15), (0.15, 0.2), (0.2, 0.25))
    ]
    assert (other.words, other.flags) == (None, ("no_alignment",))


def test_only_utterances_without_words_and_with_a_transcript(pocketsphinx, tmp_path):
    first, second, third, fourth = write(tmp_path, 0.5, 0.5, 0.5, 0.5)
    words = (Word("kids", 0.0, 0.2),)
    given = [
        replace(first, words=words), replace(second, transcript=""),
        replace(third, flags=("bad_alignment",)), replace(fourth, transcript="Xyzzy, xyzzy"),
    ]  # fmt: skip
    reading = run(tmp_path, given)
    assert reading.utterances[:2] == tuple(given[:2])
    assert reading.utterances[2].flags == ("forced_alignment",)
    assert (reading.utterances[3].words, reading.utterances[3].flags) == (None, ("no_alignment",))
    [ignored] = reading.ignored
    assert ignored.reason == "not aligned: not in the pronunciation dictionary: xyzzy"
    assert reading.facts["alignment"] == {"aligner": "pocketsphinx 5.0", "aligned": 1, "not_aligned": 1}


def test_results_are_kept_until_something_changes(pocketsphinx, tmp_path):
    utterances = write(tmp_path, 0.5, 0.5)
    first = run(tmp_path, utterances)
    assert FakeDecoder.made == 1
    kept = tmp_path / "kept" / "words.jsonl"
    kept.write_text(kept.read_text()[:-30])  # an interruption within the last line
    assert run(tmp_path, utterances[:1]).utterances == first.utterances[:1]
    assert FakeDecoder.made == 1
    assert run(tmp_path, utterances).utterances == first.utterances
    assert FakeDecoder.made == 2
    assert len([line for line in kept.read_text().splitlines() if line]) == 3
    assert run(tmp_path, utterances).utterances == first.utterances
    changed = run(tmp_path, [replace(utterances[0], transcript="talking")])
    assert [word.text for word in changed.utterances[0].words] == ["talking"]


def test_damaged_recordings_are_not_aligned_and_do_not_stop(pocketsphinx, tmp_path):
    (tmp_path / "0.wav").write_bytes(b"RIFF")
    [one] = run(tmp_path, [Utterance("0", "0.wav", "x", "Kids")]).utterances
    assert (one.words, one.flags) == (None, ("no_alignment",))


@pytest.mark.parametrize("corpus", ["emodb", "meld_german"])
def test_other_languages_and_aligners_are_refused(pocketsphinx, tmp_path, corpus):
    with pytest.raises(UsageError, match="must be one of pocketsphinx"):
        align.align_words(corpus, Reading(()), tmp_path, "mfa", tmp_path / "words.jsonl")
    if corpus == "emodb":
        with pytest.raises(UsageError, match="only for English, and EmoDB is in 'de'"):
            run(tmp_path, [], corpus)


def test_missing_package_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(align_pocketsphinx.metadata, "version", _missing)
    with pytest.raises(UsageError, match=r"needs pocketsphinx: pip install 'jaxser\[align\]'"):
        run(tmp_path, [])


def _missing(name):
    raise align_pocketsphinx.metadata.PackageNotFoundError(name)


def test_prepared_segments_follow_the_words(pocketsphinx, tmp_path, capsys):
    root = tmp_path / "corpus"
    root.mkdir()
    write(root, 0.5, 0.6)
    (root / "metadata.csv").write_text('path,label,text\n0.wav,x,"Kids are"\n1.wav,y,xyzzy\n')
    arguments = ["--corpus=folder", f"--root={root}", "--recipe=can", f"--out={tmp_path}", "--workers=1"]
    assert preparation.main([*arguments, "--align=pocketsphinx"]) == 0
    [folder] = (tmp_path / "folder" / "can").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["flags"]["forced_alignment"] == 1
    assert manifest["flags"]["equal_segments"] == manifest["flags"]["no_alignment"] == 1
    assert manifest["facts"]["alignment"]["aligned"] == 1
    assert "quality flags: equal_segments 1, forced_alignment 1, no_alignment 1" in capsys.readouterr().out
    assert preparation.main([*arguments, "--align=pocketsphinx"]) == 0
    assert "is up to date" in capsys.readouterr().out
    assert preparation.main([*arguments, "--align=mfa"]) == 2


def test_pocketsphinx_itself_refuses_what_does_not_fit():
    pytest.importorskip("pocketsphinx")
    aligner = align_pocketsphinx.Aligner()
    samples = np.asarray(noise(2.0), np.float32)
    with pytest.raises(ValueError, match="not in the pronunciation dictionary: xyzzy"):
        aligner.align(samples, ("hello", "xyzzy"))
    with pytest.raises(ValueError, match="do not fit"):
        aligner.align(samples[:1600], ("hello",) * 30)
    with pytest.raises(ValueError, match="do not fit"):
        aligner.align(samples, ("hello", "world"))


@pytest.mark.real
def test_pocketsphinx_itself_on_real_speech(real_data):
    pytest.importorskip("pocketsphinx")
    utterances = ravdess.read(real_data / "ravdess").utterances[:2]
    aligner = align_pocketsphinx.Aligner()
    for one in utterances:
        samples = read_audio(real_data / "ravdess" / one.wav).samples
        words = aligner.align(samples, tuple(one.transcript.lower().split()))
        assert " ".join(word.text for word in words) == one.transcript.lower()
        assert 0.5 < words[0].start < words[-1].end < len(samples) / RATE - 0.3  # silence around them
        assert all(0.02 < word.end - word.start < 1 for word in words)
        assert all(word.end <= after.start for word, after in pairwise(words))
