"""Attention networks for speech emotion recognition in JAX and Flax.

    run = jaxser.load("runs/mcsan")
    run.predict("clip.wav", text="thank you for being with me")
    run.attention("clip.wav", text="thank you for being with me")[0].figure()

The names in `__all__` are the public Python API; everything else may change without notice.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxser.inference.attention_plots import Attention
    from jaxser.inference.ensemble import Ensemble
    from jaxser.inference.predictions import AttributePrediction, Prediction
    from jaxser.inference.recordings import faster_whisper
    from jaxser.inference.saved_model import load
    from jaxser.types import InputError, UsageError, Word

# `jaxser.configs` and `jaxser.data_prep` are inside the package in a wheel, and beside it in a source tree. They have
# no top-level names, so that a folder called `configs` in the working directory is never imported by mistake.
_SOURCE_TREE = Path(__file__).resolve().parent.parent
if (_SOURCE_TREE / "pyproject.toml").is_file():
    __path__.append(str(_SOURCE_TREE))

_MODULES = {
    "Attention": "inference.attention_plots",
    "AttributePrediction": "inference.predictions",
    "Ensemble": "inference.ensemble",
    "InputError": "types",
    "Prediction": "inference.predictions",
    "UsageError": "types",
    "Word": "types",
    "faster_whisper": "inference.recordings",
    "load": "inference.saved_model",
}

__all__ = [
    "Attention",
    "AttributePrediction",
    "Ensemble",
    "InputError",
    "Prediction",
    "UsageError",
    "Word",
    "faster_whisper",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import jaxser` itself takes milliseconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
