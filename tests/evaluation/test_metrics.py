"""WA, UA and F1 against scikit-learn, for NumPy arrays and traced JAX arrays."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
)

from jaxser.evaluation import metrics

CLASSES = 5


def pairs(min_size: int = 1):
    """True and predicted classes; short lists make absent classes likely."""
    one = st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1))
    return st.lists(one, min_size=min_size, max_size=40).map(lambda p: np.array(p, dtype=np.int32).T)


@given(pairs())
def test_scores_are_those_of_scikit_learn(pair):
    true, predicted = pair
    matrix = metrics.confusion(true, predicted, np.ones(len(true)), CLASSES)
    found = metrics.scores(matrix)
    labels = range(CLASSES)
    np.testing.assert_array_equal(matrix, confusion_matrix(true, predicted, labels=labels))
    assert found["wa"] == pytest.approx(accuracy_score(true, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about predicted classes without a true utterance
        assert found["ua"] == pytest.approx(balanced_accuracy_score(true, predicted))
    assert found["f1_weighted"] == pytest.approx(
        f1_score(true, predicted, average="weighted", zero_division=0)
    )
    assert found["f1_macro"] == pytest.approx(f1_score(true, predicted, average="macro", zero_division=0))
    recall = recall_score(true, predicted, labels=labels, average=None, zero_division=np.nan)
    np.testing.assert_allclose(found["recall"], recall)


@given(pairs())
@settings(deadline=None)
def test_traced_arrays_give_the_same(pair):
    true, predicted = np.resize(pair, (2, 40))  # one shape, one compilation
    weight = (np.arange(40) < pair.shape[1]).astype(np.float32)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found = _jitted(jnp.array(true), jnp.array(predicted), jnp.array(weight))
    expected = metrics.scores(metrics.confusion(true, predicted, weight, CLASSES))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)


@jax.jit
def _jitted(true, predicted, weight):
    return metrics.scores(metrics.confusion(true, predicted, weight, CLASSES))


@given(pairs(min_size=2), st.integers(1, 39))
def test_confusions_of_parts_add_up_and_padding_rows_do_not_count(pair, cut):
    true, predicted = pair
    ones = np.ones(len(true))
    whole = metrics.confusion(true, predicted, ones, CLASSES)
    parts = [metrics.confusion(true[part], predicted[part], ones[part], CLASSES) for part in _cut(cut)]
    np.testing.assert_array_equal(sum(parts), whole)
    filled = np.concatenate([ones, np.zeros(len(true))])
    np.testing.assert_array_equal(
        metrics.confusion(np.tile(true, 2), np.tile(predicted, 2), filled, CLASSES), whole
    )


def _cut(index: int) -> tuple[slice, slice]:
    return slice(None, index), slice(index, None)


def test_an_absent_class_is_left_out_of_ua_and_counts_in_macro_f1_if_predicted():
    matrix = np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    found = metrics.scores(matrix)
    assert found["ua"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["f1_macro"] == pytest.approx((6 / 7 + 1 + 0) / 3)
    assert np.isnan(found["recall"][2])


def test_wa_and_ua_are_not_exchanged():
    """Nine of ten utterances are of one class, and only that class is predicted."""
    found = metrics.scores(np.array([[9, 0], [1, 0]]))
    assert found["wa"] == pytest.approx(0.9)
    assert found["ua"] == pytest.approx(0.5)


def test_labels_outside_the_classes_are_not_counted():
    matrix = metrics.confusion(np.array([0, -1, 1]), np.array([0, 1, -1]), np.ones(3), 2)
    np.testing.assert_array_equal(matrix, [[1, 0], [0, 0]])


def test_scores_of_no_utterances_are_nan_without_a_warning():
    for zeros in (np.zeros((3, 3)), jnp.zeros((3, 3), jnp.int32)):
        found = metrics.scores(zeros)
        assert all(np.isnan(value).all() for value in found.values())


def test_vmap_scores_each_matrix_by_itself():
    matrices = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    together = jax.vmap(metrics.scores)(jnp.array(matrices))
    for number, matrix in enumerate(matrices):
        for name, value in metrics.scores(matrix).items():
            np.testing.assert_allclose(together[name][number], value, rtol=1e-6)
