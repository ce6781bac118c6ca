"""Labels: one spelling per emotion, values, label maps and the selection of classes."""

import json
import unicodedata
from collections import Counter
from dataclasses import replace

import pytest

from jaxser.data_prep.labels import apply_labels, read_label_map, tidy
from jaxser.types import InputError, Reading, UsageError, Utterance


def reading(*labels: str, **fields) -> Reading:
    return Reading(tuple(Utterance(str(n), f"{n}.wav", label) for n, label in enumerate(labels)), **fields)


def counts(found: Reading) -> dict[str, int]:
    return dict(Counter(utterance.label for utterance in found.utterances))


def test_spaces_and_accents_do_not_make_two_classes():
    found, _ = apply_labels(
        "folder",
        reading(
            "fröhlich", unicodedata.normalize("NFD", "fröhlich"), " fröhlich\xa0", "very  sad", "very sad"
        ),
    )
    assert counts(found) == {"fröhlich": 3, "very sad": 2}
    assert found.warnings == ()


def test_labels_that_differ_in_case_are_one_class_with_a_warning():
    found, _ = apply_labels("folder", reading("Angry", "angry", "angry", "ANGRY", "calm"))
    assert counts(found) == {"angry": 4, "calm": 1}
    assert found.warnings == (
        "labels that differ in case or width only are one class, angry: ANGRY (1), Angry (1), angry (2)",
    )


@pytest.mark.parametrize("cell", ["nan", "NaN", "None", "<NA>", "NULL", "n/a", "NA"])
def test_missing_labels_are_rejected_unless_they_are_named(cell):
    found, _ = apply_labels("folder", reading("angry", cell, "calm"))
    assert counts(found) == {"angry": 1, "calm": 1}
    [rejection] = found.rejected
    assert (rejection.id, rejection.where) == ("1", "1.wav")
    assert rejection.reason.startswith(f"no label ({cell!r}")
    named, _ = apply_labels("folder", reading("angry", cell), {cell: "no emotion"})
    assert counts(named) == {"angry": 1, "no emotion": 1}


@pytest.mark.parametrize(
    "values", [["1.170", "2.5", "3"], ["1,170", "2,5"], ["-1", "0.5"], [str(n) for n in range(40)]]
)
def test_values_are_not_classes(values):
    found, _ = apply_labels("folder", reading(*values))
    assert [one.label for one in found.utterances] == [""] * len(values)
    assert [one.attributes for one in found.utterances] == [
        {"value": float(value.replace(",", "."))} for value in values
    ]
    assert "train with --config.target=attributes" in found.warnings[-1]
    with pytest.raises(UsageError, match=r"--classes=a,b: the labels are numbers on a scale"):
        apply_labels("folder", reading(*values), classes="a,b")


def test_names_among_values_are_rejected():
    found, _ = apply_labels("folder", reading("1.5", "2.5", "angry"))
    assert [one.attributes["value"] for one in found.utterances] == [1.5, 2.5]
    assert found.rejected[0].reason == "label 'angry' is not a number, as most labels are"


def test_votes_are_renamed_like_labels():
    rated = replace(reading("ang", "hap", "exc"), expected={})
    votes = ("Ang", "exc", "hap", "fru")
    rated = replace(rated, utterances=tuple(replace(one, votes=votes) for one in rated.utterances))
    found, _ = apply_labels("folder", rated, {"ang": "anger", "fru": ""})
    assert found.utterances[0].votes == ("anger", "exc", "hap")
    merged, _ = apply_labels("folder", rated, classes="ang,hap+exc")
    assert merged.utterances[0].votes == ("Ang", "hap", "hap", "fru")
    kept, _ = apply_labels("folder", rated)
    assert kept.utterances[0].votes == votes


def test_utterances_with_votes_need_no_label():
    rated = reading("ang", "", "sad")
    rated = replace(rated, utterances=tuple(replace(one, votes=("ang", "sad")) for one in rated.utterances))
    found, _ = apply_labels("folder", rated)
    assert [one.label for one in found.utterances] == ["ang", "", "sad"]


def test_utterances_with_attributes_need_no_label():
    read = reading("angry", "", "nan")
    with_values = replace(
        read, utterances=tuple(replace(one, attributes={"valence": 2.0}) for one in read.utterances)
    )
    found, _ = apply_labels("folder", with_values)
    assert [one.label for one in found.utterances] == ["angry", "", ""]
    assert not found.rejected


def test_codes_of_classes_are_used():
    assert counts(apply_labels("folder", reading("0", "1", "2", "1"))[0]) == {"0": 1, "1": 2, "2": 1}


def test_single_numbers_among_names_are_reported():
    found, _ = apply_labels("folder", reading("angry", "calm", "calm", "1.170"))
    assert found.warnings == ("labels that are numbers, while most are names: 1.170",)


def test_label_map_renames_merges_and_leaves_out():
    found, labels = apply_labels(
        "folder",
        reading("A", "H", "h", "X", "N", expected={"A": 7, "H": 5, "X": 2}),
        {"A": "angry", "H": "happy", "X": ""},
    )
    assert counts(found) == {"angry": 1, "happy": 2, "N": 1}
    assert labels.left_out == {"X": 1}
    assert labels.label_map == {"A": "angry", "H": "happy", "X": ""}
    assert found.expected == {"angry": 7, "happy": 5}


