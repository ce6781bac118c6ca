"""Networks that read padding predict a recording as they did in training."""

from importlib import import_module

import numpy as np
import pytest

import jaxser
from helpers import small_runs
from jaxser import experiment
from jaxser.config import resolve
from jaxser.evaluation import run_folder

SMALL = {
    "lstm_attention": {"dense_size": 6, "hidden_size": 4, "attention_hidden": 4},
    "xu": {"hidden_size": 4, "num_heads": 2, "speech_dense": 5},
}


@pytest.mark.slow
@pytest.mark.parametrize(("network", "variant"), [("lstm_attention", "lstm_attention"), ("xu", "xu_delta")])
def test_padding_is_the_same_in_training_and_prediction(network, variant, tmp_path):
    config = import_module("jaxser.configs.mcsan").get_config("demo")
    if network == "lstm_attention":
        config = import_module("jaxser.configs.lstm_attention").get_config("demo")
        config.normalise, config.recipe = "train", "mcsan"  # features that need no openSMILE
    config.variant, config.as_published = variant, True
    given = {f"model.{name}": value for name, value in SMALL[network].items()}
    given |= {
        "recipe": "mcsan",
        "seeds": 1,
        "epochs": 1,
        "buckets": 1,
        "normalise": "train",
        "protocol.name": "holdout",
    }
    config = resolve(config, given)
    data = small_runs.dataset("mcsan")
    experiment.run_experiment(config, data, tmp_path / "run", log=lambda line: None)
    stored = run_folder.read_run(tmp_path / "run").test_predictions
    run, by_id = jaxser.load(tmp_path / "run"), {one.id: one for one in data.utterances}
    for row in range(3):
        utterance = by_id[stored.utterance[row]]
        [found] = run.predict(small_runs.wav(utterance), text=utterance.transcript)
        assert found.classes == tuple(stored.classes)
        np.testing.assert_allclose(found.probabilities, stored.probabilities[row], atol=2e-4)
