"""The command as a user types it: from a config to a run's folder, wrong turns, and interruptions."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from jaxser.data_prep.prepare import prepare
from jaxser.evaluation import run_folder

SMALL = (
    "--config.seeds=1",
    "--config.epochs=3",
    "--config.buckets=1",
    "--config.batch_size=16",
    "--config.model.hidden_size=8",
    "--config.model.num_heads=2",
    "--config.model.feed_forward_size=8",
    "--config.variant=text_only",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A prepared demo corpus of 70 utterances."""
    out = tmp_path_factory.mktemp("data")
    prepare("demo", out=out, demo={"utterances": 70}, workers=1, quiet=True)
    return out


def command(data_dir: Path, workdir: Path, *more: str) -> list[str]:
    """`python -m jaxser.main` on the small corpus; later flags win."""
    flags = (f"--data_dir={data_dir}", f"--workdir={workdir}", "--cache_dir=", *SMALL, *more)
    return [sys.executable, "-m", "jaxser.main", "--config=configs/mcsan.py", *flags]


def run(argv: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """A run made from a folder that has no configs, so that the installed ones are found."""
    folder = tmp_path_factory.mktemp("finished")
    done = run(command(data_dir, folder / "run"), folder)
    assert done.returncode == 0, done.stderr
    return folder / "run", done


def test_a_run_leaves_all_its_files(finished):
    folder, done = finished
    names = (
        "config.json",
        "folds.json",
        "utterances.jsonl",
        "metrics.jsonl",
        "predictions.csv",
        "results.json",
    )
    for name in (
        *names,
        "model/model.json",
        "model/replicas.npz",
        "model/embeddings.npy",
        "report/index.html",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert "(demo numbers: synthetic speech)" in done.stdout
    assert str(folder) in done.stdout.splitlines()[-1]
    value = json.loads((folder / "results.json").read_text())
    keys = ("model", "variant", "dataset", "protocol", "replicas", "summary", "environment")
    assert set(keys) <= value.keys()
    assert (value["model"], value["variant"], value["dataset"]) == ("mcsan", "text_only", "demo")
    assert len(value["replicas"]) == 5


def test_scores_are_scikit_learns_on_the_predictions(finished):
    found = run_folder.read_run(finished[0])
    for replica in found.results["replicas"]:
        for part in ("validation", "test"):
            own = (found.predictions.fold == replica["fold"]) & (found.predictions.split == part)
            true, guess = found.predictions.true[own], found.predictions.predicted[own]
            scores = replica[part]
            assert scores["wa"] == pytest.approx(accuracy_score(true, guess))
            present = np.unique(true)
            recalls = [(guess[true == c] == c).mean() for c in present]
            assert scores["ua"] == pytest.approx(np.mean(recalls))
            if set(guess) <= set(true):
                assert scores["ua"] == pytest.approx(balanced_accuracy_score(true, guess))
            assert scores["f1_weighted"] == pytest.approx(f1_score(true, guess, average="weighted"))
            assert scores["confusion"] == confusion_matrix(true, guess, labels=range(7)).tolist()


def test_every_utterance_is_tested_in_its_fold(finished):
    found = run_folder.read_run(finished[0])
    for fold in found.folds:
        for part in ("validation", "test"):
            own = (found.predictions.fold == fold.name) & (found.predictions.split == part)
            assert sorted(found.predictions.utterance[own]) == sorted(getattr(fold, part))
    tested = [i for fold in found.folds for i in fold.test]
    assert sorted(tested) == sorted(found.utterances)


def test_what_is_kept_of_the_replicas_is_enough_to_predict(finished, data_dir):
    """The kept parameters, normalisation and model fields give the run's own predictions, without the sweep."""
    import jax

    from jaxser.data.dataset import load
    from jaxser.models import MODELS
    from jaxser.types import Batch

    folder, _ = finished
    told = json.loads((folder / "model/model.json").read_text())
    kept = np.load(folder / "model/replicas.npz", allow_pickle=False)
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in told["model"].items() if k != "name"}
    net = MODELS[told["model"]["name"]](num_classes=len(told["classes"]), **fields)
    params = {}
    for path in kept.files:
        *parents, leaf = path.split("/")
        if parents[0] == "params":
            at = params
            for name in parents[1:]:
                at = at.setdefault(name, {})
            at[leaf] = kept[path][2]
    data = load(data_dir / "demo", "mcsan", classes="seven")
    found = run_folder.read_run(folder).predictions
    own = np.flatnonzero((found.fold == told["replicas"][2]["fold"]) & (found.split == "test"))[:5]
    rows = [list(data.column("id")).index(found.utterance[n]) for n in own]
    words = [data.arrays["words"][row] for row in rows]
    width = max(map(len, words))
    padded = np.array([np.pad(w, (0, width - len(w))) for w in words])
    mask = np.arange(width) < np.array([len(w) for w in words])[:, None]
    embeddings = np.load(folder / "model/embeddings.npy", allow_pickle=False)
    batch = Batch(
        np.zeros(5, np.int32), np.ones(5, np.float32), words=padded, words_mask=mask, embeddings=embeddings
    )
    output = jax.jit(lambda p, b: net.apply({"params": p}, b, {"dropout_rate": 0.1}, train=False))(
        params, batch
    )
    np.testing.assert_allclose(np.exp(output.log_probs), found.probabilities[own], atol=1e-4)


def test_a_finished_run_is_not_trained_again(finished, data_dir, tmp_path):
    folder, _ = finished
    before = (folder / "results.json").stat().st_mtime_ns
    again = run(command(data_dir, folder), tmp_path)
    assert again.returncode == 0
    assert "is finished already" in again.stdout
    assert (folder / "results.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.seds=3"], "the config has no field 'seds'. Did you mean \"seeds\""),
        (["--config.model.foo=3"], "the config has no field 'foo' (--help lists all fields)"),
        (["--config.sweep.learning_rate=abc"], "config.sweep.learning_rate: 'abc' is no number"),
        (
            ["--config.variant=no_audio"],
            "config.variant='no_audio' is not one of amh, audio_only",
        ),
        (["--config.epochs=0"], "config.epochs=0 must be at least 1"),
        (["--config.epochs=many"], "invalid literal for int() with base 10: 'many'"),
        (["--config.hyper.dropout_rate=1.5"], "config.hyper.dropout_rate=1.5 must be from 0 to below 1"),
        (["--config.selection=f2"], "config.selection='f2' is not one of wa, ua, f1_weighted"),
        (
            ["--config.protocol.name=leave_one_out"],
            "protocol.name='leave_one_out' is not one of random, session",
        ),
        (["--config.model.num_heads=3"], "num_heads=3 does not divide"),
        (["--nonsense=1"], "Unknown command line flag 'nonsense'"),
        (["--strategy=pmap"], "--strategy='pmap' is not one of map, vmap"),
        (["stray"], "unexpected argument 'stray'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_turn_is_one_line_and_exit_2(data_dir, tmp_path, flags, message):
    done = run(command(data_dir, tmp_path / "run", *flags), tmp_path)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert message in lines[0]


def test_a_config_that_is_nowhere_and_a_dataset_that_is_missing(data_dir, tmp_path):
    argv = command(data_dir, tmp_path / "run")
    argv[3] = "--config=configs/nothing.py"
    done = run(argv, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no such file; installed are configs/{" in done.stderr
    argv[3] = "--config=configs/mcsan.py:iemocap"
    done = run(argv, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "python -m data_prep.prepare --corpus=iemocap" in done.stderr


def test_a_folder_of_another_run_is_not_touched(finished, data_dir, tmp_path):
    done = run(command(data_dir, finished[0], "--config.epochs=4"), tmp_path)
    assert done.returncode == 2
    assert "config: epochs was 3 and is now 4; give another --workdir" in done.stderr


def wait_for_epochs(folder: Path, number: int, process: subprocess.Popen) -> None:
    """Until the metrics of so many epochs are there."""
    for _ in range(20_000):
        if process.poll() is not None:
            return
        path = folder / run_folder.METRICS
        if path.exists() and path.read_text().count("\n") >= 5 * number:
            return
        time.sleep(0.01)


def kill_and_resume(argv: list[str], folder: Path, cwd: Path, epochs: int, delay: float) -> None:
    process = subprocess.Popen(argv, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_epochs(folder, epochs, process)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def assert_same_run(folder: Path, expected: Path) -> None:
    for name in ("predictions.csv", "folds.json", "utterances.jsonl"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    own, other = (run_folder.read_json(f / "results.json") for f in (folder, expected))
    assert own == other
    kept, wanted = (np.load(f / "model/replicas.npz") for f in (folder, expected))
    assert kept.files == wanted.files
    for path in kept.files:
        np.testing.assert_array_equal(kept[path], wanted[path], err_msg=path)


@pytest.mark.slow
def test_killed_in_training_the_same_command_gives_the_same_numbers(finished, data_dir, tmp_path):
    argv = command(data_dir, tmp_path / "run")
    kill_and_resume(argv, tmp_path / "run", tmp_path, epochs=1, delay=0)
    assert not (tmp_path / "run/results.json").exists()
    assert run(argv, tmp_path).returncode == 0
    assert_same_run(tmp_path / "run", finished[0])


@pytest.mark.slow
def test_killed_at_random_moments(data_dir, tmp_path):
    flags = ("--config.epochs=12", f"--cache_dir={tmp_path / 'cache'}")
    whole = command(data_dir, tmp_path / "whole", *flags)
    assert run(whole, tmp_path).returncode == 0
    rng = random.Random(0)
    argv = command(data_dir, tmp_path / "killed", *flags)
    for _ in range(8):
        kill_and_resume(argv, tmp_path / "killed", tmp_path, rng.choice((0, 1, 5, 9)), rng.random() * 2)
    assert run(argv, tmp_path).returncode == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
