"""Fixtures shared by all tests."""

import os
import sys
from pathlib import Path

# Set before JAX is imported. The last three flags make programs compile four times as fast.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
)

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

REAL_DATA = Path(os.environ.get("JAXSER_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; tests that need it are skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real recordings in {REAL_DATA} (set JAXSER_REAL_DATA)")
    return REAL_DATA


@pytest.fixture(scope="module", autouse=True)
def _free_compiled_programs():
    """Free the programs that a module has compiled; otherwise they add up to gigabytes."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="module")
def few_draws():
    """Reports' intervals of a hundred draws: their width is the matter of the statistics' tests."""
    from jaxser.report import groups

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "RESAMPLES", 100)
        yield
