"""Configs get their settings by the corpus of the dataset's manifest, whatever the dataset is called."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from helpers import tiny
from jaxser import corpora, experiment, main
from jaxser.config import flatten, resolve
from jaxser.configs import common
from jaxser.data.dataset import with_corpus
from jaxser.data_prep.prepare import READERS
from jaxser.evaluation.records import RunConfig
from jaxser.experiment.resume import first_difference
from jaxser.types import UsageError

SETTINGS = (
    *("training", "recipe", "normalise", "copies", "selection", "patience", "seeds", "epochs", "batch_size"),
    *("model", "hyper", "optimizer"),
)
"""What `as_published` sets on every corpus."""

CONFIGS = ("can", "cat_ilt", "lstm_attention", "mcsan", "self_cross")


def write_manifest(data_dir: Path, name: str, corpus: str, recipe: str = "mcsan") -> None:
    keys = ("name", "recipe", "version")
    empty = {"arrays": {}, "shards": [], "labels": {"found": {}}}
    folder = data_dir / name / recipe / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(dict.fromkeys(keys, "") | empty | {"corpus": corpus}))


def config_for(name: str, corpus: str, data_dir: Path, config: str = "mcsan"):
    """The config of a dataset prepared from a corpus, as the command line evaluates it."""
    write_manifest(data_dir, name, corpus)
    _, flag, _ = main._completed(["main", f"--config=configs/{config}.py:{name}", f"--data_dir={data_dir}"])
    file, argument = flag.removeprefix("--config=").split(":", 1)
    assert Path(file).is_file()
    return import_module(f"jaxser.configs.{Path(file).stem}").get_config(argument)


def test_meld_under_another_name_trains_on_the_official_split(tmp_path):
    config = config_for("meld_final", "meld", tmp_path)
    assert (config.dataset, config.corpus) == ("meld_final", "meld")
    assert (config.protocol.name, config.selection, config.classes) == ("official", "f1_weighted", "all")
    assert (config.hyper.learning_rate, config.epochs) == (5e-4, 20)  # section 3.2 of the paper, MELD


def test_ravdess_under_another_name_gets_emobox_groups(tmp_path):
    config = config_for("ravdess_48k", "ravdess", tmp_path)
    assert (config.protocol.name, config.protocol.folds) == ("speaker", 0)
    assert len(config.protocol.groups) == 6
    assert config.protocol.groups[1] == ("actor04", "actor10", "actor12", "actor14")
    assert (config.variant, config.batch_size, config.epochs) == ("audio_only", 32, 30)


def test_the_demo_under_another_name_is_scaled(tmp_path):
    config = config_for("large", "demo", tmp_path)
    assert (config.protocol.name, config.classes, config.epochs) == ("session", "seven", 10)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", ["meld", "iemocap_mine", "demographics", "ravdess"])
def test_a_folder_gets_generic_settings_whatever_its_name(name, config, tmp_path):
    got = config_for(name, "folder", tmp_path, config).to_dict()
    expected = import_module(f"jaxser.configs.{config}").get_config("mine").to_dict()
    assert got | {"dataset": "mine", "corpus": ""} == expected
    assert got["classes"] == "all"
    assert got["protocol"]["groups"] == ()


@pytest.mark.parametrize("config", CONFIGS)
def test_iemocap_keeps_the_settings_of_the_paper(config, tmp_path):
    got = config_for("iemocap_raw", "iemocap", tmp_path, config)
    assert got.classes == {"cat_ilt": "four_merged", "lstm_attention": "four"}.get(config, "seven")
    assert got.protocol.name == ("session" if config == "lstm_attention" else "random")


def test_the_data_folder_is_found_in_all_forms_of_the_flags(tmp_path):
    write_manifest(tmp_path, "mine", "meld")
    for flags in (
        ["--config", "configs/mcsan.py:mine", "--data_dir", str(tmp_path)],
        ["-data_dir", str(tmp_path), "-config=configs/mcsan.py:mine", "--config.seeds=2"],
    ):
        completed = main._completed(["main", *flags])
        assert any(value.endswith("mcsan.py:mine:meld") for value in completed)
    unchanged = ["main", "--workdir=x:y", "--config.note=mine"]
    assert main._completed(unchanged) == unchanged


def test_a_name_without_a_dataset_is_that_of_a_corpus(tmp_path):
    assert with_corpus("ravdess", tmp_path) == "ravdess"
    assert with_corpus("mine:meld", tmp_path) == "mine:meld"
    assert common.parse_dataset("ravdess") == ("ravdess", "ravdess")
    assert common.parse_dataset("demo_quick") == ("demo_quick", "demo")
    assert common.parse_dataset("meld_final") == ("meld_final", "")
    assert common.parse_dataset("meld:folder") == ("meld", "folder")


def test_a_name_of_two_corpora_is_refused(tmp_path):
    write_manifest(tmp_path, "mine", "meld")
    write_manifest(tmp_path, "mine", "folder", recipe="can")
    with pytest.raises(
        UsageError, match=r"several corpora \(folder, meld\); choose one, such as mine:folder"
    ):
        with_corpus("mine", tmp_path)


def test_quick_keeps_the_learning_rate_of_the_demo_alone(tmp_path):
    module = import_module("jaxser.configs.lstm_attention")
    for argument, rate in {"mine:demo": 3e-4, "demo:folder": 1e-3, "iemocap": 1e-3}.items():
        config = module.get_config(argument)
        common.quick(config)
        assert config.hyper.learning_rate == rate
        assert (config.protocol.name, config.protocol.folds, config.seeds) == ("holdout", 0, 1)


def test_every_reader_but_the_users_own_folder_has_a_record():
    assert READERS.keys() - corpora.CORPORA.keys() == {"folder"}
    assert corpora.CORPORA.keys() <= READERS.keys()
    for name, corpus in corpora.CORPORA.items():
        assert corpora.find(name) is corpus
        assert corpus.classes in ("", *corpus.label_sets)


def test_an_unknown_corpus_has_a_generic_record():
    corpus = corpora.find("folder", title="mine")
    assert (corpus.title, corpus.speech, corpus.protocol, corpus.fixed_sentences) == ("mine", "", None, 0)
    assert corpora.find("unknown").title == "unknown"
    assert corpora.find("iemocap").label_name("ang") == "anger"
    assert corpora.find("meld").label_name("anger") == "anger"


def test_label_sets_merge_happy_and_excited_only_where_they_say_so():
    assert corpora.LABEL_SETS["four_merged"]["exc"] == "hap"
    assert "exc" not in corpora.LABEL_SETS["four"]
    assert list(corpora.LABEL_SETS["seven"]) == ["ang", "hap", "exc", "sad", "neu", "fru", "sur"]


@pytest.mark.parametrize(
    ("argument", "corpus", "noted"),
    [("meld_final", "meld", True), ("meld_final:meld", "meld", False), ("mine", "folder", False)],
)
def test_a_config_for_another_corpus_is_noted(argument, corpus, noted, monkeypatch):
    data = replace(tiny.dataset(), manifest={"corpus": corpus})
    monkeypatch.setattr(experiment.dataset, "load_prepared", lambda *_, **__: data)
    config = import_module("jaxser.configs.mcsan").get_config(argument)
    lines: list[str] = []
    experiment.load_dataset(config, Path("data"), lines.append)
    notes = [line for line in lines if line.startswith("note: ")]
    assert len(notes) == noted
    if noted:
        assert "was prepared from corpus meld" in notes[0]
        assert "get_config('meld_final:meld')" in notes[0]


def test_a_run_from_before_corpora_were_recorded_is_the_same_run():
    config = import_module("jaxser.configs.mcsan").get_config("iemocap")
    asked = RunConfig(config.to_dict(), dataset="digest")
    old = {name: value for name, value in asked.fields.items() if name != "corpus"}
    assert first_difference(RunConfig(old | {"note": "in other words"}, "digest"), asked) == ""
    different = first_difference(RunConfig(old | {"seeds": 1}, "digest"), asked)
    assert different == "config: seeds was 1 and is now 5"


def test_as_published_is_overridden_by_the_users_own_values():
    config = import_module("jaxser.configs.cat_ilt").get_config("ravdess")
    config.as_published = True
    found = resolve(config, {"as_published": True, "epochs": 3, "copies": "train"})
    assert (found.epochs, found.copies, found.batch_size, found.recipe) == (3, "train", 40, "cat_padded")
    assert found.note == "the paper's own settings (config.as_published)"
    assert "published" not in found


def test_as_published_needs_the_settings_of_a_paper():
    config = common.base_config("mine", paper="")
    config.as_published = True
    with pytest.raises(
        UsageError, match=r"config\.as_published: this config file does not state the settings"
    ):
        resolve(config)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dataset", ["demo", "emodb", "mine:folder"])
def test_as_published_restores_what_a_corpus_scales(name, dataset):
    """The settings of a baseline too, which the corpus takes away."""
    module = import_module(f"jaxser.configs.{name}")
    for variant in module.VARIANTS:
        config, own = module.get_config(dataset), module.get_config("iemocap")
        config.variant = own.variant = variant
        config.as_published = own.as_published = True
        found, expected = (
            {
                path: value
                for path, value in flatten(resolve(one).to_dict()).items()
                if path.split(".")[0] in SETTINGS
            }
            for one in (config, own)
        )
        assert found == expected


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")  # of ml_collections
def test_help_lists_as_published_but_not_the_fields_that_it_sets():
    text = main._help(["main", "--config=configs/cat_ilt.py"])
    assert "--config.as_published=False" in text
    assert "--config.published" not in text
