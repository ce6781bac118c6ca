"""Precomputed arrays, as files or as one HDF5 file, and recipe `frames`, which needs them."""

import json
import os
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from helpers.small_corpus import write_talks
from jaxser.data import dataset
from jaxser.data_prep import prepare as preparation
from jaxser.features.sources import ArrayFiles, open_arrays
from jaxser.types import InputError, Reading, UsageError

LABELS = ["ang", "neu", "sad", "hap"] * 5
WIDTH = 24


def frames_of(index: int) -> np.ndarray:
    return np.random.default_rng(index).standard_normal((10 + index, WIDTH)).astype(np.float32)


def write_frames(folder: Path, reading: Reading) -> Path:
    folder.mkdir(parents=True)
    for index, utterance in enumerate(reading.utterances):
        np.save(folder / f"{utterance.id}.npy", frames_of(index))
    return folder


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Reading:
    """Corpus `chatter` in the folder `release`, with precomputed frames in `frames`."""
    reading = write_talks(tmp_path / "release", LABELS)
    monkeypatch.setitem(sys.modules, "corpus_of_this_test", SimpleNamespace(read=lambda root: reading))
    monkeypatch.setitem(preparation.READERS, "chatter", "corpus_of_this_test")
    write_frames(tmp_path / "frames", reading)
    return reading


def prepare(out: Path, frames: Path, **options) -> Path:
    options = {"workers": 1, "quiet": True, "max_rejected": 0.05, **options}
    return preparation.prepare("chatter", out / "release", "frames", out, files={"frames": frames}, **options)


