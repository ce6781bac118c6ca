"""Training on votes: a network learns the distribution, whatever the loss, and epochs are selected by divergence."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import tiny
from jaxser.evaluation import divergence
from jaxser.evaluation.run_folder import read_epochs
from jaxser.evaluation.targets import Votes
from jaxser.training.loop import predict_sweep, train_sweep

CHANCE = np.array([[0.7, 0.3, 0.0], [0.1, 0.8, 0.1], [0.0, 0.5, 0.5]])


@pytest.fixture(scope="module")
def data():
    """Utterances whose votes follow from their class; half of the third have no majority."""
    found = tiny.dataset(number=90)
    rng = np.random.default_rng(0)
    counts = np.stack([rng.multinomial(4, CHANCE[row]) for row in found.label]).astype(np.float32)
    label = divergence.majority(counts).astype(np.int32)
    assert (label < 0).any()
    return replace(found, target=counts, label=label), found.label


@pytest.mark.parametrize("loss", ["cross_entropy", "class_balanced"])
def test_a_network_learns_the_distribution_of_votes(data, tmp_path, loss):
    rated, emotion = data
    target = Votes(tiny.CLASSES, loss)
    hyper = {"class_balance": 0.9} if loss == "class_balanced" else {}
    sweep = tiny.sweep(
        rated,
        net=tiny.Toy(3),
        target=target,
        epochs=15,
        hyper={"learning_rate": 1e-2, "dropout_rate": 0.0, **hyper},
    )
    for own in predict_sweep(sweep, train_sweep(sweep, tmp_path, lambda _: None)):
        test = slice(own.validation, None)
        counts, guess = rated.target[own.rows][test], target.guess(own.estimates[test])
        found = target.scores(target.statistics(counts, guess, np.ones(len(guess))))
        truth = CHANCE[emotion[own.rows][test]]
        best = target.scores(target.statistics(counts, truth, np.ones(len(guess))))
        prior = np.broadcast_to(divergence.shares(rated.target).mean(0), guess.shape)
        chance = target.scores(target.statistics(counts, prior.astype(float), np.ones(len(guess))))
        assert found["js"] < (best["js"] + chance["js"]) / 2
    records = read_epochs(tmp_path)
    assert all(record.headline == "js" for record in records)
    assert set(records[0].validation) == set(target.compared)
    losing = next(one for one in records if one.epoch == 14)
    assert losing.gap == pytest.approx(losing.validation["js"] - losing.train_score)
