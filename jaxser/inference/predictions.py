"""What the networks of a run predict for a window of a recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


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
    """The attributes of one window of a recording, on the scale of the run's corpus.

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
