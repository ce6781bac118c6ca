"""Batches gathered from a dataset in device memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from jaxser.data.device import gather, on_host
from jaxser.types import Normalisation


@pytest.fixture(scope="module")
def data():
    return tiny.dataset()


def test_gather_selects_normalises_and_masks_rows(data):
    norm = {"audio": Normalisation(np.arange(6, dtype=np.float32), np.full(6, 2, np.float32))}
    device = jax.device_put(on_host(data, ("audio", "words")))
    batch = gather(device, jnp.array([4, 59, 7]), jnp.array([1.0, 1.0, 0.0]), {"audio": 36, "words": 5}, norm)
    for b, n in enumerate((4, 59)):
        frames = data.arrays["audio"][n][:36]
        assert batch.audio_mask[b].sum() == len(frames)
        np.testing.assert_allclose(batch.audio[b, : len(frames)], (frames - np.arange(6)) / 2, rtol=1e-6)
        assert not np.asarray(batch.audio[b, len(frames) :]).any()
        words = data.arrays["words"][n]
        np.testing.assert_array_equal(batch.words[b, : len(words)], words)
        assert batch.label[b] == data.label[n]
    assert not any(np.asarray(x[2]).any() for x in (batch.audio_mask, batch.words_mask, batch.audio))
