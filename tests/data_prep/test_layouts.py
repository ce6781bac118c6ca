"""Layouts that carry their own labels, under `--corpus=folder`."""

import json
from pathlib import Path

import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.small_corpus import RATE, noise
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep.corpora import audformat, folder
from jaxser.data_prep.corpora.columns import read_columns
from jaxser.types import InputError, Reading, UsageError


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return root


def fields(reading: Reading, *names: str) -> list[tuple]:
    return sorted(tuple(getattr(one, name) for name in names) for one in reading.utterances)


def reasons(reading: Reading) -> dict[str, str]:
    return {one.where: one.reason for one in reading.rejected}


def test_folders_of_splits_and_labels(tmp_path):
    files = (
        "train/angry/a.wav",
        "dev/sad/b.flac",
        "test/sad/c.mp3",
        "loose.wav",
        "test/sad/._c.wav",
        "notes.txt",
    )
    reading = folder.read(write(tmp_path, dict.fromkeys(files, "")))
    assert fields(reading, "wav", "label", "split") == [
        ("dev/sad/b.flac", "sad", "validation"), ("test/sad/c.mp3", "sad", "test"),
        ("train/angry/a.wav", "angry", "train"),
    ]  # fmt: skip
    assert reasons(reading) == {"loose.wav": "not in 2 folders, as most recordings are"}
    assert reading.facts["layout"] == "folders named after labels"
    assert reading.facts["columns"] == {"split": "folder1", "label": "folder2"}


def test_folders_of_labels_alone_and_splits_within_labels(tmp_path):
    reading = folder.read(write(tmp_path / "one", {"angry/a.wav": "", "sad/a.wav": ""}))
    assert fields(reading, "id", "label", "split") == [("angry/a", "angry", ""), ("sad/a", "sad", "")]
    reading = folder.read(write(tmp_path / "two", {"angry/train/a.wav": "", "sad/test/a.wav": ""}))
    assert fields(reading, "label", "split") == [("angry", "train"), ("sad", "test")]


def test_folders_of_unclear_meaning_must_be_named(tmp_path):
    root = write(tmp_path, {"angry/anna/a.wav": "", "sad/ben/b.wav": ""})
    with pytest.raises(InputError, match=r"folder1: angry, sad; folder2: anna, ben.*--columns=label=folder1"):
        folder.read(root)
    reading = folder.read(root, columns="label=folder1,speaker=folder2")
    assert fields(reading, "label", "speaker") == [("angry", "anna"), ("sad", "ben")]
    with pytest.raises(InputError, match="name folders: folder1, folder2"):
        folder.read(root, columns="label=Emotion")
    with pytest.raises(UsageError, match="name the folder of the labels"):
        folder.read(root, columns="speaker=folder2")


def test_audiofolder_with_a_table_in_each_split(tmp_path):
    header = "file_name,transcription,emotion,length\n"
    root = write(
        tmp_path,
        {
            "train/metadata.csv": header + 'a.wav,"Well, hello",angry,3\n',
            "test/metadata.csv": header + "b.wav,Ho,sad,3\nc.wav\n",
        },
    )
    reading = folder.read(root)
    assert fields(reading, "wav", "label", "transcript", "split") == [
        ("test/b.wav", "sad", "Ho", "test"), ("train/a.wav", "angry", "Well, hello", "train"),
    ]  # fmt: skip
    assert reasons(reading) == {"test/metadata.csv:3": "1 cell, but 4 columns"}
    assert reading.facts["layout"] == "Hugging Face audiofolder"
    assert reading.facts["ignored_columns"] == ["length"]


