"""Optional hyper-parameters: scalars that are part of a program only if a run uses them.

Each can be swept. At the value `off`, it changes nothing, and unless it is swept, the program does not contain it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Scalar(NamedTuple):
    """The range of an optional hyper-parameter.

    Attributes:
        off: the value at which it has no effect, which is also the smallest.
        below: all values are below this.
    """

    off: float = 0.0
    below: float = math.inf


_SHARE = Scalar(below=1.0)

OPTIONAL: Mapping[str, Scalar] = {
    # loss
    "label_smoothing": _SHARE,
    "focal_gamma": Scalar(),
    "class_balance": _SHARE,
    # network
    "stochastic_depth_rate": _SHARE,
    # optimiser
    "warmup": _SHARE,
    "accumulation": Scalar(off=1.0),
    "encoder_learning_rate": Scalar(),
    "encoder_warmup": _SHARE,
    # averages of the parameters
    "ema_decay": _SHARE,
    "swa_share": _SHARE,
    # augmentation (`jaxser.training.augment`)
    "crop": _SHARE,
    "time_shift": _SHARE,
    "mixup": Scalar(),
    "feature_noise": Scalar(),
    "time_mask": _SHARE,
    "frequency_mask": _SHARE,
    "word_dropout": _SHARE,
    "modality_dropout": _SHARE,
}
"""The optional hyper-parameters by name; `docs/reference/training.md` explains each."""

OF_CLASSES = ("label_smoothing", "focal_gamma", "class_balance")
"""Those that change the loss of classes."""


def used(hyper: Mapping[str, float], swept: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the hyper-parameters without the optional ones that are off and not swept."""
    return {
        name: value
        for name, value in hyper.items()
        if name not in OPTIONAL or swept.get(name) or value != OPTIONAL[name].off
    }
