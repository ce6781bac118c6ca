"""LSTM and GRU layers with a lean backward pass.

Recurrent layers dominate the training time. The input projection is one matrix product before the scan, so that only
`h U` stays inside it. The backward pass (a `custom_vjp`) carries only dh and dc, and computes dU as one product after
its scan; forward-mode differentiation is not supported. Equations and gate order are PyTorch's (i, f, g, o and r, z,
n), so that weights can be exchanged. `gru_tf1` is the GRU of TensorFlow 1, which resets h before its product;
`gru_keras` is that of Keras in TensorFlow 1, whose gates have a hard sigmoid as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def _outer(h, dhu):
    """Return the sum over all steps of h^T dhu."""
    h, dhu = _rows(h), _rows(dhu)
    steps = tuple(range(h.ndim - 1))
    return jnp.tensordot(h, dhu, (steps, steps))


def _rows(x):
    """Merge steps and utterances into one axis on a CPU, where XLA would otherwise copy the operands of `_outer`.

    On other platforms it does not, and merging would gather a batch that is sharded over devices.
    """
    return x.reshape(-1, x.shape[-1]) if jax.default_backend() == "cpu" else x


class Cell(NamedTuple):
    """A recurrent cell, whose state is a tuple of [B, H] arrays, h first.

    `times(h, gates)` is h U + b and `back(dhu, gates)` is dhu U^T, for all gates or for the given columns.

    Attributes:
        num_gates: gates, each with H columns of U.
        state_size: arrays in the state.
        forward: (state, xw, times) -> (state, saved).
        backward: (dstate, saved, previous state, state, back) -> ((dxw, dhu), dstate), or ((dxw,), dstate) if dhu is
            equal to dxw.
        dkernel: (previous h, saved, dhu) -> dU.
    """

    num_gates: int
    state_size: int
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    dkernel: Callable[..., Any] = lambda previous, saved, dhu: _outer(previous, dhu)


def _lstm_forward(state, xw, times):
    h, c = state
    i, f, g, o = jnp.split(xw + times(h), 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * c + i * g
    return (o * jnp.tanh(c), c), (i, f, g, o)


def _lstm_backward(dstate, saved, previous, state, back):
    dh, dc = dstate
    i, f, g, o = saved
    tanh_c = jnp.tanh(state[1])
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    dz = jnp.concatenate(
        [
            dc * g * i * (1 - i),
            dc * previous[1] * f * (1 - f),
            dc * i * (1 - g * g),
            dh * tanh_c * o * (1 - o),
        ],
        axis=-1,
    )
    return (dz,), (back(dz), dc * f)


def _gru_forward(state, xw, times):
    (h,) = state
    xr, xz, xn = jnp.split(xw, 3, axis=-1)
    hr, hz, hn = jnp.split(times(h), 3, axis=-1)
    r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
    n = jnp.tanh(xn + r * hn)
    return ((1 - z) * n + z * h,), (r, z, n, hn)


def _gru_backward(dstate, saved, previous, state, back):
    (dh,) = dstate
    r, z, n, hn = saved
    dn = dh * (1 - z) * (1 - n * n)
    dr = dn * hn * r * (1 - r)
    dz = dh * (previous[0] - n) * z * (1 - z)
    dhu = jnp.concatenate([dr, dz, dn * r], -1)
    return (jnp.concatenate([dr, dz, dn], -1), dhu), (dh * z + back(dhu),)


def _gru_tf1_forward(gate, state, xw, times):
    (h,) = state
    gates, candidate = _gru_tf1_columns(h)
    r, z = jnp.split(gate.forward(xw[..., gates] + times(h, gates)), 2, axis=-1)
    n = jnp.tanh(xw[..., candidate] + times(r * h, candidate))
    return ((1 - z) * n + z * h,), (r, z, n)


def _gru_tf1_backward(gate, dstate, saved, previous, state, back):
    (dh,), (h,) = dstate, previous
    r, z, n = saved
    gates, candidate = _gru_tf1_columns(h)
    dn = dh * (1 - z) * (1 - n * n)
    dreset = back(dn, candidate)  # the gradient of r * h
    dgates = jnp.concatenate([gate.backward(dreset * h, r), gate.backward(dh * (h - n), z)], -1)
    dhu = jnp.concatenate([dgates, dn], -1)
    return (dhu,), (dh * z + dreset * r + back(dgates, gates),)


def _gru_tf1_dkernel(previous, saved, dhu):
    gates, candidate = _gru_tf1_columns(previous)
    dgates, dn = dhu[..., gates], dhu[..., candidate]
    return jnp.concatenate([_outer(previous, dgates), _outer(saved[0] * previous, dn)], axis=1)


def _gru_tf1_columns(h):
    """Return the columns of the two gates, and those of the candidate."""
    size = h.shape[-1]
    return slice(0, 2 * size), slice(2 * size, 3 * size)


class _Gate(NamedTuple):
    """The activation of a gate: its value, and the gradient of its input from that of its value and the value."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


_SIGMOID = _Gate(jax.nn.sigmoid, lambda dg, g: dg * g * (1 - g))
_HARD_SIGMOID = _Gate(
    lambda x: jnp.clip(0.2 * x + 0.5, 0, 1), lambda dg, g: 0.2 * jnp.where((g > 0) & (g < 1), dg, 0)
)


def _gru_tf1(gate: _Gate) -> Cell:
    return Cell(3, 1, partial(_gru_tf1_forward, gate), partial(_gru_tf1_backward, gate), _gru_tf1_dkernel)