def test_audiofolder_with_one_table(tmp_path):
    rows = [
        {"file_name": "train/a.wav", "transcription": "Hi", "label": "angry"},
        {"file_name": "validation/b.wav", "transcription": "Ho", "label": "sad"},
    ]
    reading = folder.read(
        write(tmp_path, {"metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    )
    assert fields(reading, "label", "split") == [("angry", "train"), ("sad", "validation")]
    assert reading.facts["columns"]["split"] == "the first folder of the path"


HEADER = """name: example
schemes:
  emotion: {dtype: str, labels: [anger, joy]}
  transcription: {dtype: str, labels: {a01: Der Lappen liegt auf dem Eisschrank.}}
  speaker: {dtype: int, labels: speaker}
tables:
  emotion: {type: segmented, columns: {emotion: {scheme_id: emotion}, emotion.confidence: {}}}
  gold.test: {type: filewise, split_id: test, columns: {emotion: {scheme_id: emotion}}}
  files: {type: filewise, columns: {speaker: {scheme_id: speaker}, transcription: {scheme_id: transcription}}}
misc_tables:
  speaker: {levels: {speaker: int}, columns: {gender: {}}}
"""
DATABASE = {
    "db.yaml": HEADER,
    "db.emotion.csv": "file,start,end,emotion,emotion.confidence\n"
    "wav/a.wav,0 days 00:00:00.5,0 days 00:00:01.250000,anger,0.9\n"
    "wav/b.wav,0 days 00:00:00,NaT,joy,1\n"
    "wav/c.wav,0 days 00:01:02,NaT,joy,1\n"
    "wav/d.wav,0 days,NaT,,\n"
    "wav/e.wav,soon,NaT,joy,1\n",
    "db.gold.test.csv": "file,emotion\nwav/z.wav,anger\n",
    "db.files.csv": "file,speaker,transcription\nwav/a.wav,3,a01\nwav/z.wav,4,Other words\n",
    "db.speaker.csv": "speaker,gender\n3,female\n4,male\n",
}


def test_audformat(tmp_path):
    reading = folder.read(write(tmp_path, DATABASE))
    assert fields(reading, "id", "wav", "label", "speaker", "gender", "split") == [
        ("wav/a_0.5_1.25", "wav/a.wav#t=0.500000,1.250000", "anger", "3", "F", ""),
        ("wav/b", "wav/b.wav", "joy", "", "", ""),
        ("wav/c_62.0_end", "wav/c.wav#t=62.000000", "joy", "", "", ""),
        ("wav/z", "wav/z.wav", "anger", "4", "M", "test"),
    ]
    texts = {one.id: one.transcript for one in reading.utterances}
    assert texts["wav/a_0.5_1.25"] == "Der Lappen liegt auf dem Eisschrank."
    assert texts["wav/z"] == "Other words"
    assert reasons(reading) == {
        "db.emotion.csv:5": "no label",
        "db.emotion.csv:6": "'soon' is not a time such as 0 days 00:00:00.5",
    }
    assert reading.facts["columns"]["label"] == "emotion/emotion"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"db.yaml": "- 1\n"}, "not the header of a database"),
        ({"db.yaml": "a: [\n"}, "db.yaml: while parsing"),
        ({"db.yaml": "tables: {}\n"}, "no table has a column emotion"),
        (
            {"db.emotion.csv": None, "db.emotion.parquet": ""},
            "found db.emotion.parquet: save the database with",
        ),
    ],
)
def test_unusable_databases_are_errors(tmp_path, changes, message):
    files = {name: text for name, text in (DATABASE | changes).items() if text is not None}
    with pytest.raises(InputError, match=message) as caught:
        folder.read(write(tmp_path, files))
    assert "\n" not in str(caught.value)


@settings(max_examples=30)
@given(st.text(alphabet=" 0123456789:.daysNT", max_size=20))
def test_times_are_read_or_refused(cell):
    seconds, problem = "", ""
    try:
        seconds = audformat._seconds(cell)
    except ValueError as error:
        problem = str(error)
    assert "is not a time" in problem or (problem, seconds) == ("", "") or float(seconds) >= 0


KALDI = {
    "wav.scp": "r1 audio/r1.wav\nr2 sox in.wav -t wav - |\n",
    "segments": "u1 r1 0.5 2.0\nu2 r1 2.0 -1\nu3 r2 0 1\nu4 r9 0 1\nu5 r1\n",
    "text": "u1 HELLO YOU\n",
    "utt2spk": "u1 s1\n",
    "spk2gender": "s1 f\n",
    "utt2emo": "u1 angry\nu2\tsad\nu3 sad\nu4 sad\nu5 sad\n",
}


