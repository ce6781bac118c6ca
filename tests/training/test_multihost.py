"""Several processes: the same numbers as one, and a line where one of them dies."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from commands.test_main import command, data_dir, run, wait_for_epochs
from jaxser import launch
from jaxser.evaluation import run_folder
from jaxser.training.multihost import PROCESS
from training.test_sweep import log

__all__ = ["data_dir"]


def children(tmp_path, *codes):
    """Processes that run some Python each, and their error files."""
    errors = [(tmp_path / str(number)).open("w+b") for number in range(len(codes))]
    argv = [[sys.executable, "-c", f"import os, sys, time\n{code}"] for code in codes]
    return [subprocess.Popen(own, stderr=file) for own, file in zip(argv, errors, strict=True)], errors


TELLS = "print('jaxser: --config is missing', file=sys.stderr); sys.exit(2)"


@pytest.mark.parametrize(
    ("codes", "status", "line"),
    [
        (["pass", "pass"], 0, ""),
        ([TELLS, TELLS], 2, "jaxser: --config is missing\n"),
        (["time.sleep(0.5);" + TELLS, TELLS], 2, "jaxser: --config is missing\n"),
        (
            ["time.sleep(60)", "os.kill(os.getpid(), 9)"],
            1,
            "jaxser: process 1 of 2 was killed by SIGKILL; the others were stopped; the same command goes on\n",
        ),
        (
            ["print('E0000 peer is gone', file=sys.stderr); sys.exit(1)", "os.kill(os.getpid(), 9)"],
            1,
            None,
        ),
        (
            [
                "print('jaxser: warning: odd', file=sys.stderr, flush=True); time.sleep(1); raise OSError",
                "time.sleep(9)",
            ],
            1,
            "jaxser: warning: odd\njaxser: process 0 of 2 failed with exit status 1; the others were stopped; "
            "the same command goes on (OSError)\n",
        ),
        (
            ["time.sleep(60)", "raise OSError('no space')"],
            1,
            "jaxser: process 1 of 2 failed with exit status 1; the others were stopped; "
            "the same command goes on (OSError: no space)\n",
        ),
        (
            ["print('chatter', file=sys.stderr); print('jaxser: warning: odd', file=sys.stderr)", "pass"],
            0,
            "jaxser: warning: odd\n",
        ),
    ],
    ids=[
        "done",
        "usage",
        "usage, told late",
        "killed",
        "killed, and noticed",
        "failed after a warning",
        "failed",
        "warned",
    ],
)
def test_the_launcher_says_in_a_line_what_happened(tmp_path, capsys, monkeypatch, codes, status, line):
    monkeypatch.setattr(launch, "PATIENCE", 2.0)
    started, errors = children(tmp_path, *codes)
    try:
        assert launch._watch(started, errors) == status
    finally:
        for child in started:
            child.kill()
            child.wait()
        for file in errors:
            file.close()
    said = capsys.readouterr().err
    assert said == line if line is not None else said.count("\n") == 1


def launched(data_dir, workdir, number, *more):
    """The same command by the launcher."""
    own = command(data_dir, workdir, *more)
    return [sys.executable, "-m", "jaxser.launch", f"--processes={number}", "--", *own[3:]]


@pytest.fixture(scope="module")
def alone(data_dir, tmp_path_factory):
    """A run by one process; five replicas, which two and four do not divide."""
    folder = tmp_path_factory.mktemp("alone")
    done = run(command(data_dir, folder / "run", f"--cache_dir={folder / 'cache'}"), folder)
    assert done.returncode == 0, done.stderr
    return folder


def assert_same_numbers(folder, expected):
    for name in ("predictions.csv", "folds.json", "utterances.jsonl"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    own, other = (json.loads((f / "results.json").read_text()) for f in (folder, expected))
    assert own.pop("environment")["devices"] != other.pop("environment")["devices"]
    assert own == other
    kept, wanted = (np.load(f / "model/replicas.npz") for f in (folder, expected))
    for path in wanted.files:
        np.testing.assert_array_equal(kept[path], wanted[path], err_msg=path)
    assert log(folder) == log(expected)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_several_processes_are_one(alone, data_dir, tmp_path, number):
    done = run(launched(data_dir, tmp_path / "run", number, f"--cache_dir={alone / 'cache'}"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("5 replicas (5 folds x 1 seed), 3 epochs") == 1  # one of them speaks
    assert_same_numbers(tmp_path / "run", alone / "run")


@pytest.mark.slow
def test_one_of_several_processes_dies_and_the_same_command_goes_on(alone, data_dir, tmp_path):
    argv = launched(data_dir, tmp_path / "run", 2, f"--cache_dir={alone / 'cache'}")
    launcher = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_epochs(tmp_path / "run", 1, launcher)
    own = {child.environ().get(PROCESS): child.pid for child in psutil.Process(launcher.pid).children()}
    os.kill(own["1/2"], signal.SIGKILL)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert said == (
        "jaxser: process 1 of 2 was killed by SIGKILL; the others were stopped; the same command goes on\n"
    )
    assert not any(psutil.pid_exists(pid) for pid in own.values())
    assert not (tmp_path / "run" / run_folder.RESULTS).exists()
    done = run(argv, tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_numbers(tmp_path / "run", alone / "run")


@pytest.mark.slow
def test_a_wrong_flag_is_one_line_for_all_processes(data_dir, tmp_path):
    done = run(launched(data_dir, tmp_path / "run", 2, "--config.epochs=0"), tmp_path)
    assert (done.returncode, done.stderr) == (2, "jaxser: config.epochs=0 must be at least 1\n")


def test_how_many_processes_is_checked(capsys):
    with pytest.raises(SystemExit) as stop:
        launch.run(["--processes=0", "--", "--config=configs/mcsan.py"])
    assert stop.value.code == 2
    assert "--processes=0 must be at least 1" in capsys.readouterr().err
