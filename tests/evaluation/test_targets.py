"""Targets: losses against numpy, predictions on the corpus's scale, and what results.json says about them."""

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.evaluation import targets
from jaxser.evaluation.targets import ANY_CLASSES, Attributes, Classes
from jaxser.models.can import CAN
from jaxser.types import Batch, Output

NAMES = ("valence", "arousal")
HYPER = {"alpha": jnp.float32(0.5), "l2": jnp.float32(0.1)}


def ccc(true, predicted) -> float:
    both = true.var() + predicted.var() + (true.mean() - predicted.mean()) ** 2
    return 1 - ((true - predicted) ** 2).mean() / both


def drawn(width: int, rows: int = 6, heads: tuple[str, ...] = ("fused",)):
    """A batch whose last row is padding, and the output of a network."""
    rng = np.random.default_rng(0)
    scores = {name: jnp.array(rng.normal(size=(rows, width)), jnp.float32) for name in heads}
    truth = rng.uniform(1, 5, (rows, 2)).astype(np.float32)
    weight = jnp.ones(rows).at[-1].set(0)
    label = jnp.array([0, 1, -1, 2, 0, 1][:rows])
    return Batch(label=label, weight=weight, target=jnp.array(truth)), Output(None, scores, {})


def loss_of(target, batch, output, net=None, hyper=HYPER):
    return float(target.loss(net or tiny.Toy(2), output, batch, jnp.ones(3), {}, hyper))


def test_the_ccc_loss_is_one_minus_the_mean_ccc_on_the_scale_from_minus_one_to_one():
    batch, output = drawn(2)
    values, truth = (np.asarray(x, np.float64)[:-1] for x in (output.logits["fused"], batch.target))
    wanted = 1 - np.mean([ccc((truth[:, n] - 3) / 2, values[:, n]) for n in range(2)])
    assert loss_of(Attributes(NAMES, 1.0, 5.0), batch, output) == pytest.approx(wanted, rel=1e-5)


def test_the_squared_error():
    batch, output = drawn(2)
    values, truth = (np.asarray(x, np.float64)[:-1] for x in (output.logits["fused"], batch.target))
    wanted = ((values - (truth - 3) / 2) ** 2).mean()
    assert loss_of(Attributes(NAMES, 1.0, 5.0, "mse"), batch, output) == pytest.approx(wanted, rel=1e-5)


def test_classes_are_trained_as_well_where_they_are_known():
    batch, output = drawn(5)
    alone = output._replace(logits={"fused": output.logits["fused"][:, :2]})
    own = loss_of(Attributes(NAMES, 1.0, 5.0), batch, alone)
    scores = np.asarray(output.logits["fused"], np.float64)[:, 2:]
    log_probs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    entropy = -np.mean([log_probs[row, label] for row, label in ((0, 0), (1, 1), (3, 2), (4, 0))])
    joint = Attributes(NAMES, 1.0, 5.0, class_share=0.25, num_classes=3)
    assert joint.width == 5
    assert loss_of(joint, batch, output) == pytest.approx(0.75 * own + 0.25 * entropy, rel=1e-5)
    assert joint.estimates(tiny.Toy(5), output, HYPER).shape == (6, 2)


def test_heads_are_averaged_with_the_weights_of_the_network():
    batch, output = drawn(2, heads=("fused", "text", "audio"))
    target, net = Attributes(NAMES, 1.0, 5.0), CAN(2)
    each = {name: output._replace(logits={"fused": own}) for name, own in output.logits.items()}
    losses = {name: loss_of(target, batch, own) for name, own in each.items()}
    wanted = (losses["fused"] + 0.5 * losses["text"] + 0.5 * losses["audio"]) / 2
    assert loss_of(target, batch, output, net) == pytest.approx(wanted, rel=1e-5)
    mean = sum(weight * np.asarray(output.logits[name]) for name, weight in
               (("fused", 0.5), ("text", 0.25), ("audio", 0.25)))  # fmt: skip
    np.testing.assert_allclose(target.estimates(net, output, HYPER), 3 + 2 * mean, rtol=1e-5)


def test_predictions_and_losses_are_on_the_right_scales():
    batch, output = drawn(2)
    target = Attributes(NAMES, 1.0, 5.0, "mse")
    estimates = np.asarray(target.estimates(tiny.Toy(2), output, HYPER))
    truth, weight = np.asarray(batch.target), np.asarray(batch.weight)
    found = float(target.validation_loss(jnp.array(estimates), jnp.array(truth), jnp.array(weight)))
    assert found == pytest.approx(((estimates - truth)[:-1] ** 2).mean() / 4, rel=1e-5)
    assert target.loss_in_full(estimates[:-1], truth[:-1]) == pytest.approx(found, rel=1e-5)


def test_statistics_of_groups_add_up():
    rng = np.random.default_rng(1)
    target, group = Attributes(NAMES, 1.0, 5.0), rng.integers(0, 4, 50)
    truth, guess = rng.uniform(1, 5, (2, 50, 2))
    grouped = target.grouped(truth, guess, group, 4)
    np.testing.assert_allclose(grouped.sum(0), target.statistics(truth, guess, np.ones(50)), rtol=1e-12)
    label, predicted = rng.integers(0, 3, (2, 50))
    classes = Classes(("a", "b", "c"))
    np.testing.assert_array_equal(
        classes.grouped(label, predicted, group, 4).sum(0), classes.statistics(label, predicted, np.ones(50))
    )


def test_lower_errors_are_better():
    target, rng = Attributes(NAMES, 1.0, 5.0), np.random.default_rng(2)
    truth = rng.uniform(1, 5, (50, 2))
    near, far = (target.statistics(truth, truth + rng.normal(0, s, (50, 2)), np.ones(50)) for s in (0.1, 1))
    for selection in target.selections[:-1]:
        better, worse = (float(target.selected(selection, own, jnp.float32(0))) for own in (near, far))
        assert better > worse, selection


@pytest.mark.parametrize("target", [ANY_CLASSES, Attributes(NAMES, 0.0, 1.0, "mse", 0.5, 0)])
def test_targets_are_restored_from_json(target):
    assert targets.from_json(target.to_json(), ()) == target


@pytest.mark.parametrize(
    "change",
    [{"scale": [5, 1]}, {"attributes": ["a", "a"]}, {"attributes": []}, {"loss": "mae"}, {"kind": "x"}],
)
def test_impossible_targets_are_refused(change):
    described = Attributes(NAMES, 1.0, 5.0).to_json()
    with pytest.raises((TypeError, ValueError)):
        targets.from_json({**described, **change}, ())
