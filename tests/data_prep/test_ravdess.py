"""The RAVDESS reader: file names, counts, and the real release if it is available."""

from collections import Counter

import pytest

from helpers.small_corpus import write_ravdess
from jaxser.data_prep.corpora import ravdess
from jaxser.types import InputError


def read_files(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return ravdess.read(root)


def test_reads_all_fields_from_the_file_name(tmp_path):
    [utterance] = read_files(tmp_path, "Actor_12/03-01-06-01-02-01-12.wav").utterances
    assert utterance.id == "03-01-06-01-02-01-12"
    assert utterance.wav == "Actor_12/03-01-06-01-02-01-12.wav"
    assert (utterance.label, utterance.speaker, utterance.gender) == ("fearful", "actor12", "F")
    assert utterance.transcript == "Dogs are sitting by the door"
    assert utterance.attributes == {"intensity": 1.0}
    assert (utterance.session, utterance.dialogue, utterance.split, utterance.words) == ("", "", "", None)
    [utterance] = read_files(tmp_path / "other", "03-01-01-02-01-02-07.FLAC").utterances
    assert (utterance.label, utterance.speaker, utterance.gender) == ("neutral", "actor07", "M")
    assert utterance.transcript == "Kids are talking by the door"
    assert utterance.attributes == {"intensity": 2.0}


def test_songs_and_videos_are_skipped_and_counted(tmp_path):
    reading = read_files(
        tmp_path,
        "Actor_01/03-01-01-01-01-01-01.wav",
        "Actor_01/03-02-01-01-01-01-01.wav",
        "Actor_01/01-01-01-01-01-01-01.wav",
        "Actor_01/01-01-01-01-01-01-01.mp4",
        "Actor_01/._03-01-01-01-01-01-01.wav",
    )
    assert len(reading.utterances) == 1
    assert reading.rejected == ()
    assert reading.facts == {"skipped": {"song": 1, "with video": 1}}


@pytest.mark.parametrize(
    "name",
    [
        "notes.wav",
        "03-01-09-01-01-01-01.wav",
        "03-01-01-01-01-01-25.wav",
        "03-01-01-01-01-01-00.wav",
        "03-01-01-01-01-01.wav",
        "03-01-01-01-01-01-01 (1).wav",
    ],
)
def test_other_file_names_are_rejected(tmp_path, name):
    reading = read_files(tmp_path, "Actor_01/03-01-01-01-01-01-01.wav", name)
    assert len(reading.utterances) == 1
    [rejection] = reading.rejected
    assert rejection.where == name
    assert "seven numbers" in rejection.reason


def test_rejects_a_folder_without_recordings(tmp_path):
    with pytest.raises(InputError, match="no recordings of RAVDESS"):
        ravdess.read(tmp_path)


def test_utterances_are_sorted_by_path(tmp_path):
    write_ravdess(tmp_path, 30)
    wavs = [utterance.wav for utterance in ravdess.read(tmp_path).utterances]
    assert wavs == sorted(wavs)


@pytest.mark.real
def test_real_release(real_data):
    reading = ravdess.read(real_data / "ravdess")
    utterances = reading.utterances
    assert len(utterances) == len({utterance.id for utterance in utterances}) == 1440
    assert Counter(utterance.label for utterance in utterances) == reading.expected == ravdess.EXPECTED
    assert Counter(utterance.speaker for utterance in utterances) == {
        f"actor{n:02d}": 60 for n in range(1, 25)
    }
    assert Counter(utterance.gender for utterance in utterances) == {"F": 720, "M": 720}
    assert Counter(utterance.attributes["intensity"] for utterance in utterances) == {1.0: 768, 2.0: 672}
    assert reading.rejected == ()
