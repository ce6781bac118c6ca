"""The EmoDB reader: file names, words assembled from syllables, and the real release if it is available."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.small_corpus import RATE, noise
from jaxser.data_prep.corpora import emodb
from jaxser.data_prep.corpora.emodb import join_syllables, read_syllables
from jaxser.types import InputError

SILB = b"0.1\tder\n0.2\tla\n0.4\tpen\n0.6\tliegt\n0.8\tauf\n0.9\tdem\n1.1\teis\n1.4\tschrank\n1.8\t.\n"


def write_release(root: Path, name: str = "03a01Fa", silb: bytes | None = SILB, seconds: float = 2.0) -> Path:
    for folder in ("wav", "silb"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    soundfile.write(root / "wav" / f"{name}.wav", noise(seconds), RATE)
    if silb is not None:
        (root / "silb" / f"{name}.silb").write_bytes(silb)
    return root


def spans(words):
    return [(word.text, word.start, word.end) for word in words]


def test_reads_all_fields_of_an_utterance(tmp_path):
    root = write_release(tmp_path)
    (root / "erkennung.txt").write_bytes(
        b"Nr.\tSatz\terkannt\tnatuerlich\n3\xa0\t03a01Fa.wav\t90,00\xa0\t75,00\xa0\n"
    )
    [utterance] = emodb.read(root).utterances
    assert (utterance.id, utterance.wav, utterance.label) == ("03a01Fa", "wav/03a01Fa.wav", "happiness")
    assert (utterance.speaker, utterance.gender) == ("speaker03", "M")
    assert utterance.transcript == "Der Lappen liegt auf dem Eisschrank."
    assert utterance.attributes == {"recognised": 0.9, "natural": 0.75}
    assert spans(utterance.words) == [
        ("der", 0.1, 0.2), ("lappen", 0.2, 0.6), ("liegt", 0.6, 0.8), ("auf", 0.8, 0.9), ("dem", 0.9, 1.1),
        ("eisschrank", 1.1, 1.8),
    ]  # fmt: skip
    assert utterance.flags == ()


def syllables(labels: str):
    """Syllables of 0.1 s each."""
    rows = [f"{index / 10:.1f}\t{label}" for index, label in enumerate([*labels.split(), "."])]
    return read_syllables("\n".join(rows).encode("latin-1"))


@pytest.mark.parametrize(
    ("sentence", "labels", "starts"),
    [
        ("a02", "das will sie ( am mitt woch ab ge ben", [0, 1, 2, 4, 5, 7]),
        ("a04", "heute te abend bend könnte t ich s ihm sa gen", [0, 2, 4, 6, 7, 8, 9]),
        ("a05", "das schwar ze blatt pa pier be fin det sich da o ben neben bn dem holz stück",
         [0, 1, 3, 4, 6, 9, 10, 11, 13, 15, 16]),
        ("b02", "sie haben bm es ge gera de hoch ge tragen gn und jetzt geh hn sie wie der run ter",
         [0, 1, 3, 4, 7, 11, 12, 13, 15, 16, 18]),
        ("b03", "an den wo chen enden dn bin ich jetzt im mer nach hau se ge fahrn n und ha be ak nis be sucht",
         [0, 1, 2, 6, 7, 8, 9, 11, 12, 14, 17, 18, 20, 22]),
        ("b09", "ich will das e ben weg bring bring ( und dann mit karl was trin ken gehn",
         [0, 1, 2, 3, 5, 9, 10, 11, 12, 13, 14, 16]),
    ],
)  # fmt: skip
def test_words_from_real_syllable_labels(sentence, labels, starts):
    words = join_syllables(syllables(labels), emodb.SENTENCES[sentence])
    assert [round(10 * word.start) for word in words] == starts


def test_pauses_are_not_part_of_words():
    [first, second, *_] = join_syllables(
        syllables("die wird ( auf dem platz sein wo wir sie im mer hin le gen"), emodb.SENTENCES["b10"]
    )
    assert (first.end, second.end) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("silb", "reason"),
    [
        (b"", "the file is empty"),
        (SILB.replace(b"0.4", b"0.1"), "0.1 s follows 0.2 s"),
        (SILB.replace(b"0.4\tpen", b"pen"), "line 3 is not a time and a syllable"),
        (SILB.replace(b"1.8\t.", b""), "the last row is not '.'"),
        (b"0.1\tder\n0.2\tla\n1.8\t.\n", "do not match the sentence"),
        (
            SILB.replace(b"der\n0.2\tla", b"was\n0.2\tkuchen").replace(b"auf", b"unter"),
            "do not match the sentence",
        ),
        (b"\xff\xfe0\x00", "line 1 is not a time"),
    ],
)
def test_unusable_syllables_are_reported(tmp_path, silb, reason):
    reading = emodb.read(write_release(tmp_path, silb=silb))
    [utterance], [rejection] = reading.utterances, reading.ignored
    assert (utterance.words, utterance.flags) == (None, ("bad_alignment",))
    assert rejection.where == "silb/03a01Fa.silb"
    assert reason in rejection.reason


def test_words_after_the_end_of_the_recording_are_dropped(tmp_path):
    [utterance] = emodb.read(write_release(tmp_path, seconds=0.92)).utterances
    assert spans(utterance.words)[-1] == ("auf", 0.8, 0.9)
    assert utterance.flags == ("cut_alignment",)
    [utterance] = emodb.read(write_release(tmp_path, seconds=1.0)).utterances
    assert spans(utterance.words)[-1] == ("dem", 0.9, 1.0)


def test_missing_syllables_are_flagged(tmp_path):
    [utterance] = emodb.read(write_release(tmp_path, silb=None)).utterances
    assert (utterance.words, utterance.flags) == (None, ("no_alignment",))


@pytest.mark.parametrize("name", ["01a01Fa", "03a03Fa", "03a01Xa", "03a01F", "._03a01Fa", "notes"])
def test_other_file_names_are_rejected(tmp_path, name):
    write_release(tmp_path)
    reading = emodb.read(write_release(tmp_path, name=name, silb=None))
    assert len(reading.utterances) == 1
    assert [rejection.where for rejection in reading.rejected] == (
        [] if name.startswith("._") else [f"wav/{name}.wav"]
    )


def test_rejects_a_folder_without_recordings(tmp_path):
    with pytest.raises(InputError, match="no recordings of EmoDB"):
        emodb.read(tmp_path)


@settings(max_examples=200, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from([*SILB.split(b"\n"), b"0.5\t(", b"9\t.", b"0.3\tx"]), max_size=15).map(
            b"\n".join
        ),
    )
)
def test_arbitrary_syllable_files_never_crash_the_reader(tmp_path_factory, content):
    root = tmp_path_factory.mktemp("emodb")
    reading = emodb.read(write_release(root, silb=content, seconds=0.1))
    [utterance] = reading.utterances
    assert (utterance.words is None) == ("bad_alignment" in utterance.flags) == bool(reading.ignored)


@pytest.fixture(scope="module")
def release(real_data):
    return emodb.read(real_data / "emodb")


@pytest.mark.real
def test_real_release(release):
    utterances = release.utterances
    assert Counter(utterance.label for utterance in utterances) == release.expected == emodb.EXPECTED
    assert len({utterance.id for utterance in utterances}) == len(utterances) == 535
    assert {utterance.speaker: utterance.gender for utterance in utterances} == {
        f"speaker{number}": gender for number, gender in emodb.GENDERS.items()
    }
    assert sum(utterance.words is not None for utterance in utterances) == 534
    assert [rejection.where for rejection in release.ignored] == ["silb/13a01Wb.silb"]  # an empty file
    assert (
        min(utterance.attributes["recognised"] for utterance in utterances) >= 0.8
    )  # a criterion of the release


@pytest.mark.real
def test_words_of_the_real_release_match_the_recordings(real_data, release):
    """The signal is louder inside words than outside them, on every sixth utterance."""
    differences = []
    for utterance in release.utterances[::6]:
        if not utterance.words:
            continue
        samples, rate = soundfile.read(real_data / "emodb" / utterance.wav)
        inside = np.zeros(len(samples), bool)
        for word in utterance.words:
            assert 0 <= word.start < word.end <= len(samples) / rate
            inside[round(word.start * rate) : round(word.end * rate)] = True
        if (~inside).sum() > 0.03 * rate:
            power = [np.mean(samples[part] ** 2) for part in (inside, ~inside)]
            differences.append(10 * np.log10(power[0] / power[1]))
    assert len(differences) > 50
    assert np.median(differences) > 25  # dB
    assert np.quantile(differences, 0.05) > 8


def test_release_in_audformat_has_agreement_and_split(tmp_path):
    wav = tmp_path / "wav"
    wav.mkdir()
    for name in ("03a01Fa", "12a01Wc"):
        (wav / f"{name}.wav").touch()
    header = "file,emotion,emotion.confidence\n"
    (tmp_path / "db.emotion.csv").write_text(
        header + "wav/03a01Fa.wav,happiness,0.9\nwav/12a01Wc.wav,anger,\n"
    )
    for part, name in (("train", "03a01Fa"), ("test", "12a01Wc")):
        table = tmp_path / f"db.emotion.categories.{part}.gold_standard.csv"
        table.write_text(header + f"wav/{name}.wav,anger,0.95\n")
    first, second = emodb.read(tmp_path).utterances
    assert (first.id, first.attributes, first.split) == ("03a01Fa", {"recognised": 0.9}, "train")
    assert (second.id, second.attributes, second.split) == ("12a01Wc", {}, "test")
