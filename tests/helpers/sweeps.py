"""Training a sweep in tests: quietly, interrupted, and compared with another."""

import dataclasses

import jax
import numpy as np

from jaxser.evaluation import run_folder

SILENT = {"log": lambda message: None}
"""Keyword arguments of `train_sweep` that print no messages."""


class Killed(Exception):
    """Interrupts a sweep in training."""


def kill(sweep, epochs):
    """Make a sweep raise `Killed` after a number of epochs."""
    run_epoch, ran = sweep.source.run_epoch, []

    def run_or_die(state, schedules):
        if len(ran) == epochs:
            raise Killed
        ran.append(True)
        return run_epoch(state, schedules)

    object.__setattr__(sweep.source, "run_epoch", run_or_die)
    return sweep


def spy(sweep, check=lambda rows: None):
    """A sweep, and a list of the rows of its epochs so far; `check` is called with the rows before each epoch."""
    run_epoch, seen = sweep.source.run_epoch, []

    def check_and_run(state, schedules):
        check(len(schedules.train))
        seen.append(len(schedules.train))
        return run_epoch(state, schedules)

    object.__setattr__(sweep.source, "run_epoch", check_and_run)
    return sweep, seen


def leaves(tree):
    """The arrays of a tree by their path."""
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def assert_same(actual, expected, rows=slice(None)):
    """Assert that trained replicas are bit for bit some rows of others."""
    actual, expected = leaves(actual), leaves(expected)
    assert actual.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(actual[path], value[rows], err_msg=path)


def log(folder):
    """The epochs of a run in a fixed order, without the fields that depend on waves and time."""
    records = [dataclasses.replace(record, seconds=None, wave=0) for record in run_folder.read_epochs(folder)]
    return sorted(records, key=lambda record: (record.epoch, *record.replica))
