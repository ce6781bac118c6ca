"""Finished runs of small networks on a small demo corpus, for tests of what reads runs; made once per process."""

import atexit
import contextlib
import io
import shutil
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp

from jaxser import experiment
from jaxser.config import resolve
from jaxser.data.dataset import load_prepared
from jaxser.data_prep.prepare import prepare
from jaxser.training.replica import ReplicaTrainer, StepResult
from jaxser.types import Dataset, Utterance

FIELDS = {
    "mcsan": {"hidden_size": 8, "num_heads": 2, "feed_forward_size": 8, "classifier_size": 8},
    "can": {"hidden_size": 4, "num_heads": 2},
}


@cache
def folder() -> Path:
    """A temporary folder for the corpus and the runs, removed when the process ends."""
    made = Path(tempfile.mkdtemp(prefix="jaxser-small-runs-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def dataset(recipe: str, target: str = "classes") -> Dataset:
    """Sixty utterances of the demo corpus, prepared with a recipe."""
    is_spoken = (folder() / "demo_release").is_dir()
    demo = None if is_spoken else {"utterances": 60}
    prepare("demo", recipe=recipe, out=folder(), demo=demo, workers=1, quiet=True)
    attributes = "" if target == "attributes" else None
    votes = target == "votes"
    return load_prepared(folder() / "demo", recipe, classes="seven", attributes=attributes, votes=votes)


def wav(utterance: Utterance) -> Path:
    """The recording of an utterance."""
    return folder() / "demo_release" / utterance.wav


def no_step(trainer, state, batch, progress):
    """A training step that changes nothing."""
    return state, StepResult(jnp.float32(1), trainer.target.no_guess(batch.label))


@cache
def run(name: str, target: str = "classes") -> Path:
    """The folder of a run of `configs/<name>.py`: three folds and two seeds of untrained networks."""
    config = import_module(f"jaxser.configs.{name}").get_config("demo")
    config.update({"seeds": 2, "epochs": 1, "buckets": 1, "model": FIELDS[name], "target": target})
    config.protocol.update({"name": "speaker", "folds": 3})
    config = resolve(config)
    one_device = mock.patch.object(jax, "devices", return_value=jax.devices()[:1])  # compiles once
    untrained = mock.patch.object(ReplicaTrainer, "step", no_step)
    silent = contextlib.redirect_stdout(io.StringIO())  # its caller may check what a command prints
    with one_device, untrained, silent:
        made = folder() / "runs" / (name if target == "classes" else f"{name}_{target}")
        experiment.run_experiment(config, dataset(config.recipe, target), made, log=lambda _: None)
    return made
