"""Corpora described by the names of their files: fields, ids, odd files, and the genuine lists of names."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from jaxser import corpora
from jaxser.data_prep.corpora import cremad
from jaxser.data_prep.corpora.named import NamedCorpus
from jaxser.data_prep.readers import READERS, import_reader
from jaxser.types import InputError

RECORDS = [name for name, place in READERS.items() if place.startswith(".corpora.records:")] + ["cremad"]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def record_of(name: str) -> NamedCorpus:
    return cremad.CREMAD if name == "cremad" else import_reader(name)


FIELDS = {
    "cafe": ("CaFE/Peur/Fort/07-P-2-6.wav", "07-P-2-6", "fear", "07", "M", "Six ours aimants domestiqués."),
    "cremad": ("AudioWAV/1002_ITH_SAD_HI.wav", "1002_ITH_SAD_HI", "sadness", "1002", "F",
               "I think I have a doctor's appointment."),
    "emovdb": ("bea_Amused/amused_1-15_0001.wav", "bea_Amused_amused_1-15_0001", "amused", "bea", "F", "To be."),
    "emovo": ("f2/tri-f2-d1.wav", "tri-f2-d1", "sadness", "f2", "F", "Sabato sera cosa farà?"),
    "jl": ("JL(wav+txt)/male2_excited_7b_2.wav", "male2_excited_7b_2", "excited", "male2", "M", "Carl leaps."),
    "nemo": ("samples/WR0_surprised_64.wav", "WR0_surprised_64", "surprise", "WR0", "M", "Ucho wykrywa dźwięki."),
    "savee": ("AudioData/JE/su03.wav", "JE_su03", "surprise", "JE", "M", ""),
    "subesco": ("F_02_MONIKA_S_8_SURPRISE_3].wav", "F_02_MONIKA_S_8_SURPRISE_3]", "surprise", "F_02", "F",
                "দরজার বাইরে কুকুরটি দাঁড়িয়ে আছে"),
    "tess": ("OAF_neutral/OA_bite_neutral.wav", "OA_bite_neutral", "neutral", "OA", "F", "Say the word bite."),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_fields_of_a_file_name(name, tmp_path):
    wav, identity, label, speaker, gender, transcript = FIELDS[name]
    touch(tmp_path, wav)
    (tmp_path / "cmuarctic.data").write_text('( arctic_a0001 "To be." )\n( arctic_b0001 "Not to be." )\n')
    (tmp_path / "data.tsv").write_text(
        "file_id\temotion\traw_text\n WR0_surprised_64.wav\tsurprised\tUcho wykrywa dźwięki.\t\n", "utf-8"
    )
    (tmp_path / "JL(wav+txt)").mkdir(exist_ok=True)
    (tmp_path / "JL(wav+txt)" / "male2_excited_7b_2.txt").write_text("Carl leaps.\r\n")
    [one] = import_reader(name).read(tmp_path).utterances
    assert (one.wav, one.id, one.label, one.speaker) == (wav, identity, label, speaker)
    assert (one.gender, one.transcript) == (gender, transcript)


def test_levels_are_attributes_and_unspecified_ones_are_not(tmp_path):
    touch(tmp_path, "1001_IEO_ANG_LO.wav", "1001_IEO_ANG_HI.wav", "1001_DFA_ANG_XX.wav", "1040_ITH_SAD_X.wav")
    levels = {one.id: one.attributes for one in cremad.read(tmp_path).utterances}
    assert levels == {
        "1001_IEO_ANG_LO": {"intensity": 1.0},
        "1001_IEO_ANG_HI": {"intensity": 3.0},
        "1001_DFA_ANG_XX": {},
        "1040_ITH_SAD_X": {},
    }


@pytest.mark.parametrize("name", RECORDS)
def test_odd_files_are_rejected_with_the_reason(name, tmp_path):
    wav = FIELDS[name][0]
    other = str(Path(wav).with_name("notes.wav"))
    touch(tmp_path, wav, other, str(Path(wav).with_name("._" + Path(wav).name)), "readme.txt")
    reading = import_reader(name).read(tmp_path)
    assert len(reading.utterances) == 1
    [rejection] = reading.rejected
    assert rejection.where == other
    assert record_of(name).example in rejection.reason


def test_an_unknown_emotion_is_named(tmp_path):
    [rejection] = import_reader("savee").read(touch(tmp_path, "DC/a01.wav", "DC/x01.wav")).rejected
    assert rejection.reason == "'x' is not an emotion of SAVEE: a, d, f, h, n, sa, su"


@pytest.mark.parametrize("name", RECORDS)
def test_folder_of_another_corpus_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=f"no recordings of {re.escape(record_of(name).title)} found"):
        import_reader(name).read(touch(tmp_path, "clip.wav"))


@pytest.mark.parametrize("name", RECORDS)
def test_records_agree(name):
    record, corpus = record_of(name), corpora.CORPORA[name]
    assert record.title == corpus.title
    assert set(record.expected) == set(record.labels.values())
    assert sum(record.expected.values()) == corpus.utterances
    assert re.fullmatch(rf"(?:.*/)?{record.pattern}", record.example.removesuffix(".wav"))
    if isinstance(record.transcripts, dict):
        assert len(record.transcripts) in (0, corpus.fixed_sentences)


def test_the_page_lists_licence_and_source_of_every_corpus():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "corpora.md").read_text(encoding="utf-8")
    counts = [row for row in page.split("## Measurements")[0].splitlines() if row.startswith("| `")]
    for name, corpus in corpora.CORPORA.items():
        if name == "demo":
            continue
        [row] = [
            row for row in page.splitlines() if row.startswith(f"| `{name}` |") and corpus.licence in row
        ]
        assert all(part.strip("<>;") in row for part in corpus.source.split())
        if corpus.utterances and not name.startswith("esd_"):
            assert f"{corpus.utterances:,}" in next(row for row in counts if row.startswith(f"| `{name}`"))


def test_same_names_in_both_layouts_of_savee_have_one_id(tmp_path):
    reading = import_reader("savee").read(touch(tmp_path, "AudioData/DC/a01.wav", "ALL/DC_a01.wav"))
    assert [one.id for one in reading.utterances] == ["DC_a01", "DC_a01"]


VOTES = (
    '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote","meanEmoResp"\n'
    '"100002",0,0,0,3,6,0,"1001_IEO_HAP_LO",9,0.667,"N",62\n'
    '"200002",0,0,0,9,0,0,"1001_IEO_HAP_LO",9,1,"H",70\n'
)


def test_votes_are_those_for_the_voice_alone(tmp_path):
    touch(tmp_path, "AudioWAV/1001_IEO_HAP_LO.wav", "AudioWAV/1001_IEO_HAP_HI.wav")
    (tmp_path / cremad.VOTES).parent.mkdir()
    (tmp_path / cremad.VOTES).write_text(VOTES)
    high, low = cremad.read(tmp_path).utterances
    assert low.votes == ("happiness",) * 3 + ("neutral",) * 6
    assert low.attributes == {"intensity": 1.0, "perceived_level": 62.0}
    assert high.votes == ()


@pytest.mark.parametrize(
    "table",
    ["", "a,b\n1,2\n", VOTES.replace("3,6", "x,6"), VOTES.replace("3,6", "9999999,6"), VOTES[:-60] + "\n"],
)
def test_damaged_votes_are_ignored_with_the_reason(table, tmp_path):
    touch(tmp_path, "AudioWAV/1001_IEO_HAP_LO.wav")
    (tmp_path / cremad.VOTES).parent.mkdir()
    (tmp_path / cremad.VOTES).write_text(table)
    reading = cremad.read(tmp_path)
    assert len(reading.utterances) == 1
    assert all(one.reason.startswith("votes not used: ") for one in reading.ignored)
    assert reading.utterances[0].votes == () or table == VOTES[:-60] + "\n"


@pytest.mark.real
@pytest.mark.parametrize("name", ["cremad", "emodb", "ravdess", "savee"])
def test_names_published_by_emobox(name, real_data, tmp_path):
    """Every name is read, with EmoBox's label, and the counts are those of the release."""
    folder = real_data / "emobox" / name
    if not folder.is_dir():
        pytest.skip("needs EmoBox's fold files")
    rows = [
        json.loads(line) for path in folder.glob("fold_1/*.jsonl") for line in path.read_text().splitlines()
    ]
    touch(tmp_path, *(row["wav"].removeprefix("downloads/") for row in rows))
    reading = import_reader(name).read(tmp_path)
    assert reading.rejected == ()
    assert len(reading.utterances) == len(rows) == corpora.CORPORA[name].utterances
    assert Counter(one.label for one in reading.utterances) == reading.expected
    theirs = {Path(row["wav"]).stem: row["emo"] for row in rows}
    pairs = {(one.label, theirs[Path(one.wav).stem]) for one in reading.utterances}
    assert len(pairs) == len(reading.expected)  # one of their labels for each of ours
