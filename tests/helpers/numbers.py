"""Comparison of arrays of floating-point numbers."""

import numpy as np


def assert_close(actual: np.ndarray, expected: np.ndarray, rtol: float = 1e-6) -> None:
    """Asserts that arrays are equal up to `rtol` times the largest magnitude in `expected`.

    The rounding error of a float32 sum grows with its terms, not with its result, and depends on the kernel that a
    BLAS library chooses for the processor and the shape. The default is eight units in the last place of the largest
    number.
    """
    expected = np.asarray(expected)
    scale = float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * scale)
