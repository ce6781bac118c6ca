"""Preparing a corpus: the command, invalid input, and interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from helpers.small_corpus import RATE, noise, write_ravdess, write_talks
from jaxser.data import dataset
from jaxser.data_prep import jobs
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep.corpora import ravdess
from jaxser.features.text import build_vocabulary
from jaxser.types import InputError, Reading, Rejection, UsageError

COMMAND = [sys.executable, "-m", "data_prep.prepare"]
PROJECT = Path(__file__).parents[2]


def prepare(root: Path, out: Path, **options) -> Path:
    return preparation.prepare("ravdess", root, "mcsan", out, **{"workers": 1, "quiet": True, **options})


def prepared_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord-*-of-?????")}


def is_running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def run(*arguments) -> int:
    try:
        return preparation.main([str(argument) for argument in arguments])
    except SystemExit as wrong_flag:
        return wrong_flag.code


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """A release of 300 recordings, which fill three shards."""
    root = tmp_path_factory.mktemp("ravdess")
    write_ravdess(root, 300)
    return root


@pytest.fixture(scope="module")
def complete(release, tmp_path_factory) -> Path:
    """The folder of the release, prepared without interruption."""
    return prepare(release, tmp_path_factory.mktemp("complete"))


@pytest.fixture
def corpus(monkeypatch):
    """Registers a corpus `chatter` whose reader returns a given reading."""

    def register(reading: Reading) -> None:
        monkeypatch.setitem(sys.modules, "corpus_of_this_test", SimpleNamespace(read=lambda root: reading))
        monkeypatch.setitem(preparation.READERS, "chatter", "corpus_of_this_test")

    return register


def test_several_processes_write_the_same_bytes_as_one(release, complete, tmp_path):
    assert prepared_files(prepare(release, tmp_path, workers=2)) == prepared_files(complete)


def test_second_run_does_nothing(release, complete, capsys):
    before = {path: path.stat().st_mtime_ns for path in complete.rglob("*") if path.name != ".lock"}
    assert run("--corpus=ravdess", f"--root={release}", f"--out={complete.parents[2]}") == 0
    assert "is up to date" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in complete.rglob("*") if path.name != ".lock"} == before


def test_summary_shows_found_and_expected_labels(tmp_path, capsys):
    write_ravdess(tmp_path / "release", 5)
    assert run("--corpus=ravdess", f"--root={tmp_path / 'release'}", f"--out={tmp_path}", "--workers=1") == 0
    words = capsys.readouterr().out.split()
    assert words[words.index("neutral") : words.index("neutral") + 5] == ["neutral", "│", "5", "│", "96"]
    assert words[words.index("rejected:") + 1] == "0;"


def test_killed_preparation_is_resumed_by_the_same_command(release, complete, tmp_path):
    """Killed once the first shard is complete; no half-written file may be taken for a complete one."""
    folder = tmp_path / "ravdess" / "mcsan" / "1.0.0"
    command = [*COMMAND, "--corpus=ravdess", f"--root={release}", f"--out={tmp_path}", "--workers=2"]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers: list[str] = []
    while not list(folder.glob("parts/0*.json")) and process.poll() is None:
        workers = children.read_text().split() if children.exists() else []
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "manifest.json").exists()
    with pytest.raises(UsageError, match="no prepared dataset"):
        dataset.load_prepared(tmp_path / "ravdess", "mcsan")
    deadline = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, workers)), "workers outlive the command"
    (folder / "ravdess-utterances.tfrecord-00002-of-00003.123.tmp").write_bytes(b"half")
    done = times(folder)
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    assert prepared_files(folder) == prepared_files(complete)
    kept = {name for name, changed in done.items() if times(folder)[name] == changed}
    assert kept, "the complete shard was written again"


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])
def test_killed_at_any_moment(release, complete, tmp_path, delay):
    command = [*COMMAND, "--corpus=ravdess", f"--root={release}", f"--out={tmp_path}", "--workers=2"]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait()
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    assert prepared_files(tmp_path / "ravdess" / "mcsan" / "1.0.0") == prepared_files(complete)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, lambda path: os.truncate(path, 999), Path.unlink])
def test_only_a_damaged_shard_is_written_again(release, complete, tmp_path, damage):
    folder = prepare(release, tmp_path)
    before = times(folder)
    damage(folder / "ravdess-utterances.tfrecord-00001-of-00003")
    prepare(release, tmp_path)
    assert prepared_files(folder) == prepared_files(complete)
    after = times(folder)
    assert {name for name in before if before[name] != after[name]} == {
        "ravdess-utterances.tfrecord-00001-of-00003"
    }


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json", "vocabulary.json", "embeddings.npy", "rejected.jsonl", "dataset_info.json",
        "features.json", "parts/00002.json", "parts/embeddings.json",
    ],
)  # fmt: skip
def test_damaged_side_file_is_written_again(release, complete, tmp_path, name):
    folder = prepare(release, tmp_path)
    (folder / name).write_bytes(b'{"fingerprint": 1}')
    prepare(release, tmp_path)
    assert prepared_files(folder) == prepared_files(complete)


def test_shard_of_a_changed_recording_is_written_again(tmp_path):
    paths = write_ravdess(tmp_path / "release", 200)
    folder = prepare(tmp_path / "release", tmp_path)
    before = times(folder)
    first = min(paths, key=lambda path: path.name)
    soundfile.write(first, noise(0.5, seed=99), RATE)
    prepare(tmp_path / "release", tmp_path)
    after = times(folder)
    assert [name for name in before if before[name] != after[name]] == [
        "ravdess-utterances.tfrecord-00000-of-00002"
    ]
    data = dataset.load_prepared(tmp_path / "ravdess")
    assert data.arrays["audio"].length[[u.id for u in data.utterances].index(first.stem)] == 51


def test_grown_corpus_leaves_no_stale_shards(tmp_path):
    write_ravdess(tmp_path / "release", 200)
    folder = prepare(tmp_path / "release", tmp_path)
    write_ravdess(tmp_path / "release", 300)
    prepare(tmp_path / "release", tmp_path)
    assert sorted(times(folder)) == [f"ravdess-utterances.tfrecord-{n:05d}-of-00003" for n in range(3)]
    assert len(dataset.load_prepared(tmp_path / "ravdess").utterances) == 300


def test_partly_rebuilt_dataset_is_not_loaded(tmp_path, monkeypatch):
    """Old and new shards must not be mixed."""
    paths = write_ravdess(tmp_path / "release", 200)
    prepare(tmp_path / "release", tmp_path)
    for path in paths:
        soundfile.write(path, noise(0.4, seed=7), RATE)

    def one_shard_only(all_jobs, vocabulary, workers, done):
        done(all_jobs[0], jobs.make_part(all_jobs[0], vocabulary))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "run_jobs", one_shard_only)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / "release", tmp_path)
    with pytest.raises(UsageError, match="no prepared dataset"):
        dataset.load_prepared(tmp_path / "ravdess")
    prepare(tmp_path / "release", tmp_path)
    assert set(dataset.load_prepared(tmp_path / "ravdess").arrays["audio"].length) == {41}


def glove(path: Path, value: float) -> Path:
    path.write_text(" ".join(["kids", *[str(value)] * 300]) + "\n")
    return path


def test_another_glove_file_changes_only_the_vectors(release, tmp_path):
    folder = prepare(release, tmp_path)
    shards = times(folder)
    for value in (1.5, 2.5):
        prepare(release, tmp_path, glove=glove(tmp_path / f"glove.{value}.txt", value))
        data = dataset.load_prepared(tmp_path / "ravdess")
        assert data.embeddings[data.vocabulary.index("kids"), 0] == value
        assert data.manifest["embeddings"]["coverage"] == {
            "types": 1 / 8,
            "tokens": pytest.approx(1 / 12, abs=0.005),
            "duplicates": 0,
        }
        assert times(folder) == shards
    prepare(release, tmp_path)
    assert dataset.load_prepared(tmp_path / "ravdess").manifest["embeddings"]["source"] == "random"


def test_invalid_glove_file_leaves_the_dataset_intact(release, tmp_path):
    prepare(release, tmp_path)
    (tmp_path / "bad.txt").write_text("no glove\n")
    with pytest.raises(InputError, match=r"bad\.txt: line 1"):
        prepare(release, tmp_path, glove=tmp_path / "bad.txt")
    assert len(dataset.load_prepared(tmp_path / "ravdess", "mcsan").utterances) == 300


BAD_WAVS = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: os.truncate(path, 5_000),
    "not a readable sound file": lambda path: path.write_text("words"),
    "NaN": lambda path: soundfile.write(path, np.full(8_000, np.nan), RATE, subtype="FLOAT"),
    "shorter than one window": lambda path: soundfile.write(path, np.zeros(9), RATE),
    "cannot be read": Path.unlink,
}


def test_unusable_recordings_are_rejected_with_the_reason(tmp_path, corpus, capsys):
    reading = write_talks(tmp_path / "release", ["ang"] * 10)
    for (_, spoil), utterance in zip(BAD_WAVS.items(), reading.utterances, strict=False):
        spoil(tmp_path / "release" / utterance.wav)
    corpus(replace(reading, rejected=(Rejection("x", "x.txt:3", "no such turn"),)))
    arguments = ["--corpus=chatter", f"--root={tmp_path / 'release'}", f"--out={tmp_path}", "--workers=1"]
    assert run(*arguments) == 1
    assert "7 of 11 utterances were rejected, more than --max_rejected=0.05" in capsys.readouterr().err
    assert run(*arguments, "--max_rejected=0.7") == 0
    assert "rejected: 7" in capsys.readouterr().out
    folder = tmp_path / "chatter" / "mcsan" / "1.0.0"
    lines = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert lines[0] == {"id": "x", "where": "x.txt:3", "reason": "no such turn"}
    for line, (reason, _), utterance in zip(lines[1:], BAD_WAVS.items(), reading.utterances, strict=False):
        assert (line["id"], line["where"]) == (utterance.id, utterance.wav)
        assert reason in line["reason"]
        assert str(tmp_path) not in line["reason"]
    used = [utterance.id for utterance in dataset.load_prepared(tmp_path / "chatter").utterances]
    assert used == [utterance.id for utterance in reading.utterances[6:]]


def test_other_sample_formats_and_rates_are_used(tmp_path, corpus):
    reading = write_talks(tmp_path / "release", ["ang"] * 5)
    wavs = [tmp_path / "release" / utterance.wav for utterance in reading.utterances]
    soundfile.write(wavs[0], np.stack([noise(0.3, rate=44_100)] * 2, axis=1), 44_100, subtype="PCM_24")
    soundfile.write(wavs[1], noise(0.3, rate=48_000), 48_000, subtype="FLOAT")
    soundfile.write(wavs[2], noise(0.3, rate=8_000), 8_000, subtype="PCM_U8")
    soundfile.write(wavs[3], np.zeros(RATE), RATE)
    soundfile.write(wavs[4], np.sign(noise(11)), RATE)
    corpus(reading)
    preparation.prepare("chatter", tmp_path / "release", "mcsan", tmp_path, workers=1, quiet=True)
    data = dataset.load_prepared(tmp_path / "chatter")
    assert data.arrays["audio"].length.tolist() == [31, 31, 31, 101, 1000]
    assert np.isfinite(data.arrays["audio"].values).all()
    assert data.manifest["flags"] == {"clipped": 1, "cut_audio": 1, "no_alignment": 1, "silent": 1}
    assert data.manifest["cut"] == {"audio": 1}
    assert data.utterances[4].flags == ("clipped", "cut_audio")


def test_second_utterance_with_the_same_id_is_rejected(tmp_path, corpus):
    reading = write_talks(tmp_path / "release", ["ang", "neu", "sad"])
    twins = (*reading.utterances[:2], replace(reading.utterances[2], id=reading.utterances[0].id))
    corpus(replace(reading, utterances=twins))
    folder = preparation.prepare(
        "chatter", tmp_path / "release", "mcsan", tmp_path, workers=1, max_rejected=0.4, quiet=True
    )
    [line] = (folder / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "id": "talk_0000", "where": "0002.wav", "reason": "has the same id as 0000.wav, which is used"
    }  # fmt: skip
    assert dataset.load_prepared(tmp_path / "chatter").column("label").tolist() == ["ang", "neu"]


def test_corpus_without_usable_utterances_fails(tmp_path, corpus):
    corpus(Reading((), (Rejection("x", "x.txt", "unreadable"),)))
    with pytest.raises(InputError, match=r"no utterance of chatter can be used; .*unreadable"):
        preparation.prepare("chatter", tmp_path, "mcsan", tmp_path, quiet=True)
    reading = write_talks(tmp_path / "release", ["ang"])
    (tmp_path / "release" / reading.utterances[0].wav).write_bytes(b"")
    corpus(reading)
    with pytest.raises(InputError, match="1 of 1 utterances were rejected"):
        preparation.prepare("chatter", tmp_path / "release", "mcsan", tmp_path, max_rejected=1.0, quiet=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus=meldd"], "--corpus=meldd: must be one of cafe, cremad"),
        (["--corpus=ravdess", "--root=.", "--recipe=mscan"], "--recipe=mscan: must be one of mcsan, can"),
        (["--corpus=ravdess"], "--corpus=ravdess needs --root"),
        (["--corpus=ravdess", "--root=/nowhere"], "--root=/nowhere: no such folder"),
        (["--corpus=ravdess", "--root=.", "--glove=/nowhere"], "--glove=/nowhere: no such file"),
        (["--corpus=ravdess", "--root=.", "--name=a/b"], "--name=a/b: must consist of letters"),
        (
            ["--corpus=folder", "--root=.", "--name=demo_quick"],
            "--name=demo_quick: this dataset is made from the demo corpus",
        ),
        (["--corpus=ravdess", "--root=.", "--workers=0"], "--workers=0: must be at least 1"),
        (["--corpus=ravdess", "--root=.", "--workers=two"], "--workers: invalid int value: 'two'"),
        (["--corpus=ravdess", "--root=.", "--max_rejected=5"], "--max_rejected=5.0: must be a fraction"),
        (["--corpus=ravdess", "--root=.", "--mix=tutorial"], "--mix: only for --corpus=demo without --root"),
        (["--corpus=ravdess", "--root=.", "--words_tier=a"], "--words_tier: only for --corpus=folder"),
        (["--corpus=ravdess", "--rooot=."], "unrecognized arguments: --rooot=."),
        (["--corpus=ravdess", "--roo=."], "unrecognized arguments: --roo=."),
        ([], "the following arguments are required: --corpus"),
    ],
)
def test_wrong_usage_is_a_one_line_error_with_status_2(arguments, message, capsys):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_folder_without_recordings_is_a_one_line_error_with_status_1(tmp_path, capsys):
    assert run("--corpus=ravdess", f"--root={tmp_path}", f"--out={tmp_path}") == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_output_that_cannot_be_written_is_a_one_line_error(release, tmp_path, capsys):
    (tmp_path / "data").write_text("a file where the folder should be")
    assert run("--corpus=ravdess", f"--root={release}", f"--out={tmp_path / 'data'}") == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "data") in error
    assert error.count("\n") == 1


SMALL_FILES = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk_is_a_one_line_error_and_the_next_run_resumes(release, complete, tmp_path, workers):
    """A limit of 100 kB per file acts like a full disk."""
    command = [*COMMAND, "--corpus=ravdess", f"--root={release}", f"--out={tmp_path}", f"--workers={workers}"]
    full = subprocess.run(
        [sys.executable, "-c", SMALL_FILES, *command],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert full.returncode == 1
    errors = [line for line in full.stderr.splitlines() if line.startswith("prepare: ")]
    assert len(errors) == 1
    assert "File too large" in errors[0]
    assert "Traceback" not in full.stderr
    folder = tmp_path / "ravdess" / "mcsan" / "1.0.0"
    assert not list(folder.rglob("*.tmp"))
    assert prepared_files(prepare(release, tmp_path)) == prepared_files(complete)


HOLD_LOCK = """
import sys
from pathlib import Path
from jaxser.files import lock
with lock(Path(sys.argv[1]), ""):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_concurrent_preparations_are_refused(release, tmp_path):
    folder = tmp_path / "ravdess/mcsan/1.0.0"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(folder)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(
            InputError, match=rf"is being written by .*{holder.pid}.*; wait until it has ended"
        ):
            prepare(release, tmp_path)
    finally:
        holder.communicate()
    prepare(release, tmp_path)


