"""Files of predictions from other programs: every row counts once, and what contradicts itself is refused."""

import numpy as np
import pytest

from jaxser.data.leaks import FoldIds
from jaxser.evaluation import run_folder
from jaxser.evaluation.csv_cells import from_cell, to_cell
from jaxser.report import checks, imports
from jaxser.report.__main__ import main
from jaxser.types import InputError, UsageError

HEAD = "utterance,fold,seed,true,predicted"
WITH_P = f"{HEAD},p_ang,p_sad"


def imported(folder, text, **options):
    (folder / "x.csv").write_text(text, encoding="utf-8", newline="")
    return imports.import_csv(folder / "x.csv", folder / "run", **options)


def test_an_import_is_what_its_folder_says(tmp_path):
    described = tmp_path / "u.csv"
    described.write_text("utterance,speaker,gender,transcript\nb,s1,F,ça va\n=a,s2,M,\n", encoding="utf-8")
    text = f"{WITH_P}\nb,1,0,ang,ang,0.123456789,0.876543211\n'=a,1,0,sad,ang,1,0\n".replace(
        "ang,ang", "ang,sad"
    )
    run = imported(tmp_path, text, utterances=described)
    again = run_folder.read_run(tmp_path / "run")
    assert list(run.utterances) == ["b", "=a"]
    assert dict(run.utterances) == dict(again.utterances)
    for field in ("utterance", "true", "predicted", "probabilities"):
        np.testing.assert_array_equal(getattr(run.predictions, field), getattr(again.predictions, field))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}\na,1,0,ang,ang\nb,1,0,ang,ang\n", "all lines are of class ang; scores need two classes"),
        (f"{WITH_P}\na,1,0,ang,ang,1.2,-0.2\n", "x.csv:2 has a probability that is not from 0 to 1"),
        (f"{WITH_P}\na,1,0,ang,ang,nan,0.2\n", "x.csv:2 has a probability that is not from 0 to 1"),
        (f"{WITH_P}\na,1,0,ang,ang,0.4,0.4\n", "x.csv:2 has probabilities that do not sum to 1"),
        (f"{WITH_P}\n\na,1,0,ang,ang,0.4,0.6\n", "x.csv:3 predicts ang, but p_sad is higher than p_ang"),
        (f"{WITH_P}\na,1,0,ang,ang,1_0,0\n", "x.csv:2 has p_ang '1_0', which is not a number"),
        (f"{HEAD},p_ang\na,1,0,ang,sad,0.4\n", "has probabilities, but no column p_sad"),
        (f"{HEAD},p_ang,p_ang\na,1,0,ang,sad,1,1\n", "has two columns 'p_ang'"),
        (f"{HEAD},true\na,1,0,ang,sad,ang\n", "has two columns 'true'"),
        (f"{HEAD}\na,1,0,ang,sad,extra\n", "x.csv:2 is incomplete: it has 6 cells, and the header 5"),
        (f"{HEAD}\na,1,{2**70},ang,sad\n", "x.csv:2 has seed '1180591620717411303424', which is not a whole"),
        (f"{HEAD}\na,1,0.5,ang,sad\n", "x.csv:2 has seed '0.5', which is not a whole number"),
        (f"{HEAD}\na,1,0,ang,nan\n", "has the class 'nan'"),
        (f"{HEAD}\na,1,0,ang,Ang\n", "the classes 'Ang' and 'ang' are written differently"),
        (f"{HEAD}\na,1,0,ang,sad\u200b\nb,1,0,sad,sad\n", "are written differently"),
        (f"{HEAD}\na,1,0,ang,\u200b\n", "the class '\\u200b' has no visible character"),
        (
            f"{HEAD}\na,1,0,ang,sad\nb,1,0,a\0ng,sad\n",
            "x.csv:3 has the control character U+0000 in column true",
        ),
        (f"{HEAD}\na,1,0,ang,sad\nb\u2028c,1\x1b,0,ang,sad\n", "x.csv:3 has the control character U+2028"),
        (f'{HEAD}\n"a,1,0,ang,sad\nb,1,0,ang,sad\n', "a quote is not closed"),
        (f'{HEAD}\n"a,1,0,ang,sad\nb",1,0,ang,sad\n', "has a line break in column utterance"),
        (f"{HEAD}\na,1,0,ang,sad\na,1,1,ang,sad\nb,1,1,ang,sad\n", "the seeds of fold 1 have different utt"),
        (
            "\n".join([HEAD, *(f"{n},1,0,{n},{n}" for n in range(101))]),
            "101 classes, more than the 100 that a",
        ),
        (HEAD.replace(",", ";") + "\na;1;0;ang;sad\n", "separated by commas"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, text, message):
    with pytest.raises(InputError) as error:
        imported(tmp_path, text)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_is_not_used_is_reported(tmp_path):
    (tmp_path / "about.csv").write_text("utterance,speaker,transcript,age\na,nan,None,30\nb,S1,Hi,nan\n")
    with pytest.warns(UserWarning, match="about.csv|x.csv") as found:
        run = imported(
            tmp_path,
            f"{HEAD},P_ang\na,1,0,ang,ang,0.6\nb,1,0,sad,sad,0.5\n",
            utterances=tmp_path / "about.csv",
        )
    assert [str(one.message).partition(": ")[2] for one in found] == [
        "columns that are not used: P_ang",
        "columns that are not used: age",
        "speaker is unknown where the table says nan",
    ]
    assert {i: (u.speaker, u.transcript) for i, u in run.utterances.items()} == {
        "a": ("", "None"),
        "b": ("S1", "Hi"),
    }


