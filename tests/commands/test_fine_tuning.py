"""Fine-tuning an encoder by commands: prepare, train, predict."""

import csv
import io
import zipfile
from dataclasses import replace
from unittest import mock

import jax
import numpy as np
import pytest
import soundfile

from helpers.encoders import tensors_of, write_folder
from helpers.small_corpus import write_ravdess
from jaxser import experiment, predict
from jaxser.config import resolve
from jaxser.configs import probe
from jaxser.data.dataset import load_prepared
from jaxser.data_prep.prepare import prepare
from jaxser.evaluation import run_folder
from jaxser.export import export, write
from jaxser.inference.saved_model import REPLICAS, load
from jaxser.types import UsageError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Recordings, and a tiny HuBERT."""
    made = tmp_path_factory.mktemp("fine-tuning")
    for number, path in enumerate(write_ravdess(made / "ravdess", 384, seconds=0.05)):
        if number // 12 % 8:  # half of the others are neutral, half calm
            path.unlink()
    write_folder(made / "hubert", "hubert")
    prepare("ravdess", made / "ravdess", "waveform", made / "data", workers=1, quiet=True)
    return made


def config_of(root, **encoder):
    config = probe.get_config("ravdess:ravdess")
    config.update(
        {"recipe": "waveform", "classes": "all", "seeds": 1, "epochs": 1, "buckets": 1, "batch_size": 8}
    )
    config.training = "paper"
    config.model.hidden_size = 4
    config.protocol.update({"name": "random", "folds": 3})
    config.encoder.update({"folder": str(root / "hubert"), "train": "lora", "lora_rank": 2, **encoder})
    config.hyper.encoder_learning_rate = 1e-2
    return resolve(config)


@pytest.fixture(scope="module")
def run(root):
    config = config_of(root)
    dataset = experiment.load_dataset(config, root / "data", lambda _: None)
    with mock.patch.object(jax, "devices", return_value=jax.devices()[:1]):
        experiment.run_experiment(config, dataset, root / "run", log=lambda _: None)
    return root / "run"


def test_a_dataset_has_the_samples_of_its_recordings(root):
    dataset = load_prepared(root / "data" / "ravdess", "waveform", classes="all")
    waves = dataset.arrays["waveform"]
    assert waves.values.dtype == np.int16
    assert "encoder" not in dataset.manifest["parameters"]
    for row, utterance in enumerate(dataset.utterances[:5]):
        expected, _ = soundfile.read(root / "ravdess" / utterance.wav, dtype="int16")
        np.testing.assert_array_equal(waves[row], expected)


@pytest.mark.slow
def test_a_run_predicts_its_recordings_as_in_training(root, run, capsys):
    """The model holds the factors only; the encoder is given, and must be the same."""
    names = set(np.load(run / REPLICAS).files)
    assert {name.rsplit("/", 1)[1] for name in names if name.startswith("params/encoder/")} == {"a", "b"}
    ensemble = load(run, fold=1, encoder=root / "hubert")
    assert np.abs(ensemble.replicas.params["encoder"]["layer_1"]["attention"]["value"]["b"]).max() > 0
    with (run / run_folder.PREDICTIONS).open() as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] == ensemble.members[0][0]]
    rows = [row for row in rows if row["split"] == "test"][:6]
    paths = {path.stem: path for path in (root / "ravdess").rglob("*.wav")}
    for row in rows:
        [one] = ensemble.predict(paths[row["utterance"]])
        expected = [float(row[f"p_{name}"]) for name in ensemble.classes]
        np.testing.assert_allclose(one.probabilities, expected, atol=1e-5)
    arguments = [f"--run={run}", f"--encoder={root / 'hubert'}", "--csv", "--cache_dir=", "--fold=1"]
    assert predict.main([str(paths[rows[0]["utterance"]]), *arguments]) == 0
    [told] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(told[f"p_{ensemble.classes[0]}"]) == pytest.approx(
        float(rows[0][f"p_{ensemble.classes[0]}"]), abs=1e-5
    )


@pytest.mark.slow
def test_an_exported_run_contains_the_encoder(root, run, tmp_path):
    """Its input is the waveform; without its encoder, it cannot be exported."""
    ensemble = load(run, fold=1, encoder=root / "hubert")
    exported = export(ensemble, {"batch": 1, "waveform": 900})
    write(ensemble, exported, tmp_path / "network.zip")
    path = next((root / "ravdess").rglob("*.wav"))
    [window] = ensemble.reader([path], encoder=root / "hubert").read(path)
    samples = window.arrays["waveform"][:900]
    inputs = {"waveform": np.zeros((1, 900), np.int16), "waveform_length": np.array([len(samples)], np.int32)}
    inputs["waveform"][0, : len(samples)] = samples
    with zipfile.ZipFile(tmp_path / "network.zip") as archive:
        network = jax.export.deserialize(bytearray(archive.read("network.bin")))
    cut = replace(window, arrays={"waveform": samples})
    expected = ensemble.outputs([cut]).mean(1)
    np.testing.assert_allclose(network.call(inputs)["probabilities"], expected, atol=1e-5)


@pytest.mark.slow
def test_another_encoder_or_none_is_one_line(root, run):
    with pytest.raises(
        UsageError, match=r"trained with a pretrained encoder \(hubert\): give --encoder=FOLDER"
    ):
        load(run)
    other = write_folder(root / "other", "hubert", tensors_of("hubert", seed=1))
    with pytest.raises(UsageError, match="not the weights that this run was trained with"):
        load(run, encoder=other)


@pytest.mark.slow
def test_a_run_is_resumed_with_the_same_encoder_only(root, run):
    """A moved folder is fine; other weights are not."""
    moved = write_folder(root / "moved", "hubert")
    log = []
    config = config_of(root, folder=str(moved))
    dataset = experiment.load_dataset(config, root / "data", lambda _: None)
    experiment.run_experiment(config, dataset, run, log=log.append)
    assert log == [f"{run} is already finished; nothing to train"]
    other = write_folder(root / "other", "hubert", tensors_of("hubert", seed=1))
    config = config_of(root, folder=str(other))
    dataset = experiment.load_dataset(config, root / "data", lambda _: None)
    with pytest.raises(UsageError, match="a run of another version of the dataset or encoder"):
        experiment.run_experiment(config, dataset, run, log=log.append)


def _built(config, root):
    dataset = experiment.load_dataset(config, root / "data", lambda _: None)
    return experiment.build_sweep(config, dataset, jax.devices()[:1])


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"folder": ""}, r"recipe waveform needs --config\.encoder\.folder"),
        ({"train": "most"}, r"config\.encoder\.train='most' is not one of none, lora, top:N, all"),
        ({"layers": "7"}, r"config\.encoder\.layers=7: must be last, all, mean"),
        ({"normalise": "train"}, r"config\.encoder\.normalise='train' is not one of layer, none"),
        ({"train": "none"}, r"config\.hyper\.encoder_learning_rate needs an encoder that is trained"),
    ],
)
def test_wrong_fields_are_one_line(root, encoder, message):
    config = config_of(root, **encoder)
    with pytest.raises(UsageError, match=message):
        _built(config, root)


def test_other_recipes_read_no_encoder_in_training(root):
    prepare("ravdess", root / "ravdess", "mcsan", root / "data", workers=1, quiet=True)
    config = config_of(root)
    config.recipe = "mcsan"
    with pytest.raises(UsageError, match=r"config\.encoder\.folder: recipe mcsan has no waveforms"):
        experiment.load_dataset(config, root / "data", lambda _: None)
