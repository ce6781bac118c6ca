"""Compiled programs are kept, so that a second start is fast."""

import os
from pathlib import Path

CACHE_DIR = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path.home() / ".cache" / "jaxser")


def keep_programs(folder: str) -> None:
    """Keep compiled programs in a folder; "" keeps none. To be called before the first is compiled."""
    import jax  # takes a second, which `--help` need not wait for

    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
