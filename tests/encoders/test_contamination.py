"""What is known of the training data of public encoders, and what a report says of a run's own."""

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.fake_run import make_utterances, write_fake_run
from jaxser import corpora
from jaxser.encoders.contamination import PUBLIC, contamination
from jaxser.encoders.encoder import FAMILIES
from jaxser.evaluation import run_folder
from jaxser.evaluation.pretrained import PretrainedEncoder
from jaxser.report import protocols

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "contamination.md"


def test_records_name_known_corpora_and_families_and_a_source():
    assert len({one.name for one in PUBLIC}) == len(PUBLIC)
    for one in PUBLIC:
        named = {*one.trained_on, *one.tuned_on, *dict(one.may_overlap)}
        assert named <= corpora.CORPORA.keys(), one.name
        assert one.family in ("", *FAMILIES)
        assert (one.layers > 0) == (one.width > 0) == bool(one.family)
        assert one.source
        assert one.data


def test_the_page_lists_every_record():
    text = PAGE.read_text(encoding="utf-8")
    for one in PUBLIC:
        assert f"| `{one.name}` | {one.data} | {one.source} |" in text


@pytest.mark.parametrize(
    ("encoder", "corpus", "expected"),
    [
        (
            ("wav2vec2", 12, 1024),
            "msp_podcast",
            "Whether the pretrained encoder was trained or tuned on MSP-Podcast depends on which one it is: of the "
            "public encoders of its family and size, audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim was (model "
            "card; Wagner et al. 2022, arXiv:2203.07378), and scores of such an encoder are optimistic.",
        ),
        (
            ("wav2vec2", 24, 1024),
            "ravdess",
            "ehcalabres/wav2vec2-lg-xlsr-en-speech-emotion-recognition, r-f/wav2vec-english-speech-emotion-recognition "
            "were (model card)",
        ),
        (
            ("hubert", 12, 768),
            "emodb",
            "No public encoder of the pretrained encoder's family and size is stated to be trained or tuned on EmoDB "
            "(facebook/hubert-base-ls960); whether it is one of them is not known.",
        ),
        (
            ("whisper", 4, 384),
            "ravdess",
            "RAVDESS is not known (openai/whisper-tiny: trained on 680,000 h of",
        ),
        (("wavlm", 12, 768), "msp_podcast", "(microsoft/wavlm-base-plus: GigaSpeech contains podcasts)"),
        (("wavlm", 12, 768), "emodb", "No public encoder of the pretrained encoder's family and size"),
        (
            ("wavlm", 3, 32),
            "emodb",
            "EmoDB is not known: no public encoder of its family and size is recorded.",
        ),
        (
            ("hubert", None, None),
            "emodb",
            "EmoDB is not known: no public encoder of its family and size is recorded.",
        ),
        (("whisper", 4, 384), "own", "trained or tuned on own is not known (openai/whisper-tiny"),
    ],
)
def test_the_sentence_on_an_encoder_and_a_corpus(encoder, corpus, expected):
    assert expected in contamination(*encoder, corpora.find(corpus))


def test_a_run_on_the_features_of_an_encoder_says_what_it_has_heard(tmp_path):
    write_fake_run(
        tmp_path, seeds=1, epochs=1, utterances=make_utterances(70), dataset="mine", synthetic=False
    )
    run = run_folder.read_run(tmp_path)
    fields = {**run.config.fields, "corpus": "iemocap"}
    run = replace(run, config=replace(run.config, fields=fields))
    assert not any("pretrained encoder" in sentence for sentence in protocols.describe(run))
    encoder = PretrainedEncoder("wav2vec2", "0" * 64, "exact", (12,), width=768, num_layers=12)
    run = replace(run, results=replace(run.results, encoder=encoder))
    (sentence,) = [one for one in protocols.describe(run) if "pretrained encoder" in one]
    assert "speechbrain/emotion-recognition-wav2vec2-IEMOCAP was (model card)" in sentence
    run = replace(run, results=replace(run.results, synthetic=True))
    assert not any("pretrained encoder" in sentence for sentence in protocols.describe(run))
