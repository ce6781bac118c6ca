"""Attention in reports, of runs on the frames of a pretrained encoder among others."""

import contextlib
import io
from importlib import import_module
from unittest import mock

import jax
import pytest

from helpers import small_runs
from helpers.encoders import tensors_of, write_folder
from jaxser import experiment
from jaxser.config import resolve
from jaxser.data_prep.prepare import prepare
from jaxser.inference.saved_model import load
from jaxser.report import page
from jaxser.report.__main__ import main
from jaxser.training.replica import ReplicaTrainer
from jaxser.types import UsageError

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("encoder") / "wav2vec2", "wav2vec2")


def run_of(paper, recipe, encoder):
    """A run of three folds and one seed of untrained networks on the frames of an encoder."""
    out = small_runs.folder()
    small_runs.dataset("mcsan")  # makes the corpus
    given = {"encoder": encoder} if recipe == "encoder" else {}
    prepare("demo", recipe=recipe, out=out, workers=1, quiet=True, **given)
    config = import_module(f"jaxser.configs.{paper}").get_config("demo")
    config.update(
        {"recipe": recipe, "seeds": 1, "epochs": 1, "buckets": 1, "model": small_runs.FIELDS[paper]}
    )
    config.protocol.update({"name": "speaker", "folds": 3})
    if recipe == "waveform":
        config.encoder.folder = str(encoder)
    config = resolve(config)
    one_device = mock.patch.object(jax, "devices", return_value=jax.devices()[:1])
    untrained = mock.patch.object(ReplicaTrainer, "step", small_runs.no_step)
    with one_device, untrained, contextlib.redirect_stdout(io.StringIO()):
        dataset = experiment.load_dataset(config, out, lambda _: None)
        experiment.run_experiment(config, dataset, out / "runs" / f"{paper}-{recipe}", log=lambda _: None)
    return out / "runs" / f"{paper}-{recipe}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paper", "recipe", "arrays"),
    [("can", "encoder", {"words", "segments"}), ("mcsan", "waveform", {"words", "waveform"})],
)
def test_attention_over_the_frames_of_an_encoder(paper, recipe, arrays, encoder, tmp_path):
    """It is drawn over words and time; without the encoder, or with another one, the error is one line."""
    folder, audio = run_of(paper, recipe, encoder), small_runs.folder() / "demo_release"
    shown = page.write(folder, page.Options(audio, 2, encoder=encoder)).read_text(encoding="utf-8")
    assert shown.count("data:image/png;base64,") == 2
    ensemble = load(folder, encoder=encoder)
    assert {axis for axes in ensemble.axes.values() for axis in axes} - {""} <= arrays
    with pytest.raises(UsageError, match="give --encoder=FOLDER"):
        page.write(folder, page.Options(audio, 1))
    other = write_folder(tmp_path, "wav2vec2", tensors_of("wav2vec2", seed=1))
    with pytest.raises(UsageError, match="not the weights that"):
        page.write(folder, page.Options(audio, 1, encoder=other))


def test_an_encoder_without_attention_is_wrong_usage(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path), "--encoder=somewhere"])
    assert main() == 2
    assert "--encoder=somewhere: only for --attention" in capsys.readouterr().err
