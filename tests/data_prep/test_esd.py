"""The ESD reader: both layouts and languages, text files, the official split."""

from collections import Counter

import pytest

from jaxser.data_prep.corpora import esd
from jaxser.types import InputError


def write(root, *names, texts=None):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for speaker, content in (texts or {}).items():
        (root / speaker / f"{speaker}.txt").write_bytes(content)
    return root


def test_fields_and_transcripts_in_both_languages(tmp_path):
    root = write(
        tmp_path,
        "0001/Angry/0001_000351.wav",
        "0015/Surprise/test/0015_001421.wav",
        texts={
            "0001": "0001_000351\t打远一看，它们的确很是美丽，\t生气\n".encode(),
            "0015": "0015_001421\tThe nine, the eggs, I keep.\tSurprise\r\n".encode("utf-16"),
        },
    )
    mandarin, english = esd.BOTH.read(root).utterances
    assert (mandarin.id, mandarin.label, mandarin.speaker, mandarin.gender) == (
        "0001_000351", "anger", "0001", "F"
    )  # fmt: skip
    assert (mandarin.transcript, mandarin.split) == ("打远一看，它们的确很是美丽，", "validation")
    assert (english.id, english.label, english.gender, english.split) == (
        "0015_001421", "surprise", "F", "test"
    )  # fmt: skip
    assert english.transcript == "The nine, the eggs, I keep."
    assert esd.BOTH.read(root).ignored == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_encodings_of_the_text_files(tmp_path, encoding):
    root = write(
        tmp_path, "0002/Sad/0002_001051.wav", texts={"0002": "0002_001051\t然而\t伤心".encode(encoding)}
    )
    assert esd.MANDARIN.read(root).utterances[0].transcript == "然而"


def test_official_split_of_all_numbers(tmp_path):
    names = [f"0011/Happy/0011_{number:06}.wav" for number in range(701, 1051)]
    utterances = esd.ENGLISH.read(write(tmp_path, *names)).utterances
    assert Counter(one.split for one in utterances) == {"train": 300, "validation": 20, "test": 30}
    splits = {one.id: one.split for one in utterances}
    assert [splits[f"0011_000{n}"] for n in (701, 720, 721, 750, 751)] == [
        "validation", "validation", "test", "test", "train"
    ]  # fmt: skip


def test_one_language_skips_the_other_and_counts_it(tmp_path):
    root = write(tmp_path, "0001/Sad/0001_001051.wav", "0020/Sad/0020_001051.wav", "0020/Sad/0019_001051.wav")
    reading = esd.ENGLISH.read(root)
    assert [one.id for one in reading.utterances] == ["0020_001051"]
    assert reading.facts == {"skipped": {"another language": 1}}
    assert sum(reading.expected.values()) == 17_500
    assert sum(esd.BOTH.read(root).expected.values()) == 35_000
    assert len(reading.rejected) == 1  # another speaker's file
    (tmp_path / "0001/Sad/0001_001051.wav").unlink()
    with pytest.raises(InputError, match="no recordings of ESD in zh found"):
        esd.MANDARIN.read(root)


def test_text_file_that_contradicts_the_folder_is_ignored_for_the_label(tmp_path):
    root = write(
        tmp_path, "0012/Sad/0012_001051.wav", texts={"0012": b"0012_001051\tWell.\tHappy\nno line\n\xff\n"}
    )
    reading = esd.BOTH.read(root)
    assert (reading.utterances[0].label, reading.utterances[0].transcript) == ("sadness", "Well.")
    [ignored] = reading.ignored
    assert (ignored.where, "Happy" in ignored.reason, "sadness" in ignored.reason) == (
        "0012/0012.txt", True, True
    )  # fmt: skip