def rejected(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def assert_frames(out: Path) -> None:
    data = dataset.load_prepared(out / "chatter", "frames")
    assert len(data.utterances) == len(LABELS)
    for row in range(len(LABELS)):
        np.testing.assert_array_equal(data.arrays["audio"][row], frames_of(row))
    assert [data.vocabulary[word] for word in data.arrays["words"][0]] == [
        "don't",
        "talk",
        ",",
        "please",
        "!",
    ]
    assert data.manifest["arrays"]["audio"]["shape"] == [None, WIDTH]


def test_a_folder_of_npy_files(corpus, tmp_path):
    prepare(tmp_path, tmp_path / "frames")
    assert_frames(tmp_path)


def test_several_processes(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxser.data_prep.jobs.UTTERANCES_PER_SHARD", 10)
    prepare(tmp_path, tmp_path / "frames", workers=2)
    assert_frames(tmp_path)


def test_an_hdf5_file(corpus, tmp_path):
    with h5py.File(tmp_path / "wavlm.h5", "w") as file:
        for index, utterance in enumerate(corpus.utterances):
            file[utterance.id] = frames_of(index)
    prepare(tmp_path, tmp_path / "wavlm.h5")
    assert_frames(tmp_path)


def test_glove_vectors_can_be_combined_with_frames(corpus, tmp_path):
    (tmp_path / "glove.txt").write_text(" ".join(["talk", *["1.5"] * 300]) + "\n")
    prepare(tmp_path, tmp_path / "frames", glove=tmp_path / "glove.txt")
    data = dataset.load_prepared(tmp_path / "chatter", "frames")
    assert data.embeddings[data.vocabulary.index("talk"), 0] == 1.5


def write_pickle(path: Path) -> None:
    """Write a pickle that creates a file when it is loaded."""
    path.write_bytes(b"cbuiltins\nopen\n(S'unpickled.txt'\nS'w'\ntR.")


def write_object_array(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def announce_too_much(path: Path) -> None:
    """Write a header that announces a terabyte, without data."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (10**10, 24)}
        )


def write_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros((3, WIDTH)))


def write_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


BAD = {
    "a git-lfs pointer instead of the file": write_pointer,
    "No such file or directory": Path.unlink,
    "magic string is not correct": write_pickle,
    "Python objects in dtype": write_object_array,
    "not a readable array": cut,
    "not a readable": announce_too_much,
    "the magic string is not correct": write_archive,
    "rows of 7 numbers, but 24 in the first file": lambda path: np.save(path, np.zeros((5, 7))),
    r"expected numbers of shape [frames, width], found float64[2, 3, 24]": lambda path: np.save(
        path, np.zeros((2, 3, WIDTH))
    ),
    "expected numbers of shape [frames, width], found <U1[2, 24]": lambda path: np.save(
        path, np.full((2, WIDTH), "x")
    ),
    "empty, [0, 24]": lambda path: np.save(path, np.zeros((0, WIDTH))),
    "NaN or infinite": lambda path: np.save(path, np.full((2, WIDTH), np.nan)),
    "not a readable arr": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("reason", BAD)
def test_unusable_files_are_rejected_with_a_reason(corpus, tmp_path, reason, monkeypatch):
    monkeypatch.chdir(tmp_path)
    BAD[reason](tmp_path / "frames" / "talk_0003.npy")
    folder = prepare(tmp_path, tmp_path / "frames")
    [line] = rejected(folder)
    assert (line["id"], line["where"]) == ("talk_0003", "0003.wav")
    assert line["reason"].startswith("talk_0003.npy: ")
    assert reason in line["reason"]
    assert "\n" not in line["reason"]
    assert str(tmp_path) not in line["reason"]
    assert len(dataset.load_prepared(tmp_path / "chatter", "frames").utterances) == len(LABELS) - 1
    assert not (tmp_path / "unpickled.txt").exists()


@pytest.mark.parametrize("damage", ["missing", "group", "text"])
def test_unusable_hdf5_datasets_are_rejected_with_a_reason(corpus, tmp_path, damage):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for index, utterance in enumerate(corpus.utterances[:-1]):
            file[utterance.id] = frames_of(index)
        if damage == "group":
            file.create_group("talk_0019")
        if damage == "text":
            file["talk_0019"] = "words"
    [line] = rejected(prepare(tmp_path, tmp_path / "x.hdf5"))
    reason = {"missing": "no such dataset", "group": "a group, not a dataset", "text": "numbers"}[damage]
    assert line["reason"].startswith("x.hdf5/talk_0019: ")
    assert reason in line["reason"]


def test_width_is_that_of_the_first_readable_file(corpus, tmp_path):
    (tmp_path / "frames" / "talk_0000.npy").write_bytes(b"")
    assert open_arrays(tmp_path / "frames", [u.id for u in corpus.utterances], "frames", 3_000).width == WIDTH
    with pytest.raises(
        InputError,
        match=r"no utterance has a readable array; the first: x\.npy: cannot be read \(No such file",
    ):
        open_arrays(tmp_path / "frames", ["x", "y"], "frames", 3_000)


def test_a_vector_is_one_row_and_half_precision_is_widened(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4, dtype=np.float16))
    found = ArrayFiles(tmp_path, 4, 9).read("a")
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 1, 2, 3]]


def test_long_arrays_are_cut_and_flagged(corpus, tmp_path):
    np.save(tmp_path / "frames" / "talk_0003.npy", np.ones((3_001, WIDTH)))
    prepare(tmp_path, tmp_path / "frames")
    data = dataset.load_prepared(tmp_path / "chatter", "frames")
    assert data.arrays["audio"].length[3] == 3_000
    assert data.utterances[3].flags == ("cut_audio",)


def test_a_changed_file_rebuilds_the_shard(corpus, tmp_path):
    prepare(tmp_path, tmp_path / "frames")
    np.save(tmp_path / "frames" / "talk_0003.npy", np.ones((2, WIDTH)))
    prepare(tmp_path, tmp_path / "frames")
    assert (
        dataset.load_prepared(tmp_path / "chatter", "frames").arrays["audio"][3].tolist()
        == [[1.0] * WIDTH] * 2
    )


def test_prosody_has_one_row(corpus, tmp_path):
    folder = tmp_path / "prosody"
    folder.mkdir()
    for utterance in corpus.utterances:
        np.save(folder / f"{utterance.id}.npy", np.full(35, float(utterance.id[-1])))
    preparation.prepare(
        "chatter",
        tmp_path / "release",
        "self_cross",
        tmp_path,
        files={"prosody": folder},
        workers=1,
        quiet=True,
    )
    data = dataset.load_prepared(tmp_path / "chatter", "self_cross")
    assert list(data.arrays) == ["audio", "words", "prosody"]
    assert set(data.arrays["prosody"].length) == {1}
    assert data.arrays["prosody"][7].tolist() == [[7.0] * 35]


def test_missing_h5py_gives_one_line_that_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "x.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r'pip install "jaxser\[frames\]"'):
        open_arrays(tmp_path / "x.h5", ["a"], "frames", 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe=frames"], "recipe frames needs --frames, a folder of <id>.npy files or one HDF5 file"),
        (["--recipe=frames", "--frames=/nowhere"], "--frames=/nowhere: must be a folder of <id>.npy files"),
        (["--recipe=mcsan", "--frames=."], "--frames: recipe mcsan has no precomputed array audio"),
        (["--recipe=mcsan", "--resnet=x.onnx"], "--resnet: recipe mcsan has no precomputed array video"),
        (["--recipe=lld", "--glove=x.txt"], "--glove=x.txt: recipe lld has no words"),
        (
            ["--recipe=frames", "--frames=.", "--video=."],
            "--video: recipe frames has no precomputed array video",
        ),
        (["--recipe=self_cross", "--video=.", "--resnet=x.onnx"], "--video and --resnet: give either"),
        (["--recipe=self_cross", "--resnet=x.onnx"], "has no videos of the utterances"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_status_2(corpus, tmp_path, arguments, message, capsys):
    status = preparation.main(
        ["--corpus=chatter", f"--root={tmp_path / 'release'}", f"--out={tmp_path}", *arguments]
    )
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


def test_ids_that_are_not_file_names_give_no_traceback(tmp_path):
    source = ArrayFiles(tmp_path, 3, 9)
    for identity in ("a\0b", "x" * 5_000, "../../etc", "\udcff"):
        with pytest.raises(InputError):
            source.read(identity)
        assert source.stamp(identity) == []


def test_a_corpus_without_utterances_is_rejected(tmp_path, monkeypatch):
    reading = replace(write_talks(tmp_path / "release", ["ang"]), utterances=())
    monkeypatch.setitem(sys.modules, "corpus_of_this_test", SimpleNamespace(read=lambda root: reading))
    monkeypatch.setitem(preparation.READERS, "chatter", "corpus_of_this_test")
    with pytest.raises(InputError, match="no utterance of chatter can be used"):
        prepare(tmp_path, tmp_path)


@pytest.fixture
def secret(tmp_path) -> Path:
    """A folder of features, next to an array that must not be read."""
    (tmp_path / "frames" / "clips").mkdir(parents=True)
    np.save(tmp_path / "frames" / "clips" / "a.npy", np.ones((2, 3)))
    np.save(tmp_path / "secret.npy", np.ones((2, 3)))
    (tmp_path / "frames" / "link.npy").symlink_to(tmp_path / "secret.npy")
    (tmp_path / "frames" / "folder").symlink_to(tmp_path)
    (tmp_path / "frames" / "inside.npy").symlink_to("clips/a.npy")
    return tmp_path


def test_ids_and_links_do_not_leave_the_folder_unless_it_is_allowed(secret):
    source = ArrayFiles(secret / "frames", 3, 9)
    for identity in ("clips/a", "inside"):
        assert source.read(identity).shape == (2, 3)
    outside = ("../secret", str(secret / "secret"), "clips/../../secret", "link", "folder/secret")
    for identity in outside:
        with pytest.raises(InputError, match=r"outside the folder .* --allow_outside_root permits it"):
            source.read(identity)
        assert source.stamp(identity) == []
        assert replace(source, allow_outside_root=True).read(identity).shape == (2, 3)
    (secret / "other").symlink_to(secret / "frames")  # the folder itself may be a link
    assert ArrayFiles(secret / "other", 3, 9).read("clips/a").shape == (2, 3)


def test_hdf5_files_are_not_left(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.ones((2, 3))
        file["group/a"] = np.ones((2, 3))
    (tmp_path / "raw").write_bytes(bytes(24))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["clips/a"] = np.ones((2, 3))
        file["soft"] = h5py.SoftLink("/clips/a")
        file["clips/up"] = h5py.SoftLink("/soft")
        file["circle"] = h5py.SoftLink("/circle")
        file["external"] = h5py.ExternalLink("other.h5", "/a")
        file["folder"] = h5py.ExternalLink("other.h5", "/group")
        file["hidden"] = h5py.SoftLink("/folder/a")
        layout = h5py.VirtualLayout((2, 3), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "a", (2, 3))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (2, 3), "f4", external=[(str(tmp_path / "raw"), 0, 24)])
    source = ArrayFiles(tmp_path / "x.h5", 3, 9)
    for identity in ("clips/a", "soft", "clips/up", "/clips/a"):
        assert source.read(identity).tolist() == [[1.0] * 3] * 2
    for identity in ("external", "folder/a", "hidden", "virtual", "raw"):
        with pytest.raises(InputError, match=r"another file"):
            source.read(identity)
    for identity in ("circle", "nothing", "clips/a/b", "clips", ""):
        with pytest.raises(InputError, match=r"too many links|no such dataset|a group, not a dataset"):
            source.read(identity)


def test_only_the_rows_that_are_used_are_read(tmp_path):
    """Arrays of gigabytes, which take no space: a sparse file, and compressed zeros."""
    with (tmp_path / "sparse.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**8, 24)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * 24 * 10**8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("zeros", (10**9, 24), "f4", chunks=(1_000, 24), compression="gzip")
    tracemalloc.start()
    try:
        for path, identity in ((tmp_path, "sparse"), (tmp_path / "x.h5", "zeros")):
            assert ArrayFiles(path, 24, 9).read(identity).shape == (10, 24)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_wide_rows_and_large_chunks_are_rejected(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("row", (1, 10**9), "f4", chunks=(1, 1_000))
        file.create_dataset("vector", (10**9,), "f4", chunks=(1_000,))
        file.create_dataset("chunk", (10**7, 24), "f4", chunks=(10**7, 24), compression="gzip")
    for identity, reason in {
        "row": "1 rows of 1,000,000,000 numbers take 4,000,000,000 bytes",
        "vector": "1 rows of 1,000,000,000 numbers",
        "chunk": "chunks of 960,000,000 bytes",
    }.items():
        with pytest.raises(InputError, match=reason):
            ArrayFiles(tmp_path / "x.h5", 24, 9).read(identity)


@pytest.mark.parametrize(
    "start",
    [
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",  # a header of 4 GB
        b"\x93NUMPY\x01\x00\x08\x00((((((((",
        b"\x93NUMPY\x01\x00\x10\x00" + b"[" * 16,
        b"\x93NUMPY\x01\x00\x06\x00'a\n\n\n'",
        b"\x93NUMPY\x09\x00\x06\x00{}    ",
    ],
)
def test_damaged_headers_are_rejected(tmp_path, start):
    (tmp_path / "a.npy").write_bytes(start + bytes(100))
    with pytest.raises(InputError, match=r"a.npy: not a readable array") as caught:
        ArrayFiles(tmp_path, 3, 9).read("a")
    assert "\n" not in str(caught.value)


def test_what_is_not_a_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    (tmp_path / "b.npy").symlink_to("/dev/zero")
    for identity in ("a", "b"):
        with pytest.raises(InputError, match=r"not a regular file"):
            ArrayFiles(tmp_path, 3, 9, allow_outside_root=True).read(identity)
