"""The 32 low-level descriptors of the INTERSPEECH 2009 challenge (Ramet et al. 2018, §3).

Root-mean-square energy, 12 MFCC, zero-crossing rate, probability of voicing and pitch in Hz (0 in unvoiced frames),
each smoothed over three frames, and the slopes of these 16. Frames are 25 ms long, one every 10 ms. They are computed
by openSMILE, which is an optional dependency because its licence permits research only.
"""

from __future__ import annotations

from functools import cache
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
"""openSMILE's names of the columns: 16 descriptors, followed by their slopes in the same order."""


def low_level_descriptors(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "frames 32"]:
    """Compute the descriptors of a signal at 16 kHz.

    Raises:
        UsageError: if opensmile is not installed, or if its descriptors differ from `DESCRIPTORS`.
        InputError: if openSMILE fails on the signal.
    """
    descriptors, slopes = _extractors()
    try:
        static = descriptors.process_signal(samples, SAMPLE_RATE).to_numpy(np.float32)
        moving = slopes.process_signal(samples, SAMPLE_RATE).to_numpy(np.float32)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"openSMILE failed ({' '.join(str(error).split())})") from None
    moving = moving[: len(static)]  # slopes continue for two frames after the end
    found = np.concatenate([static, moving], axis=1)
    if not len(found) or not np.isfinite(found).all():
        raise InputError("openSMILE returned no finite descriptors")
    return found


@cache
def _extractors() -> tuple[Any, Any]:
    """Return openSMILE's extractors of the descriptors and of the slopes."""
    try:
        import opensmile
    except ImportError:
        raise UsageError('recipe lld needs opensmile: pip install "jaxser[lld]"') from None
    levels = opensmile.FeatureLevel.LowLevelDescriptors, opensmile.FeatureLevel.LowLevelDescriptors_Deltas
    descriptors, slopes = (opensmile.Smile(opensmile.FeatureSet.IS09, level) for level in levels)
    names = (*descriptors.feature_names, *slopes.feature_names)
    if names != DESCRIPTORS:
        raise UsageError(
            f"this version of opensmile computes other descriptors than recipe lld: {', '.join(names)}"
        )
    return descriptors, slopes
