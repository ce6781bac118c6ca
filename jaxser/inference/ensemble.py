"""A finished run's networks, ready to predict: all replicas of the chosen setting, or some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from jaxser.data.batch_schedule import make_buckets
from jaxser.data.normalisation import is_standardised, normalised, own_statistics
from jaxser.features.audio import HOP, SAMPLE_RATE
from jaxser.features.recipes import ArraySpec, Recipe
from jaxser.features.text import Vocabulary
from jaxser.inference.attention_plots import Attention
from jaxser.inference.recordings import Reader, Text, Window, find, open_elsewhere
from jaxser.models.network import Network
from jaxser.training.mesh import STRATEGIES
from jaxser.types import AnyArray, Batch, Hyper, InputError, Normalisation, Output, UsageError

if TYPE_CHECKING:
    pass

BATCH_SIZE = 32
BUCKETS = 4  # groups of similar length in a batch of recordings

_PROBES = {"audio": 36, "segments": 36}
"""Lengths at which the axes of attention are found: whole after poolings; 9 is below what a network cuts video at."""


class Replica(NamedTuple):
    """What is kept of a training run; of several, the leaves are stacked."""

    params: PyTree
    batch_stats: PyTree
    normalisation: Mapping[str, Normalisation]
    hyper: Hyper


class Axis(NamedTuple):
    """What an axis of an attention runs over."""

    array: str  # of the recipe; "" where it is none (heads)
    share: Fraction  # steps of the axis for each of the array's: 1/9 after two poolings by three


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the replicas say of a window of a recording."""

    path: str
    start: float  # s
    end: float  # s
    text: str
    unknown: tuple[str, ...]  # words that the run's dataset has not
    flags: tuple[str, ...]  # what is doubtful: "silent", "clipped", "cut_audio", "equal_segments", ...
    classes: tuple[str, ...]
    replicas: Float[np.ndarray, "R C"]  # probabilities by replica and class

    @property
    def probabilities(self) -> Float[np.ndarray, " C"]:
        """The mean over the replicas."""
        return self.replicas.mean(0)

    @property
    def std(self) -> Float[np.ndarray, " C"]:
        """The standard deviation over the replicas."""
        return self.replicas.std(0)

    @property
    def label(self) -> str:
        """The class of the highest mean probability."""
        return self.classes[self.probabilities.argmax()]

    @property
    def agreement(self) -> float:
        """The share of the replicas that would choose the same class, in [0, 1]."""
        return float((self.replicas.argmax(1) == self.probabilities.argmax()).mean())


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The networks of a finished run; `jaxser.load` makes it."""

    folder: Path
    results: Mapping[str, Any]  # results.json
    classes: tuple[str, ...]
    members: tuple[tuple[str, int], ...]  # fold and seed of each replica
    model: Network
    recipe: Recipe
    arrays: Mapping[str, ArraySpec]  # of what the network reads
    normalise: str
    vocabulary: Vocabulary
    embeddings: Any  # Float[Array, "V E"], or None where no words are read
    replicas: Replica

    def __repr__(self) -> str:
        folds, seeds = (", ".join(map(str, dict.fromkeys(of))) for of in zip(*self.members, strict=True))
        replicas = f"{len(self.members)} replicas (folds {folds}; seeds {seeds})"
        classes = ", ".join(self.classes)
        return f"<{self.folder}: {type(self.model).__name__}, {replicas}, classes {classes}>"

    def predict(
        self,
        *paths: str | Path,
        text: Text = None,
        window: float | None = None,
        hop: float | None = None,
        files: Mapping[str, str | Path] | None = None,
        resnet: str | Path | None = None,
    ) -> list[Prediction]:
        """The probabilities of recordings (files, or folders of them), one prediction a window.

        `text` is what is said: a string, words with times, a function such as `faster_whisper(folder)`, or by default
        the file beside the recording that ends in `.txt`. `window` and `hop` are in seconds; a window of 0 takes each
        recording whole, and by default longer ones are cut at the recipe's maximum where their words have times.
        `files` are folders of features made elsewhere, by `frames`, `video` or `prosody`.

        Raises:
            InputError: a recording cannot be used, or lacks what the run reads.
            UsageError: what is asked cannot be.
        """
        found = find(paths)
        reader = self.reader(found, window=window, hop=hop, files=files, resnet=resnet)
        return self.predict_windows([one for path in found for one in reader.read(path, text)])

    def attention(
        self,
        path: str | Path,
        *,
        text: Text = None,
        window: float | None = None,
        hop: float | None = None,
        files: Mapping[str, str | Path] | None = None,
        resnet: str | Path | None = None,
    ) -> list[Attention]:
        """What the networks attend to in a recording, window by window; arguments and errors are `predict`'s."""
        reader = self.reader([Path(path)], window=window, hop=hop, files=files, resnet=resnet)
        return [self.attention_in(one) for one in reader.read(path, text)]

    def reader(
        self,
        paths: Sequence[Path],
        *,
        window: float | None = None,
        hop: float | None = None,
        files: Mapping[str, str | Path] | None = None,
        resnet: str | Path | None = None,
    ) -> Reader:
        """How the run reads these recordings."""
        for name, seconds, least in (("window", window, 0.0), ("hop", hop, 0.01)):
            if seconds is not None and not least <= seconds < float("inf"):
                raise UsageError(f"--{name}={seconds:g}: must be seconds, {least:g} or more")
        widths = {name: int(spec.shape[-1] or 0) for name, spec in self.arrays.items()}
        made = self.recipe.parameters.get("sources", {})
        identities = (path.stem for path in paths)
        sources = open_elsewhere(self.recipe, widths, made, identities, files or {}, resnet)
        return Reader(self.recipe, self.model.needs, self.vocabulary, sources, window, hop)

    def predict_windows(self, windows: Sequence[Window]) -> list[Prediction]:
        """The predictions of windows that were read, in their order."""
        return [
            Prediction(
                path=window.path,
                start=window.start,
                end=window.end,
                text=window.utterance.transcript,
                unknown=window.unknown,
                flags=window.flags,
                classes=self.classes,
                replicas=probabilities,
            )
            for window, probabilities in zip(windows, self.probabilities(windows), strict=True)
        ]

    def probabilities(self, windows: Sequence[Window]) -> Float[np.ndarray, "N R C"]:
        """Every replica's probabilities of the classes."""
        found = np.empty((len(windows), len(self.members), len(self.classes)))
        for rows, arrays, lengths in self._batches(windows):
            log_probs = self._log_probs(self.replicas, arrays, lengths)
            found[rows] = np.exp(np.asarray(log_probs, np.float64)).swapaxes(0, 1)[: len(rows)]
        return found

    def attention_in(self, window: Window) -> Attention:
        """What the networks attend to in a window that was read."""
        [(_, arrays, lengths)] = self._batches([window])
        found = jax.device_get(self._mean_attention(self.replicas, arrays, lengths))
        shown = {name: int(of[0]) for name, of in lengths.items()}
        return Attention(
            path=window.path,
            start=window.start,
            end=window.end,
            samples=window.samples,
            seconds=min(len(window.samples), self.recipe.parameters["max_frames"] * HOP) / SAMPLE_RATE,
            words=window.words,
            timed=window.utterance.words or (),
            weights={name: _trimmed(x[0], self._axes[name], shown) for name, x in found.items()},
            axes=self.axes,
        )

    @cached_property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """What the axes of each attention run over: an array of the recipe, or "" (heads)."""
        return {name: tuple(axis.array for axis in axes) for name, axes in self._axes.items()}

    @cached_property
    def _axes(self) -> dict[str, tuple[Axis, ...]]:
        """Found by making one array after the other longer."""
        probes = {name: self.model.lengths.get(name, _PROBES.get(name, 9)) for name in self.model.needs}
        shapes = self._attention_shapes(probes)
        axes = {name: [Axis("", Fraction(1))] * len(shape) for name, shape in shapes.items()}
        for together in ({"words", "segment_lengths"}, {"audio"}, {"segments"}, {"video"}):
            if not together & probes.keys():
                continue
            wider = {name: width * (2 if name in together else 1) for name, width in probes.items()}
            for name, shape in self._attention_shapes(wider).items():
                for place, (size, before) in enumerate(zip(shape, shapes[name], strict=True)):
                    if size != before:
                        array = min(together, key=len)
                        axes[name][place] = Axis(array, Fraction(size - before, probes[array]))
        return {name: tuple(of) for name, of in axes.items()}

    def forward(
        self, replica: Replica, arrays: Mapping[str, AnyArray], lengths: Mapping[str, AnyArray]
    ) -> Output:
        """A replica's output for features as the recipe makes them, padded, and their lengths."""
        variables = {"params": replica.params, "batch_stats": replica.batch_stats}
        batch = self._batch(arrays, lengths, replica.normalisation)
        output, _ = self.model.apply(variables, batch, replica.hyper, train=False, mutable=[])
        return output

    def _batch(self, arrays, lengths, normalisation: Mapping[str, Normalisation]) -> Batch:
        fields: dict[str, Array] = {}
        for name, x in arrays.items():
            mask = jnp.arange(x.shape[1]) < lengths[name][:, None]
            statistics = normalisation.get(name)
            if self.normalise == "utterance" and is_standardised(name, x.dtype):
                statistics = Normalisation(*own_statistics(x, mask))
            fields |= {name: normalised(x, mask, statistics), f"{name}_mask": mask}
        size = next(iter(lengths.values()))
        weight = (size > 0).astype(jnp.float32)
        return Batch(label=jnp.zeros_like(size), weight=weight, embeddings=self.embeddings, **fields)

    @cached_property
    def _log_probs(self):
        each = STRATEGIES["map" if jax.default_backend() == "cpu" else "vmap"]

        def of_all(replicas, arrays, lengths) -> Float[Array, "R B C"]:
            return each(lambda one: self.forward(one, arrays, lengths).log_probs, replicas)

        return _explained(jax.jit(of_all), self.folder)

    @cached_property
    def _mean_attention(self):
        def of_all(replicas, arrays, lengths):
            def add(total, one):
                return jax.tree.map(jnp.add, total, self.forward(one, arrays, lengths).attention), None

            first = jax.tree.map(lambda x: x[0], replicas)
            shapes = jax.eval_shape(lambda: self.forward(first, arrays, lengths).attention)
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            return jax.tree.map(lambda x: x / len(self.members), jax.lax.scan(add, zeros, replicas)[0])

        return _explained(jax.jit(of_all), self.folder)

    def _attention_shapes(self, widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The shapes of the attention, without the batch, for arrays of these lengths."""
        arrays = {
            name: jax.ShapeDtypeStruct((1, width, *self.arrays[name].shape[1:]), self.arrays[name].dtype)
            for name, width in widths.items()
        }
        lengths = dict.fromkeys(widths, jax.ShapeDtypeStruct((1,), jnp.int32))
        replica = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.replicas)

        def attend(key, replica, arrays, lengths):
            batch = self._batch(arrays, lengths, replica.normalisation)
            keys = {"params": key, "dropout": key}
            return self.model.init_with_output(keys, batch, replica.hyper, train=False)[0].attention

        found = jax.eval_shape(attend, jax.random.key(0), replica, arrays, lengths)
        return {name: x.shape[1:] for name, x in found.items()}

    def _batches(
        self, windows: Sequence[Window]
    ) -> Iterator[tuple[Int[np.ndarray, " n"], dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """The rows of each batch, their arrays and lengths, in few shapes, so that little is compiled."""
        if not windows:
            return
        needs, everything = self.model.needs, np.arange(len(windows))
        lengths = {name: np.array([len(one.arrays[name]) for one in windows]) for name in needs}
        size = min(BATCH_SIZE, _rounded(len(windows)))
        buckets = make_buckets(lengths, BUCKETS, size, fixed=self.model.lengths)
        plan = buckets.evaluation_plan(everything, buckets.batches([everything]))
        for bucket, rows, weight in zip(*plan, strict=True):
            rows = rows[weight > 0]
            widths = buckets.widths[bucket]
            if not self.model.lengths:
                widths = {name: _rounded(width) for name, width in widths.items()}
            chosen = [windows[row] for row in rows]
            yield rows, *padded(chosen, {name: widths[name] for name in needs}, size)


def _explained(program, folder: Path):
    """A program whose parameters may not fit the network: that is said in a line."""

    def run(*arguments):
        try:
            return program(*arguments)
        except flax.errors.FlaxError as error:
            raise InputError(
                f"{folder}: its parameters do not fit this jaxser's network ({' '.join(str(error).split())[:120]}...)"
            ) from None

    return run


def _rounded(size: int) -> int:
    """The next 2^k or 3 * 2^k."""
    step = 1 << max((size - 1).bit_length() - 2, 0)
    return -(-size // step) * step


def padded(
    windows: Sequence[Window], widths: Mapping[str, int], size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Arrays of `size` rows and their lengths; what is longer than a fixed width is cut."""
    arrays, lengths = {}, {}
    for name, width in widths.items():
        values = [window.arrays[name][:width] for window in windows]
        arrays[name] = np.zeros((size, width, *values[0].shape[1:]), values[0].dtype)
        lengths[name] = np.zeros(size, np.int32)
        for row, own in enumerate(values):
            arrays[name][row, : len(own)] = own
            lengths[name][row] = len(own)
    return arrays, lengths


def _trimmed(
    weights: Shaped[np.ndarray, ...], axes: Sequence[Axis], lengths: Mapping[str, int]
) -> Shaped[np.ndarray, ...]:
    """Attention without the padding of its axes."""
    sizes = [max(1, int(lengths[axis.array] * axis.share)) if axis.array else None for axis in axes]
    return weights[tuple(slice(size) for size in sizes)]
