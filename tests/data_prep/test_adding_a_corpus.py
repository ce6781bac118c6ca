"""The example in docs/how-to/adding_a_corpus.md works as written."""

import re
from pathlib import Path

import pytest
import soundfile

from helpers.small_corpus import RATE, noise
from jaxser.data import dataset
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep.corpora import records
from jaxser.data_prep.corpora.named import NamedCorpus
from jaxser.types import InputError

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "adding_a_corpus.md"


@pytest.fixture
def urdu(monkeypatch) -> NamedCorpus:
    text = PAGE.read_text(encoding="utf-8")
    [source] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [entry] = re.findall(r'^    "(\w+)": "(\.corpora\.records:\w+)",$', text, re.MULTILINE)
    names = {"NamedCorpus": NamedCorpus}
    exec(compile(source, "adding_a_corpus.md", "exec"), names)
    monkeypatch.setattr(records, "URDU", names["URDU"], raising=False)
    monkeypatch.setitem(preparation.READERS, *entry)
    return names["URDU"]


def test_the_example_is_prepared(urdu, tmp_path, capsys):
    root = tmp_path / "release"
    for number, name in enumerate(
        ("Angry/SM4_F46_A098", "Neutral/SM3_F5_N025", "Happy/SF6_F6_H030", "Sad/SF6_F6_X030")
    ):
        (root / name).parent.mkdir(parents=True)
        soundfile.write(root / f"{name}.wav", noise(0.3, seed=number), RATE)
    folder = preparation.prepare("urdu", root, "mcsan", tmp_path, workers=1, max_rejected=0.3)
    data = dataset.load_prepared(folder)
    assert data.column("label").tolist() == ["happiness", "neutral", "anger"]
    assert data.column("speaker").tolist() == ["SF6", "SM3", "SM4"]
    assert data.column("gender").tolist() == ["F", "M", "M"]
    assert data.manifest["rejected"] == 1
    assert sum(data.manifest["labels"]["expected"].values()) == 400
    counts = "anger 1 of 100, happiness 1 of 100, neutral 1 of 100, sadness 0 of 100"
    warning = f"the counts differ from those of the original release (3 of 400 utterances): {counts}"
    assert data.manifest["warnings"] == [warning]
    assert f"prepare: warning: {warning}\n" in capsys.readouterr().err


def test_folder_without_recordings_is_refused(urdu, tmp_path):
    with pytest.raises(InputError, match="no recordings of URDU"):
        urdu.read(tmp_path)