def test_cells_are_read_without_spaces_and_apostrophes(tmp_path):
    run = imported(tmp_path, f"{WITH_P}\n'=a, 1,0,ang, ang ,0.6,0.4\nb,1,0,sad,sad,0.5,0.5\n")
    assert run.predictions.utterance.tolist() == ["=a", "b"]
    assert run.predictions.classes == ("ang", "sad")
    assert run.results.summary.mean["wa"] == 1
    np.testing.assert_allclose(run.predictions.probabilities, [[0.6, 0.4], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("utterance,gender\na,F\na,M\n", "who.csv:3 is a repetition: utterance a has two lines"),
        ("utterance,gender\nz,F\n", "describes none of the predicted utterances, such as a"),
        ("utterance,gender,gender\na,F,M\n", "has two columns 'gender'"),
    ],
)
def test_descriptions_that_contradict_themselves_are_refused(tmp_path, text, message):
    (tmp_path / "who.csv").write_text(text)
    with pytest.raises(InputError) as error:
        imported(tmp_path, f"{HEAD}\na,1,0,ang,sad\n", utterances=tmp_path / "who.csv")
    assert message in str(error.value)


def test_files_that_would_name_the_same_or_no_run_are_refused(tmp_path, capsys, monkeypatch):
    with pytest.raises(UsageError, match="rename the file"):
        imports.import_csv(tmp_path / "...csv", tmp_path / "run")
    argv = ["report", "--import", str(tmp_path / "a" / "x.csv"), "--import", str(tmp_path / "b" / "x.csv")]
    monkeypatch.setattr("sys.argv", argv)
    assert main() == 2
    assert "two files are called x" in capsys.readouterr().err


def test_folds_without_training_part_are_completed_in_linear_time():
    ids = tuple(map(str, range(200_000)))  # minutes if each id were looked up in a new set
    one, other = checks.assumed_folds([FoldIds("1", (), (), ids[::2]), FoldIds("2", (), (), ids[1::2])])
    assert (one.train, other.train) == (ids[1::2], ids[::2])


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "+1+1", "-a", "@SUM(A1)", "\t=1", "＝1+1", "'=1", "''=x", "-=", "=\n"]
)
def test_formulas_are_marked_as_text_and_read_back(text):
    assert to_cell(text) == f"'{text}"
    assert from_cell(to_cell(text)) == text


@pytest.mark.parametrize(
    "value", ["-1.5", "+2", "-1e-3", "-.5", -1.5, "ang", "'tis", "'", "", "-", "a=b", None]
)
def test_numbers_and_other_text_stay_as_they_are(value):
    assert to_cell(value) == value
    assert value is None or from_cell(str(to_cell(value))) == str(value)
