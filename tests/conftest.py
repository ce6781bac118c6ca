"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("JAXSER_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; tests that need it are skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real recordings in {REAL_DATA} (set JAXSER_REAL_DATA)")
    return REAL_DATA
