"""The encoder of a run in results.json: its values, its sentence, and which runs have one."""

import json

import pytest

from helpers.encoders import write_folder
from jaxser import encoders
from jaxser.encoders.frames import FrameEncoder, Layers
from jaxser.encoders.tuning import Tuning
from jaxser.evaluation.pretrained import PretrainedEncoder
from jaxser.models.encoded import encoder_of, with_waveforms
from jaxser.models.probe import Probe
from jaxser.models.unimodal import TextModel

PROBE, LAYERS = Probe(num_classes=3), Layers((0, 2), mean=True)
LORA = Tuning("lora", rank=4, alpha=8.0, targets=("query", "feed_forward"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return encoders.load(write_folder(tmp_path_factory.mktemp("encoder") / "hubert", "hubert"))


def of_frames(base, network=PROBE):
    return encoder_of(network, {"encoder": FrameEncoder(base, LAYERS).described})


def test_frames_and_waveforms_name_the_same_encoder(base):
    """A frozen encoder before the frames of a dataset is the one within the step, apart from what is trained."""
    frozen = PretrainedEncoder.from_json(of_frames(base))
    assert (frozen.family, frozen.digest, frozen.padding) == ("hubert", base.digest, "exact")
    assert (frozen.layers, frozen.layers_mean, frozen.num_layers) == ((0, 2), True, 2)
    assert (frozen.width, frozen.hop_samples, frozen.tuning) == (base.width, 320, Tuning())
    assert frozen.parameters == sum(own.size for own in leaves(base.params)) > 1000
    tuned = encoder_of(with_waveforms(PROBE, base, LAYERS, LORA, "none"), {})
    tuned = PretrainedEncoder.from_json(json.loads(json.dumps(tuned)))
    assert tuned.tuning == LORA
    assert {**tuned.to_json(), "tuning": None} == {**frozen.to_json(), "tuning": None}
    assert PretrainedEncoder.from_json(json.loads(json.dumps(tuned.to_json()))) == tuned


def leaves(tree):
    return [leaf for own in tree.values() for leaf in leaves(own)] if isinstance(tree, dict) else [tree]


def test_a_run_that_reads_no_frames_has_no_encoder(base):
    assert of_frames(base, TextModel(num_classes=3)) is None
    assert encoder_of(PROBE, {"max_frames": 1000}) is None


def test_datasets_of_earlier_versions_do_not_say_all(base):
    described = dict(of_frames(base))
    for name in ("parameters", "num_layers", "width", "hop_samples"):
        del described[name]
    assert str(PretrainedEncoder.from_json(described)) == (
        f"hubert, mean of hidden states (0, 2), padding exact, frozen, SHA-256 {base.digest[:16]}"
    )


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        (Tuning(), "frozen"),
        (LORA, "LoRA of rank 4 and alpha 8 on query, feed forward"),
        (Tuning("top:1"), "the highest layer trained"),
        (Tuning("top:12"), "the highest 12 layers trained"),
        (Tuning("all"), "all parameters trained"),
    ],
)
def test_sentence(tuning, words):
    encoder = PretrainedEncoder(
        "whisper", "ab" * 32, "as_published", (4,), False, 320, 384, 4, 8_208_384, tuning
    )
    assert str(encoder) == (
        "whisper, 8.2 M parameters, 4 layers, 384 features, one frame every 20 ms, hidden state 4, "
        f"padding as published, {words}, SHA-256 abababababababab"
    )


@pytest.mark.parametrize(
    ("name", "value"), [("layers", []), ("layers", [-1]), ("parameters", 0), ("tuning", {"train": 1})]
)
def test_impossible_values_are_refused(base, name, value):
    with pytest.raises(TypeError, match=name):
        PretrainedEncoder.from_json({**of_frames(base), name: value})
