"""Preparing a corpus: the command, invalid input, and interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from helpers.small_corpus import RATE, noise, write_ravdess, write_talks
from jaxser.data import dataset
from jaxser.data_prep import build, jobs
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
        (["--corpus=meldd"], "--corpus=meldd: must be one of demo, emodb"),
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
