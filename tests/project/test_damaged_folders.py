"""Damaged folders of datasets and runs are reported in one line, and never give other numbers without a word."""

import dataclasses
import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxser
from helpers import tiny
from helpers.damage import damages, other_values, restored
from helpers.fake_run import make_utterances, write_fake_run
from helpers.small_corpus import write_ravdess
from jaxser import export, predict, report
from jaxser.data.dataset import load_prepared
from jaxser.data_prep.prepare import prepare
from jaxser.evaluation import run_folder
from jaxser.features.recipes import RECIPES
from jaxser.inference.saved_model import save_models
from jaxser.types import Batch, Best, Dataset, InputError, Normalisation, Trained, UsageError

FLIPS, PLACES = 3, 2
"""Flipped bytes, and values of other types, of each file; the slow tests have more."""


def write_fake_model(folder: Path) -> None:
    """Write the `model/` folder of a fake run: MCSAN with random parameters."""
    results = run_folder.read_results(folder)
    replicas = [(one.fold, one.seed, one.setting) for one in results.replicas]
    data = dataclasses.replace(
        tiny.dataset(),
        classes=results.classes,
        version=RECIPES["mcsan"].version,
        vocabulary=tuple(f"word{n}" for n in range(12)),
    )
    fields = {"hidden_size": 4, "num_heads": 2, "feed_forward_size": 4, "classifier_size": 4}
    net = tiny.model(num_classes=len(results.classes), **fields)
    hyper = dict.fromkeys(net.hyper, 0.1)
    shapes = tiny.shapes_of(net, tiny_batch(data), hyper)
    rng = np.random.default_rng(0)

    def stacked(shape: tuple[int, ...]) -> np.ndarray:
        return rng.normal(size=(len(replicas), *shape)).astype(np.float32)

    params = jax.tree.map(lambda x: stacked(x.shape), shapes)
    one = np.ones(len(replicas), np.float32)
    trained = Trained(
        best=Best(params, {}, one, one, np.ones(len(replicas), np.int32)),
        hyper=dict.fromkeys(hyper, one),
        normalisation={"audio": Normalisation(stacked((tiny.FEATURES,)), np.abs(stacked((tiny.FEATURES,))))},
        status=np.zeros(len(replicas), np.int32),
    )
    model = {"name": "mcsan", **fields}
    save_models(
        folder, data, trained, replicas, model=model, target={}, encoder=None, normalise="train", setting=""
    )
    run_folder.write_digests(folder)


def tiny_batch(data: Dataset) -> Batch:
    """A batch of silence."""
    ones = np.ones((1, 9), bool)
    return Batch(
        label=np.zeros(1, np.int32),
        weight=np.ones(1, np.float32),
        audio=np.zeros((1, 9, tiny.FEATURES), np.float32),
        audio_mask=ones,
        words=np.zeros((1, 9), np.int32),
        words_mask=ones,
        embeddings=data.embeddings,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small finished run with made-up numbers and random parameters."""
    folder = tmp_path_factory.mktemp("runs") / "fake"
    write_fake_run(folder, utterances=make_utterances(42, sessions=3), seeds=2, epochs=2)
    write_fake_model(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small prepared dataset, in the folder of its manifest."""
    out = tmp_path_factory.mktemp("data")
    write_ravdess(out / "corpus", 12)
    return prepare("ravdess", out / "corpus", "mcsan", out, workers=1, quiet=True)


def numbers_of_run(folder: Path, *, is_model: bool) -> str:
    """Everything that is read from a run, as text."""
    found = run_folder.read_run(folder)
    parts = [found.results.to_json(), found.folds, found.utterances, found.epochs, found.config]
    parts += [getattr(found.predictions, field.name) for field in dataclasses.fields(found.predictions)]
    if is_model:
        ensemble = jaxser.load(folder)
        parts += [ensemble.vocabulary, ensemble.members, np.asarray(ensemble.embeddings).tobytes()]
        parts += [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(ensemble.replicas)]
    return repr(parts)


def numbers_of_dataset(folder: Path) -> str:
    """Everything that is read from a dataset, as text."""
    found = load_prepared(folder)
    parts = [found.utterances, found.classes, found.manifest, found.vocabulary, found.embeddings.tobytes()]
    parts += [(name, array.values.tobytes(), array.length.tobytes()) for name, array in found.arrays.items()]
    return repr(parts)


def outcome(read, *arguments, **options) -> str | None:
    """What is read, or None for an error of one line."""
    try:
        return read(*arguments, **options)
    except (InputError, UsageError) as error:
        return None if "\n" not in str(error) else pytest.fail(str(error))


FILES_OF_A_RUN = [
    *("config.json", "folds.json", "utterances.jsonl", "metrics.jsonl", "predictions.csv", "results.json"),
    *("digests.json", "model/model.json", "model/replicas.npz", "model/embeddings.npy"),
]


@pytest.mark.parametrize("name", FILES_OF_A_RUN)
@pytest.mark.parametrize("has_digests", [True, False])
def test_a_damaged_file_of_a_run_is_an_error(run, name, has_digests):
    """Without digests, as in runs of earlier versions, a changed digit may pass, but nothing ends in a traceback."""
    path, digests = run / name, (run / "digests.json").read_bytes()
    if not has_digests and name == "digests.json":
        pytest.skip("there are none")
    whole, is_model = path.read_bytes(), name.startswith("model/")
    expected = numbers_of_run(run, is_model=is_model)
    try:
        for damage, act in damages(path, FLIPS if has_digests else 1):
            if not has_digests:
                (run / "digests.json").unlink(missing_ok=True)
            act()
            found = outcome(numbers_of_run, run, is_model=is_model)
            if has_digests:
                is_harmless = name == "digests.json" and found == expected  # removed, or another white space
                assert found is None or is_harmless, f"{name}, {damage}"
            restored(path, whole)
    finally:
        restored(path, whole)
        (run / "digests.json").write_bytes(digests)
    assert numbers_of_run(run, is_model=is_model) == expected


@pytest.mark.parametrize(
    "name", [name for name in FILES_OF_A_RUN if ".json" in name and name != "digests.json"]
)
def test_values_of_other_types_in_a_run_are_no_traceback(run, name):
    path, digests = run / name, (run / "digests.json").read_bytes()
    whole = path.read_bytes()
    (run / "digests.json").unlink()
    try:
        for _, act in other_values(path, PLACES):
            act()
            outcome(numbers_of_run, run, is_model=False)
            if name == "model/model.json":
                outcome(jaxser.load, run)
    finally:
        restored(path, whole)
        (run / "digests.json").write_bytes(digests)


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "vocabulary.json", "embeddings.npy", "ravdess-utterances.tfrecord-00000-of-00001"],
)
def test_a_damaged_file_of_a_dataset_is_an_error(data, name):
    path = data / name
    whole, expected = path.read_bytes(), numbers_of_dataset(data)
    try:
        for damage, act in damages(path, FLIPS):
            act()
            found = outcome(numbers_of_dataset, data)
            is_harmless = name == "manifest.json" and found == expected  # another white space
            assert found is None or is_harmless, f"{name}, {damage}"
            restored(path, whole)
    finally:
        restored(path, whole)
    assert numbers_of_dataset(data) == expected


