"""Names that readers of a report see: models, variants, corpora and protocols."""

from importlib import import_module

import pytest

from helpers.fake_run import make_utterances, session_folds, write_fake_run
from jaxser import papers
from jaxser.evaluation import run_folder
from jaxser.evaluation.records import RunConfig
from jaxser.evaluation.results import RunResults
from jaxser.models import MODELS
from jaxser.papers import names
from jaxser.report import checks, page, protocols
from jaxser.report.analysis import Analysis


def test_every_display_name_is_of_a_model():
    assert names.MODELS.keys() <= MODELS.keys()
    assert names.model_name("mine") == "mine"


@pytest.mark.parametrize(
    ("model", "variant", "shown"),
    [
        ("can", "can", "CAN"),
        ("mcsan", "", "MCSAN"),
        ("mcsan", "no_cross", "MCSAN (no cross)"),
        ("can", "no_stop_gradient_no_align_loss", "CAN (no stop gradient, no align loss)"),
        ("cat", "cat_cnn_to_lstm", "CAT (CNN to LSTM)"),
        ("lstm_attention", "yang", "LSTM with attention (Yang et al.)"),
        ("mdre", "mdre_ta", "MDRE (T+A)"),
        ("self_cross", "self_tv", "Self/cross-attention (self, T+V)"),
        ("self_cross", "self_no_sp", "Self/cross-attention (self, no statistics pooling)"),
        ("theirs", "", "theirs"),
    ],
)
def test_run_names(model, variant, shown):
    assert names.run_name(model, variant) == shown


def test_variants_of_a_config_have_different_names():
    for config in papers.CONFIGS.values():
        variants = import_module(f"jaxser.configs.{config}").VARIANTS
        shown = {names.run_name("network", variant) for variant in variants}
        assert len(shown) == len(variants)
        assert not any("_" in name for name in shown)


@pytest.mark.parametrize(
    ("fields", "dataset", "title"),
    [
        ({"corpus": "iemocap"}, "my_iemocap", "CAN on IEMOCAP"),
        ({"corpus": ""}, "iemocap", "CAN on iemocap"),  # of an unknown corpus, whatever its name
        ({"corpus": "demo"}, "small", "CAN on the demo corpus"),
        ({}, "meld", "CAN on MELD"),  # a run of an earlier version
    ],
)
def test_title_names_the_corpus_by_its_record(tmp_path, fields, dataset, title):
    options = {"seeds": 1, "epochs": 1, "utterances": make_utterances(70), "synthetic": False}
    written = write_fake_run(
        tmp_path, model="can", variant="can", dataset=dataset, best_possible=None, **options
    )
    run_folder.write_config(tmp_path, RunConfig({"dataset": dataset, **fields}))
    run_folder.write_results(tmp_path, RunResults.from_json(written))
    assert page.title(Analysis(run_folder.read_run(tmp_path))) == title


@pytest.mark.parametrize(
    "name", ["random", "session", "holdout", "speaker", "official", "emobox", "file", "imported"]
)
def test_every_protocol_has_a_sentence(tmp_path, name):
    protocol = {"name": name, "select": "validation", "metric": "ua", "note": ""}
    write_fake_run(tmp_path, protocol=protocol, seeds=1, epochs=1, utterances=make_utterances(70))
    first, *_ = protocols.describe(run_folder.read_run(tmp_path))
    assert first == protocols.PROTOCOLS[name]


def test_twins_and_folds_without_shared_sentences_are_described(tmp_path):
    protocol = {"name": "random", "select": "validation", "metric": "ua", "group_by": "speaker+transcript"}
    write_fake_run(
        tmp_path, protocol={**protocol, "twin": ""}, seeds=1, epochs=1, utterances=make_utterances(70)
    )
    described = protocols.describe(run_folder.read_run(tmp_path))
    assert "Neither the speakers nor the sentences of a test part are heard in training." in described
    assert not any("moved" in sentence for sentence in described)
    protocol = {**protocol, "group_by": "", "twin": "speaker"}
    write_fake_run(tmp_path / "twin", protocol=protocol, seeds=1, epochs=1, utterances=make_utterances(70))
    described = protocols.describe(run_folder.read_run(tmp_path / "twin"))
    assert any(
        sentence.startswith("Whole speakers were then moved between the parts") for sentence in described
    )


def test_verdict_of_the_leak_checks_names_what_was_checked(tmp_path):
    utterances = make_utterances(70)
    write_fake_run(tmp_path, seeds=1, epochs=1, utterances=utterances)
    run = run_folder.read_run(tmp_path)
    assert checks.leak_verdict((), run.utterances) == (
        "No utterances, byte-identical recordings, speakers, dialogues or transcripts are shared by the training, "
        "validation and test parts of a fold."
    )
    write_fake_run(
        tmp_path / "bare",
        seeds=1,
        epochs=1,
        utterances=[u.__class__(id=u.id, wav="", label=u.label) for u in utterances],
        folds=session_folds(utterances),
    )
    run = run_folder.read_run(tmp_path / "bare")
    assert checks.leak_verdict((), run.utterances) == (
        "No utterances are shared by the training, validation and test parts of a fold. Not checked for lack "
        "of data: byte-identical recordings, speakers, dialogues and transcripts."
    )
