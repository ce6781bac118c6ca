"""Runs whose scores would say nothing: no finite loss, or a single class."""

import io
from dataclasses import replace
from importlib import import_module

import jax
import numpy as np
import pytest
from rich.console import Console

from helpers import tiny
from helpers.fake_run import make_utterances, session_folds, write_fake_run
from jaxser import experiment, main
from jaxser.config import resolve
from jaxser.evaluation.results import RunResults
from jaxser.training.progress import EpochProgress
from jaxser.training.replica import EpochResult
from jaxser.types import UsageError

UTTERANCES = make_utterances(70)
REPLICAS = [(fold.name, 0) for fold in session_folds(UTTERANCES)]


def results(folder, not_finite):
    written = write_fake_run(folder, not_finite=not_finite, seeds=1, epochs=1, utterances=UTTERANCES)
    return RunResults.from_json(written)


def test_a_run_without_a_finite_loss_has_failed(tmp_path, capsys):
    assert main._report_failures(results(tmp_path, REPLICAS)) == 1
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("jaxser: warning: The loss of 5 of 5 replicas became infinite or NaN")
    assert error.startswith("jaxser: no replica has a score, since no loss was finite: lower --config.hyper.")


def test_some_replicas_without_a_finite_loss_are_a_warning(tmp_path, capsys):
    assert main._report_failures(results(tmp_path / "some", REPLICAS[:1])) == 0
    assert "The loss of 1 of 5 replicas became infinite or NaN" in capsys.readouterr().err
    assert main._report_failures(results(tmp_path / "none", [])) == 0
    assert capsys.readouterr().err == ""


def test_a_dataset_of_one_class_is_refused():
    dataset = tiny.dataset()
    one = replace(dataset, classes=("ang",), label=np.zeros_like(dataset.label))
    config = resolve(import_module("jaxser.configs.mcsan").get_config())
    with pytest.raises(UsageError, match=r"has one class \(ang\), so every network would score 100 %"):
        experiment.build_sweep(config, one, jax.devices()[:1])


def test_names_of_replicas_are_no_markup():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=200)
    is_matrix = {name: "statistics" in name for name in EpochResult._fields}
    fields = {name: np.ones((1, 2, 2) if matrix else 1) for name, matrix in is_matrix.items()}
    with EpochProgress(["fold [/red]\x1b[2J seed 0"], 1, console) as progress:
        progress.show(1, EpochResult(**fields), 0)
    assert "fold [/red]\\x1b[2J seed 0" in file.getvalue()