@pytest.mark.parametrize("name", ["manifest.json", "vocabulary.json"])
def test_values_of_other_types_in_a_dataset_are_no_traceback(data, name):
    path, manifest = data / name, (data / "manifest.json").read_text()
    whole = path.read_bytes()
    unsealed = json.loads(manifest)
    for key in ("files", "digest"):
        unsealed.pop(key, None)
    (data / "manifest.json").write_text(json.dumps(unsealed))
    try:
        for _, act in other_values(path, PLACES):
            act()
            outcome(numbers_of_dataset, data)
    finally:
        restored(path, whole)
        (data / "manifest.json").write_text(manifest)


@pytest.mark.parametrize("place", ["mcsan", f"mcsan/{RECIPES['mcsan'].version}", "parts"])
def test_preparation_writes_and_removes_nothing_through_a_link(tmp_path, place):
    write_ravdess(tmp_path / "corpus", 3)
    outside, folder = tmp_path / "outside", tmp_path / "data/ravdess"
    outside.mkdir()
    (outside / "kept.json").touch()
    link = folder / (f"mcsan/{RECIPES['mcsan'].version}/parts" if place == "parts" else place)
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(InputError, match=f"'{link.name}' is a link, and nothing is written or removed"):
        prepare("ravdess", tmp_path / "corpus", "mcsan", tmp_path / "data", workers=1, quiet=True)
    assert [path.name for path in outside.iterdir()] == ["kept.json"]


def test_the_folder_of_a_dataset_may_be_a_link(tmp_path):
    """Users with little space at home link it to another disk."""
    write_ravdess(tmp_path / "corpus", 3)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/ravdess").symlink_to(tmp_path / "scratch")
    folder = prepare("ravdess", tmp_path / "corpus", "mcsan", tmp_path / "data", workers=1, quiet=True)
    assert (tmp_path / "scratch" / folder.relative_to(tmp_path / "data/ravdess") / "manifest.json").is_file()


def exit_status(command, *arguments: object) -> int:
    """Run a command in this process; its messages must not be a traceback."""
    error = io.StringIO()
    with redirect_stderr(error), redirect_stdout(io.StringIO()):
        try:
            status = command([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(str(stop.code))
    assert status in (1, 2)
    assert error.getvalue().count("\n") == 1, error.getvalue()
    return status


def strange_folders(folder: Path) -> dict[str, Path]:
    """Folders that are not runs."""
    made = {
        name: folder / name for name in ("missing", "empty", "file", "folders", "links", "pipes", "other")
    }
    for name, path in made.items():
        if name not in ("missing", "file"):
            (path / "model").mkdir(parents=True)
    made["file"].write_text("x")
    for name in FILES_OF_A_RUN:
        (made["folders"] / name).mkdir(parents=True)
        (made["links"] / name).symlink_to("/dev/zero")
        os.mkfifo(made["pipes"] / name)
        (made["other"] / name).write_text('{"config": {}, "summary": 3}\n')
    return made


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "folders", "links", "pipes", "other"])
def test_a_strange_folder_is_no_traceback(tmp_path, kind):
    folder = strange_folders(tmp_path)[kind]
    (tmp_path / "clip.wav").touch()
    exit_status(predict.main, f"--run={folder}", tmp_path / "clip.wav")
    exit_status(export.main, f"--run={folder}")
    with pytest.raises((InputError, OSError)):
        report.write(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FILES_OF_A_RUN if name != "digests.json"])
def test_a_report_of_a_damaged_run_is_no_traceback(run, name, few_draws):
    """Runs of an earlier version, so that damage is not found by digests; what is read has a report."""
    path, digests = run / name, (run / "digests.json").read_bytes()
    whole = path.read_bytes()
    acts = list(damages(path, 12))
    if ".json" in name:
        acts += list(other_values(path, 25))
    (run / "digests.json").unlink()
    try:
        for _, act in acts:
            act()
            if name.startswith("model/"):
                outcome(jaxser.load, run)
            else:
                outcome(report.write, run)
            restored(path, whole)
    finally:
        restored(path, whole)
        (run / "digests.json").write_bytes(digests)
