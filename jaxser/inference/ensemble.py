"""The trained networks of a run, which predict together.

They are all replicas of the reported setting, or some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, NamedTuple

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from jaxser.data.batch_schedule import make_buckets
from jaxser.data.normalisation import is_standardised, normalised, utterance_statistics
from jaxser.evaluation.results import RunResults
from jaxser.evaluation.targets import CLASSES, Target
from jaxser.features.audio import SAMPLE_RATE
from jaxser.features.recipes import ArraySpec, Recipe
from jaxser.features.text import Vocabulary
from jaxser.inference.attention_plots import Attention
from jaxser.inference.recordings import Reader, Text, Window, find_recordings, open_encoder, open_precomputed
from jaxser.models.encoded import Encoded
from jaxser.models.network import Network
from jaxser.training.mesh import STRATEGIES
from jaxser.types import (
    ABSENT,
    AnyArray,
    AttentionMap,
    Axis,
    Batch,
    FieldError,
    Hyper,
    InputError,
    Normalisation,
    Output,
    UsageError,
)

BATCH_SIZE = 32
BUCKETS = 4  # groups of similar length within one call

_TRACED_STEPS = 1000
"""The length of the sequences over which a network is traced for its attention axes; longer than any pooling window."""


class ReplicaParameters(NamedTuple):
    """The arrays that one replica predicts with.

    For several replicas, the leaves are stacked along the first axis.
    """

    params: PyTree
    batch_stats: PyTree
    normalisation: Mapping[str, Normalisation]
    hyper: Hyper


@dataclass(frozen=True, eq=False)
class WindowPrediction:
    """The prediction for one window of a recording.

    Attributes:
        path: the recording.
        start: the start of the window, in seconds.
        end: the end of the window, in seconds.
        text: the transcript of the window.
        unknown: words that are not in the vocabulary of the run's dataset.
        flags: quality flags, such as "silent", "clipped", "cut_audio" or "equal_segments".
    """

    path: str
    start: float
    end: float
    text: str
    unknown: tuple[str, ...]
    flags: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Prediction(WindowPrediction):
    """The class probabilities of one window of a recording.

    Attributes:
        classes: the names of the classes.
        replicas: the probabilities of each replica.
    """

    classes: tuple[str, ...]
    replicas: Float[np.ndarray, "R C"]

    @property
    def probabilities(self) -> Float[np.ndarray, " C"]:
        """The mean probabilities over the replicas."""
        return self.replicas.mean(0)

    @property
    def std(self) -> Float[np.ndarray, " C"]:
        """The standard deviation of the probabilities over the replicas."""
        return self.replicas.std(0)

    @property
    def label(self) -> str:
        """The class with the highest mean probability."""
        return self.classes[self.probabilities.argmax()]

    @property
    def summary(self) -> str:
        """The label."""
        return self.label

    @property
    def agreement(self) -> float:
        """The fraction of replicas that predict `label` by themselves."""
        return float((self.replicas.argmax(1) == self.probabilities.argmax()).mean())


@dataclass(frozen=True, eq=False)
class AttributePrediction(WindowPrediction):
    """The attributes of one window of a recording, such as valence, on the scale of the run's corpus.

    Attributes:
        attributes: the names of the attributes.
        replicas: the values of each replica.
    """

    attributes: tuple[str, ...]
    replicas: Float[np.ndarray, "R A"]

    @property
    def values(self) -> Float[np.ndarray, " A"]:
        """The mean values over the replicas."""
        return self.replicas.mean(0)

    @property
    def std(self) -> Float[np.ndarray, " A"]:
        """The standard deviation of the values over the replicas."""
        return self.replicas.std(0)

    @property
    def summary(self) -> str:
        """The mean values in words, such as "valence 3.10, activation 2.75"."""
        return ", ".join(
            f"{name} {value:.2f}" for name, value in zip(self.attributes, self.values, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The networks of a finished run, as `jaxser.load` returns them.

    Attributes:
        folder: the folder of the run.
        run_results: the results of the run.
        classes: the names of the classes.
        target: what the networks predict.
        members: fold and seed of each replica.
        model: the network that all replicas share.
        recipe: the recipe of the run's dataset.
        arrays: dtype and shape of the arrays that the network reads.
        normalise: the config's `normalise`.
        vocabulary: the words of the run's dataset.
        embeddings: the word vectors, [V, E]; None if the network reads no words.
        replicas: the parameters of all replicas, stacked.
    """

    folder: Path
    run_results: RunResults
    classes: tuple[str, ...]
    target: Target
    members: tuple[tuple[str, int], ...]
    model: Network
    recipe: Recipe
    arrays: Mapping[str, ArraySpec]
    normalise: str
    vocabulary: Vocabulary
    embeddings: Any
    replicas: ReplicaParameters

    def __repr__(self) -> str:
        folds, seeds = (", ".join(map(str, dict.fromkeys(of))) for of in zip(*self.members, strict=True))
        replicas = f"{len(self.members)} replicas (folds {folds}; seeds {seeds})"
        names = ", ".join(self.target.names)
        return f"<{self.folder}: {type(self.model).__name__}, {replicas}, {self.target.kind} {names}>"

    @property
    def results(self) -> dict[str, Any]:
        """The contents of results.json."""
        return self.run_results.to_json()

    def predict(
        self,
        *paths: str | Path,
        text: Text = None,
        window: float | None = None,
        hop: float | None = None,
        files: Mapping[str, str | Path] | None = None,
        resnet: str | Path | None = None,
        encoder: str | Path | None = None,
    ) -> list[Prediction] | list[AttributePrediction]:
        """Predict the emotion of recordings, with one prediction per window.

        A run of classes gives a `Prediction`, and one of attributes such as valence an `AttributePrediction`.

        Args:
            paths: audio or video files, or folders of them.
            text: the transcript: a string, words with times, or a function that transcribes, such as
                `faster_whisper(folder)`. By default it is read from the `.txt` file beside the recording.
            window: seconds per window; 0 for whole recordings. By default, recordings longer than the recipe's maximum
                are cut into windows of that length, if the times of their words are known.
            hop: seconds from one window to the next; by default, `window`.
            files: folders or HDF5 files of precomputed features, by flag (`frames`, `video` or `prosody`).
            resnet: the ONNX network that extracts video features.
            encoder: the folder of the pretrained encoder whose frames the run reads. A run that was trained on
                waveforms has its encoder from `jaxser.load`.

        Raises:
            InputError: if a recording cannot be used, or lacks something that the network reads.
            UsageError: if the arguments are not valid for this run.
        """
        found = find_recordings(paths)
        reader = self.reader(found, window=window, hop=hop, files=files, resnet=resnet, encoder=encoder)
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
        encoder: str | Path | None = None,
    ) -> list[Attention]:
        """Compute the attention weights for a recording, window by window.

        Arguments and errors are those of `predict`.
        """
        reader = self.reader(
            [Path(path)], window=window, hop=hop, files=files, resnet=resnet, encoder=encoder
        )
        return [self.attention_in(one) for one in reader.read(path, text)]

    def reader(
        self,
        paths: Sequence[Path],
        *,
        window: float | None = None,
        hop: float | None = None,
        files: Mapping[str, str | Path] | None = None,
        resnet: str | Path | None = None,
        encoder: str | Path | None = None,
    ) -> Reader:
        """Create the reader of these recordings; arguments and errors as in `predict`."""
        for name, seconds, minimum in (("window", window, 0.0), ("hop", hop, 0.01)):
            if seconds is not None and not minimum <= seconds < float("inf"):
                raise UsageError(f"--{name}={seconds:g} must be at least {minimum:g} seconds")
        widths = {name: int(spec.shape[-1] or 0) for name, spec in self.arrays.items()}
        made = self.recipe.parameters.get("sources", {})
        identities = (path.stem for path in paths)
        sources = open_precomputed(self.recipe, widths, made, identities, files or {}, resnet)
        opened = None if self.encoder else open_encoder(self.recipe, encoder)
        return Reader(self.recipe, self.model.needs, self.vocabulary, sources, opened, window, hop)

    def predict_windows(self, windows: Sequence[Window]) -> list[Prediction] | list[AttributePrediction]:
        """Predict windows that a `Reader` has read, in their order."""
        kind: Any = Prediction if self.target.kind == CLASSES else AttributePrediction
        return [
            kind(
                window.path,
                window.start,
                window.end,
                window.utterance.transcript,
                window.unknown,
                window.flags,
                self.target.names,
                replicas,
            )
            for window, replicas in zip(windows, self.outputs(windows), strict=True)
        ]

    def outputs(self, windows: Sequence[Window]) -> Float[np.ndarray, "N R K"]:
        """Compute the class probabilities, or the attributes, of every window by every replica."""
        found = np.empty((len(windows), len(self.members), len(self.target.names)))
        for rows, arrays, lengths in self._batches(windows):
            outputs = self._outputs(self.replicas, arrays, lengths, self.encoder)
            found[rows] = self.target.readable(np.asarray(outputs, np.float64)).swapaxes(0, 1)[: len(rows)]
        return found

    def attention_in(self, window: Window) -> Attention:
        """Compute the attention weights for a window that a `Reader` has read."""
        [(_, arrays, lengths)] = self._batches([window])
        found: dict[str, AttentionMap] = jax.device_get(
            self._mean_attention(self.replicas, arrays, lengths, self.encoder)
        )
        valid = {name: int(own[0]) for name, own in lengths.items()}
        return Attention(
            path=window.path,
            start=window.start,
            end=window.end,
            samples=window.samples,
            seconds=min(len(window.samples), self.recipe.max_samples) / SAMPLE_RATE,
            words=window.words,
            timed=window.utterance.words or (),
            weights={name: _without_padding(one.weights[0], one.axes, valid) for name, one in found.items()},
            axes=self.axes,
        )

    @cached_property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """What the axes of each attention layer run over: an array of the recipe, or "" (heads)."""
        trace = self._reporting_misfits(lambda *inputs: jax.eval_shape(self.forward, *inputs))
        attention: dict[str, AttentionMap] = trace(
            self.replica_shapes(), *self.input_shapes(), self.encoder
        ).attention
        return {name: tuple(axis.array for axis in one.axes) for name, one in attention.items()}

    def input_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], dict[str, jax.ShapeDtypeStruct]]:
        """Return the shapes of a long recording's arrays and lengths, for tracing the network."""
        steps = {name: self.model.lengths.get(name, _TRACED_STEPS) for name in self.model.needs}
        steps |= {"prosody": 1} if "prosody" in steps else {}
        if isinstance(self.model, Encoded):
            steps["waveform"] *= self.model.base.hop
        arrays = {
            name: jax.ShapeDtypeStruct((1, length, *self.arrays[name].shape[1:]), self.arrays[name].dtype)
            for name, length in steps.items()
        }
        return arrays, dict.fromkeys(steps, jax.ShapeDtypeStruct((1,), jnp.int32))

    def replica_shapes(self) -> ReplicaParameters:
        """Return the shapes of the parameters of one replica."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.replicas)

    @property
    def encoder(self) -> PyTree:
        """The pretrained parameters of the encoder in front of the network, or None."""
        return self.model.base.params if isinstance(self.model, Encoded) else None

    def forward(
        self,
        replica: ReplicaParameters,
        arrays: Mapping[str, AnyArray],
        lengths: Mapping[str, AnyArray],
        encoder: PyTree = ABSENT,
    ) -> Output:
        """Apply one replica to padded features, before normalisation, and their lengths."""
        variables = {"params": replica.params, "batch_stats": replica.batch_stats}
        batch = self.batch(arrays, lengths, replica.normalisation, encoder)
        output, _ = self.model.apply(variables, batch, replica.hyper, train=False, mutable=[])
        return output

    def estimates(
        self,
        replica: ReplicaParameters,
        arrays: Mapping[str, AnyArray],
        lengths: Mapping[str, AnyArray],
        encoder: PyTree = ABSENT,
    ) -> Float[Array, "B K"]:
        """Return one replica's log-probabilities, or attributes; arguments as of `forward`."""
        output = self.forward(replica, arrays, lengths, encoder)
        return self.target.estimates(self.model, output, replica.hyper)

    def batch(
        self,
        arrays: Mapping[str, AnyArray],
        lengths: Mapping[str, AnyArray],
        normalisation: Mapping[str, Normalisation],
        encoder: PyTree = ABSENT,
    ) -> Batch:
        """Return the batch that the network reads: padded features with their masks, normalised."""
        fields: dict[str, Array] = {}
        for name, x in arrays.items():
            mask = jnp.arange(x.shape[1]) < lengths[name][:, None]
            statistics, pads_first = normalisation.get(name), self.model.pads_first
            if self.normalise == "utterance" and is_standardised(name, x.dtype):
                statistics, pads_first = (
                    Normalisation(*utterance_statistics(x, mask)),
                    False,
                )  # as in training
            x = normalised(x, mask, statistics, pads_first=pads_first)
            fields |= {name: x, f"{name}_mask": mask}
        size = next(iter(lengths.values()))
        weight = (size > 0).astype(jnp.float32)
        return Batch(
            label=jnp.zeros_like(size),
            weight=weight,
            embeddings=self.embeddings,
            encoder=encoder,
            **fields,
        )

    @cached_property
    def _outputs(self) -> Callable[..., Any]:
        """The compiled program from all replicas and a batch to log-probabilities, or attributes."""
        strategy = STRATEGIES["map" if jax.default_backend() == "cpu" else "vmap"]

        def outputs(replicas, arrays, lengths, encoder) -> Float[Array, "R B K"]:
            return strategy(lambda one: self.estimates(one, arrays, lengths, encoder), replicas)

        return self._reporting_misfits(jax.jit(outputs))

    @cached_property
    def _mean_attention(self) -> Callable[..., Any]:
        """The compiled program from all replicas and a batch to attention maps; replicas are added up one by one."""

        def mean_attention(replicas, arrays, lengths, encoder):
            def add(total, one):
                return jax.tree.map(
                    jnp.add, total, self.forward(one, arrays, lengths, encoder).attention
                ), None

            first = jax.tree.map(lambda x: x[0], replicas)
            shapes = jax.eval_shape(lambda: self.forward(first, arrays, lengths, encoder).attention)
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            total, _ = jax.lax.scan(add, zeros, replicas)
            return jax.tree.map(lambda x: x / len(self.members), total)

        return self._reporting_misfits(jax.jit(mean_attention))

    def _reporting_misfits(self, program: Callable[..., Any]) -> Callable[..., Any]:
        """Return the program, with a one-line error if the saved parameters or fields do not fit the network."""

        @wraps(program)
        def run(*arguments):
            try:
                return program(*arguments)
            except FieldError as error:
                raise InputError(f"{self.folder}: its network cannot be built ({error})") from None
            except flax.errors.FlaxError as error:
                raise misfit(self.folder, " ".join(str(error).split())[:120] + "...") from None

        return run

    def _batches(
        self, windows: Sequence[Window]
    ) -> Iterator[tuple[Int[np.ndarray, " n"], dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Yield the rows, padded arrays and lengths of each batch, in few shapes, so that little is compiled."""
        if not windows:
            return
        needs, everything = self.model.needs, np.arange(len(windows))
        lengths = {name: np.array([len(one.arrays[name]) for one in windows]) for name in needs}
        size = min(BATCH_SIZE, _rounded(len(windows)))
        buckets = make_buckets(lengths, BUCKETS, size, fixed=self.model.lengths)
        schedule = buckets.evaluation_schedule(everything, buckets.batches([everything]))
        for bucket, rows, weight in zip(*schedule, strict=True):
            rows = rows[weight > 0]
            widths = buckets.widths[bucket]
            if not self.model.lengths:
                widths = {name: _rounded(width) for name, width in widths.items()}
            chosen = [windows[row] for row in rows]
            yield rows, *padded(chosen, {name: widths[name] for name in needs}, size)


def misfit(folder: Path, reason: str) -> InputError:
    """Return the error about saved parameters that are not those of the network."""
    return InputError(
        f"{folder}: its parameters do not fit the network of this version ({reason}); train again"
    )


def _rounded(size: int) -> int:
    """Return the next number of the form 2^k or 3 * 2^k."""
    step = 1 << max((size - 1).bit_length() - 2, 0)
    return -(-size // step) * step


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


def _without_padding(
    weights: Shaped[np.ndarray, ...], axes: Sequence[Axis], lengths: Mapping[str, int]
) -> Shaped[np.ndarray, ...]:
    """Cut each axis after its last whole step, or after the first one if there is none."""
    sizes = [max(1, lengths[axis.array] // axis.stride) if axis.array else None for axis in axes]
    return weights[tuple(slice(size) for size in sizes)]
