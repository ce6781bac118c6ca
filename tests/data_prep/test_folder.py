"""The reader of user-supplied corpora: tables as spreadsheets write them, alignments, and malformed input."""

import json
from pathlib import Path

import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.corpora import ALIGNMENT, textgrid
from helpers.small_corpus import RATE, noise
from jaxser.data import dataset
from jaxser.data.folds import Protocol, make_folds
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep.corpora import folder, layouts
from jaxser.types import InputError, UsageError, Utterance, Word

TABLE = "path,label,text\nclips/a.wav,angry,Give it back!\nclips/b.wav,calm,Thank you.\n"
ROW = {"path": "a.wav", "label": "angry"}

TEXTGRID = textgrid(
    ("words", [(0, 0.2, ""), (0.2, 0.7, "Give"), (0.7, 1.2, "it")]), ("phones", [(0, 1.2, "x")])
)


def write(root: Path, table: str | bytes = TABLE, name: str = "metadata.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return root


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_reads_all_columns_of_a_row(tmp_path):
    row = {
        "path": "clips/a.wav", "label": "angry", "id": "one", "text": "Give it!", "speaker": "anna", "gender": "Female",
        "session": "1", "dialogue": "d2", "split": "dev", "start": 1.5, "end": 3, "alignment": "a.csv", "mood": "dark",
    }  # fmt: skip
    root = write(tmp_path, lines(row), "metadata.jsonl")
    (root / "a.csv").write_text("start,end,word\n0.1,0.4,Give\n0.4,0.5,<sil>\n0.5,0.9,it\n")
    reading = folder.read(root)
    assert reading.utterances == (
        Utterance(
            id="one", wav="clips/a.wav#t=1.500000,3.000000", label="angry", transcript="Give it!", speaker="anna",
            gender="F", session="1", dialogue="d2", split="validation",
            words=(Word("give", 0.1, 0.4), Word("it", 0.5, 0.9)),
        ),
    )  # fmt: skip
    assert reading.rejected == ()
    assert reading.facts == {
        "table": "metadata.jsonl", "rows": 1, "layout": "a table", "ignored_columns": ["mood"],
        "columns": {name: name for name in row if name != "mood"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace("path,label,text", " Path , LABEL,Text"),
        TABLE.replace("/", "\\"),
        TABLE.encode("utf-16"),
        TABLE.replace("Give it back!", '"Give it back!"'),
    ],
)
def test_table_formats_of_spreadsheets(tmp_path, table):
    reading = folder.read(write(tmp_path, table))
    assert [(u.id, u.wav, u.label, u.transcript) for u in reading.utterances] == [
        ("clips/a", "clips/a.wav", "angry", "Give it back!"),
        ("clips/b", "clips/b.wav", "calm", "Thank you."),
    ]
    assert reading.rejected == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
def test_text_encodings(tmp_path, encoding):
    [utterance] = folder.read(
        write(tmp_path, "path,label,text\na.wav,fröhlich,Ein café?\n".encode(encoding))
    ).utterances
    assert (utterance.label, utterance.transcript) == ("fröhlich", "Ein café?")


def test_markup_in_text_is_kept(tmp_path):
    [utterance] = folder.read(
        write(tmp_path, "path,label,text\na.wav,angry,<script>alert(1)</script>\n")
    ).utterances
    assert utterance.transcript == "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"path": ""}, "no path"),
        ({"label": " "}, "no label"),
        ({"split": "holdout"}, "split 'holdout': must be one of train, validation, test"),
        ({"start": "soon"}, "start 'soon', end '': not numbers of seconds"),
        ({"start": 2, "end": 1}, "start 2, end 1: start must be 0 or more, and end after start"),
        ({"start": 1, "end": 1}, "start 1, end 1: start must be 0 or more, and end after start"),
        ({"start": -1}, "must be 0 or more"),
        ({"end": "infinity"}, "not numbers of seconds"),
        ({"start": "1.000,5"}, "not numbers of seconds"),
        ({"label": "an\x1b[31mgry"}, "label has the control character U+001B"),
        ({"label": ["angry"]}, "label is not a text or a number"),
    ],
)
def test_unusable_rows_are_rejected_with_their_line(tmp_path, row, reason):
    reading = folder.read(write(tmp_path, lines({**ROW, "id": "x"}, {**ROW, **row}), "metadata.jsonl"))
    [rejection] = reading.rejected
    assert rejection.where == "metadata.jsonl:2"
    assert reason in rejection.reason
    assert [utterance.id for utterance in reading.utterances] == ["x"]


