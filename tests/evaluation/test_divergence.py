"""Divergences, entropies and scores of votes against SciPy and scikit-learn; the target's losses against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from helpers import tiny
from jaxser.evaluation import divergence, targets
from jaxser.evaluation.targets import Votes
from jaxser.models import losses
from jaxser.types import Batch, Output

NAMES = ("ang", "hap", "sad", "neu")


def drawn(number: int = 80, raters: int = 5):
    """Votes, some without a majority, and predictions, some with a class of probability 0."""
    rng = np.random.default_rng(0)
    skills = rng.dirichlet([0.7] * 4, number)
    counts = np.array([rng.multinomial(raters, own) for own in skills]).astype(float)
    predicted = rng.dirichlet([0.7] * 4, number)
    predicted[:5] = np.eye(4)[rng.integers(0, 4, 5)]
    counts[0] = [2, 2, 1, 0]
    return counts, predicted


def test_divergences_and_entropies_are_those_of_scipy():
    counts, predicted = drawn()
    shares = counts / counts.sum(1, keepdims=True)
    wanted = jensenshannon(shares, predicted, base=2, axis=1) ** 2
    np.testing.assert_allclose(divergence.jensen_shannon(shares, predicted), wanted, atol=1e-12)
    np.testing.assert_allclose(
        divergence.entropy(predicted), scipy.stats.entropy(predicted, base=2, axis=1), atol=1e-12
    )
    assert divergence.jensen_shannon(np.eye(2)[:1], np.eye(2)[1:]) == pytest.approx(1)
    assert divergence.jensen_shannon(shares, shares).max() == 0


def test_scores_are_those_of_scipy_and_scikit_learn():
    counts, predicted = drawn()
    found = Votes(NAMES).scores(Votes(NAMES).statistics(counts, predicted, np.ones(len(counts))))
    shares = counts / counts.sum(1, keepdims=True)
    ordered = np.sort(counts, axis=1)
    has_one = ordered[:, -1] > ordered[:, -2]
    assert 0 < has_one.sum() < len(counts)
    label, guess = counts.argmax(1)[has_one], predicted.argmax(1)[has_one]
    h, g = (scipy.stats.entropy(x, base=2, axis=1) for x in (shares, predicted))
    wanted = {
        "js": (jensenshannon(shares, predicted, base=2, axis=1) ** 2).mean(),
        "f1_threshold": f1_score(shares > 1 / 4, predicted > 1 / 4, average="macro"),
        "entropy_error": abs(h - g).mean(),
        "entropy_r": np.corrcoef(h, g)[0, 1],
        "wa": accuracy_score(label, guess),
        "ua": balanced_accuracy_score(label, guess),
    }
    assert tuple(wanted) == divergence.SCORES
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_statistics_add_up_and_are_the_same_in_jax():
    counts, predicted = drawn()
    target, group = Votes(NAMES), np.arange(len(counts)) % 3
    whole = target.statistics(counts, predicted, np.ones(len(counts)))
    assert whole.shape == target.shape
    np.testing.assert_allclose(target.grouped(counts, predicted, group, 3).sum(0), whole, rtol=1e-12)
    weight = np.ones(len(counts), np.float32)
    weight[::4] = 0  # padding rows
    traced = jax.jit(target.statistics)(counts.astype(np.float32), predicted.astype(np.float32), weight)
    wanted = target.statistics(counts[weight > 0], predicted[weight > 0], np.ones(int(weight.sum())))
    np.testing.assert_allclose(traced, wanted, rtol=1e-4, atol=1e-3)


def test_undefined_scores():
    target = Votes(NAMES)
    nothing = target.scores(np.zeros(target.shape))
    assert all(np.isnan(nothing[name]) for name in divergence.SCORES)
    tied = np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    found = target.scores(target.statistics(tied, np.full((2, 4), 0.25), np.ones(2)))
    assert np.isnan(found["wa"])
    assert np.isnan(found["entropy_r"])
    assert found["entropy_error"] == pytest.approx(1)
    assert found["f1_threshold"] == 0  # 1/C does not exceed 1/C


def test_guesses_survive_predictions_csv():
    rng, target = np.random.default_rng(1), Votes(NAMES)
    log_probs = np.log(rng.dirichlet([0.3] * 4, 500)).astype(np.float32)
    guess = target.guess(log_probs)
    read = np.array([[float(f"{value:.6g}") for value in row] for row in guess.tolist()])
    np.testing.assert_array_equal(read, guess)


def soft(log_probs, shares, weights, smoothing=0.0):
    shares = (1 - smoothing) * shares + smoothing / shares.shape[1]
    return -(weights * shares * log_probs).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_and_gradients_are_those_of_numpy(smoothing):
    counts, _ = drawn(7)
    scores = np.random.default_rng(2).normal(size=(7, 4))
    weights = np.array([0.5, 1.0, 2.0, 0.5])
    padded = jnp.array(np.vstack([scores, np.zeros(4)]), jnp.float32)
    batch = Batch(
        label=jnp.full(8, -1),
        weight=jnp.ones(8).at[-1].set(0),
        target=jnp.array(np.vstack([counts, np.zeros(4)]), jnp.float32),
    )
    hyper = {"label_smoothing": smoothing} if smoothing else {}

    def loss(criterion):
        def of(x):
            output = Output(None, {"fused": x}, {})
            return Votes(NAMES, criterion).loss(tiny.Toy(4), output, batch, jnp.array(weights), {}, hyper)

        return jax.value_and_grad(of)(padded)

    shares = counts / counts.sum(1, keepdims=True)
    log_probs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    smoothed = (1 - smoothing) * shares + smoothing / 4
    own = -(weights * smoothed * np.log(np.where(smoothed > 0, smoothed, 1))).sum(1).mean()
    value, gradient = loss("cross_entropy")
    wanted = soft(log_probs, shares, weights, smoothing)
    assert float(value) == pytest.approx(wanted, rel=1e-5)
    weighted = weights * smoothed
    by_hand = (weighted.sum(1, keepdims=True) * np.exp(log_probs) - weighted) / 7
    np.testing.assert_allclose(gradient[:7], by_hand, atol=1e-6)
    assert not np.asarray(gradient[7]).any()
    value, same = loss("kl")
    assert float(value) == pytest.approx(wanted - own, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(same, gradient, atol=1e-6)
    assert float(loss("class_balanced")[0]) == pytest.approx(wanted, rel=1e-5)


def test_kl_is_that_of_scipy():
    counts, _ = drawn(9)
    predicted = np.random.default_rng(3).dirichlet([1] * 4, 9)
    shares = counts / counts.sum(1, keepdims=True)
    wanted = scipy.stats.entropy(shares, predicted, axis=1).mean()
    log_probs = np.log(predicted)
    found = losses.kl_divergence(jnp.array(log_probs), jnp.array(shares), jnp.ones(9), jnp.ones(4))
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    target = Votes(NAMES, "kl")
    assert target.loss_in_full(log_probs, counts) == pytest.approx(wanted, rel=1e-12)
    on_device = target.validation_loss(jnp.array(log_probs), jnp.array(counts), jnp.ones(9))
    assert float(on_device) == pytest.approx(wanted, rel=1e-5)


def test_weights_of_classes_are_by_the_effective_number_of_votes():
    counts, _ = drawn(50)
    dataset = tiny.dataset()
    rows, shares = np.arange(40), counts / counts.sum(1, keepdims=True)
    own = Votes(NAMES).class_counts(type("Data", (), {"target": counts})(), rows, 4)
    np.testing.assert_allclose(own, shares[:40].sum(0))
    beta = 0.99
    wanted = (1 - beta) / (1 - beta**own)
    wanted *= own.sum() / (wanted * own).sum()
    np.testing.assert_allclose(losses.weights_of_counts(own, False, beta), wanted, rtol=1e-6)
    label = dataset.label
    np.testing.assert_array_equal(
        losses.weights_of_counts(np.bincount(label), True), losses.class_weights(label, 3, True)
    )


@pytest.mark.parametrize("loss", targets.VOTE_LOSSES)
def test_it_is_restored_from_json(loss):
    target = Votes(NAMES, loss)
    assert targets.from_json(target.to_json(), NAMES) == target
    with pytest.raises((TypeError, ValueError)):
        targets.from_json({**target.to_json(), "loss": "mse"}, NAMES)
