"""Where the words of an utterance lie in its samples: aligned and equal segmentation (Lee et al. 2020, §3.1.2, §4.2).

Lee et al. give silences half to each neighbouring word and let neighbours overlap by 10 %. What they leave open is
settled so: a run of silences and noises is one silence; at an end it goes to the only neighbour; an odd frame goes to
the left; each interior end then moves out by 5 % of its own word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxser.features.audio import HOP, SAMPLE_RATE
from jaxser.types import Word

OVERLAP = 0.1  # of a word, shared by its two ends
TOLERANCE = 0.1  # s by which an alignment may end after its sound

_FRAMES_PER_SECOND = SAMPLE_RATE // HOP


def aligned_bounds(
    words: Sequence[Word], num_samples: int, overlap: float = OVERLAP
) -> Int[np.ndarray, "L 2"] | None:
    """First sample of each word, and the one after its last; None where times and sound contradict each other."""
    borders = _borders(words, num_samples)
    if borders is None:
        return None
    bounds = np.stack([borders[:-1], borders[1:]], axis=1)
    margin = np.rint((bounds[:, 1] - bounds[:, 0]) * (overlap / 2)).astype(np.int64)
    return np.clip(bounds + np.stack([-margin, margin], axis=1), 0, num_samples)


def equal_bounds(count: int, num_samples: int) -> Int[np.ndarray, "L 2"]:
    """The utterance in `count` parts of the same length, which do not overlap."""
    borders = np.arange(count + 1) * num_samples // count
    return np.stack([borders[:-1], borders[1:]], axis=1)


def _borders(words: Sequence[Word], num_samples: int) -> Int[np.ndarray, " borders"] | None:
    """The samples at which one word ends and the next begins, silences shared out; None if that cannot be."""
    times = np.array([(word.start, word.end) for word in words], dtype=np.float64)
    if not len(times) or not np.isfinite(times).all() or np.abs(times).max() > 1e6:
        return None
    starts, ends = (
        np.rint(times * _FRAMES_PER_SECOND).astype(np.int64).T
    )  # words are aligned in frames of 10 ms
    silences = starts[1:] - ends[:-1]
    latest = num_samples / HOP + TOLERANCE * _FRAMES_PER_SECOND
    if (silences < 0).any() or (ends < starts).any() or starts[0] < 0 or ends[-1] > latest:
        return None
    inner = starts[1:] - silences // 2
    borders = np.concatenate([[0], inner * HOP, [num_samples]])
    return borders if (np.diff(borders) > 0).all() else None
