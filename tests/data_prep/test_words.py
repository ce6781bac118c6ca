"""Recipe `words`: corpora of transcripts alone, from tables without recordings."""

import json
from unittest import mock

import numpy as np
import pytest

from jaxser import experiment
from jaxser.config import resolve
from jaxser.configs import can, mcsan
from jaxser.data.dataset import load_prepared
from jaxser.data.folds import Protocol, make_folds
from jaxser.data_prep import jobs
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep.corpora import folder
from jaxser.evaluation import run_folder
from jaxser.inference.saved_model import load
from jaxser.types import InputError, UsageError

EMOTIONS = ("joy", "anger", "sadness")
WORDS = {"joy": "great lovely day", "anger": "give it back", "sadness": "I miss you"}
ROWS = "".join(
    f'"{WORDS[name]}, {n}!",{name},anna{n % 4},{split}\n'
    for n, (name, split) in enumerate(
        (name, split) for split in ("train",) * 8 + ("dev",) * 2 + ("test",) * 2 for name in EMOTIONS
    )
)
TABLE = f"text,label,speaker,split\n{ROWS}"


def prepare(root, table=TABLE, name="metadata.csv", **options):
    root.mkdir(exist_ok=True)
    (root / name).write_text(table)
    return preparation.prepare("folder", root, "words", root / "data", workers=1, quiet=True, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("words") / "corpus"
    with mock.patch.object(jobs, "read_audio", side_effect=AssertionError("no sound is read")):
        prepare(made)
    return made


def config_of(paper, **changes):
    config = paper.get_config("folder:folder")
    config.training = "paper"
    config.update({"recipe": "words", "seeds": 1, "epochs": 2, "buckets": 1, "batch_size": 8, **changes})
    config.classes = "all"
    config.protocol.update({"name": "official", "folds": 0})
    return config


def test_a_table_without_recordings_is_a_dataset(root):
    dataset = load_prepared(root / "data" / "folder", "words", classes="all")
    assert set(dataset.arrays) == {"words"}
    assert dataset.classes == tuple(sorted(EMOTIONS))
    first, last = dataset.utterances[0], dataset.utterances[-1]
    assert (first.id, last.id) == ("line000002", "line000037")  # the table's first line is its header
    assert (first.speaker, first.split, first.duration, first.sha256) == ("anna0", "train", None, "")
    read = [dataset.vocabulary[n] for n in dataset.arrays["words"][1]]
    assert read == ["give", "it", "back", ",", "1", "!"]
    assert dataset.manifest["identical_recordings"] == 0
    assert dataset.manifest["flags"] == {}
    [fold] = make_folds(dataset, Protocol("official"))
    assert [len(part) for part in (fold.train, fold.validation, fold.test)] == [24, 6, 6]


def test_columns_of_recordings_are_optional(tmp_path):
    """Ids come from the column `id`, then from the path, and then from the line; no file is opened."""
    rows = [
        {"text": "Give it back!", "label": "angry", "id": "one", "path": "a.wav"},
        {"text": "Give it back!", "label": "angry", "path": "b.wav"},
        {"text": "", "label": "calm"},
        {"text": "Thank you.", "label": ""},
    ]
    table = "".join(json.dumps(row) + "\n" for row in rows)
    made = prepare(tmp_path, table, "metadata.jsonl", max_rejected=0.5)
    dataset = load_prepared(made, classes="all")
    assert [one.id for one in dataset.utterances] == ["b", "line000003", "one"]
    assert dataset.manifest["flags"] == {"no_words": 1}
    assert json.loads((made / "rejected.jsonl").read_text())["reason"] == "no label"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("sentence,label\nhi,joy\n", r"no column text; found sentence, label"),
        ("text,speaker\nhi,anna\n", r"no column label; found text, speaker"),
        ("text,label\n,joy\n,anger\n", r"no utterance of folder has a text, which recipe words reads"),
    ],
)
def test_tables_without_words_or_labels_are_one_line(tmp_path, table, message):
    with pytest.raises(InputError, match=message):
        prepare(tmp_path, table)


def test_other_recipes_still_need_a_path(tmp_path):
    (tmp_path / "metadata.csv").write_text(TABLE)
    with pytest.raises(InputError, match="no column path"):
        folder.read(tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"augment": ["noise"]}, "--augment: the features of recipe words are not computed from waveforms"),
        ({"encoder": "somewhere"}, "--encoder=somewhere: only for --recipe=encoder"),
        ({"files": {"frames": "somewhere"}}, "--frames: recipe words has no precomputed array audio"),
    ],
)
def test_flags_of_sound_are_refused(tmp_path, flags, message):
    with pytest.raises(UsageError, match=message):
        prepare(tmp_path, **flags)


def test_a_network_that_needs_sound_is_one_line(root):
    config = resolve(config_of(mcsan))
    dataset = experiment.load_dataset(config, root / "data", lambda _: None)
    with pytest.raises(UsageError, match=r"mcsan \(mcsan\) needs audio, which recipe words does not provide"):
        experiment.build_sweep(config, dataset, [])


@pytest.mark.slow
def test_a_text_network_is_trained_and_reads_texts(root, tmp_path):
    """Prediction needs a transcript only, and gives the probabilities of training."""
    config = config_of(can, variant="text_model")
    config.variants.text_model.model.hidden_size = 8
    config = resolve(config)
    dataset = experiment.load_dataset(config, root / "data", lambda _: None)
    experiment.run_experiment(config, dataset, tmp_path / "run", log=lambda _: None)
    found = run_folder.read_run(tmp_path / "run").test_predictions
    ensemble, by_id = load(tmp_path / "run"), {one.id: one for one in dataset.utterances}
    for row in range(3):
        path = tmp_path / f"{found.utterance[row]}.txt"
        path.write_text(by_id[found.utterance[row]].transcript)
        [one] = ensemble.predict(path)
        np.testing.assert_allclose(one.probabilities, found.probabilities[row], atol=1e-5)
        [attention] = ensemble.attention(path)
        assert next(iter(attention.weights.values())).shape[-1] == len(attention.words)
        attention.figure().canvas.draw()
