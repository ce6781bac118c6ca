"""Word segments packed into one row: the frames of all words, concatenated.

Words are not padded to the longest one. Since scatters are slow on accelerators, frames are assigned to words by
comparison, and pooled by a matrix product.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def word_of_frame(lengths: Int[Array, "B L"], num_frames: int) -> Int[Array, "B {num_frames}"]:
    """Return the index of each frame's word, from the frames per word; L after the last word."""
    ends = jnp.cumsum(lengths, axis=1)
    return (ends[:, None, :] <= jnp.arange(num_frames)[:, None]).sum(-1)


def first_frames(word: Int[Array, "B T"]) -> Bool[Array, "B T"]:
    """Return whether a frame is the first one of its word."""
    return jnp.concatenate([jnp.ones_like(word[:, :1], bool), word[:, 1:] != word[:, :-1]], axis=1)


def mean_by_word(
    x: Float[Array, "B T D"], mask: Bool[Array, "B T"], word: Int[Array, "B T"], num_words: int
) -> tuple[Float[Array, "B {num_words} D"], Bool[Array, "B {num_words}"]]:
    """Return the mean over the valid frames of each word, and which words have one.

    Without a valid frame, the mean is zero.
    """
    is_of = (word[:, None, :] == jnp.arange(num_words)[:, None]) & mask[:, None, :]  # [B, L, T]
    count = is_of.sum(-1)
    total = jnp.einsum("blt,btd->bld", is_of.astype(x.dtype), x)
    return total / jnp.maximum(count, 1)[..., None].astype(x.dtype), count > 0
