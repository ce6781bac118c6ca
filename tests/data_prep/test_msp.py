"""The readers of MSP-Podcast and MSP-IMPROV, on files in their layouts."""

import json

import pytest

from jaxser.data_prep.corpora import msp_improv, msp_podcast
from jaxser.types import InputError

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
ROWS = (
    "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1",
    "MSP-PODCAST_0002_0001.wav,H,5.0,6.0,4.5,97,Female,Train",
    "MSP-PODCAST_0002_0002.wav,X,4.0,,NaN,Unknown,Unknown,Development",
    "MSP-PODCAST_0003_0001.wav,A,6,2,5,12,Female,Test2",
)


def podcast(root, rows=ROWS, header=HEADER, name="labels_consensus.csv"):
    (root / "Labels").mkdir()
    (root / "Audios").mkdir()
    (root / "Labels" / name).write_text("\n".join([header, *rows]) + "\n")
    return root


def test_podcast_fields(tmp_path):
    reading = msp_podcast.read(podcast(tmp_path))
    test, train, validation, second = reading.utterances
    assert (test.id, test.wav) == ("MSP-PODCAST_0001_0008", "Audios/MSP-PODCAST_0001_0008.wav")
    assert (test.label, test.speaker, test.gender, test.split) == ("neutral", "30", "M", "test")
    assert test.attributes == {"activation": 2.2, "valence": 4.0, "dominance": 2.6}
    assert (train.label, train.split) == ("happiness", "train")
    assert (validation.label, validation.split) == ("no agreement", "validation")
    assert (validation.speaker, validation.gender, validation.attributes) == ("", "", {"activation": 4.0})
    assert (second.split, second.session) == ("", "test2")
    assert reading.rejected == ()
    assert [fold["name"] for fold in reading.folds] == ["test1", "test2"]
    assert reading.folds[1] == {
        "name": "test2", "train": [train.id], "validation": [validation.id], "test": [second.id]
    }  # fmt: skip


def test_podcast_of_an_older_release(tmp_path):
    rows = (
        "MSP-PODCAST_0001_0008.wav,N,2,4,2,1,Male,Validation",
        "MSP-PODCAST_0001_0009.wav,N,2,4,2,1,Male,Test1",
    )
    podcast(tmp_path, rows, name="labels_concensus.csv")
    (tmp_path / "Audios").rename(tmp_path / "Audio")
    reading = msp_podcast.read(tmp_path)
    assert [one.split for one in reading.utterances] == ["validation", "test"]
    assert reading.utterances[0].wav == "Audio/MSP-PODCAST_0001_0008.wav"
    assert reading.folds == ()  # without a training part
    assert reading.expected == {}


def test_podcast_transcripts_alignments_and_votes(tmp_path):
    podcast(tmp_path)
    for folder, name, content in (
        ("Transcripts", "MSP-PODCAST_0001_0008.txt", "I did\nnot know\n"),
        ("ForceAligned", "MSP-PODCAST_0001_0008.TextGrid", _textgrid("i", "did")),
        ("ForceAligned", "MSP-PODCAST_0002_0001.TextGrid", "damaged"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(content)
    (tmp_path / "Labels/labels_detailed.csv").write_text(
        "FileName,WorkerID,EmoClass_Major,EmoAct\n"
        "MSP-PODCAST_0001_0008.wav,WORKER1,Neutral,2\nMSP-PODCAST_0001_0008.wav,WORKER2,Sad,2\n"
        "MSP-PODCAST_0001_0008.wav,WORKER3,,2\n"
    )
    reading = msp_podcast.read(tmp_path)
    first, second = reading.utterances[:2]
    assert first.transcript == "I did not know"
    assert [word.text for word in first.words] == ["i", "did"]
    assert first.votes == ("Neutral", "Sad")
    assert (second.words, second.flags, second.votes) == (None, ("bad_alignment",), ())
    assert sorted(one.where for one in reading.ignored) == [
        "ForceAligned/MSP-PODCAST_0002_0001.TextGrid", "labels_detailed.csv:4"
    ]  # fmt: skip


def test_podcast_votes_in_one_column(tmp_path):
    podcast(tmp_path)
    (tmp_path / "Labels/labels_detailed.csv").write_text(
        'FileName,EmoDetail\nMSP-PODCAST_0001_0008.wav,"WORKER00000070; Angry; Angry,Sad; A:5.0; V:2.0; D:5.0;"\n'
    )
    assert msp_podcast.read(tmp_path).utterances[0].votes == ("Angry",)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.wav,Q,1,1,1,1,Male,Train", "EmoClass 'Q'"),
        ("a.wav,N,1,1,1,1,Male,Test9", "Split_Set 'Test9'"),
        ("../a.wav,N,1,1,1,1,Male,Train", "not the name of a file"),
        ("a.wav,N,1", "3 cells, but 8 columns"),
    ],
)
def test_podcast_rows_that_are_rejected(tmp_path, row, reason):
    reading = msp_podcast.read(podcast(tmp_path, (*ROWS, row)))
    [rejection] = reading.rejected
    assert rejection.where == "labels_consensus.csv:6"
    assert reason in rejection.reason
    assert len(reading.utterances) == 4


