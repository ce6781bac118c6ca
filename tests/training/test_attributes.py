"""Training on attributes: a network learns them, whatever the data source, and epochs are selected by CCC."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.data.dataset import with_copies
from jaxser.data_prep.demo.attributes import ATTRIBUTES, rate
from jaxser.data_prep.demo.plan import Settings, compose, plan_turns, truth_of
from jaxser.evaluation.records import EpochRecord
from jaxser.evaluation.run_folder import read_epochs
from jaxser.evaluation.targets import Attributes
from jaxser.models.unimodal import TextModel
from jaxser.training import augment
from jaxser.training.loop import predict_sweep, train_sweep
from jaxser.training.sweep import GridPoint
from jaxser.types import Batch, Dataset, Ragged, Utterance

NAMES = ("valence", "arousal")
TARGET = Attributes(NAMES, 1.0, 5.0)


@pytest.fixture(scope="module")
def data():
    """Utterances whose attributes follow from their class, on a scale from 1 to 5; some have no class."""
    found = tiny.dataset()
    rng, centre = np.random.default_rng(0), np.array([[1.5, 4.5], [3.0, 3.0], [4.5, 2.0]])
    target = (centre[found.label] + rng.normal(0, 0.2, (len(found.label), 2))).astype(np.float32)
    label = np.where(np.arange(len(found.label)) % 7, found.label, -1).astype(np.int32)
    return replace(found, attributes=NAMES, target=target, label=label)


def trained(data, folder, target=TARGET, **options):
    sweep = tiny.sweep(data, net=tiny.Toy(target.width), target=target, **options)
    return predict_sweep(sweep, train_sweep(sweep, folder, lambda _: None))


@pytest.fixture(scope="module")
def resident(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, trained(data, folder, epochs=15)


def test_a_network_learns_attributes(data, resident):
    _, predicted = resident
    for own in predicted:
        true, values = data.target[own.rows], own.estimates
        for n in range(2):
            assert np.corrcoef(true[own.validation :, n], values[own.validation :, n])[0, 1] > 0.8


def test_the_log_has_the_scores_of_attributes(resident):
    records = read_epochs(resident[0])
    assert all(record.headline == "ccc" for record in records)
    assert set(records[0].validation) == {"ccc", "pearson", "rmse"}
    last = records[-1]
    assert last.gap == pytest.approx(last.train_score - last.validation["ccc"])
    assert EpochRecord.from_json(last.to_json()) == last


def test_streamed_data_give_the_same_predictions(data, resident, tmp_path):
    for one, other in zip(trained(data, tmp_path, budget=20_000, epochs=15), resident[1], strict=True):
        np.testing.assert_allclose(one.estimates, other.estimates, rtol=1e-5, atol=1e-5)


def test_classes_can_be_trained_as_well(data, tmp_path):
    joint = Attributes(NAMES, 1.0, 5.0, "mse", class_share=0.3, num_classes=3)
    for own in trained(data, tmp_path, joint, epochs=1):
        assert own.estimates.shape == (len(own.rows), 2)
        assert np.isfinite(own.estimates).all()


def test_copies_keep_the_attributes_of_their_originals(data):
    noisy = Ragged(data.arrays["audio"].values + 1, data.arrays["audio"].length)
    larger, _ = with_copies(replace(data, arrays={**data.arrays, "audio_noisy": noisy}), (), False)
    np.testing.assert_array_equal(larger.target, np.concatenate([data.target, data.target]))


def test_mixed_utterances_have_the_attributes_of_their_partners(data):
    rows = jnp.arange(8)
    frames = jnp.array(data.target[:8, None, :])
    mask = jnp.ones((8, 1), bool)
    batch = Batch(rows, jnp.ones(8), audio=frames, audio_mask=mask, target=jnp.array(data.target[:8]))
    after, mixed = augment.mixup(batch, jnp.float32(0.4), jax.random.key(0))
    np.testing.assert_array_equal(mixed.target, data.target[np.asarray(mixed.partner)])
    own = mixed.share * batch.target + (1 - mixed.share) * mixed.target
    np.testing.assert_allclose(after.audio[:, 0], own, rtol=1e-5)


def spoken(number: int):
    """The words of a demo corpus, without sound, and the best possible CCC of a reader of them."""
    settings = Settings(utterances=number)
    turns = plan_turns(settings)
    sentences = [compose(turn, settings).words for turn in turns]
    index = {word: n for n, word in enumerate(sorted({word for own in sentences for word in own}), start=2)}
    tokens = np.array([index[word] for own in sentences for word in own], np.int32)
    rng = np.random.default_rng(0)
    target = np.stack([rate(turn.emotion, rng).mean(0) for turn in turns]).astype(np.float32)
    utterances = tuple(
        Utterance(turn.id, "", turn.label, session=str(turn.session), speaker=turn.speaker) for turn in turns
    )
    vectors = rng.normal(size=(len(index) + 2, 16)).astype(np.float32)
    vectors[0] = 0
    words = {"words": Ragged(tokens, np.array([len(own) for own in sentences], np.int32))}
    label = np.full(len(turns), -1, np.int32)
    found = Dataset("demo", "words", "1", (), utterances, label, words, (), vectors)
    best = truth_of(turns, settings).best()["attributes"]["text"]
    return replace(found, attributes=ATTRIBUTES, target=target), best


@pytest.mark.slow
def test_the_best_possible_ccc_is_approached_and_not_exceeded(tmp_path):
    data, best = spoken(4000)
    target = Attributes(ATTRIBUTES, 1.0, 5.0)
    hyper = {"learning_rate": 3e-3, "dropout_rate": 0.2}
    point = (GridPoint(0, 0, {}),)
    sweep = tiny.sweep(
        data, net=TextModel(3, hidden_size=16), target=target, hyper=hyper, epochs=12, replicas=point
    )
    [own] = predict_sweep(sweep, train_sweep(sweep, tmp_path, lambda _: None))
    test = slice(own.validation, None)
    true, values = (x[test].astype(float) for x in (data.target[own.rows], own.estimates))
    found = target.scores(target.statistics(true, values, np.ones(len(true))))
    for name in ATTRIBUTES:
        highest = best[f"ccc_{name}"]
        assert found[f"ccc_{name}"] < highest + 3 * target.deviation(highest, len(true)), name
        assert found[f"ccc_{name}"] > highest - 0.12, name