def test_second_row_with_an_id_is_rejected(tmp_path):
    reading = folder.read(write(tmp_path, "path,label\na.wav,calm\na.flac,angry\n"))
    [rejection] = reading.rejected
    assert (rejection.id, rejection.where) == ("a", "metadata.csv:3")
    assert rejection.reason == "the same id as a.wav"


@pytest.mark.parametrize(
    ("table", "name", "message"),
    [
        ("", "metadata.csv", "no column path and no column label; found none"),
        ("clip,label\na.wav,x\n", "metadata.csv", "no column path; found clip, label; known columns are path, label"),
        ("path,label,path\n", "metadata.csv", "two columns are called path"),
        ("path,label\n", "metadata.csv", "the table has no rows"),
        ('{"path": "a.wav"}\n', "metadata.jsonl", "no column label; found path"),
        ('path,label\na.wav,"x\n', "metadata.csv", "line 2: a quote is not closed"),
        ("path,label\na.wav,\0\n", "metadata.csv", "line 2 contains a NUL byte"),
        ('[{"path": "a.wav", "label": "x"}]\n', "metadata.jsonl", "a JSON array; write one object per line"),
        ("version https://git-lfs.github.com/spec/v1\noid x\n", "metadata.csv", "a git-lfs pointer"),
        (TABLE, "table.csv", r"contains neither metadata\.csv nor metadata\.jsonl"),
    ],
)  # fmt: skip
def test_unusable_tables_are_errors(tmp_path, table, name, message):
    with pytest.raises(InputError, match=message) as caught:
        folder.read(write(tmp_path, table, name))
    assert "\n" not in str(caught.value)


def test_table_is_chosen_by_name_or_option(tmp_path):
    write(tmp_path)
    write(tmp_path, lines(ROW), "metadata.jsonl")
    with pytest.raises(InputError, match=r"both metadata\.csv and metadata\.jsonl"):
        folder.read(tmp_path)
    assert len(folder.read(tmp_path, metadata=tmp_path / "metadata.jsonl").utterances) == 1
    with pytest.raises(UsageError, match="no such file"):
        folder.read(tmp_path, metadata=tmp_path / "other.csv")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "0.1,0.4,Give\n0.5,0.9,it\n", (Word("give", 0.1, 0.4), Word("it", 0.5, 0.9))),
        ("a.tsv", "start\tend\tword\n0.1\t0.4\t\n0.5\t0.9\tit\n", (Word("it", 0.5, 0.9),)),
        ("a.TextGrid", TEXTGRID, (Word("give", 0.2, 0.7), Word("it", 0.7, 1.2))),
        ("a.wdseg", ALIGNMENT, (Word("i", 0.52, 0.76), Word("like", 0.76, 0.89), Word("that's", 1.2, 1.4))),
    ],
)
def test_reads_alignments(tmp_path, name, content, words):
    root = write(tmp_path, lines({**ROW, "alignment": name}), "metadata.jsonl")
    (root / name).write_text(content)
    [utterance] = folder.read(root).utterances
    assert (utterance.words, utterance.flags) == (words, ())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.csv", None, "no such file"),
        ("a.csv", "0.1,0.4,Give\n0.3,0.9,it\n", "0.3 to 0.9 s does not follow 0.4 s"),
        ("a.csv", "-0.1,0.4,Give\n", "-0.1 to 0.4 s does not follow 0 s"),
        ("a.csv", "0.4,0.1,Give\n", "0.4 to 0.1 s does not follow"),
        ("a.csv", "0.1,inf,Give\n", "'0.1' to 'inf' are not numbers of seconds"),
        ("a.csv", "0.1,soon,Give\n", "'0.1' to 'soon' are not numbers of seconds"),
        ("a.csv", "0.1,0.4,Give,it\n", "line 1 is not start, end and word"),
        ("a.csv", '0.1,0.4,"Give\n', "line 1: a quote is not closed"),
        ("a.TextGrid", TEXTGRID.replace('"words"', '"syllables"'), "no tier of words among"),
        ("a.wdseg", "", "no rows of first frame"),
    ],
)
def test_unusable_alignments_are_flagged_and_reported(tmp_path, name, content, reason):
    root = write(tmp_path, lines({**ROW, "alignment": name}), "metadata.jsonl")
    if content is not None:
        (root / name).write_text(content)
    reading = folder.read(root)
    [utterance], [rejection] = reading.utterances, reading.ignored
    assert reading.rejected == ()
    assert (utterance.words, utterance.flags) == (None, ("bad_alignment",))
    assert rejection.reason.startswith(f"alignment {name} not used: ")
    assert reason in rejection.reason


