"""Runs in memory that differ in their predictions or replicas."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from helpers.fake_run import CLASSES, make_utterances, write_fake_run
from jaxser.evaluation.run_folder import Run, read_run


@cache
def fake(seeds: int = 2, not_finite: tuple = (), number: int = 350) -> Run:
    """A run called "base" of five folds, with invented predictions."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "base"
        write_fake_run(path, seeds=seeds, not_finite=not_finite, epochs=1, utterances=make_utterances(number))
        return read_run(path)


def redrawn(run: Run, name: str, accuracy: float, draw: int = 0) -> Run:
    """The same run with other predictions, of which a share is correct."""
    rng, p = np.random.default_rng(draw), run.predictions
    wrong = (p.true + rng.integers(1, len(CLASSES), len(p.true))) % len(CLASSES)
    predicted = np.where(rng.random(len(p.true)) < accuracy, p.true, wrong)
    return replace(run, folder=Path(name), predictions=replace(p, predicted=predicted))


def with_predictions(run: Run, **columns) -> Run:
    """The same run with other columns in its predictions."""
    return replace(run, predictions=replace(run.predictions, **columns))


def with_replicas(run: Run, replicas) -> Run:
    """The same run with other replicas in its results."""
    return replace(run, results=replace(run.results, replicas=tuple(replicas)))
