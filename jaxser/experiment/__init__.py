"""From a config to the folder of a finished run: dataset, sweep, training, results."""

from jaxser.experiment.build import build_sweep
from jaxser.experiment.dataset import load_dataset
from jaxser.experiment.run import run_experiment

__all__ = ["build_sweep", "load_dataset", "run_experiment"]
