"""Attention over valid frames with a bias and dropout (Vaswani et al. 2017, equation 1)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxser.layers.dropout import dropped


class ScoreBias(NamedTuple):
    """A bias of the scores: one for each pair of positions, times a gate for each query."""

    positions: Float[Array, "K F F"]
    gate: Float[Array, "B F K"]


def attend(
    query: Float[Array, "B F K d"],
    key: Float[Array, "B F K d"],
    value: Float[Array, "B F K d"],
    mask: Bool[Array, "B F"],
    bias: ScoreBias | None = None,
    *,
    dropout: tuple[PRNGKeyArray, float] | None = None,
) -> Float[Array, "B F K d"]:
    """Attend to the valid frames.

    On a CPU the weights are computed for one head and some queries at a time, so that they fit into the cache: a
    quarter of the time of `jax.nn.dot_product_attention`. Elsewhere that function is used, unless weights are dropped.

    Args:
        query: the queries of each head.
        key: the keys.
        value: the values.
        mask: the valid frames. A row without any gets finite values.
        bias: what is added to the scores.
        dropout: a random key, and the probability to drop a weight.
    """
    on_cpu = jax.default_backend() == "cpu"
    if dropout is None and not on_cpu:
        scores = None if bias is None else bias.positions * bias.gate.transpose(0, 2, 1)[..., None]
        return jax.nn.dot_product_attention(query, key, value, scores, mask[:, None, None, :])
    each = jax.lax.map if on_cpu else _vmapped
    batch, frames, heads, size = query.shape
    rng, rate = dropout or (None, 0.0)
    keys = None if rng is None else jax.random.split(rng, (heads, batch, -(-frames // _QUERIES)))
    hidden = jnp.where(mask, 0, jnp.finfo(jnp.float32).min / 2)

    def one_head(inputs):
        query, key, value, gate, positions, keys = inputs
        positions = None if positions is None else _blocks(positions)

        def one_row(inputs):
            query, key, value, hidden, gate, keys = inputs
            blocks = (_blocks(query), None if gate is None else _blocks(gate), positions, keys)
            block = partial(_attend, key, value, hidden, rate)
            return each(lambda inputs: block(*inputs), blocks).reshape(-1, size)[:frames]

        return each(one_row, (query, key, value, hidden, gate, keys))

    by_head = [x.transpose(2, 0, 1, 3) for x in (query * size**-0.5, key, value)]  # [K, B, F, d]
    gate, positions = (None, None) if bias is None else (bias.gate.transpose(2, 0, 1), bias.positions)
    return each(one_head, (*by_head, gate, positions, keys)).transpose(1, 2, 0, 3)


_QUERIES = 256


def _blocks(rows: Array) -> Array:
    """Divide rows into equal blocks of at most `_QUERIES`, the last of which is padded."""
    count = -(-len(rows) // _QUERIES)
    size = -(-len(rows) // count)
    padding = [(0, count * size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
    return jnp.pad(rows, padding).reshape(count, size, *rows.shape[1:])


def _attend(key, value, hidden, rate, query, gate, positions, rng):
    """Compute the attention of some queries of one head; `hidden` is added to the scores."""
    scores = jnp.matmul(query, key.T, preferred_element_type=jnp.float32) + hidden
    scores = scores if positions is None else scores + gate[:, None] * positions
    weights = jnp.exp(scores - scores.max(1, keepdims=True))
    total = weights.sum(1, keepdims=True)
    weights = weights if rng is None else dropped(rng, weights, rate)
    return (weights.astype(value.dtype) @ value / total).astype(value.dtype)


def _vmapped(function, inputs):
    return jax.vmap(function)(inputs)
