"""The worked example of docs/how-to/adding_a_model.md runs as written."""

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest

from helpers import tiny
from jaxser import experiment
from jaxser.config import resolve
from jaxser.models import MODELS
from jaxser.training import loop

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "adding_a_model.md").read_text(encoding="utf-8")
NETWORK, CONFIG = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def module(name: str, source: str, monkeypatch) -> ModuleType:
    made = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)  # Linen resolves annotations there
    exec(compile(source, "adding_a_model.md", "exec"), made.__dict__)
    return made


@pytest.fixture
def sweep(monkeypatch):
    """A sweep of one replica of the example and two epochs."""
    [(name, network)] = re.findall(r'^    "(\w+)": (\w+),$', PAGE, re.MULTILINE)
    made = module(f"jaxser.models.{name}", NETWORK, monkeypatch)
    monkeypatch.setitem(MODELS, name, getattr(made, network))
    config = module(f"jaxser.configs.{name}", CONFIG, monkeypatch).get_config("demo")
    config.update({"epochs": 2, "seeds": 1, "buckets": 1, "batch_size": 8, "model": {"hidden_size": 6}})
    return experiment.build_sweep(resolve(config), tiny.dataset(), jax.devices()[:1], "map")


def test_the_example_trains(sweep, tmp_path):
    trained = loop.train_sweep(sweep, tmp_path, log=lambda line: None)
    assert np.isfinite(np.asarray(trained.best.loss)).all()


def test_its_variants_and_its_line_of_the_contract(monkeypatch):
    line = re.findall(r'^    "attentive_statistics": (\{.+\}),$', PAGE, re.MULTILINE)[-1]
    made = module("attentive", NETWORK, monkeypatch).AttentiveStatistics
    fields = ast.literal_eval(line)
    assert made(num_classes=3, **fields).hidden_size == fields["hidden_size"]
    for name, changes in module("config", CONFIG, monkeypatch).VARIANTS.items():
        assert made(num_classes=3, **changes.get("model", {})).num_classes == 3, name
