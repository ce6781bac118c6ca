"""`config.training`: which corpora get which settings, what they set, and which of them suit a network."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from helpers import tiny
from jaxser import corpora, papers
from jaxser.config import build_model, check_hyper, describe_training, resolve, training_hyper
from jaxser.configs import common
from jaxser.data.dataset import with_copies
from jaxser.data.folds import Protocol, make_folds
from jaxser.evaluation import run_folder
from jaxser.evaluation.records import RunConfig
from jaxser.experiment.dataset import fit_to_dataset
from jaxser.experiment.resume import first_difference
from jaxser.reproduce import config_of
from jaxser.training.scalars import OPTIONAL
from jaxser.types import UsageError

CONFIGS = ("can", "cat_ilt", "lstm_attention", "mcsan", "self_cross")
MODERN = common.TRAININGS["modern"]


def resolved(dataset, given=None, config="mcsan", variant=None):
    fields = import_module(f"jaxser.configs.{config}").get_config(dataset)
    if variant:
        fields.variant = variant
    for path, value in (given or {}).items():
        fields.update_from_flattened_dict({path: value})
    return resolve(fields, given)


def used(config):
    return training_hyper(config, build_model(config, 4))


def test_corpora_and_their_default():
    by_default = {name: corpora.find(name).training for name in (*corpora.CORPORA, "folder")}
    paper = {name for name, training in by_default.items() if training == "paper"}
    assert {"demo", "iemocap", "meld", "yoon"} <= paper
    assert not {"ravdess", "emodb", "folder"} & paper


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dataset", ["iemocap", "demo", "meld"])
def test_paper_uses_no_optional_scalar(config, dataset):
    settings = resolved(dataset, config=config)
    assert settings.training == "paper"
    assert not used(settings).keys() & OPTIONAL.keys()
    assert settings.best_epochs == 1


@pytest.mark.parametrize("config", CONFIGS)
def test_modern_is_the_same_for_every_network(config):
    module = import_module(f"jaxser.configs.{config}")
    for variant in module.VARIANTS:
        settings = resolved("mine", config=config, variant=variant)
        for name in ("batch_size", "epochs", "epochs_without_copies", "patience", "copies"):
            assert settings[name] == MODERN[name], (variant, name)
        for part in ("hyper", "optimizer"):
            own = settings[part].to_dict()
            assert own | MODERN[part] == own, variant
        rates = {value for name, value in settings.hyper.items() if name.endswith("dropout_rate")}
        assert rates <= {MODERN["dropout_rate"]}
        hyper = used(settings)  # what does not suit a network is left out
        check_hyper(settings, tuple(settings.hyper))
        assert ("word_dropout" in hyper) == ("words" in build_model(settings, 4).needs)


def test_the_users_values_override_modern():
    settings = resolved("ravdess", {"epochs": 3, "hyper.weight_decay": 0.0, "hyper.dropout_rate": 0.4})
    assert (settings.epochs, settings.hyper.weight_decay, settings.hyper.dropout_rate) == (3, 0.0, 0.4)
    assert settings.hyper.ema_decay == MODERN["hyper"]["ema_decay"]
    paper = resolved("ravdess", {"training": "paper"})
    assert (paper.epochs, paper.patience, paper.hyper.ema_decay) == (30, 8, 0.0)
    modern = resolved("iemocap", {"training": "modern"})
    assert (modern.epochs, modern.batch_size) == (MODERN["epochs"], MODERN["batch_size"])


def test_reproduce_always_trains_as_in_the_paper(tmp_path):
    [row, *_] = [row for row in papers.tables()["sun2021/table1"] if row.variant]
    settings = config_of(row, "ravdess", "paper", tmp_path)
    assert settings.training == "paper"
    assert not used(settings).keys() & OPTIONAL.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"training": "odd"}, "config.training='odd' is not one of paper, modern"),
        ({"best_epochs": 0}, "config.best_epochs=0 must be at least 1"),
        ({"hyper.mixup": 0.2}, "config.hyper.mixup mixes frames, and the network reads words; set it to 0"),
        ({"sweep.mixup": (0.0, 0.2)}, "config.hyper.mixup mixes frames"),
        ({"hyper.swa_share": 0.2, "hyper.ema_decay": 0.9}, "exclude each other"),
        ({"hyper.class_balance": 0.9, "class_weights": "balanced"}, "exclude each other"),
        (
            {"hyper.label_smoothing": 1.0},
            "config.hyper.label_smoothing=1.0 must be at least 0 and less than 1",
        ),
        ({"hyper.accumulation": 0.0}, "config.hyper.accumulation=0.0 must be at least 1"),
        ({"sweep.warmup": (0.0, 1.5)}, "config.hyper.warmup=1.5 must be at least 0 and less than 1"),
    ],
)
def test_bad_values_are_one_line(given, message):

    def check():
        config = resolved("iemocap", given)
        check_hyper(config, tuple(config.hyper))
        used(config)

    with pytest.raises(UsageError) as error:
        check()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_stochastic_depth_needs_transformers():
    assert "stochastic_depth_rate" in used(resolved("iemocap", {"hyper.stochastic_depth_rate": 0.1}))
    with pytest.raises(UsageError, match="stochastic_depth_rate needs a network with transformers"):
        used(resolved("iemocap", {"hyper.stochastic_depth_rate": 0.1}, config="can"))


def test_every_optional_scalar_is_a_field_that_is_off():
    fields = common.base_config("demo", paper="").hyper
    assert {name: fields[name] for name in OPTIONAL} == {name: one.off for name, one in OPTIONAL.items()}


def test_the_description_names_what_is_used():
    settings = resolved("ravdess", {"sweep.time_mask": (0.0, 0.1)})
    line = describe_training(settings, used(settings))
    assert line.startswith(f"modern: batches of {MODERN['batch_size']}, at most {MODERN['epochs']} epochs")
    assert "time_mask swept" in line
    assert "label_smoothing 0.1" in line
    assert "time_shift" not in line
    assert describe_training(resolved("iemocap"), used(resolved("iemocap"))).startswith(
        "paper: batches of 256"
    )


def test_a_run_from_before_these_fields_is_the_same_run():
    asked = RunConfig(run_folder.plain(resolved("iemocap").to_dict()), dataset="digest")
    old = {name: value for name, value in asked.fields.items() if name not in ("training", "best_epochs")}
    for part in ("hyper", "sweep"):
        old[part] = {name: value for name, value in old[part].items() if name not in OPTIONAL}
    before = RunConfig(old, dataset="digest")
    assert first_difference(before, asked) == ""
    modern = RunConfig(asked.fields | {"training": "modern"}, dataset="digest")
    assert "training was" in first_difference(before, modern)


def test_copies_are_used_if_there_are_any():
    data = tiny.everything(30)
    folds = make_folds(data, Protocol("session"))
    larger, with_them = with_copies(data, folds, False)
    assert len(larger.label) == 60
    for before, after in zip(folds, with_them, strict=True):
        np.testing.assert_array_equal(after.validation, before.validation)
        np.testing.assert_array_equal(after.test, before.test)
        assert set(after.train % 30) == set(before.train)


@pytest.mark.parametrize(
    ("given", "with_them", "without"),
    [
        ({}, ("train", 16), ("none", 80)),
        ({"epochs": 3}, ("train", 3), ("none", 3)),
        ({"copies": "none"}, ("none", 80), ("none", 80)),
        ({"training": "paper"}, ("none", 30), ("none", 30)),
    ],
)
def test_an_epoch_with_copies_is_longer_and_there_are_fewer(given, with_them, without):
    data = tiny.everything(30)
    bare = replace(data, arrays={name: array for name, array in data.arrays.items() if name != "audio_noisy"})
    config = resolved("ravdess", given)
    for dataset, expected in ((data, with_them), (bare, without)):
        fitted = fit_to_dataset(config, dataset)
        assert (fitted.copies, fitted.epochs) == expected
        assert fit_to_dataset(fitted, dataset) == fitted
