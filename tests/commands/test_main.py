"""The command as a user types it: from a config to the folder of a run, wrong usage, and interruptions."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from helpers import tiny
from helpers.command_line import command, prepare_demo, run, wait_for_epochs
from jaxser import experiment, main
from jaxser.config import resolve
from jaxser.configs import mcsan
from jaxser.evaluation import run_folder
from jaxser.models import MODELS
from jaxser.models.mcsan import MCSAN
from jaxser.types import UsageError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return prepare_demo(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """A run started in a folder without configs, so that the installed ones are used."""
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
    run = run_folder.read_run(finished[0])
    for replica in run.results.replicas:
        for part in ("validation", "test"):
            own = (run.predictions.fold == replica.fold) & (run.predictions.split == part)
            true, guess = run.predictions.true[own], run.predictions.predicted[own]
            scores = getattr(replica, part)
            assert scores["wa"] == pytest.approx(accuracy_score(true, guess))
            present = np.unique(true)
            recalls = [(guess[true == c] == c).mean() for c in present]
            assert scores["ua"] == pytest.approx(np.mean(recalls))
            if set(guess) <= set(true):
                assert scores["ua"] == pytest.approx(balanced_accuracy_score(true, guess))
            assert scores["f1_weighted"] == pytest.approx(f1_score(true, guess, average="weighted"))
            assert np.array_equal(scores.confusion, confusion_matrix(true, guess, labels=range(7)))


def test_every_utterance_is_tested_in_its_fold(finished):
    found = run_folder.read_run(finished[0])
    for fold in found.folds:
        for part in ("validation", "test"):
            own = (found.predictions.fold == fold.name) & (found.predictions.split == part)
            assert sorted(found.predictions.utterance[own]) == sorted(getattr(fold, part))
    tested = [i for fold in found.folds for i in fold.test]
    assert sorted(tested) == sorted(found.utterances)


def test_the_saved_model_is_enough_to_predict(finished, data_dir):
    """The saved parameters and fields give the predictions of the run, without the sweep."""
    import jax

    from jaxser.data.dataset import load_prepared
    from jaxser.models import MODELS
    from jaxser.types import Batch

    folder, _ = finished
    description = json.loads((folder / "model/model.json").read_text())
    kept = np.load(folder / "model/replicas.npz", allow_pickle=False)
    fields = {
        k: tuple(v) if isinstance(v, list) else v for k, v in description["model"].items() if k != "name"
    }
    net = MODELS[description["model"]["name"]](num_classes=len(description["classes"]), **fields)
    params = {}
    for path in kept.files:
        *parents, leaf = path.split("/")
        if parents[0] == "params":
            at = params
            for name in parents[1:]:
                at = at.setdefault(name, {})
            at[leaf] = kept[path][2]
    data = load_prepared(data_dir / "demo", "mcsan", classes="seven")
    found = run_folder.read_run(folder).predictions
    own = np.flatnonzero((found.fold == description["replicas"][2]["fold"]) & (found.split == "test"))[:5]
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
    assert "is already finished" in again.stdout
    assert (folder / "results.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_twin_is_trained_and_compared(finished, data_dir, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    done = run(command(data_dir, folder, "--twin"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{folder} is already finished" in done.stdout
    assert run_folder.read_run(folder).protocol["twin"] == ""
    assert run_folder.read_run(tmp_path / "run-twin").protocol["twin"] == "speaker"
    assert "What shared speakers are worth, pooled over the 68 utterances" in done.stdout
    assert "UA of run minus that of run-twin: " in done.stdout


LOADS_CONFIGS = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
"""For what ml_collections uses to load a config file."""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.seds=3"], "the config has no field 'seds'. Did you mean \"seeds\""),
        (["--config.model.foo=3"], "the config has no field 'foo' (--help lists all fields)"),
        (["--config.sweep.learning_rate=abc"], "config.sweep.learning_rate: 'abc' is not a number"),
        (
            ["--config.variant=no_audio"],
            "config.variant='no_audio' is not one of amh, audio_only",
        ),
        (["--config.epochs=0"], "config.epochs=0 must be at least 1"),
        (["--config.epochs=many"], "invalid literal for int() with base 10: 'many'"),
        (
            ["--config.hyper.dropout_rate=1.5"],
            "config.hyper.dropout_rate=1.5 must be at least 0 and less than 1",
        ),
        (["--config.selection=f2"], "config.selection='f2' is not one of wa, ua, f1_weighted"),
        (
            ["--config.protocol.name=leave_one_out"],
            "protocol.name='leave_one_out' is not one of random, session",
        ),
        (["--config.model.num_heads=3"], "config.model.num_heads=3 does not divide"),
        (["--nonsense=1"], "Unknown command line flag 'nonsense'"),
        (["--strategy=pmap"], "--strategy='pmap' is not one of map, vmap"),
        (
            ["--twin", "--config.protocol.twin=speaker"],
            "--twin: config.protocol.twin=speaker is a twin already",
        ),
        (["stray"], "unexpected argument 'stray'"),
    ],
    ids=lambda value: str(value)[:30],
)
@LOADS_CONFIGS
def test_wrong_usage_is_one_line_and_exit_status_2(data_dir, tmp_path, flags, message, capsys):
    _, _, *argv = command(data_dir, tmp_path / "run", "--nodistributed", *flags)
    assert_one_line(argv, message, capsys)


def test_a_missing_config_and_a_missing_dataset(data_dir, tmp_path):
    argv = command(data_dir, tmp_path / "run")
    argv[3] = "--config=configs/nothing.py"
    done = run(argv, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no such file; installed are configs/{" in done.stderr
    argv[3] = "--config=configs/mcsan.py:iemocap"
    done = run(argv, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "python -m jaxser.data_prep.prepare --corpus=iemocap" in done.stderr


BAD_CONFIGS = {
    "def get_config(:": "bad.py:1: invalid syntax; correct the config file",
    "x = 1": "--config: the file has no function get_config",
    "def get_config(dataset=''): return 3": "get_config() of the file must return a ConfigDict with variants",
}


@LOADS_CONFIGS
@pytest.mark.parametrize("content", BAD_CONFIGS)
@pytest.mark.parametrize("more", [(), ("--help",)], ids=["train", "help"])
def test_a_wrong_config_file_is_one_line(content, more, tmp_path, capsys):
    (tmp_path / "bad.py").write_text(content)
    assert_one_line(["jaxser", f"--config={tmp_path / 'bad.py'}", *more], BAD_CONFIGS[content], capsys)


@LOADS_CONFIGS
@pytest.mark.parametrize("value", ["configs/nope.py", "configs/nope.py:iemocap", ""])
@pytest.mark.parametrize("more", [(), ("--help",)], ids=["train", "help"])
def test_a_missing_config_file_is_one_line(value, more, capsys):
    message = f"--config={value.partition(':')[0]}: no such file; installed are configs/{{"
    assert_one_line(["jaxser", f"--config={value}", *more], message, capsys)


def assert_one_line(argv: list[str], message: str, capsys) -> None:
    sys.modules.pop("config_config", None)  # a config file is loaded into the module of the one before
    with flagsaver.flagsaver(), mock.patch.object(sys, "argv", argv), pytest.raises(SystemExit) as error:
        sys.exit(main._main(main._parse(argv)))
    lines = capsys.readouterr().err.strip().splitlines()
    assert (error.value.code, len(lines)) == (2, 1), lines
    assert message in lines[0]


@LOADS_CONFIGS
@pytest.mark.parametrize("config", [["--config=configs/can.py"], ["--config", "configs/can.py"]])
def test_help_shows_the_fields_of_the_config(config, capsys):
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as error:
        main._parse(["jaxser", *config, "--help"])
    assert error.value.code == 0
    assert "--config.variant='can'" in capsys.readouterr().out


class Faulty(MCSAN):
    """A network with a programming error."""

    def __call__(self, batch, hyper, *, train):
        query, key = batch[:3]
        return query + key


def test_a_programming_error_in_a_network_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(MODELS, "mcsan", Faulty)
    with pytest.raises(ValueError, match="too many values to unpack") as error:
        build_small_sweep()
    assert not isinstance(error.value, UsageError)
    assert "query, key = batch[:3]" in str(error.traceback[-1])


def test_a_bad_field_of_a_network_names_the_field_of_the_config():
    with pytest.raises(UsageError, match=r"^config\.model\.num_heads=3 does not divide"):
        build_small_sweep(num_heads=3)


def build_small_sweep(**fields):
    config = mcsan.get_config("demo")
    config.update({"seeds": 1, "buckets": 1, "batch_size": 8, "model": {"hidden_size": 8, **fields}})
    config.protocol.name = "random"
    return experiment.build_sweep(resolve(config), tiny.dataset(), jax.devices()[:1])


def test_a_folder_of_another_run_is_not_touched(finished, data_dir, tmp_path):
    done = run(command(data_dir, finished[0], "--config.epochs=4"), tmp_path)
    assert done.returncode == 2
    assert "config: epochs was 3 and is now 4; give another --workdir" in done.stderr


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
