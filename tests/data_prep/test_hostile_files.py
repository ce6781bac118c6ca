"""Corpora whose files are outside the root, endless, or in scripts without spaces."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.small_corpus import RATE, noise
from jaxser.data import dataset
from jaxser.data_prep import prepare as preparation
from jaxser.types import InputError


def write_corpus(root: Path, rows: dict[str, str], header: str = "path,label,text") -> Path:
    """Write a table with a recording for each name of a plain file, and the rest of its row."""
    root.mkdir(parents=True, exist_ok=True)
    lines = [header, *(f"{path},{rest}" for path, rest in rows.items())]
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for number, path in enumerate(rows):
        if "/" not in path:
            soundfile.write(root / path, noise(0.3, seed=number), RATE)
    return root


def prepare(tmp_path: Path, root: Path, recipe: str = "mcsan", **options) -> Path:
    options = {"workers": 1, "quiet": True, "max_rejected": 0.9, **options}
    return preparation.prepare("folder", root, recipe, tmp_path / "out", **options)


def rejected(folder: Path) -> dict[str, str]:
    lines = (folder / "rejected.jsonl").read_text().splitlines()
    return {entry["where"]: entry["reason"] for entry in map(json.loads, lines)}


@pytest.fixture
def outside(tmp_path) -> Path:
    """A corpus with one recording inside the root, and three ways out of it."""
    soundfile.write(tmp_path / "secret.wav", noise(0.4), RATE)
    links = {
        "inside.wav": "a,b",
        "../secret.wav": "a,b",
        f"{tmp_path}/secret.wav": "a,b",
        "up/secret.wav": "b,c",
    }
    root = write_corpus(tmp_path / "root", {**links, "x/link.wav": "b,c"})
    (root / "up").symlink_to(tmp_path)
    (root / "x").mkdir()
    (root / "x" / "link.wav").symlink_to(tmp_path / "secret.wav")
    return root


def test_recordings_outside_the_root_are_rejected_unless_they_are_allowed(tmp_path, outside):
    reasons = rejected(prepare(tmp_path, outside))
    assert set(reasons) == {"../secret.wav", f"{tmp_path}/secret.wav", "up/secret.wav", "x/link.wav"}
    for reason in reasons.values():
        assert "outside the folder" in reason
        assert "--allow_outside_root permits it" in reason
    assert rejected(prepare(tmp_path, outside, allow_outside_root=True)) == {}
    assert len(dataset.load_prepared(tmp_path / "out" / "folder").utterances) == 5


def test_a_corpus_that_is_all_outside_says_how_to_allow_it(tmp_path, outside):
    (outside / "inside.wav").unlink()
    (outside / "inside.wav").symlink_to(tmp_path / "secret.wav")
    with pytest.raises(InputError, match="--allow_outside_root permits it"):
        prepare(tmp_path, outside)


def test_features_and_alignments_outside_their_folders_are_not_read(tmp_path):
    rows = {"a.wav": "x,../secret.csv,a", "b.wav": "x,,../secret"}
    root = write_corpus(tmp_path / "root", rows, header="path,label,alignment,id")
    (tmp_path / "secret.csv").write_text("0.0,0.2,hidden\n")
    (tmp_path / "frames").mkdir()
    for path in ("frames/a", "secret"):
        np.save(tmp_path / f"{path}.npy", np.ones((5, 4)))
    folder = prepare(tmp_path, root, "frames", files={"frames": tmp_path / "frames"})
    [only] = dataset.load_prepared(tmp_path / "out" / "folder").utterances
    assert (only.id, only.words) == ("a", None)
    assert "bad_alignment" in only.flags
    assert "outside the folder" in rejected(folder)["b.wav"]
    prepare(tmp_path, root, "frames", files={"frames": tmp_path / "frames"}, allow_outside_root=True)
    both = dataset.load_prepared(tmp_path / "out" / "folder").utterances
    assert [utterance.id for utterance in both] == ["../secret", "a"]
    assert both[1].words[0].text == "hidden"


def test_what_cannot_be_read_to_its_end_is_rejected_and_the_rest_is_prepared(tmp_path):
    names = ("good.wav", "fifo.wav", "zero.wav", "sparse.wav", "half.wav", "crashed.wav")
    root = write_corpus(tmp_path / "root", dict.fromkeys(names, "a,b"))
    for name in names[1:3]:
        (root / name).unlink()
    os.mkfifo(root / "fifo.wav")
    (root / "zero.wav").symlink_to("/dev/zero")
    os.truncate(root / "sparse.wav", 2**40)
    os.truncate(root / "half.wav", 5_000)
    content = bytearray((root / "crashed.wav").read_bytes())
    content[40:44] = bytes(4)
    (root / "crashed.wav").write_bytes(content)
    reasons = rejected(prepare(tmp_path, root, allow_outside_root=True))
    assert reasons == {
        "fifo.wav": "cannot be read (not a regular file)",
        "zero.wav": "cannot be read (not a regular file)",
        "sparse.wav": "1,099,511,627,776 bytes, more than the 4,294,967,296 that are read of one file",
        "half.wav": "truncated: 4956 of 9600 bytes are present",
    }
    flags = {one.id: one.flags for one in dataset.load_prepared(tmp_path / "out" / "folder").utterances}
    assert flags == {"crashed": ("header_size",), "good": ()}


def test_scripts_without_spaces_are_flagged_and_can_be_segmented(tmp_path, capsys):
    rows = {"a.wav": "x,我 喜欢 你", "b.wav": "x,मुझे नहीं पता", "c.wav": "x,möchte"}
    root = write_corpus(tmp_path / "root", rows)
    prepare(tmp_path, root, quiet=False)
    assert "1 transcripts are in a script without spaces" in capsys.readouterr().out
    data = dataset.load_prepared(tmp_path / "out" / "folder")
    assert [one.flags for one in data.utterances] == [("characters",), (), ()]
    assert [data.vocabulary[word] for word in data.arrays["words"][0]] == ["我", "喜", "欢", "你"]
    assert [data.vocabulary[word] for word in data.arrays["words"][1]] == ["मुझे", "नहीं", "पता"]
    assert data.manifest["parameters"]["tokenizer"] == 2
    prepare(tmp_path, root, segmenter="spaces")
    data = dataset.load_prepared(tmp_path / "out" / "folder")
    assert [data.vocabulary[word] for word in data.arrays["words"][0]] == ["我", "喜欢", "你"]
    assert [one.flags for one in data.utterances] == [(), (), ()]


def test_word_vectors_of_another_width(tmp_path):
    root = write_corpus(tmp_path / "root", {"a.wav": "x,so what", "b.wav": "y,what now"})
    (tmp_path / "glove.50d.txt").write_text("what" + " 0.5" * 50 + "\n")
    prepare(tmp_path, root, glove=tmp_path / "glove.50d.txt")
    data = dataset.load_prepared(tmp_path / "out" / "folder")
    assert data.embeddings.shape == (len(data.vocabulary), 50)
    assert data.manifest["embeddings"]["dimension"] == 50
    assert data.manifest["embeddings"]["coverage"] == {"types": 1 / 3, "tokens": 0.5, "duplicates": 0}
    (tmp_path / "other.txt").write_text("und" + " 0.5" * 50 + "\n")
    with pytest.raises(InputError, match=r"other\.txt: has none of the 3 words of the corpus"):
        prepare(tmp_path, root, glove=tmp_path / "other.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--segmenter=icu"], "--segmenter=icu: must be one of characters, spaces"),
        (["--segmenter=spaces", "--recipe=cat"], "--segmenter=spaces: recipe cat has no words"),
    ],
)
def test_wrong_usage_of_the_segmenter(tmp_path, capsys, arguments, message):
    root = write_corpus(tmp_path / "root", {"a.wav": "x,so what"})
    status = preparation.main(["--corpus=folder", f"--root={root}", f"--out={tmp_path}", *arguments])
    assert status == 2
    assert message in capsys.readouterr().err