def test_kaldi_with_segments(tmp_path):
    reading = folder.read(write(tmp_path, {f"data/{name}": text for name, text in KALDI.items()}))
    assert fields(reading, "id", "wav", "label", "transcript", "speaker", "gender") == [
        ("u1", "audio/r1.wav#t=0.500000,2.000000", "angry", "HELLO YOU", "s1", "F"),
        ("u2", "audio/r1.wav#t=2.000000", "sad", "", "", ""),
    ]
    found = reasons(reading)
    assert "is a command, which is not run" in found["data/segments:u3"]
    assert "no recording 'r9' in wav.scp" in found["data/segments:u4"]
    assert "not a recording, its start and its end" in found["data/segments:u5"]


def test_kaldi_with_a_folder_per_split_and_another_file_of_labels(tmp_path):
    parts = {"train": "angry", "test": "sad"}
    files = {f"{part}/wav.scp": f"u_{part} {part}.wav\n" for part in parts}
    files |= {f"{part}/utt2mood": f"u_{part} {label}\n" for part, label in parts.items()}
    root = write(tmp_path, files)
    with pytest.raises(InputError, match="no file of labels, utt2emo, "):
        folder.read(root)
    reading = folder.read(root, columns="label=utt2mood")
    assert fields(reading, "id", "label", "split") == [
        ("u_test", "sad", "test"),
        ("u_train", "angry", "train"),
    ]


LJSPEECH = 'L1|"Hm," he said|Hm he said|angry\nL2|b|b|sad\nL3|b\n'


def test_ljspeech(tmp_path):
    reading = folder.read(write(tmp_path, {"metadata.csv": LJSPEECH, "wavs/L1.wav": ""}))
    assert fields(reading, "wav", "label", "transcript") == [
        ("wavs/L1.wav", "angry", "Hm he said"), ("wavs/L2.wav", "sad", "b")
    ]  # fmt: skip
    assert reasons(reading) == {"metadata.csv:3": "2 cells, but 4 in the first row"}
    assert reading.facts["columns"]["path"] == "1, in wavs/, with .wav"


def test_ljspeech_without_labels_says_what_to_do(tmp_path):
    root = write(tmp_path, {"metadata.csv": 'L1|"Hm," he said|angry\nL2|b|sad\n', "wavs/L1.wav": ""})
    with pytest.raises(InputError, match="add them as a fourth cell"):
        folder.read(root)
    reading = folder.read(root, columns="path=1,text=2,label=3")
    assert fields(reading, "label", "transcript") == [("angry", '"Hm," he said'), ("sad", "b")]


EMOBOX = {
    "fold_1/e_train_fold_1.jsonl": '{"key": "e-1", "wav": "downloads/e/wav/1.wav", "emo": "anger", "length": 2.0}\n',
    "fold_1/e_test_fold_1.jsonl": '{"key": "e-2", "wav": "downloads/e/wav/2.wav", "emo": "sad"}\n{"key": 1}\n',
    "wav/2.wav": "",
}


def test_fold_files_of_emobox(tmp_path):
    root = write(tmp_path, EMOBOX)
    reading = folder.read(root, metadata=root / "fold_1")
    assert fields(reading, "id", "wav", "label", "split") == [
        ("e-1", "wav/1.wav", "anger", "train"), ("e-2", "wav/2.wav", "sad", "test")
    ]  # fmt: skip
    assert reading.facts["columns"]["path"] == "wav, without its first 3 folders"
    assert reasons(reading) == {"fold_1/e_test_fold_1.jsonl:2": "no path"}
    (root / "wav" / "2.wav").rename(root / "wav" / "2.flac")
    reading = folder.read(root, metadata=root / "fold_1")
    assert fields(reading, "wav") == [("wav/1.flac",), ("wav/2.flac",)]
    with pytest.raises(UsageError, match="neither of EmoBox's fold files nor of Kaldi's"):
        folder.read(root, metadata=root / "wav")


TABLE = (
    "FileName;EmoClass;SpkrID;Split_Set;label\nM1.wav;A;3;Train;x\nM2.wav;N;4;Test1;x\n"
    "M3.wav;N;4;Test2;x\nM4.wav;;4;Train;x\n"
)
COLUMNS = "path=FileName,label=EmoClass,speaker=SpkrID,split=Split_Set"


