"""Windows of recordings as padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from jaxser.data.batch_schedule import make_buckets
from jaxser.inference.recordings import Window

BATCH_SIZE = 32
BUCKETS = 4  # groups of similar length within one call


def batches(
    windows: Sequence[Window], needs: Sequence[str], fixed: Mapping[str, int]
) -> Iterator[tuple[Int[np.ndarray, " n"], dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Divide windows into batches of few shapes, so that little is compiled.

    Args:
        windows: the windows.
        needs: the arrays that the network reads.
        fixed: the padded lengths that the network requires, by array; empty if it accepts any length.

    Yields:
        The rows of a batch, its padded arrays and their lengths.
    """
    if not windows:
        return
    everything = np.arange(len(windows))
    lengths = {name: np.array([len(one.arrays[name]) for one in windows]) for name in needs}
    size = min(BATCH_SIZE, _rounded(len(windows)))
    buckets = make_buckets(lengths, BUCKETS, size, fixed=fixed)
    schedule = buckets.evaluation_schedule(everything, buckets.batches([everything]))
    for bucket, rows, weight in zip(*schedule, strict=True):
        rows = rows[weight > 0]
        widths = buckets.widths[bucket]
        if not fixed:
            widths = {name: _rounded(width) for name, width in widths.items()}
        chosen = [windows[row] for row in rows]
        yield rows, *padded(chosen, {name: widths[name] for name in needs}, size)


def padded(
    windows: Sequence[Window], widths: Mapping[str, int], size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Pad the arrays of windows to `widths` steps and `size` rows; longer arrays are cut.

    Returns:
        The arrays and the lengths, by name.
    """
    arrays, lengths = {}, {}
    for name, width in widths.items():
        values = [window.arrays[name][:width] for window in windows]
        arrays[name] = np.zeros((size, width, *values[0].shape[1:]), values[0].dtype)
        lengths[name] = np.zeros(size, np.int32)
        for row, own in enumerate(values):
            arrays[name][row, : len(own)] = own
            lengths[name][row] = len(own)
    return arrays, lengths


def _rounded(size: int) -> int:
    """Return the next number of the form 2^k or 3 * 2^k."""
    step = 1 << max((size - 1).bit_length() - 2, 0)
    return -(-size // step) * step