def test_current_dataset_may_be_in_a_read_only_folder(release, complete, monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(preparation, "lock", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert prepare(release, complete.parents[2], quiet=False) == complete
    assert "is up to date" in capsys.readouterr().out


class DeadlyJob(jobs.Job):
    """A job that ends the worker process that unpickles it."""

    def __reduce__(self):
        return os._exit, (3,)


def test_dead_worker_is_a_one_line_error():
    deadly = [DeadlyJob.__new__(DeadlyJob) for _ in range(2)]
    with pytest.raises(InputError, match="a worker process died"):
        jobs.run_jobs(deadly, build_vocabulary([]), 2, lambda job, part: None)


@pytest.mark.parametrize("name", ["meld", "iemocap_mine", "demographics"])
def test_a_folder_may_be_named_like_a_corpus(tmp_path, name):
    write_talks(tmp_path / "release", ["ang", "neu"])
    (tmp_path / "release" / "metadata.csv").write_text("path,label\n0000.wav,ang\n0001.wav,neu\n")
    folder = preparation.prepare(
        "folder", tmp_path / "release", out=tmp_path, name=name, workers=1, quiet=True
    )
    assert json.loads((folder / "manifest.json").read_text())["corpus"] == "folder"
    assert len(dataset.load_prepared(tmp_path / name, "mcsan", corpus="folder").utterances) == 2


def test_demo_corpus_is_made_once_and_then_used(tmp_path, monkeypatch):
    received = {}

    def make(root, **options):
        assert not received, "made twice"
        write_ravdess(root, 3)
        received.update(options, root=root)

    module = SimpleNamespace(make=make, read=ravdess.read)
    monkeypatch.setitem(sys.modules, "jaxser.data_prep.demo.corpus", module)
    folder = preparation.prepare(
        "demo", out=tmp_path, demo={"utterances": 3, "seed": 5}, workers=1, quiet=True
    )
    assert received == {"root": tmp_path / "demo_release", "utterances": 3, "seed": 5, "progress": False}
    assert folder == tmp_path / "demo" / "mcsan" / "1.0.0"
    assert len(dataset.load_prepared(tmp_path / "demo", "mcsan", corpus="demo").utterances) == 3
    preparation.prepare("demo", recipe="can", out=tmp_path, workers=1, quiet=True)
    assert len(dataset.load_prepared(tmp_path / "demo", "can").utterances) == 3