def test_labels_of_a_map_that_do_not_occur_are_reported():
    found, _ = apply_labels("folder", reading("A", "H"), {"A": "angry", "S": "sad"})
    assert found.warnings == ("--label_map: no utterance has the label S",)
    with pytest.raises(UsageError, match="none of its labels occurs; the labels are A, H"):
        apply_labels("folder", reading("A", "H"), {"S": "sad"})


@pytest.mark.parametrize("corpus", ["folder", "emodb", "meld", "iemocap"])
def test_classes_are_selected_and_merged_for_every_corpus(corpus):
    found, labels = apply_labels(
        corpus,
        reading("ang", "hap", "exc", "neu", "fru", expected={"hap": 4, "exc": 3, "fru": 2}),
        None,
        "ang,hap+exc,neu",
    )
    assert counts(found) == {"ang": 1, "hap": 2, "neu": 1}
    assert labels.left_out == {"fru": 1}
    assert labels.classes == {"ang": "ang", "hap": "hap", "exc": "hap", "neu": "neu"}
    assert found.expected == {"hap": 7}


def test_classes_follow_the_label_map():
    found, labels = apply_labels("folder", reading("A", "H", "E"), {"A": "angry", "H": "happy", "E": "excited"},
                                 "angry,joy=happy+excited")  # fmt: skip
    assert counts(found) == {"angry": 1, "joy": 2}
    assert labels.left_out == {}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("ang,hapy", "no utterance has the label hapy; the labels are ang, hap"),
        ("ang", "a list of at least two classes"),
        ("ang,ang", "'ang' is empty or repeats"),
        ("ang,hap+ang", "'hap\\+ang' is empty or repeats"),
        ("ang,,hap", "'' is empty"),
    ],
)
def test_invalid_classes_are_usage_errors(classes, message):
    with pytest.raises(UsageError, match=message):
        apply_labels("folder", reading("ang", "hap"), None, classes)


MAPS = {
    "map.json": '{"A": "angry", "H": "happy", "X": null}',
    "map.yaml": "A: angry\nH: 'happy'\nX:\n",
    "map.yml": "{A: angry, H: happy, X: ''}",
    "map.csv": "label,class\nA,angry\nH,happy\nX,\n",
    "map.tsv": "A\tangry\r\nH\thappy\r\nX\t\r\n",
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_formats_of_label_maps(tmp_path, name, encoding):
    (tmp_path / name).write_bytes(MAPS[name].encode(encoding))
    assert read_label_map(str(tmp_path / name)) == {"A": "angry", "H": "happy", "X": ""}


def test_label_map_on_the_command_line():
    assert read_label_map("A=angry, H=happy,X=") == {"A": "angry", "H": "happy", "X": ""}


def test_keys_of_yaml_stay_texts(tmp_path):
    (tmp_path / "map.yaml").write_text("no: neutral\n1.170: low\n")
    assert read_label_map(str(tmp_path / "map.yaml")) == {"no": "neutral", "1.170": "low"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("map.json", '["A"]', "not an object"),
        ("map.json", '{"A": ["angry"]}', "a class is not a text"),
        ("map.json", '{"A": "angry", "A": "happy"}', "two classes for A"),
        ("map.json", "{", "Expecting"),
        ("map.yaml", "A: angry\nA: happy\n", "two classes for A"),
        ("map.yaml", "- A\n", "not a mapping"),
        ("map.yaml", "A: [\n", "map.yaml"),
        ("map.csv", "A,angry\nH\n", "row 2 is not a label and its class"),
        ("map.csv", "", "no labels"),
        ("map.xml", "<A/>", "must end in one of .json, .yaml"),
        ("map.json", "version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
    ],
)
def test_unusable_label_maps_are_usage_errors(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_label_map(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("value", "message"), [("map.json", "no such file"), ("=,", "no labels")])
def test_neither_a_file_nor_pairs_is_a_usage_error(value, message):
    with pytest.raises(UsageError, match=message):
        read_label_map(value)


def test_exact_case_of_a_label_map_comes_first():
    found, _ = apply_labels(
        "folder", reading("a", "A", "B", "b"), {"a": "anxious", "A": "angry", "B": "bored"}
    )
    assert counts(found) == {"anxious": 1, "angry": 1, "bored": 2}


def test_emobox_map_of_ravdess(real_data):
    label_map = read_label_map(str(real_data / "emobox/ravdess/label_map.json"))
    assert label_map == json.loads((real_data / "emobox/ravdess/label_map.json").read_text())
    found, _ = apply_labels("ravdess", reading("angry", "surprised", "fearful"), label_map)
    assert counts(found) == {"Angry": 1, "Surprise": 1, "Fear": 1}


def test_labels_of_other_width_or_with_invisible_characters_are_one_class():
    found, _ = apply_labels("folder", reading("angry", "an\u200bgry", "ａｎｇｒｙ", "calm"))
    assert counts(found) == {"angry": 3, "calm": 1}
    assert len(found.warnings) == 1


def test_tidy_labels():
    assert tidy(" a \t b\ufeff") == "a b"


def test_too_many_classes_are_refused_unless_some_are_chosen():
    names = [f"recording {number:03d}" for number in range(101)]
    with pytest.raises(
        InputError, match=r"^101 classes \(recording 000, .* and 98 more\), more than the 100"
    ):
        apply_labels("folder", reading(*names))
    found, _ = apply_labels("folder", reading(*names), dict.fromkeys(names[1:], "other"))
    assert counts(found) == {"recording 000": 1, "other": 100}
