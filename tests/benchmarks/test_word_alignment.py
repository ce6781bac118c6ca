"""The measures of forced alignment: errors of times, and levels within and outside of the words."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxser.features.audio import SAMPLE_RATE
from jaxser.types import Word


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "word_alignment.py"
    spec = importlib.util.spec_from_file_location("word_alignment", path)
    sys.modules["word_alignment"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_errors_of_the_same_words_alone(benchmark):
    true = (Word("a", 0.1, 0.5), Word("b", 0.5, 1.0))
    found = (Word("a", 0.12, 0.5), Word("b", 0.4, 1.01))
    assert benchmark.errors(found, true) == [
        pytest.approx((0.02, 0.0)), pytest.approx((-0.1, 0.01))
    ]  # fmt: skip
    assert benchmark.errors(found[:1], true) == []


def test_level_of_speech_above_the_rest(benchmark):
    samples = np.full(SAMPLE_RATE, 0.01, np.float32)
    samples[SAMPLE_RATE // 4 : SAMPLE_RATE // 2] = 0.1
    words = (Word("a", 0.25, 0.3), Word("b", 0.4, 0.5))
    assert benchmark.level_difference(samples, words) == pytest.approx(20, abs=0.01)
    assert np.isfinite(benchmark.level_difference(np.zeros(100, np.float32), (Word("a", 0.0, 1.0),)))
