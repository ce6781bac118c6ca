"""What becomes of every utterance: copies, rejections, files that are ignored, labels, and their counts."""

import json
import unicodedata
from pathlib import Path

import pytest
import soundfile

from helpers.small_corpus import RATE, noise, write_ravdess, write_talks
from jaxser.data import dataset
from jaxser.data_prep import build
from jaxser.data_prep import prepare as preparation
from jaxser.types import InputError


def run(*arguments) -> int:
    return preparation.main([str(argument) for argument in arguments])


def prepare(root: Path, out: Path, **options) -> Path:
    return preparation.prepare("ravdess", root, "mcsan", out, **{"workers": 1, "quiet": True, **options})


def write_table(root: Path, *rows: str) -> Path:
    (root / "metadata.csv").write_text("path,label\n" + "".join(f"{row}\n" for row in rows))
    return root


def prepare_table(root: Path, out: Path, **options) -> Path:
    return preparation.prepare(
        "folder", root, "mcsan", out, **{"workers": 1, "quiet": True, "max_rejected": 1.0, **options}
    )


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_byte_identical_copies_count_once(tmp_path, capsys):
    """RAVDESS's archive has every file twice, in two folders."""
    paths = write_ravdess(tmp_path / "release", 6)
    for path in paths:
        copy = tmp_path / "release/audio_speech_actors_01-24" / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    folder = prepare(tmp_path / "release", tmp_path, quiet=False)
    manifest = manifest_of(folder)
    assert (manifest["utterances"], manifest["rejected"], manifest["copies"]) == (6, 0, 6)
    assert "byte-identical copies, each used once: 6" in capsys.readouterr().out
    soundfile.write(paths[0], noise(0.3, seed=77), RATE)  # no longer a copy
    manifest = manifest_of(prepare(tmp_path / "release", tmp_path, max_rejected=0.5))
    assert (manifest["utterances"], manifest["rejected"], manifest["copies"]) == (6, 1, 5)


def test_identical_recordings_of_other_ids_are_used_and_counted(tmp_path):
    paths = write_ravdess(tmp_path / "release", 6)
    paths[0].write_bytes(paths[1].read_bytes())
    manifest = manifest_of(prepare(tmp_path / "release", tmp_path))
    assert (manifest["utterances"], manifest["identical_recordings"]) == (6, 1)


