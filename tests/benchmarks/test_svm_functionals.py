"""The SVM baseline: training sees neither validation nor test part, and rotating the features changes nothing."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from jaxser.data.leaks import FoldIds
from jaxser.types import InputError


@pytest.fixture(scope="module")
def svm():
    path = Path(__file__).parents[2] / "benchmarks" / "svm_functionals.py"
    spec = importlib.util.spec_from_file_location("svm_functionals", path)
    sys.modules["svm_functionals"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    label = np.arange(90) % 3
    features = 3 + rng.normal(size=(90, 40)) + 1.5 * np.eye(40)[label]
    ids = [f"u{row:02}" for row in range(90)]
    fold = FoldIds("1", tuple(ids[:30]), tuple(ids[30:60]), tuple(ids[60:]))
    return fold, ids, features, label


def test_it_is_a_linear_svm_of_the_standardised_training_part(svm, problem):
    fold, ids, features, label = problem
    replica, tested = svm.evaluate(fold, ids, features, label, ["a", "b", "c"])
    scaled = StandardScaler().fit(features[:30]).transform(features) / np.sqrt(40)
    plain = LinearSVC(C=tested.cost, dual=False).fit(scaled[:30], label[:30])
    expected = [["a", "b", "c"][row] for row in plain.predict(scaled[60:])]
    assert tested.predicted == expected
    assert replica.test["wa"] == pytest.approx(np.mean(plain.predict(scaled[60:]) == label[60:]))
    assert replica.validation["ua"] > 0.5


def test_the_test_part_only_changes_its_own_predictions(svm, problem):
    fold, ids, features, label = problem
    shifted = features.copy()
    shifted[60:] = 1000
    one, first = svm.evaluate(fold, ids, features, label, ["a", "b", "c"])
    other, second = svm.evaluate(fold, ids, shifted, label, ["a", "b", "c"])
    assert first.cost == second.cost
    assert one.validation == other.validation


def test_recordings_are_found_by_name_or_reported_as_missing(svm, tmp_path):
    for name in ("x/b.flac", "a.wav", "._a.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in svm.find_recordings(tmp_path, ["b", "a"])] == ["b.flac", "a.wav"]
    with pytest.raises(InputError, match="no recording of c "):
        svm.find_recordings(tmp_path, ["a", "c"])
