"""Word segments, aligned or of equal length (Lee et al. 2020, §3.1.2 and §4.2).

Lee et al. divide each silence equally between the neighbouring words and let neighbouring words overlap by 10 %. The
rest is not stated. Here consecutive silences and noises count as one silence; a silence at either end belongs to its
only neighbour; an odd frame belongs to the left word; and each inner bound moves outwards by 5 % of its own word.
Whether segments of equal length (Table 3) overlap too is not stated: recipe `can_equal_overlap` differs from
`can_equal` in this alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxser.features.audio import HOP, SAMPLE_RATE
from jaxser.types import Word

OVERLAP = 0.1  # of a word, half of it at each end
TOLERANCE = 0.1  # s by which word times may exceed the audio

_FRAMES_PER_SECOND = SAMPLE_RATE // HOP


def aligned_bounds(
    words: Sequence[Word], num_samples: int, overlap: float = OVERLAP
) -> Int[np.ndarray, "L 2"] | None:
    """Return the first and last sample of each word; None if the times contradict the audio.

    The last sample is exclusive.
    """
    borders = _borders(words, num_samples)
    if borders is None:
        return None
    return _overlapping(borders, overlap)


def equal_bounds(count: int, num_samples: int, overlap: float = 0.0) -> Int[np.ndarray, "L 2"]:
    """Divide an utterance into `count` parts of equal length."""
    return _overlapping(np.arange(count + 1) * num_samples // count, overlap)


def _overlapping(borders: Int[np.ndarray, " borders"], overlap: float) -> Int[np.ndarray, "L 2"]:
    """Return the bounds of the parts between borders; each inner bound moves outwards by half of the overlap."""
    bounds = np.stack([borders[:-1], borders[1:]], axis=1)
    margin = np.rint((bounds[:, 1] - bounds[:, 0]) * (overlap / 2)).astype(np.int64)
    return np.clip(bounds + np.stack([-margin, margin], axis=1), 0, borders[-1])


def _borders(words: Sequence[Word], num_samples: int) -> Int[np.ndarray, " borders"] | None:
    """Return the samples at which one word ends and the next one begins, with silences divided; None if impossible."""
    times = np.array([(word.start, word.end) for word in words], dtype=np.float64)
    if not len(times) or not np.isfinite(times).all() or np.abs(times).max() > 1e6:
        return None
    starts, ends = (
        np.rint(times * _FRAMES_PER_SECOND).astype(np.int64).T
    )  # in frames of 10 ms, as in alignments
    silences = starts[1:] - ends[:-1]
    latest = num_samples / HOP + TOLERANCE * _FRAMES_PER_SECOND
    if (silences < 0).any() or (ends < starts).any() or starts[0] < 0 or ends[-1] > latest:
        return None
    inner = starts[1:] - silences // 2
    borders = np.concatenate([[0], inner * HOP, [num_samples]])
    return borders if (np.diff(borders) > 0).all() else None