def test_copies_in_a_table_count_once(tmp_path):
    write_talks(tmp_path / "release", ["ang", "neu"])
    root = write_table(tmp_path / "release", "0000.wav,ang", "0001.wav,neu", "0000.wav,ang", "0000.wav,sad")
    folder = prepare_table(root, tmp_path)
    manifest = manifest_of(folder)
    assert (manifest["utterances"], manifest["rejected"], manifest["copies"]) == (2, 1, 1)
    [line] = (folder / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["where"] == "metadata.csv:5"


def test_ignored_alignments_are_not_rejected_utterances(tmp_path):
    write_talks(tmp_path / "release", ["ang", "neu"])
    (tmp_path / "release/metadata.csv").write_text(
        "path,label,alignment\n0000.wav,ang,absent.csv\n0001.wav,neu,\n"
    )
    folder = prepare_table(tmp_path / "release", tmp_path, max_rejected=0.0)
    manifest = manifest_of(folder)
    assert (manifest["utterances"], manifest["rejected"], manifest["ignored"]) == (2, 0, 1)
    assert (folder / "rejected.jsonl").read_text() == ""
    [line] = (folder / "ignored.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "alignment absent.csv not used: no such file"


def test_most_common_kind_of_reason_is_shown_by_an_example(tmp_path):
    write_talks(tmp_path / "release", ["ang"])
    rows = [f"{n}.wav,ang,extra" for n in range(3)] + [f"{n}.wav,ang,a,b" for n in range(3, 5)]
    root = write_table(tmp_path / "release", "0000.wav,ang", *rows, ",ang")
    with pytest.raises(InputError, match=r"6 of 7 .* most often \(5 times\): 3 cells, but 2 columns"):
        prepare_table(root, tmp_path, max_rejected=0.1)


@pytest.mark.parametrize(
    ("reason", "same"),
    [
        ("has the same id as a/b.wav, which is used", "has the same id as c.wav, which is used"),
        ("truncated: 5 of 10 samples are present", "truncated: 7 of 999 samples are present"),
        ("split 'a b': must be one of train", "split 'c': must be one of train"),
    ],
)
def test_reasons_of_one_kind(reason, same):
    assert build.reason_kind(reason) == build.reason_kind(same) != build.reason_kind("no label")


def test_git_lfs_pointers_are_named(tmp_path):
    write_talks(tmp_path / "release", ["ang", "neu"])
    (tmp_path / "release/0001.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    folder = prepare_table(write_table(tmp_path / "release", "0000.wav,ang", "0001.wav,neu"), tmp_path)
    [line] = (folder / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"].startswith("a git-lfs pointer instead of the file itself")


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_paths_are_found_whatever_the_form_of_their_accents(tmp_path, on_disk, in_table):
    write_talks(tmp_path / "release", ["ang"])
    path = tmp_path / "release" / unicodedata.normalize(on_disk, "Gäste/élan.wav")
    path.parent.mkdir()
    (tmp_path / "release/0000.wav").rename(path)
    root = write_table(tmp_path / "release", unicodedata.normalize(in_table, "Gäste/élan.wav,fröhlich"))
    data = dataset.load_prepared(prepare_table(root, tmp_path))
    assert [(u.id, u.label) for u in data.utterances] == [("Gäste/élan", "fröhlich")]


def test_labels_of_a_dataset_are_recorded_and_their_change_is_noticed(tmp_path, capsys):
    write_talks(tmp_path / "release", ["a"] * 4)
    root = write_table(tmp_path / "release", "0000.wav,A", "0001.wav,H", "0002.wav,E", "0003.wav,X")
    command = ["--corpus=folder", f"--root={root}", f"--out={tmp_path}", "--workers=1"]
    assert run(*command) == 0
    folder = tmp_path / "folder/mcsan/1.0.0"
    assert manifest_of(folder)["labels"]["found"] == {"A": 1, "E": 1, "H": 1, "X": 1}
    mapped = [*command, "--label_map=A=angry,H=happy,E=excited"]
    assert run(*mapped) == 0
    assert manifest_of(folder)["labels"]["found"] == {"X": 1, "angry": 1, "excited": 1, "happy": 1}
    assert run(*mapped, "--classes=angry,happy+excited") == 0
    labels = manifest_of(folder)["labels"]
    assert labels["found"] == {"angry": 1, "happy": 2}
    assert labels["left_out"] == {"X": 1}
    assert labels["classes"] == {"angry": "angry", "happy": "happy", "excited": "happy"}
    assert labels["label_map"] == {"A": "angry", "H": "happy", "E": "excited"}
    assert "left out by their labels: X 1" in capsys.readouterr().out
    assert run(*mapped, "--classes=angry,happy+excited") == 0
    assert "is up to date" in capsys.readouterr().out
    data = dataset.load_prepared(tmp_path / "folder")
    assert data.classes == ("angry", "happy")


def test_warnings_are_printed_and_recorded(tmp_path, capsys):
    write_talks(tmp_path / "release", ["a"] * 2)
    root = write_table(tmp_path / "release", "0000.wav,Calm", "0001.wav,calm")
    assert run("--corpus=folder", f"--root={root}", f"--out={tmp_path}", "--workers=1") == 0
    warning = "labels that differ in case or width only are one class, Calm: Calm (1), calm (1)"
    assert f"prepare: warning: {warning}\n" in capsys.readouterr().err
    assert manifest_of(tmp_path / "folder/mcsan/1.0.0")["warnings"] == [warning]