CELLS = {
    "lstm": Cell(num_gates=4, state_size=2, forward=_lstm_forward, backward=_lstm_backward),
    "gru": Cell(num_gates=3, state_size=1, forward=_gru_forward, backward=_gru_backward),
    "gru_tf1": _gru_tf1(_SIGMOID),
    "gru_keras": _gru_tf1(_HARD_SIGMOID),
}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recurrence(
    cell: Cell,
    xw: Float[Array, "T B G"],
    kernel: Float[Array, "H G"],
    bias: Float[Array, " G"],
    keep: Float[Array, "T B 1"],
) -> Float[Array, "T B H"]:
    """Run a cell over time.

    Args:
        cell: the cell.
        xw: the projected inputs.
        kernel: the recurrent kernel U.
        bias: the recurrent bias.
        keep: a factor on the previous state. It is 0 at the first step of a sequence, so that a row can hold several
            sequences, with padding before and after them.

    Returns:
        The states h of all steps.
    """
    return _forward(cell, xw, kernel, bias, keep)[0]


def _forward(cell, xw, kernel, bias, keep):
    def times(h, gates=slice(None)):
        return h @ kernel[:, gates] + bias[gates]

    def step(state, inputs):
        xw_t, keep_t = inputs
        state = tuple(keep_t * s for s in state)
        state, saved = cell.forward(state, xw_t, times)
        return state, (state, saved)

    begin = jnp.zeros((*xw.shape[1:-1], kernel.shape[0]), xw.dtype)
    _, (states, saved) = jax.lax.scan(step, (begin,) * cell.state_size, (xw, keep))
    return states[0], (kernel, keep, states, saved)


def _backward(cell, residuals, dh):
    kernel, keep, states, saved = residuals
    previous = tuple(keep * jnp.concatenate([jnp.zeros_like(s[:1]), s[:-1]]) for s in states)

    def back(dhu, gates=slice(None)):
        return dhu @ kernel[:, gates].T

    def step(dstate, inputs):
        dh_t, keep_t, saved_t, previous_t, state_t = inputs
        dstate = (dstate[0] + dh_t, *dstate[1:])
        dgates, dstate = cell.backward(dstate, saved_t, previous_t, state_t, back)
        return tuple(keep_t * d for d in dstate), dgates

    end = (jnp.zeros_like(dh[0]),) * cell.state_size
    _, dgates = jax.lax.scan(step, end, (dh, keep, saved, previous, states), reverse=True)
    dxw, dhu = dgates[0], dgates[-1]
    dkernel = cell.dkernel(previous[0], saved, dhu)
    return dxw, dkernel, dhu.sum((0, 1)), jnp.zeros_like(keep)


recurrence.defvjp(_forward, _backward)


def _uniform(key, shape, dtype, hidden_size):
    bound = hidden_size**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class Recurrent(nn.Module):
    """A recurrent layer over masked sequences, in one direction or both.

    Outputs at padded steps are zero. Weights are initialised uniformly within 1/sqrt(hidden_size), as in PyTorch, which
    Sun et al. and Rajan et al. use.

    Attributes:
        hidden_size: units per direction.
        cell: the name of the cell, of `CELLS`.
        bidirectional: whether to add a backward direction.
    """

    hidden_size: int
    cell: str = "lstm"
    bidirectional: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"], starts: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B T directions H"]:
        """Return the states of each direction.

        `starts` marks the first steps of sequences that share a row.
        """
        cell, directions = CELLS[self.cell], 2 if self.bidirectional else 1
        gates = cell.num_gates * self.hidden_size
        init = partial(_uniform, hidden_size=self.hidden_size)
        input_kernel = self.param("input_kernel", init, (directions, x.shape[-1], gates), x.dtype)
        kernel = self.param("kernel", init, (directions, self.hidden_size, gates), x.dtype)
        input_bias = self.param("input_bias", init, (directions, gates), x.dtype)
        bias = self.param("bias", init, (directions, gates), x.dtype)

        by_time = x.swapaxes(0, 1)
        rows = _rows(by_time)  # for the gradient of input_kernel, as in _outer
        keep = _continues(mask, starts, directions).astype(x.dtype)  # [directions, T, B, 1]
        inputs = [rows @ input_kernel[d] + input_bias[d] for d in range(directions)]
        inputs = [reverse_time(xw.reshape(*by_time.shape[:2], gates), d) for d, xw in enumerate(inputs)]
        run = partial(recurrence, cell)
        if jax.default_backend() == "cpu" or directions == 1:
            outputs = [run(inputs[d], kernel[d], bias[d], keep[d]) for d in range(directions)]
        else:  # half as many kernel launches
            outputs = list(jax.vmap(run)(jnp.stack(inputs), kernel, bias, keep))
        outputs = [reverse_time(h, d) for d, h in enumerate(outputs)]
        return jnp.stack(outputs, axis=2).swapaxes(0, 1) * mask[:, :, None, None]


def reverse_time(x: Float[Array, "T ..."], direction: int) -> Float[Array, "T ..."]:
    """Reverse the sequence if `direction` is 1 (backward)."""
    return x[::-1] if direction else x


def _continues(
    mask: Bool[Array, "B T"], starts: Bool[Array, "B T"] | None, directions: int
) -> Bool[Array, "directions T B 1"]:
    """Return whether a step continues the sequence of the previous step, in the order of each direction."""
    joined = mask[:, 1:] & mask[:, :-1]  # steps t and t+1 belong to one sequence
    if starts is not None:
        joined &= ~starts[:, 1:]
    first = jnp.zeros_like(mask[:, :1])
    forward = jnp.concatenate([first, joined], axis=1)
    backward = jnp.concatenate([joined, first], axis=1)[:, ::-1]
    return jnp.stack([forward, backward][:directions]).swapaxes(1, 2)[..., None]
