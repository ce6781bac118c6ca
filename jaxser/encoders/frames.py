"""Frames of many recordings: hidden states in batches of similar length.

Preparation and prediction both call `encode`, so training and prediction see the same features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxser.encoders.encoder import Encoder, load
from jaxser.features.audio import SAMPLE_RATE
from jaxser.types import InputError, UsageError

WINDOW_SECONDS = 30
"""Longer recordings are cut into windows of equal length, at most this long, which are encoded one by one."""

BATCH_SECONDS = 60
"""A batch has at most this much audio, with its padding."""

_STEP = SAMPLE_RATE  # batches are padded to whole seconds, so that few shapes are compiled
_SHORTEST = 400  # samples: the window of wav2vec 2.0's and Whisper's first frame


@dataclass(frozen=True)
class Layers:
    """The chosen hidden states of an encoder.

    Attributes:
        indices: 0 is the input of the first transformer layer, i the output of layer i.
        mean: whether the frames are the mean of the hidden states; otherwise they are concatenated.
    """

    indices: tuple[int, ...]
    mean: bool = False

    @classmethod
    def parse(cls, text: str, count: int) -> Layers:
        """Parse `--layers`: `last`, `all`, `mean` (of all) or numbers such as `3,6,9`.

        Args:
            text: the value.
            count: transformer layers of the encoder.

        Raises:
            UsageError: if it is something else, or a layer does not exist.
        """
        named = {
            "last": cls((count,)),
            "all": cls(tuple(range(count + 1))),
            "mean": cls(tuple(range(count + 1)), True),
        }
        if text in named:
            return named[text]
        numbers = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() and part.isascii() and int(part) <= count for part in numbers):
            raise UsageError(
                f"--layers={text}: must be last, all, mean, or numbers from 0 to {count} such as 0,{count}"
            )
        return cls(tuple(dict.fromkeys(int(part) for part in numbers)))

    @property
    def parts(self) -> int:
        """The number of hidden states that are concatenated in a frame."""
        return 1 if self.mean else len(self.indices)


@dataclass(frozen=True, eq=False)
class FrameEncoder:
    """An encoder, and which of its hidden states become the frames of an utterance."""

    encoder: Encoder
    layers: Layers

    @property
    def width(self) -> int:
        """Features of a frame."""
        return self.encoder.width * self.layers.parts

    @property
    def described(self) -> Mapping[str, Any]:
        """JSON values for the manifest that determine the frames."""
        return {
            **self.encoder.described,
            "layers": list(self.layers.indices),
            "layers_mean": self.layers.mean,
            "window_seconds": WINDOW_SECONDS,
        }

    def encode(self, signals: Sequence[Float[np.ndarray, _]]) -> list[Float[np.ndarray, "_ D"]]:
        """Compute the frames of signals at 16 kHz, in float16.

        The first frame of each signal is centred on its start. The result for a signal does not depend on the other
        ones beyond rounding.

        Raises:
            InputError: if a value is not finite, or too large for float16.
        """
        parts = [_windows(signal, self.encoder.hop) for signal in signals]
        windows = [window for part in parts for window in part]
        encoded: list[np.ndarray] = [np.empty(0)] * len(windows)
        for batch in self._batches([len(window) for window in windows]):
            for index, frames in zip(batch, self._encode_batch([windows[i] for i in batch]), strict=True):
                encoded[index] = frames
        remaining = iter(encoded)
        return [np.concatenate([next(remaining) for _ in part]) for part in parts]

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Divide windows into batches of similar length, and return their indices."""
        batches: list[list[int]] = []
        for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
            size = _padded_length(lengths[batches[-1][0]]) if batches else 0
            if not batches or len(batches[-1]) == self._rows(size) or _padded_length(lengths[index]) < size:
                batches.append([])
            batches[-1].append(index)
        return batches

    def _rows(self, length: int) -> int:
        """Return the number of rows of a batch whose waveforms have `length` samples."""
        module = self.encoder.module
        if module.padding == "as_published":
            length = module.max_samples or length  # Whisper's window of 30 s
        return max(BATCH_SECONDS * SAMPLE_RATE // length, 1)

    def _encode_batch(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        length = _padded_length(max(map(len, windows)))
        rows = self._rows(length)
        padded = np.zeros((rows, length), np.float32)
        lengths = np.zeros(rows, np.int32)
        for row, window in enumerate(windows):
            padded[row, : len(window)], lengths[row] = window, len(window)
        states, _ = self.encoder(jnp.asarray(padded), jnp.asarray(lengths), layers=self.layers.indices)
        chosen = [np.asarray(state, np.float32) for state in states]
        frames = np.mean(chosen, axis=0) if self.layers.mean else np.concatenate(chosen, axis=-1)
        if not (np.abs(frames) <= np.finfo(np.float16).max).all():
            raise InputError(
                f"the {self.encoder.family} encoder computes values that are not finite or exceed float16"
            )
        frames = frames.astype(np.float16)
        return [frames[row, : self.encoder.num_frames(len(window))] for row, window in enumerate(windows)]


def open_encoder(folder: str | Path, layers: str = "last", padding: str | None = None) -> FrameEncoder:
    """Load an encoder that computes frames.

    Args:
        folder: a folder in Hugging Face's layout.
        layers: see `Layers.parse`.
        padding: see `load`.

    Raises:
        InputError: if the folder cannot be used.
        UsageError: if an option has an unknown value.
    """
    encoder = load(folder, padding=padding)
    return FrameEncoder(encoder, Layers.parse(layers, encoder.layers))


def _windows(signal: Float[np.ndarray, _], hop: int) -> list[Float[np.ndarray, _]]:
    """Cut a signal into the fewest windows of at most `WINDOW_SECONDS`, nearly equal in length."""
    frames = max(-(-len(signal) // hop), 1)
    count = -(-frames * hop // (WINDOW_SECONDS * SAMPLE_RATE))
    borders = [frames * i // count * hop for i in range(count)]
    windows = [signal[start:end] for start, end in zip(borders, [*borders[1:], len(signal)], strict=True)]
    return [np.pad(window, (0, max(_SHORTEST - len(window), 0))) for window in windows]


def _padded_length(samples: int) -> int:
    return -(-samples // _STEP) * _STEP
