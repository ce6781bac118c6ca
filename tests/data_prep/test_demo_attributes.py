"""The attributes of the demo corpus, and the best possible CCC on them, against samples."""

import numpy as np
import pytest

from jaxser.data_prep.demo import attributes
from jaxser.data_prep.demo.truth import CLASSES, COUNTS, MIXES, Truth, outcomes

PRIOR = tuple(count / sum(COUNTS.values()) for count in COUNTS.values())
NUMBER = 60_000


def ccc(true, predicted) -> float:
    both = true.var() + predicted.var() + (true.mean() - predicted.mean()) ** 2
    return 1 - ((true - predicted) ** 2).mean() / both


@pytest.mark.parametrize("emotion", CLASSES)
def test_moments_of_ratings_are_those_of_samples(emotion):
    rng = np.random.default_rng(0)
    drawn = np.concatenate([attributes.rate(emotion, rng) for _ in range(4000)])
    mean, variance = attributes.rating_moments(emotion)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * np.sqrt(variance.max() / len(drawn)))
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.1)


def sample(mix):
    """Symbols by row of the table of `expected`, and attributes."""
    rng = np.random.default_rng(1)
    emotion = rng.choice(len(CLASSES), NUMBER, p=PRIOR)
    symbols = np.empty(NUMBER, dtype=object)
    for row, name in enumerate(CLASSES):
        table = [
            (o, share * o.probability) for m, share in mix.shares.items() for o in outcomes(name, m, mix)
        ]
        drawn = rng.choice(len(table), NUMBER, p=[p for _, p in table])
        for index in np.flatnonzero(emotion == row):
            symbols[index] = table[drawn[index]][0][:2]
    noise = rng.normal(0, attributes.NOISE, (attributes.RATERS, NUMBER, 3))
    centres = np.array([attributes.CENTRES[name] for name in CLASSES])
    ratings = np.clip(np.rint(centres[emotion] + noise), attributes.LOW, attributes.HIGH)
    return emotion, symbols, ratings.mean(0)


def test_the_best_ccc_is_reached_by_the_scaled_conditional_mean_and_not_exceeded():
    mix = MIXES["planted"]
    best = Truth(mix, PRIOR).best()["attributes"]
    emotion, symbols, values = sample(mix)
    means = np.array([attributes.rating_moments(name)[0] for name in CLASSES])
    for observer, key in (("joint", lambda s: s), ("text", lambda s: s[0]), ("audio", lambda s: s[1])):
        seen = np.unique([str(key(s)) for s in symbols], return_inverse=True)[1]
        posterior = np.zeros((seen.max() + 1, len(CLASSES)))
        np.add.at(posterior, (seen, emotion), 1)
        expected = (posterior / posterior.sum(1, keepdims=True) @ means)[seen]
        for n, name in enumerate(attributes.ATTRIBUTES):
            own, known = expected[:, n], best[observer][f"ccc_{name}"]
            scaled = own.mean() + (own - own.mean()) * values[:, n].std() / own.std()
            assert ccc(values[:, n], scaled) == pytest.approx(known, abs=0.012)
            assert ccc(values[:, n], own) < known  # the mean itself is too narrow
            error = np.sqrt(((values[:, n] - own) ** 2).mean())
            assert error == pytest.approx(best[observer][f"rmse_{name}"], abs=0.01)


def test_more_information_is_never_worse():
    best = Truth(MIXES["tutorial"], PRIOR, weaker=0.5).best()["attributes"]
    assert best["prior"]["ccc"] == 0
    for name in attributes.ATTRIBUTES:
        prior, text, audio, joint = (best[o][f"ccc_{name}"] for o in ("prior", "text", "audio", "joint"))
        assert prior < min(text, audio)
        assert max(text, audio) < joint < 1
        assert best["prior"][f"rmse_{name}"] > best["joint"][f"rmse_{name}"]
