"""The example in docs/how-to/adding_a_corpus.md works as written."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import soundfile

from helpers.small_corpus import RATE, noise
from jaxser.data import dataset
from jaxser.data_prep import prepare as preparation
from jaxser.types import InputError

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "adding_a_corpus.md"


@pytest.fixture
def cremad(monkeypatch) -> ModuleType:
    [source] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    [entry] = re.findall(r'^    "(\w+)": "(\.\w+\.\w+)",$', PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    module = ModuleType(f"jaxser.data_prep{entry[1]}")
    exec(compile(source, "adding_a_corpus.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(preparation.READERS, *entry)
    return module


def test_the_example_is_prepared(cremad, tmp_path):
    root = tmp_path / "release" / "AudioWAV"
    root.mkdir(parents=True)
    for number, name in enumerate(
        ("1001_DFA_ANG_XX", "1091_IEO_NEU_LO", "1002_TIE_SAD_HI", "1002_TIE_JOY_HI")
    ):
        soundfile.write(root / f"{name}.wav", noise(0.3, seed=number), RATE)
    folder = preparation.prepare(
        "cremad", root.parent, "mcsan", tmp_path, workers=1, max_rejected=0.3, quiet=True
    )
    data = dataset.load_prepared(folder)
    assert data.column("label").tolist() == ["anger", "sadness", "neutral"]
    assert data.column("speaker").tolist() == ["actor1001", "actor1002", "actor1091"]
    assert data.utterances[0].transcript == "Don't forget a jacket."
    assert data.manifest["rejected"] == 1
    assert sum(data.manifest["labels"]["expected"].values()) == 7442


def test_folder_without_recordings_is_refused(cremad, tmp_path):
    with pytest.raises(InputError, match="no recordings of CREMA-D"):
        cremad.read(tmp_path)
