"""32 low-level descriptors of INTERSPEECH 2009's emotion challenge, as Ramet et al. 2018 (§3) use them.

Root-mean-square energy, 12 MFCC, zero-crossing rate, probability of voicing and pitch in Hz (0 where there is
no voice), each smoothed over three frames, and the slopes of these 16: 25 ms every 10 ms, computed by openSMILE
(its licence allows research only, so it is an extra).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxser.features.audio import SAMPLE_RATE
from jaxser.types import InputError, UsageError

_STATIC = (
    "pcm_RMSenergy_sma",
    *(f"pcm_fftMag_mfcc_sma[{number}]" for number in range(1, 13)),
    "pcm_zcr_sma",
    "voiceProb_sma",
    "F0_sma",
)
DESCRIPTORS = (*_STATIC, *(name.replace("_sma", "_sma_de") for name in _STATIC))
"""openSMILE's names of the columns: 16 descriptors, then their slopes in the same order."""


def low_level_descriptors(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "frames 32"]:
    """The descriptors of a signal at 16 kHz; raises `UsageError` where opensmile is not installed."""
    descriptors, slopes = _levels()
    try:
        static = descriptors.process_signal(samples, SAMPLE_RATE).to_numpy(np.float32)
        moving = slopes.process_signal(samples, SAMPLE_RATE).to_numpy(np.float32)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"openSMILE finds no descriptors ({' '.join(str(error).split())})") from None
    moving = moving[: len(static)]  # slopes go on for two frames past the end
    found = np.concatenate([static, moving], axis=1)
    if not len(found) or not np.isfinite(found).all():
        raise InputError("openSMILE finds no descriptors")
    return found


@lru_cache
def _levels() -> tuple[Any, Any]:
    """openSMILE's extractors of the descriptors and of their slopes."""
    try:
        import opensmile
    except ImportError:
        raise UsageError('recipe lld needs opensmile: pip install "jaxser[lld]"') from None
    levels = opensmile.FeatureLevel.LowLevelDescriptors, opensmile.FeatureLevel.LowLevelDescriptors_Deltas
    made = tuple(opensmile.Smile(opensmile.FeatureSet.IS09, level) for level in levels)
    names = tuple(name for one in made for name in one.feature_names)
    if names != DESCRIPTORS:
        raise UsageError(f"this opensmile has other descriptors ({', '.join(names)}) than recipe lld")
    return made[0], made[1]
