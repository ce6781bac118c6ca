"""The lowest possible divergence from the votes of the demo corpus, against SciPy's minimiser and samples."""

import numpy as np
import pytest
import scipy.optimize
from scipy.spatial.distance import jensenshannon

from jaxser.data_prep.demo.truth import CLASSES, COUNTS, MIXES, RATERS, Truth, vote, vote_table
from jaxser.data_prep.demo.votes import best_predictions, vote_outcomes
from jaxser.evaluation import divergence
from jaxser.evaluation.targets import Votes

PRIOR = tuple(count / sum(COUNTS.values()) for count in COUNTS.values())
NUMBER = 20_000


def test_outcomes_are_those_of_drawn_votes():
    shares, likelihood = vote_outcomes(vote_table(), RATERS)
    np.testing.assert_allclose(likelihood.sum(1), 1)
    np.testing.assert_allclose(likelihood @ shares, vote_table())
    rng, row = np.random.default_rng(0), CLASSES.index("exc")
    drawn = [vote("exc", rng) for _ in range(4000)]
    unanimous = np.mean([own == ("exc",) * 3 for own in drawn])
    [index] = np.flatnonzero(shares[:, row] == 1)
    assert likelihood[row, index] == pytest.approx(0.85**3)
    assert unanimous == pytest.approx(0.85**3, abs=0.03)


def test_predictions_are_those_of_scipys_minimiser():
    shares, likelihood = vote_outcomes(vote_table(), RATERS)
    posterior = np.random.default_rng(1).dirichlet([0.5] * len(CLASSES), 4)
    outcome = posterior @ likelihood
    found = best_predictions(outcome, shares)
    for own, q in zip(found, outcome, strict=True):

        def expected(scores, q=q):
            p = np.exp(scores - scores.max())
            each = jensenshannon(shares, np.broadcast_to(p / p.sum(), shares.shape), base=2, axis=1) ** 2
            return q @ each

        lowest = scipy.optimize.minimize(expected, np.log(q @ shares), tol=1e-9).fun
        assert expected(np.log(own)) == pytest.approx(lowest, abs=1e-6)
        assert lowest < expected(np.log(q @ shares))  # the posterior itself is not the best


@pytest.fixture(scope="module")
def sampled():
    """Votes, and what an observer of the words and the voice knows: a row of the table of posteriors."""
    truth = Truth(MIXES["planted"], PRIOR)
    [table] = truth._observed_emotions()["joint"]
    table = table[:, table.sum(0) > 0]
    rng = np.random.default_rng(2)
    cell = rng.choice(table.size, NUMBER, p=table.ravel() / table.sum())
    emotion, symbol = np.unravel_index(cell, table.shape)
    counts = np.stack([rng.multinomial(RATERS, vote_table()[row]) for row in emotion]).astype(float)
    return truth.best()["votes"], table / table.sum(0), symbol, counts


def test_the_best_divergence_is_reached_and_not_exceeded(sampled):
    best, posterior, symbol, counts = sampled
    shares, likelihood = vote_outcomes(vote_table(), RATERS)
    outcome = posterior.T @ likelihood
    target = Votes(CLASSES)
    spread = 3 * target.deviation(best["joint"]["js"], NUMBER)
    truth_itself, optimal = (outcome @ shares)[symbol], best_predictions(outcome, shares)[symbol]
    js = [
        float(target.scores(target.statistics(counts, p, np.ones(NUMBER)))["js"])
        for p in (optimal, truth_itself)
    ]
    assert js[0] == pytest.approx(best["joint"]["js"], abs=spread)
    assert best["joint"]["js"] - spread < js[0] < js[1]
    entropy = -(divergence.shares(counts) * np.log(np.where(truth_itself > 0, truth_itself, 1))).sum(1)
    error = entropy.std() / np.sqrt(NUMBER)
    assert entropy.mean() == pytest.approx(best["joint"]["cross_entropy"], abs=3 * error)


def test_more_information_is_never_worse():
    best = Truth(MIXES["tutorial"], PRIOR, weaker=0.5).best()["votes"]
    for score in ("js", "cross_entropy"):
        prior, text, audio, joint = (best[o][score] for o in ("prior", "text", "audio", "joint"))
        assert joint < min(text, audio)
        assert max(text, audio) < prior
