"""Label sets by name and as lists, for training and of datasets that were prepared with classes."""

import json

import pytest

from helpers.small_corpus import write_talks
from jaxser import corpora
from jaxser.data.dataset import load_prepared
from jaxser.data_prep import prepare as preparation
from jaxser.types import UsageError

COUNTS = {"ang": 1103, "exc": 1041, "hap": 595, "sad": 1084, "fru": 1849, "sur": 107, "neu": 1708}
"""Utterances of IEMOCAP by label."""


@pytest.mark.parametrize(
    ("name", "classes", "utterances"),
    [
        ("four", 4, 4_490),
        ("four_merged", 4, 5_531),
        ("four_excited", 4, 4_936),
        ("five", 5, 7_380),
        ("six", 6, 7_380),
        ("seven", 7, 7_487),
    ],
)
def test_label_sets_of_iemocap(name, classes, utterances):
    class_of = corpora.CORPORA["iemocap"].label_sets[name]
    assert len(set(class_of.values())) == classes
    assert sum(COUNTS[label] for label in class_of) == utterances


def test_lists_of_classes_name_and_merge_labels():
    assert corpora.parse_classes("ang, hap+exc ,joy=sur+fru") == {
        "ang": "ang", "hap": "hap", "exc": "hap", "sur": "joy", "fru": "joy"
    }  # fmt: skip
    assert corpora.LABEL_SETS["four_merged"] == corpora.parse_classes("ang,hap+exc,sad,neu")


@pytest.mark.parametrize("corpus", ["emodb", "meld", "ravdess"])
def test_label_sets_belong_to_their_corpus(corpus):
    record = corpora.CORPORA[corpus]
    with pytest.raises(UsageError, match=f"a label set of IEMOCAP, not of {record.title}; .* anger, joy"):
        corpora.class_of_labels(record, "four", ["joy", "anger"])
    assert corpora.class_of_labels(record, "joy,anger", ["joy", "anger"]) == {"joy": "joy", "anger": "anger"}
    assert list(corpora.class_of_labels(record, "all", ["joy", "anger"])) == ["anger", "joy"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("talks")
    labels = ["ang", "hap", "exc", "sad", "neu", "xxx"]
    write_talks(root, labels)
    rows = "".join(f"{n:04d}.wav,{label}\n" for n, label in enumerate(labels))
    (root / "metadata.csv").write_text("path,label\n" + rows)
    return root


def prepare(folder, out, **options):
    return preparation.prepare("folder", folder, out=out, workers=1, quiet=True, **options)


def test_list_of_classes_selects_when_loading(folder, tmp_path):
    prepare(folder, tmp_path)
    data = load_prepared(tmp_path / "folder", classes="sad,joy=hap+exc")
    assert data.classes == ("sad", "joy")
    assert data.label.tolist() == [1, 1, 0]
    assert data.left_out == {"ang": 1, "neu": 1, "xxx": 1}
    with pytest.raises(UsageError, match="no utterance has the label happy; the labels are ang, exc"):
        load_prepared(tmp_path / "folder", classes="sad,happy")


def test_prepared_classes_are_not_confused_with_others(folder, tmp_path):
    """A class `hap` that contains excited must not pass for the label `hap`."""
    prepared = prepare(folder, tmp_path, classes="four_merged")
    assert json.loads((prepared / "manifest.json").read_text())["labels"]["found"]["hap"] == 2
    for classes in ("all", "four_merged", "sad,neu,ang,hap+exc"):
        data = load_prepared(tmp_path / "folder", classes=classes)
        assert data.classes == ("ang", "hap", "sad", "neu")
        assert data.label.tolist() == [0, 1, 1, 2, 3]
    for classes in ("four", "seven", "ang,hap"):
        with pytest.raises(UsageError, match="was prepared with the classes ang, hap, sad, neu"):
            load_prepared(tmp_path / "folder", classes=classes)
