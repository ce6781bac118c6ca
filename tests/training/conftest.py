"""Fixtures of the tests of sweeps."""

import pytest

from helpers import tiny
from helpers.sweeps import SILENT
from jaxser.training.loop import train_sweep


@pytest.fixture(scope="module")
def data():
    return tiny.dataset()


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    """A grid of 3 folds x 2 seeds, trained on one device, one replica after the other."""
    folder = tmp_path_factory.mktemp("reference")
    sweep = tiny.sweep(data)
    return sweep, train_sweep(sweep, folder, **SILENT), folder