def test_folds_of_a_prepared_table(tmp_path):
    """One long recording that the table cuts into utterances, and one missing file."""
    root = write(tmp_path / "mine", "")
    soundfile.write(root / "long.wav", noise(4), RATE)
    rows = [
        {"path": "long.wav", "id": f"u{n}", "label": "ab"[n % 2], "start": 0.4 * n, "end": 0.4 * n + 0.3,
         "text": "Yes, <b>no</b>", "split": ("train", "val", "test")[n % 3], "speaker": f"s{n % 4}"}
        for n in range(9)
    ]  # fmt: skip
    table = root / "table.jsonl"
    table.write_text(lines(*rows, {"path": "absent.wav", "label": "a"}))
    arguments = ["--corpus=folder", f"--metadata={table}", f"--out={tmp_path}", "--name=mine", "--workers=1"]
    assert preparation.main([*arguments, "--max_rejected=0.2"]) == 0
    data = dataset.load_prepared(tmp_path / "mine")
    assert data.arrays["audio"].length.tolist() == [31] * 9
    assert len({utterance.sha256 for utterance in data.utterances}) == 9
    [rejected] = (tmp_path / "mine/mcsan/1.0.0/rejected.jsonl").read_text().splitlines()
    assert json.loads(rejected)["where"] == "absent.wav"
    [fold] = make_folds(data, Protocol("official"))
    assert [len(fold.train), len(fold.validation), len(fold.test)] == [3, 3, 3]
    assert len(make_folds(data, Protocol("speaker"))) == 4


def test_changes_to_a_recording_that_is_used_in_parts_are_detected(tmp_path):
    root = write(tmp_path / "mine", lines({**ROW, "start": 0, "end": 0.5}), "metadata.jsonl")
    digests = set()
    for seconds in (1.0, 1.1):
        soundfile.write(root / "a.wav", noise(seconds), RATE)
        prepared = preparation.prepare("folder", root, "mcsan", tmp_path, workers=1, quiet=True)
        digests.add(dataset.load_prepared(prepared).utterances[0].sha256)
    assert len(digests) == 2


def test_flags_of_other_corpora_are_usage_errors(tmp_path, capsys):
    for arguments, message in (
        (["--corpus=ravdess", "--metadata=x.csv"], "--metadata: only for --corpus=folder"),
        (["--corpus=folder", "--meld_twins=final"], "--meld_twins: only for --corpus=meld"),
        (["--corpus=folder", f"--metadata={tmp_path}/x.csv"], "x.csv: no such file"),
    ):
        assert preparation.main([*arguments, f"--out={tmp_path}"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


CELLS = st.one_of(
    st.text(max_size=8), st.floats(), st.integers(), st.none(), st.lists(st.booleans(), max_size=2)
)


@settings(max_examples=200, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200).map(lambda tail: b"path,label,start,end,alignment\n" + tail),
        st.binary(max_size=100),
        st.lists(st.dictionaries(st.sampled_from(folder.COLUMNS), CELLS), max_size=4).map(
            lambda rows: lines(*rows).encode()
        ),
    ),
    name=st.sampled_from(layouts.TABLES),
)
def test_arbitrary_tables_never_crash_the_reader(tmp_path_factory, content, name):
    root = write(tmp_path_factory.mktemp("folder"), content, name)
    try:
        reading = folder.read(root)
    except InputError as error:
        reading, message = None, str(error)
    if reading is None:
        assert message
    else:
        assert reading.utterances or reading.rejected
        for rejection in reading.rejected:
            f"{rejection.id}{rejection.where}{rejection.reason}".encode()
        for utterance in reading.utterances:
            assert utterance.label or utterance.attributes
            json.dumps(utterance.wav)


