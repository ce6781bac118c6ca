"""Losses, the optimiser's options, averages of parameters, and selection by several epochs, compared with numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxser.evaluation.targets import ANY_CLASSES
from jaxser.layers.dropout import StochasticDepth
from jaxser.models.losses import class_weights, cross_entropy, sigmoid_cross_entropy
from jaxser.training import averaging, selection
from jaxser.training.optim import Adam
from jaxser.training.scalars import used
from jaxser.types import Batch, Best, Output, Trained

LABEL = np.array([0, 2, 1, 1])
BATCH = Batch(label=jnp.array(LABEL), weight=jnp.array([1.0, 1.0, 0.0, 1.0]))
LOGITS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32) * 2
WEIGHTS = np.array([1.0, 2.0, 0.5], np.float32)
VALID = [0, 1, 3]


def output():
    return Output(jax.nn.log_softmax(jnp.array(LOGITS)), {}, {})


def hyper(**values):
    return {name: jnp.float32(value) for name, value in values.items()}


def test_label_smoothing_is_the_cross_entropy_with_smoothed_targets():
    target = 0.8 * np.eye(3)[LABEL] + 0.2 / 3
    log_probs = np.log(np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True))
    expected = (-(target * log_probs).sum(1) * WEIGHTS[LABEL])[VALID].mean()
    actual = cross_entropy(output(), BATCH, jnp.array(WEIGHTS), hyper(label_smoothing=0.2))
    assert float(actual) == pytest.approx(expected, rel=1e-5)


def test_the_focal_loss_is_that_of_its_paper():
    """Lin et al. 2017, eq. 4; easy utterances count less, and a certain one has a finite gradient."""
    probability = np.exp(LOGITS)[np.arange(4), LABEL] / np.exp(LOGITS).sum(1)
    expected = (-((1 - probability) ** 2) * np.log(probability) * WEIGHTS[LABEL])[VALID].mean()
    actual = cross_entropy(output(), BATCH, jnp.array(WEIGHTS), hyper(focal_gamma=2))
    assert float(actual) == pytest.approx(expected, rel=1e-4)

    def of_certain(gamma):
        certain = jnp.array([[50.0, 0.0, 0.0]] * 4)
        batch = BATCH._replace(label=jnp.zeros(4, jnp.int32))

        def loss(x):
            output = Output(jax.nn.log_softmax(x), {}, {})
            return cross_entropy(output, batch, jnp.ones(3), hyper(focal_gamma=gamma))

        return jax.grad(loss)(certain)

    assert all(np.isfinite(of_certain(gamma)).all() for gamma in (0, 0.5, 2))


def test_the_binary_cross_entropy_has_both():
    sigmoid = 1 / (1 + np.exp(-LOGITS))
    target = 0.9 * np.eye(3)[LABEL] + 0.1 / 3
    p_true = np.where(np.eye(3)[LABEL] > 0, sigmoid, 1 - sigmoid)
    each = -(target * np.log(sigmoid) + (1 - target) * np.log(1 - sigmoid)) * (1 - p_true) ** 1.5
    expected = (each.mean(1) * WEIGHTS[LABEL])[VALID].mean()
    scalars = hyper(label_smoothing=0.1, focal_gamma=1.5)
    actual = sigmoid_cross_entropy(jnp.array(LOGITS), BATCH, jnp.array(WEIGHTS), scalars)
    assert float(actual) == pytest.approx(expected, rel=1e-4)


def test_class_balance_goes_from_equal_to_inverse_frequencies():
    label = np.repeat([0, 1, 3], [50, 10, 2])
    np.testing.assert_array_equal(class_weights(label, 4, False, 0.0), np.ones(4))
    np.testing.assert_allclose(
        class_weights(label, 4, False, 1 - 1e-9)[[0, 1, 3]],
        class_weights(label, 4, True)[[0, 1, 3]] * 4 / 3,
        rtol=1e-5,
    )  # `balanced` counts the absent class
    weights = class_weights(label, 4, False, 0.9)
    effective = (1 - 0.9 ** np.array([50, 10, 2])) / 0.1  # Cui et al. 2019, eq. 2
    np.testing.assert_allclose(weights[[0, 1, 3]] * effective, weights[0] * effective[0], rtol=1e-5)
    assert weights[label].mean() == pytest.approx(1, rel=1e-6)
    assert weights[2] == 0


def test_accumulated_batches_equal_one_large_batch():
    """Two batches of different size; clipping sees their mean gradient, and the parameters wait for the second."""
    rng = np.random.default_rng(0)
    grads = [{"kernel": jnp.array(rng.normal(size=(3, 2)), jnp.float32)} for _ in range(2)]
    params = {"kernel": jnp.ones((3, 2))}
    plain = hyper(learning_rate=0.1, weight_decay=0.1)
    adam = Adam(clip="global_norm", clip_limit=0.5)
    mean = jax.tree.map(lambda a, b: (3 * a + b) / 4, *grads)
    expected, _ = adam.update(mean, adam.init(params, plain), params, plain, jnp.float32(1), jnp.float32(4))
    accumulating = plain | hyper(accumulation=2)
    state, actual = adam.init(params, accumulating), params
    for grad, utterances, is_due in zip(grads, (3, 1), (False, True), strict=True):
        actual, state = adam.update(
            grad, state, actual, accumulating, jnp.float32(1), jnp.float32(utterances)
        )
        assert bool(adam.has_updated(state, accumulating)) == is_due
        if not is_due:
            np.testing.assert_array_equal(actual["kernel"], params["kernel"])
    np.testing.assert_allclose(actual["kernel"], expected["kernel"], rtol=1e-5)
    assert float(state.utterances) == 0


def test_the_moving_average_follows_its_formula():
    average = averaging.begin({"w": jnp.zeros(2)}, {}, hyper(ema_decay=0.3))
    expected = np.zeros(2)
    for n in range(6):
        params = np.array([n, n * n], np.float32)
        decay = min(0.3, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * params
        average = averaging.after_step(average, {"w": jnp.array(params)}, {}, hyper(ema_decay=0.3), True)
    np.testing.assert_allclose(averaging.evaluated(average, {"w": 0}, {})[0]["w"], expected, rtol=1e-5)
    waiting = averaging.after_step(average, {"w": jnp.ones(2)}, {}, hyper(ema_decay=0.3), jnp.array(False))
    np.testing.assert_array_equal(waiting.params["w"], average.params["w"])


def test_weights_are_averaged_over_the_last_epochs():
    scalars = hyper(swa_share=0.5)
    average = averaging.begin({"w": jnp.zeros(1)}, {}, scalars)
    seen = []
    for epoch in range(1, 5):
        params = {"w": jnp.array([float(epoch)])}
        average = averaging.after_epoch(average, params, {}, scalars, jnp.float32(epoch / 4))
        seen.append(float(averaging.evaluated(average, params, {})[0]["w"][0]))
    assert seen == [1, 2, 3, 3.5]  # the latest parameters until the second half, then their mean
    assert averaging.begin({"w": jnp.zeros(1)}, {}, {}) == ()


def candidate(metric, loss, epoch):
    value = jnp.float32(metric * 10)
    return Best({"w": value}, {}, jnp.float32(metric), jnp.float32(loss), jnp.int32(epoch))


def test_the_best_epochs_are_kept_in_order():
    best = candidate(-np.inf, np.inf, 0)
    runners_up = selection.no_runners_up(best, 2)
    epochs = [(0.3, 1.0), (0.5, 1.0), (0.4, 1.0), (0.9, np.nan), (0.5, 0.8), (0.4, 1.0)]
    for epoch, (metric, loss) in enumerate(epochs, 1):
        finite = jnp.isfinite(jnp.float32(loss))
        best, runners_up, _ = selection.select(best, runners_up, candidate(metric, loss, epoch), finite)
    assert int(best.epoch) == 5  # equal scores: the lower loss
    assert runners_up.epoch.tolist() == [2, 3]  # equal scores and losses: the earlier epoch
    np.testing.assert_allclose(runners_up.params["w"], [5, 4])


def predicted(runners_up):
    """The mean prediction of a network with one parameter, which is the probability of the first class."""
    trained = Trained(candidate(0.06, 1, 1), {}, {}, 0, runners_up)
    log_probs = lambda params, _: jnp.log(jnp.stack([params["w"], 1 - params["w"]]))[None, None]  # noqa: E731
    return np.exp(selection.mean_prediction(trained, log_probs, ANY_CLASSES))[0, 0]


def test_the_best_epochs_predict_together():
    np.testing.assert_allclose(predicted(()), [0.6, 0.4], rtol=1e-5)
    two = jax.tree.map(lambda *x: jnp.stack(x), candidate(0.03, 1, 2), candidate(-np.inf, np.inf, 0))
    two = two._replace(params={"w": jnp.array([0.3, 0.0])})
    np.testing.assert_allclose(predicted(two), [0.45, 0.55], rtol=1e-5)  # the empty place does not count


def test_every_kept_epoch_is_a_member_of_the_saved_model():
    def stacked(*rows):
        return jax.tree.map(lambda *x: np.stack(x), *rows)

    empty = candidate(-np.inf, np.inf, 0)
    best = stacked(candidate(0.6, 1, 4), candidate(0.5, 1, 2))
    others = stacked(
        stacked(candidate(0.4, 1, 3), empty), stacked(candidate(0.2, 1, 5), candidate(0.1, 1, 6))
    )
    trained = Trained(best, {"rate": np.array([1.0, 2.0])}, {}, np.array([0, 1]), others)
    rows, replica = selection.members(trained)
    assert replica == [0, 0, 1, 1, 1]
    assert rows.best.epoch.tolist() == [4, 3, 2, 5, 6]
    assert rows.hyper["rate"].tolist() == [1, 1, 2, 2, 2]
    alone = trained._replace(runners_up=())
    assert selection.members(alone) == (alone, [0, 1])


def test_the_loss_can_select():
    confusion = jnp.array([[3.0, 1.0], [0.0, 4.0]])
    assert float(ANY_CLASSES.selected("loss", confusion, jnp.float32(0.7))) == pytest.approx(-0.7)
    assert float(ANY_CLASSES.selected("wa_plus_ua", confusion, jnp.float32(0.7))) == pytest.approx(1.75)


def test_scalars_that_are_off_are_left_out_unless_swept():
    values = {"learning_rate": 0.0, "warmup": 0.0, "accumulation": 1.0, "mixup": 0.0, "crop": 0.1}
    assert used(values, {"mixup": (0.0, 0.2), "crop": ()}) == {
        "learning_rate": 0.0,
        "mixup": 0.0,
        "crop": 0.1,
    }


def test_stochastic_depth_drops_whole_utterances_in_training():
    x = jnp.ones((400, 3, 2))

    def apply(rate, train):
        return np.asarray(
            StochasticDepth().apply({}, x, rate, train=train, rngs={"dropout": jax.random.key(0)})
        )

    dropped = apply(jnp.float32(0.25), train=True)
    by_utterance = dropped.reshape(400, -1)
    assert (by_utterance == by_utterance[:, :1]).all()
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.06)
    np.testing.assert_array_equal(apply(jnp.float32(0.25), train=False), x)
    np.testing.assert_array_equal(apply(None, train=True), x)
