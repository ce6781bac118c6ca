"""A folder belongs to one training at a time; an interrupted one is cleaned up before it is resumed."""

from importlib import import_module

import pytest

from helpers import tiny
from helpers.fake_run import write_fake_run
from jaxser import experiment, files
from jaxser.config import resolve
from jaxser.evaluation import run_folder
from jaxser.evaluation.records import RunConfig
from jaxser.experiment import resume, run
from jaxser.training import multihost
from jaxser.types import InputError, UsageError


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Begin a training in a folder, which ends when it has the lock."""

    def begin():
        config = resolve(import_module("jaxser.configs.mcsan").get_config("demo"))
        return experiment.run_experiment(config, tiny.dataset(), tmp_path, log=lambda _: None)

    def end(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "build_sweep", lambda *_: tiny.sweep(tiny.dataset()))
    monkeypatch.setattr(run, "_labelled", end)
    return begin


def test_the_second_training_in_a_folder_says_who_holds_it(train, tmp_path):
    with files.lock(tmp_path, ""), pytest.raises(InputError) as caught:
        train()
    message = str(caught.value)
    assert f"{tmp_path} is being written by process " in message
    assert "one each: --workdir=runs/mine/$SLURM_ARRAY_TASK_ID" in message
    assert not (tmp_path / run_folder.CONFIG).exists()
    with pytest.raises(KeyboardInterrupt):
        train()
    assert [path.name for path in tmp_path.iterdir()] == [run_folder.CONFIG]


def test_a_training_is_not_begun_in_the_folder_of_another(train, tmp_path):
    write_fake_run(tmp_path, seeds=1, epochs=1)
    with pytest.raises(UsageError, match="holds a run of another version of the dataset; give another"):
        train()
    (tmp_path / run_folder.RESULTS).unlink()
    with pytest.raises(UsageError, match="holds a run of another version of the dataset; give another"):
        train()
    assert (tmp_path / run_folder.DIGESTS).exists()


def test_what_an_interrupted_training_left_is_removed(tmp_path):
    write_fake_run(tmp_path, seeds=1, epochs=1)
    (tmp_path / run_folder.RESULTS).unlink()
    left = tmp_path / f"results.json.{'0' * 16}.tmp"
    left.touch()
    resume.claim(tmp_path, RunConfig({}))
    assert not left.exists()
    assert not (tmp_path / run_folder.DIGESTS).exists()
    assert run_folder.read_config(tmp_path).fields["paper"] == "sun2021_mcsan"


def test_the_other_processes_stop_if_the_primary_cannot_lock(monkeypatch, tmp_path):
    monkeypatch.setattr(multihost, "is_primary", lambda: False)
    monkeypatch.setattr(multihost, "broadcast_from_primary", lambda _: True)
    with (
        pytest.raises(InputError, match="cannot be locked, as the message of process 0 says"),
        multihost.locked_by_primary(tmp_path, ""),
    ):
        pytest.fail("the folder is not locked")
