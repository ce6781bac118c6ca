"""Speech emotion recognition in JAX and Flax. In a notebook:

    run = jaxser.load("runs/mcsan")
    run.predict("clip.wav", text="thank you for being with me")
    run.attention("clip.wav", text="thank you for being with me")[0].figure()

What is not named here may change without notice.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxser.ensemble import Attention, Ensemble, Prediction
    from jaxser.recordings import faster_whisper
    from jaxser.runs import load
    from jaxser.types import InputError, UsageError, Word

_HOMES = {
    "Attention": "ensemble",
    "Ensemble": "ensemble",
    "InputError": "types",
    "Prediction": "ensemble",
    "UsageError": "types",
    "Word": "types",
    "faster_whisper": "recordings",
    "load": "runs",
}

__all__ = [
    "Attention",
    "Ensemble",
    "InputError",
    "Prediction",
    "UsageError",
    "Word",
    "faster_whisper",
    "load",
]


def __getattr__(name: str) -> Any:
    """Imported when it is first asked for: `import jaxser` itself takes milliseconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
