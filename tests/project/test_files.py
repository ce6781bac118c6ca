"""Files are complete or absent, stay inside their root, and are checked when they are read."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxser import files
from jaxser.files import CheckedFolder, locking
from jaxser.types import InputError

ADVICE = "give another --workdir"


@pytest.fixture
def root(tmp_path):
    """A folder with a link `out` to a folder outside, and a link `link.txt` to a file there."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "kept.txt").write_text("kept")
    (root / "out").symlink_to(outside)
    (root / "link.txt").symlink_to(outside / "kept.txt")
    return root


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_files_are_written_below_their_root(tmp_path):
    root = tmp_path / "new" / "root"
    files.write(root, "a.txt", "ä\r\n")
    files.write(root, "b/c.bin", b"\x00\xff")
    files.write_json(root, "d.json", {"é": [1, None]}, indent=None)
    files.write_csv(root, "b/e.csv", [["a,b", 1], ["c", 2]])
    with files.open_appending(root, "f.txt") as file:
        file.write(b"one ")
    with files.open_appending(root, "f.txt") as file:
        file.write(b"two")
    found = {name: (root / name).read_bytes() for name in ("a.txt", "b/c.bin", "d.json", "b/e.csv", "f.txt")}
    assert found == {
        "a.txt": "ä\r\n".encode(),
        "b/c.bin": b"\x00\xff",
        "d.json": '{"é": [1, null]}\n'.encode(),
        "b/e.csv": b'"a,b",1\nc,2\n',
        "f.txt": b"one two",
    }
    assert contents(root) == ["a.txt", "b", "b/c.bin", "b/e.csv", "d.json", "f.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_interrupted_file_leaves_the_old_one(tmp_path, error):
    files.write(tmp_path, "a.txt", "old")

    def write():
        with files.open_text(tmp_path, "a.txt") as file:
            file.write("new")
            file.flush()
            raise error

    with pytest.raises(error):
        write()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert contents(tmp_path) == ["a.txt"]


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space.*a\.txt'") as caught,
        files.open_binary(tmp_path, "a.txt"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert caught.value.filename == str(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["link.txt", "out/kept.txt", "out/new.txt"])
def test_nothing_is_written_through_a_link(root, name):
    makers = (
        lambda: files.write(root, name, "x"),
        lambda: files.open_appending(root, name).__enter__(),
        lambda: files.make_folder(root, f"{name}/folder"),
    )
    for make in makers:
        with pytest.raises(InputError, match="is a link, and nothing is written or removed through links"):
            make()
    assert contents(root.parent / "outside") == ["kept.txt"]
    assert (root.parent / "outside/kept.txt").read_text() == "kept"


def test_the_root_itself_may_be_a_link(root):
    files.write(root / "out", "new.txt", "x")
    assert contents(root.parent / "outside") == ["kept.txt", "new.txt"]


@pytest.mark.parametrize("name", ["../x", "/x", "", "a/../../x", "..", "a\0b"])
def test_no_name_leads_out_of_the_root(root, name):
    for act in (files.remove, files.remove_folder, lambda *where: files.write(*where, "x")):
        with pytest.raises(InputError, match="does not name a file inside"):
            act(root, name)


def test_nothing_is_removed_through_a_link(root):
    for act in (files.remove, files.remove_folder):
        with pytest.raises(InputError, match="is a link"):
            act(root, "out/kept.txt")
    files.write(root, "folder/a/b.txt", "x")
    (root / "folder/out").symlink_to(root.parent / "outside")
    files.remove_folder(root, "folder")
    files.remove_folder(root, "out")
    files.remove(root, "link.txt")
    files.remove(root, "missing")
    files.remove_folder(root, "missing/folder")
    assert contents(root) == []
    assert contents(root.parent / "outside") == ["kept.txt"]


def test_what_killed_processes_left_is_removed(tmp_path):
    code = f"""
import os, pathlib
from jaxser import files
with files.open_binary(pathlib.Path({str(tmp_path)!r}), "a.txt") as file:
    os._exit(9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    (tmp_path / "notes.tmp").touch()
    assert len(contents(tmp_path)) == 2
    files.remove_leftovers(tmp_path)
    assert contents(tmp_path) == ["notes.tmp"]


HOLD = """
import pathlib, sys, time
from jaxser import files
with files.lock(pathlib.Path(sys.argv[1]), "wait"):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_locked_folder_names_its_holder(tmp_path, other):
    with pytest.raises(InputError) as caught, files.lock(tmp_path, ADVICE):
        pass
    assert f"{tmp_path} is being written by process {other.pid} of " in str(caught.value)
    assert str(caught.value).endswith(f"; {ADVICE}")


@pytest.mark.parametrize("is_reaped", [True, False])
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, other, is_reaped):
    other.kill()
    if is_reaped:
        other.wait()
    else:
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and remains as a zombie
    with files.lock(tmp_path, ADVICE):
        assert json.loads((tmp_path / files.LOCK).read_text())["pid"] == os.getpid()
    assert contents(tmp_path) == []


def hold(folder: Path, **changes: object) -> None:
    """Write a lock of this process, with some values changed."""
    with files.lock(folder, ADVICE):
        content = json.loads((folder / files.LOCK).read_text())
    (folder / files.LOCK).write_text(json.dumps({**content, "token": "0" * 16, **changes}))


@pytest.mark.parametrize(
    ("changes", "is_taken_over"),
    [
        ({}, False),
        ({"started": "1"}, True),  # an earlier process of the same id
        ({"host": "node7", "started": "1"}, False),
        ({"machine": "before the last boot", "started": "1"}, False),
        ({"pid": 2**31}, False),  # not a lock that was written
        ({"token": "../../x", "started": "1"}, False),
        ({"host": "node7", "job": "123 0"}, True),  # before SLURM requeued this job
        ({"host": "node7", "job": "122 0"}, False),
    ],
    ids=str,
)
def test_only_locks_of_ended_processes_are_taken_over(tmp_path, monkeypatch, changes, is_taken_over):
    hold(tmp_path, **changes)
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    if is_taken_over:
        with files.lock(tmp_path, ADVICE):
            pass
        assert contents(tmp_path) == []
    else:
        with pytest.raises(InputError, match="is being written by") as caught, files.lock(tmp_path, ADVICE):
            pass
        says_how = f"if that process has ended, remove {tmp_path / files.LOCK}" in str(caught.value)
        assert says_how == bool(changes)


def test_a_file_system_without_hard_links_has_locks(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with files.lock(tmp_path, ADVICE):
        with pytest.raises(InputError, match="is being written by"), files.lock(tmp_path, ADVICE):
            pass
        assert contents(tmp_path) == [files.LOCK]
    assert contents(tmp_path) == []


def test_of_several_processes_that_take_over_a_lock_one_succeeds(tmp_path):
    code = """
import pathlib, sys, time
from jaxser import files
from jaxser.types import InputError
sys.stdin.readline()
try:
    with files.lock(pathlib.Path(sys.argv[1]), "wait"):
        print("locked", flush=True)
        sys.stdin.readline()
except InputError:
    print("refused", flush=True)
"""
    hold(tmp_path, started="1")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    rivals = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes) for _ in range(4)]
    for rival in rivals:
        rival.stdin.write("\n")
        rival.stdin.flush()
    assert sorted(rival.stdout.readline() for rival in rivals) == ["locked\n", *["refused\n"] * 3]
    for rival in rivals:
        rival.communicate("\n")
    assert contents(tmp_path) == []


