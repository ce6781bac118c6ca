"""The trained networks of a run, which predict together.

They are all replicas of the reported setting, or some of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from jaxser.evaluation.results import RunResults
from jaxser.evaluation.targets import ATTRIBUTES
from jaxser.features.audio import SAMPLE_RATE
from jaxser.features.recipes import Recipe
from jaxser.features.text import Vocabulary
from jaxser.inference.attention_plots import Attention
from jaxser.inference.batches import batches
from jaxser.inference.networks import TrainedNetworks
from jaxser.inference.predictions import AttributePrediction, Prediction
from jaxser.inference.recordings import Reader, Text, Window, find_recordings, open_encoder, open_precomputed
from jaxser.types import Axis, UsageError


@dataclass(frozen=True, eq=False)
class Ensemble(TrainedNetworks):
    """The networks of a finished run and its recipe, as `jaxser.load` returns them.

    The attributes of the networks are those of `TrainedNetworks`.

    Attributes:
        run_results: the results of the run.
        classes: the names of the classes.
        members: fold and seed of each replica.
        recipe: the recipe of the run's dataset.
        vocabulary: the words of the run's dataset.
    """

    run_results: RunResults
    classes: tuple[str, ...]
    members: tuple[tuple[str, int], ...]
    recipe: Recipe
    vocabulary: Vocabulary

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

        A run of classes or votes gives a `Prediction`, and one of attributes such as valence an `AttributePrediction`.

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
        kind: Any = AttributePrediction if self.target.kind == ATTRIBUTES else Prediction
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
        for rows, arrays, lengths in batches(windows, self.model.needs, self.model.lengths):
            found[rows] = self.predictions(arrays, lengths).swapaxes(0, 1)[: len(rows)]
        return found

    def attention_in(self, window: Window) -> Attention:
        """Compute the attention weights for a window that a `Reader` has read."""
        [(_, arrays, lengths)] = batches([window], self.model.needs, self.model.lengths)
        maps = self.mean_attention(arrays, lengths)
        valid = {name: int(own[0]) for name, own in lengths.items()}
        return Attention(
            path=window.path,
            start=window.start,
            end=window.end,
            samples=window.samples,
            seconds=min(len(window.samples), self.recipe.max_samples) / SAMPLE_RATE,
            words=window.words,
            timed=window.utterance.words or (),
            weights={name: _without_padding(one.weights[0], one.axes, valid) for name, one in maps.items()},
            axes=self.axes,
        )


def _without_padding(
    weights: Shaped[np.ndarray, ...], axes: Sequence[Axis], lengths: Mapping[str, int]
) -> Shaped[np.ndarray, ...]:
    """Cut each axis after its last whole step, or after the first one if there is none."""
    sizes = [max(1, lengths[axis.array] // axis.stride) if axis.array else None for axis in axes]
    return weights[tuple(slice(size) for size in sizes)]
