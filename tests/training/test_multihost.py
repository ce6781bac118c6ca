"""Several processes: the same results as with one, and a one-line message if one of them dies."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest

from helpers.command_line import command, prepare_demo, run, wait_for_epochs
from helpers.sweeps import log
from jaxser import launch
from jaxser.evaluation import run_folder
from jaxser.training import multihost
from jaxser.training.multihost import PROCESS
from jaxser.types import InputError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return prepare_demo(tmp_path_factory.mktemp("data"))


def children(tmp_path, *codes):
    """Start a process for each piece of Python code; returns them and their standard errors."""
    errors = [(tmp_path / str(number)).open("w+b") for number in range(len(codes))]
    argv = [[sys.executable, "-c", f"import os, sys, time\n{code}"] for code in codes]
    return [subprocess.Popen(own, stderr=file) for own, file in zip(argv, errors, strict=True)], errors


REPORTS = "print('jaxser: --config is missing', file=sys.stderr); sys.exit(2)"


@pytest.mark.parametrize(
    ("codes", "status", "line"),
    [
        (["pass", "pass"], 0, ""),
        ([REPORTS, REPORTS], 2, "jaxser: --config is missing\n"),
        (["time.sleep(0.5);" + REPORTS, REPORTS], 2, "jaxser: --config is missing\n"),
        (
            ["time.sleep(60)", "os.kill(os.getpid(), 9)"],
            1,
            "jaxser: process 1 of 2 was killed by SIGKILL; the others were stopped; run the same command to resume\n",
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
            "run the same command to resume (OSError)\n",
        ),
        (
            ["time.sleep(60)", "raise OSError('no space')"],
            1,
            "jaxser: process 1 of 2 failed with exit status 1; the others were stopped; "
            "run the same command to resume (OSError: no space)\n",
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
        "usage, reported late",
        "killed",
        "killed, and noticed by another process",
        "failed after a warning",
        "failed",
        "warned",
    ],
)
def test_the_launcher_reports_a_failure_in_one_line(tmp_path, capsys, monkeypatch, codes, status, line):
    monkeypatch.setattr(launch, "GRACE_PERIOD", 2.0)
    started, errors = children(tmp_path, *codes)
    try:
        assert launch._watch(started, errors) == status
    finally:
        for child in started:
            child.kill()
            child.wait()
        for file in errors:
            file.close()
    printed = capsys.readouterr().err
    assert printed == line if line is not None else printed.count("\n") == 1


def launched(data_dir, workdir, number, *more):
    """The command of a run with the launcher."""
    own = command(data_dir, workdir, *more)
    return [sys.executable, "-m", "jaxser.launch", f"--processes={number}", "--", *own[3:]]


@pytest.fixture(scope="module")
def alone(data_dir, tmp_path_factory):
    """A run with one process; two and four do not divide its five replicas."""
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
def test_several_processes_give_the_results_of_one(alone, data_dir, tmp_path, number):
    done = run(launched(data_dir, tmp_path / "run", number, f"--cache_dir={alone / 'cache'}"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("5 replicas (5 folds x 1 seed), 3 epochs") == 1  # only one of them prints
    assert_same_numbers(tmp_path / "run", alone / "run")


@pytest.mark.slow
def test_a_process_dies_and_the_same_command_resumes(alone, data_dir, tmp_path):
    argv = launched(data_dir, tmp_path / "run", 2, f"--cache_dir={alone / 'cache'}")
    launcher = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_epochs(tmp_path / "run", 1, launcher)
    own = {child.environ().get(PROCESS): child.pid for child in psutil.Process(launcher.pid).children()}
    os.kill(own["1/2"], signal.SIGKILL)
    _, printed = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert printed == (
        "jaxser: process 1 of 2 was killed by SIGKILL; the others were stopped; run the same command to resume\n"
    )
    assert not any(psutil.pid_exists(pid) for pid in own.values())
    assert not (tmp_path / "run" / run_folder.RESULTS).exists()
    done = run(argv, tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_numbers(tmp_path / "run", alone / "run")


@pytest.mark.slow
def test_a_wrong_flag_is_reported_once_for_all_processes(data_dir, tmp_path):
    done = run(launched(data_dir, tmp_path / "run", 2, "--config.epochs=0"), tmp_path)
    assert (done.returncode, done.stderr) == (2, "jaxser: config.epochs=0 must be at least 1\n")


def test_the_number_of_processes_is_checked(capsys):
    with pytest.raises(SystemExit) as stop:
        launch.main(["--processes=0", "--", "--config=configs/mcsan.py"])
    assert stop.value.code == 2
    assert "--processes=0 must be at least 1" in capsys.readouterr().err


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.fixture
def joining(monkeypatch):
    """Joins a cluster that never answers, in an environment without one; returns the calls of JAX and of `log`."""
    for name in (*SLURM, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", PROCESS, "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    calls, released = [], threading.Event()

    def initialize(**given):
        calls.append(given)
        released.wait(60)

    monkeypatch.setattr(multihost.jax.distributed, "initialize", initialize)
    monkeypatch.setattr(multihost, "SILENT_SECONDS", 0.02)
    monkeypatch.setattr(atexit, "register", calls.append)
    yield calls
    released.set()


def test_a_cluster_that_does_not_answer_is_an_error_after_the_time_limit(joining, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    lines = []
    with pytest.raises(InputError) as error:
        multihost.join(0.1, lines.append)
    assert lines == ["SLURM, process 0 of 4: waiting up to 0.1 s for the other processes"]
    assert str(error.value) == (
        "cannot join the other processes (SLURM, process 0 of 4: the others did not answer within 0.1 s); "
        "to run this process alone, pass --nodistributed"
    )
    given, leave = joining
    assert (given["process_id"], given["num_processes"]) == (0, 4)
    assert given["initialization_timeout"] > 60  # JAX would end the program after its own limit
    assert leave is multihost._exit_at_once


@pytest.mark.parametrize("alone", [{"SLURM_NTASKS": "1"}, {"SLURM_STEP_NUM_TASKS": "1"}], ids=["job", "step"])
def test_a_single_task_joins_nothing(joining, monkeypatch, alone):
    for name, value in (SLURM | alone).items():
        monkeypatch.setenv(name, value)
    multihost.join(60.0)
    assert joining == []


def test_a_batch_script_outside_of_a_step_runs_alone(joining, monkeypatch):
    def initialize(**given):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(multihost.jax.distributed, "initialize", initialize)
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, SLURM[name])
    multihost.join(60.0)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({PROCESS: "x"}, "JAX_COORDINATOR_ADDRESS is not, such as host:1234"),
        ({PROCESS: "x", "JAX_COORDINATOR_ADDRESS": "host:1"}, "there is no process 'x' of ''"),
        ({PROCESS: "4/4", "JAX_COORDINATOR_ADDRESS": "host:1"}, "there is no process '4' of '4'"),
        ({PROCESS: "0/4", "JAX_COORDINATOR_ADDRESS": "host"}, "such as host:1234"),
        ({"JAX_COORDINATOR_ADDRESS": "host:1"}, f"{PROCESS} is not, such as 0/4"),
        (SLURM | {"SLURM_NTASKS": "four"}, "there is no process '0' of 'four'"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "there is no process '' of '2'"),
    ],
)
def test_variables_of_a_cluster_that_contradict_each_other(joining, monkeypatch, environment, reason):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="--nodistributed") as error:
        multihost.join(60.0)
    assert reason in str(error.value)
    assert joining == []