def test_a_lock_that_was_lost_is_not_removed(tmp_path):
    with files.lock(tmp_path, ADVICE):
        hold_path = tmp_path / files.LOCK
        hold_path.write_text(json.dumps({**json.loads(hold_path.read_text()), "token": "f" * 16}))
    assert hold_path.exists()


def test_the_start_of_a_process_is_told_without_proc(monkeypatch):
    own = locking._start_of(os.getpid())
    assert own.isdigit()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert locking._start_of(os.getpid()).isdigit()


CHECKED = "train again"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "is missing"),
        (lambda path: path.mkdir(), "cannot be read (Is a directory)"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (lambda path: path.write_text("{"), "is damaged"),
        (lambda path: path.write_text("[" * 100_000), "is damaged"),
        (lambda path: path.write_text('{"a": NaN}'), "NaN is not JSON"),
        (lambda path: path.write_text('{"a": 1, "a": 2}'), "a key is repeated"),
        (lambda path: path.write_text(f'{{"a": {"9" * 5000}}}'), "is damaged"),
        (lambda path: path.write_text('{"a": "\\ud800"}'), "is damaged"),
        (lambda path: path.write_bytes(b"\x00\xff\xfe"), "is damaged"),
        (lambda path: path.write_text("[]"), "Expected `object`, got `array`"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, make, reason):
    make(tmp_path / "a.json")
    with pytest.raises(InputError) as caught:
        CheckedFolder(tmp_path, CHECKED).read_json("a.json", dict)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.json'} ")
    assert reason in message
    assert message.endswith(f"; {CHECKED}")
    assert "\n" not in message


def test_every_flipped_bit_differs_from_the_digest(tmp_path):
    path = files.write_json(tmp_path, "a.json", {"a": 1.5})
    whole, folder = path.read_bytes(), CheckedFolder(tmp_path, CHECKED, {"a.json": files.sha256(path)})
    assert folder.read_json("a.json", dict) == {"a": 1.5}
    for position in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"its SHA-256 digest differs"):
            folder.read("a.json")


def test_a_sealed_object_is_intact_until_a_value_changes():
    value = files.sealed({"b": [1, 0.1], "a": {"é": None}})
    assert files.is_intact(json.loads(json.dumps(value)))
    assert files.is_intact({"a": 1})
    assert files.sealed(value) == value
    assert not files.is_intact({**value, "b": [1, 0.2]})


def test_the_digests_of_a_folder_are_those_of_its_run_or_dataset(tmp_path):
    assert files.digests_in(tmp_path) == {}
    (tmp_path / "manifest.json").write_text("[]")  # of another program
    assert files.digests_in(tmp_path) == {}
    files.write_json(tmp_path, "manifest.json", files.sealed({"name": "talks", "files": {"folds.json": "0"}}))
    assert files.digests_in(tmp_path) == {"folds.json": "0"}
    files.write_json(tmp_path, "digests.json", files.sealed({"sha256": {"folds.json": "1"}}))
    assert files.digests_in(tmp_path) == {"folds.json": "1"}
    for content in ("[]", '{"sha256": {"folds.json": "2"}, "digest": "3"}'):
        (tmp_path / "digests.json").write_text(content)
        with pytest.raises(InputError, match=r"digests.json is damaged .*; restore it from a copy"):
            files.digests_in(tmp_path)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.ones((2, 3), np.float32)),
        np.float32(3),
        np.ones((0, 4)),
    ],
)
def test_arrays_are_read_back(array):
    file = io.BytesIO()
    np.save(file, array)
    read = files.decode_array(file.getvalue())
    np.testing.assert_array_equal(read, array)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    for wrong in (file.getvalue()[:-1], file.getvalue() + b"x", b"", b"\x93NUMPY"):
        with pytest.raises(ValueError, match="not an array of"):
            files.decode_array(wrong)


def test_an_array_that_promises_terabytes_is_refused():
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 300)}
    )
    with pytest.raises(ValueError, match="not an array of the size in its header"):
        files.decode_array(file.getvalue() + bytes(100))