def test_any_table_by_names_of_its_columns(tmp_path):
    root = write(tmp_path, {"Labels/labels.csv": TABLE, "Audios/M1.wav": ""})
    reading = folder.read(root, metadata=root / "Labels" / "labels.csv", columns=COLUMNS)
    assert fields(reading, "wav", "label", "speaker", "split") == [
        ("Audios/M1.wav", "A", "3", "train"), ("Audios/M2.wav", "N", "4", "test"), ("Audios/M3.wav", "N", "4", ""),
    ]  # fmt: skip
    assert reading.facts["columns"] == {
        "path": "FileName, in Audios/", "label": "EmoClass", "speaker": "SpkrID", "split": "Split_Set"
    }  # fmt: skip
    assert reading.facts["ignored_columns"] == ["label (not used)"]
    assert reading.warnings == ("split is unknown where the table says 'Test2' (1)",)
    assert reasons(reading) == {"labels.csv:5": "no label"}


def test_columns_that_are_missing_or_ambiguous(tmp_path):
    root = write(tmp_path, {"metadata.csv": "path,emotion,emo\na.wav,x,y\n"})
    with pytest.raises(
        InputError, match="emotion and emo may both be the label; choose one by --columns=label="
    ):
        folder.read(root)
    assert fields(folder.read(root, columns="label=EMO"), "label") == [("y",)]
    with pytest.raises(InputError, match=r"no column Mood \(--columns\); found path, emotion, emo"):
        folder.read(root, columns="label=Mood")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mood=x", "'mood' must be one of path, label"),
        ("label", "with its name in the table: label=NAME"),
        ("label=a,label=b", "each column once"),
        ("label=a,text=A", "each column once"),
        ("path=1,label=Emo", "either names or, for a table without a header, numbers"),
    ],
)
def test_malformed_columns(value, message):
    with pytest.raises(UsageError, match=message):
        read_columns(value)


def test_what_was_recognised_is_printed_before_the_work(tmp_path, capsys):
    root = write(tmp_path / "corpus", {"labels.tsv": "FileName\tMood\tage\nM1\tA\t3\nM2\tH\t4\nM3\tA\t4\n"})
    (root / "wavs").mkdir()
    for number in (1, 2):
        soundfile.write(root / "wavs" / f"M{number}.wav", noise(0.3, seed=number), RATE)
    arguments = ["--corpus=folder", f"--metadata={root / 'labels.tsv'}", "--columns=path=FileName,label=Mood",
                 "--label_map=A=angry,H=happy", "--name=mine", f"--out={tmp_path}", "--workers=1",
                 "--max_rejected=0.5"]  # fmt: skip
    assert preparation.main(arguments) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "read as a table: path = FileName, in wavs/, with .wav, label = Mood; not used: age"
    assert second == "mine: 2 utterances"
    [rejected] = (tmp_path / "mine" / "mcsan").glob("*/rejected.jsonl")
    assert "No such file" in json.loads(rejected.read_text())["reason"]
    manifest = json.loads((rejected.parent / "manifest.json").read_text())
    assert manifest["facts"]["rows"] == manifest["utterances"] + manifest["rejected"] + manifest["copies"]
    assert preparation.main(["--corpus=ravdess", f"--root={root}", "--columns=path=x"]) == 2


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from((*DATABASE, *KALDI, "metadata.csv", "train/metadata.csv", "e_test_fold_1.jsonl")),
        st.one_of(
            st.sampled_from((*DATABASE.values(), *KALDI.values(), *EMOBOX.values(), LJSPEECH, TABLE)),
            st.text(alphabet='ab,|:{}"\n\t 01-', max_size=40),
        ),
        max_size=5,
    )
)
def test_any_contents_give_utterances_rejections_or_one_line(tmp_path_factory, files):
    root = write(tmp_path_factory.mktemp("layout"), files)
    reading, problem = Reading((), facts={"rows": 0}), ""
    try:
        reading = folder.read(root)
    except (InputError, UsageError) as error:
        problem = str(error)
    assert "\n" not in problem
    assert len(reading.utterances) + len(reading.rejected) + reading.copies == reading.facts["rows"]