def test_podcast_test3_without_labels_is_skipped_and_counted(tmp_path):
    reading = msp_podcast.read(podcast(tmp_path, (*ROWS, "b.wav,,,,,,,Test3", "c.wav,N,1,1,1,1,Male,Test3")))
    assert reading.facts["skipped"] == {"without published label": 1}
    assert [fold["name"] for fold in reading.folds] == ["test1", "test2", "test3"]
    assert json.dumps(reading.facts)


def test_podcast_without_its_table(tmp_path):
    with pytest.raises(InputError, match="no table of MSP-Podcast's labels found"):
        msp_podcast.read(tmp_path)
    podcast(tmp_path, header="file,emotion")
    with pytest.raises(InputError, match="no column filename, emoclass, split_set; found file, emotion"):
        msp_podcast.read(tmp_path)


def _textgrid(*words):
    rows = "".join(f'{n}\n{n + 1}\n"{word}"\n' for n, word in enumerate(words))
    end = len(words)
    return (
        f'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n{end}\n<exists>\n1\n'
        f'"IntervalTier"\n"words"\n0\n{end}\n{end}\n{rows}'
    )


EVALUATION = """UTD-IMPROV-S01A-F01-P-FM01.avi; A; A:3.200000; V:2.400000; D:3.600000 ; N:4.000000;
WORKER00000001; Angry; Angry,Frustrated; A:3.000000; V:2.000000; D:4.000000; N:4.000000;
WORKER00000002; Neutral; Neutral; A:3.000000; V:3.000000; D:3.000000; N:NaN;

UTD-IMPROV-S02H-M03-T-FM02.avi; X; A:3.200000; V:NaN; D:3.600000 ; N:4.000000;
UTD-IMPROV-S02H-M03-T-FM03.avi; H; A:3.200000; V:4.2; D:3.600000 ; N:4.000000;
"""


def improv(root, *names, evaluation=EVALUATION):
    (root / "Evaluation.txt").write_text(evaluation)
    for name in names:
        path = root / f"session{name[16]}" / name.split("-")[2] / name.split("-")[4] / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_improv_fields(tmp_path):
    improv(tmp_path, "MSP-IMPROV-S01A-F01-P-FM01", "MSP-IMPROV-S02H-M03-T-FM02", "MSP-IMPROV-S02H-M03-T-FM03")
    texts = tmp_path / "All_human_transcriptions" / "session1"
    texts.mkdir(parents=True)
    (texts / "MSP-IMPROV-S01A-F01-P-FM01.txt").write_text("How can I\nnot?")
    reading = msp_improv.read(tmp_path)
    first, second, _ = sorted(reading.utterances, key=lambda one: one.id)
    assert (first.label, first.speaker, first.gender, first.session) == ("anger", "F01", "F", "session1")
    assert first.dialogue == "session1_S01A_P"
    assert (first.votes, first.transcript) == (("Angry", "Neutral"), "How can I not?")
    assert first.attributes == {"activation": 3.2, "valence": 2.4, "dominance": 3.6, "naturalness": 4.0}
    assert (second.label, second.speaker, second.votes) == ("no agreement", "M03", ())
    assert "valence" not in second.attributes
    assert (reading.rejected, reading.ignored) == ((), ())
    assert sum(reading.expected.values()) == 7_798


def test_improv_recordings_and_turns_must_match(tmp_path):
    evaluation = (
        EVALUATION + "UTD-IMPROV-S01Q; nonsense\nWORKER1; Sad; after it;\n" + EVALUATION.splitlines()[0]
    )
    improv(
        tmp_path, "MSP-IMPROV-S01A-F01-P-FM01", "MSP-IMPROV-S09S-F01-P-FM01", "MSP-IMPROV-notes-1-F01-P",
        evaluation=evaluation,
    )  # fmt: skip
    reading = msp_improv.read(tmp_path)
    assert [one.id for one in reading.utterances] == ["MSP-IMPROV-S01A-F01-P-FM01"]
    reasons = {one.id: one.reason for one in reading.rejected}
    assert "no line for this turn" in reasons["MSP-IMPROV-S09S-F01-P-FM01"]
    assert "file name" in reasons["MSP-IMPROV-notes-1-F01-P"]
    assert reasons["MSP-IMPROV-S02H-M03-T-FM02"] == "no recording of this turn"
    assert [one.where for one in reading.ignored] == [
        "Evaluation.txt:7",
        "Evaluation.txt:8",
        "Evaluation.txt:9",
    ]
    assert reading.utterances[0].votes == ("Angry", "Neutral")


def test_improv_without_its_files(tmp_path):
    with pytest.raises(InputError, match=r"no Evaluation\.txt"):
        msp_improv.read(tmp_path)
    with pytest.raises(InputError, match="no recordings of MSP-IMPROV"):
        msp_improv.read(improv(tmp_path))