@settings(max_examples=200, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200), st.text("0123456789.,\t\n ab-ein", max_size=80).map(str.encode)
    ),
    name=st.sampled_from(["a.csv", "a.TextGrid", "a.wdseg"]),
)
def test_arbitrary_alignments_never_crash_the_reader(tmp_path_factory, content, name):
    root = write(tmp_path_factory.mktemp("folder"), lines({**ROW, "alignment": name}), "metadata.jsonl")
    (root / name).write_bytes(content)
    reading = folder.read(root)
    [utterance] = reading.utterances
    assert (utterance.words is None) == bool(reading.ignored)


def test_attributes_make_a_label_unnecessary(tmp_path):
    table = "path;Valence;arousal;EmoDom\na.wav;2,5;4;3\nb.wav;;nan;1.5\nc.wav;high;1;1\nd.wav;;;\n"
    reading = folder.read(write(tmp_path, table))
    assert [one.attributes for one in reading.utterances] == [
        {"valence": 2.5, "arousal": 4.0, "dominance": 3.0},
        {"dominance": 1.5},
    ]
    assert [one.label for one in reading.utterances] == ["", ""]
    assert [one.reason for one in reading.rejected] == ["valence 'high': not a number", "no label"]


def test_votes_make_a_label_unnecessary(tmp_path):
    table = (
        "path,label,votes\na.wav,,angry; angry;sad\nb.wav,,angry:1;sad:1\nc.wav,calm,sad:2\nd.wav,,sad:x\n"
        "e.wav,,:2\nf.wav,,\ng.wav,,nan\n"
    )
    reading = folder.read(write(tmp_path, table))
    assert [(one.label, one.votes) for one in reading.utterances] == [
        ("angry", ("angry", "angry", "sad")),
        ("", ("angry", "sad")),
        ("calm", ("sad", "sad")),
    ]
    assert [one.reason for one in reading.rejected] == [
        "votes 'sad:x': 'sad:x' is not a label, or a label and its number as in sad:2",
        "votes ':2': ':2' is not a label, or a label and its number as in sad:2",
        *["no label"] * 2,
    ]


def test_a_table_of_votes_is_trained_on_without_a_majority(tmp_path):
    rows = ["angry;angry;sad", "angry;sad", "sad:3", "calm:2;sad:1", "other:3;sad:2", "joy"]
    root = write(tmp_path / "own", "path,votes\n" + "".join(f"{n}.wav,{row}\n" for n, row in enumerate(rows)))
    for n in range(6):
        soundfile.write(root / f"{n}.wav", noise(0.3, seed=n), RATE)
    made = preparation.prepare("folder", root, out=tmp_path / "data", name="own", workers=1, quiet=True)
    found = dataset.load_prepared(made, classes="angry,sad,calm", votes=True)
    assert found.classes == ("angry", "sad", "calm")
    assert found.target.tolist() == [[2, 1, 0], [1, 1, 0], [0, 3, 0], [0, 1, 2], [0, 2, 0]]
    assert found.label.tolist() == [0, -1, 1, 2, -1]
    assert dataset.load_prepared(made, votes=True).classes == ("angry", "calm", "joy", "other", "sad")
    with pytest.raises(UsageError, match="no utterance has votes for classes=joy,other"):
        dataset.load_prepared(made, classes="joy,other", votes=True, subset="improvised")


def test_a_table_of_attributes_is_trained_on_without_labels(tmp_path):
    root = write(tmp_path / "own", "path,label\n" + "".join(f"{n}.wav,{n / 4:.2f}\n" for n in range(6)))
    for n in range(6):
        soundfile.write(root / f"{n}.wav", noise(0.3, seed=n), RATE)
    made = preparation.prepare("folder", root, out=tmp_path / "data", name="own", workers=1, quiet=True)
    found = dataset.load_prepared(made, attributes="")
    assert found.attributes == ("value",)
    assert found.target[:, 0].tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25]
    assert (found.classes, found.label.tolist()) == ((), [-1] * 6)
    folds = make_folds(found, Protocol("random", folds=3))
    assert sorted(row for fold in folds for row in fold.test) == list(range(6))
    for attributes, message in (
        (None, "set --config.target=attributes"),
        ("valence", "no utterance has valence"),
    ):
        with pytest.raises(UsageError, match=message):
            dataset.load_prepared(made, attributes=attributes)
