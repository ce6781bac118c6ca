"""What the parts of jaxser hand to each other, and the glossary of shapes.

`N` utterances, `B` batch, `T` frames, `L` words, `S` frames of a word segment, `D` features, `E` embedding size,
`H` hidden, `K` heads, `V` vocabulary, `C` classes; suffixes `Ta Tt Tv` where modalities meet. `R` (replicas) appears
in `sweep.py` alone. Masks are True where valid. Times are in seconds. Metrics are fractions in [0, 1].

WA = accuracy over all utterances. UA (= UAR) = mean of the per-class recalls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

AnyArray = np.ndarray | Array
"""On the host or on a device."""

Hyper = Mapping[str, Any]
"""Traced float32 scalars of one replica by name (`learning_rate`, `dropout_rate`, ...): what can be swept."""


class UsageError(ValueError):
    """The user asked for something that cannot be: one line that says what, where, and what to do (exit status 2)."""


class InputError(ValueError):
    """A file of the user's cannot be used: one line that says which, why, and what to do (exit status 1)."""


@dataclass(frozen=True)
class Word:
    """A spoken word and its time in the utterance's own wav, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """One utterance as its corpus has it; a reader in `data_prep` yields these and nothing else."""

    id: str
    wav: str  # relative to the corpus root
    label: str  # the corpus's own name of the emotion
    transcript: str = ""
    words: tuple[Word, ...] | None = None  # None: the corpus gives no usable alignment
    speaker: str = ""
    gender: str = ""  # "F", "M" or ""
    session: str = ""
    dialogue: str = ""
    split: str = ""  # the official one: "train", "validation", "test" or ""
    votes: tuple[str, ...] = ()
    attributes: Mapping[str, float] = field(default_factory=dict)  # valence, activation, dominance
    flags: tuple[str, ...] = ()  # what is doubtful: "no_alignment", "bad_alignment", ...
    sha256: str = ""  # of the audio file's bytes; filled in when it is read
    duration: float | None = None  # of the sound, s; filled in when it is read


@dataclass(frozen=True)
class Rejection:
    """Why something of a corpus is not used: a line of `rejected.jsonl`."""

    id: str
    where: str  # the file, relative to the corpus root, with a line number where there is one
    reason: str


@dataclass(frozen=True)
class Reading:
    """What a corpus reader found under a root."""

    utterances: tuple[Utterance, ...]
    rejected: tuple[Rejection, ...] = ()
    expected: Mapping[str, int] = field(default_factory=dict)  # utterances by label in the genuine release
    facts: Mapping[str, Any] = field(
        default_factory=dict
    )  # kept in the manifest (the demo's best possible accuracies)
    folds: tuple[Mapping[str, Any], ...] = ()  # the corpus's own: ids by name, train, validation, test


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequences of different lengths laid end to end: that of row n is `values[offset[n] : offset[n] + length[n]]`."""

    values: Shaped[np.ndarray, "total ..."]
    length: Int[np.ndarray, " N"]

    @property
    def offset(self) -> Int[np.ndarray, " N"]:
        return np.concatenate([[0], np.cumsum(self.length)[:-1]]).astype(np.int32)

    def __getitem__(self, row: int | np.integer) -> Shaped[np.ndarray, "length ..."]:
        start = int(self.length[:row].sum())
        return self.values[start : start + int(self.length[row])]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared utterances under a recipe, with the label set chosen at loading."""

    name: str
    recipe: str
    version: str
    classes: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    label: Int[np.ndarray, " N"]
    arrays: Mapping[str, Ragged]  # "audio": float32 [total, D]; "words": int32 [total]
    vocabulary: tuple[str, ...] = ()
    embeddings: Float[np.ndarray, "V E"] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)  # utterances by label outside the label set
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def column(self, name: str) -> np.ndarray:
        """A field of every utterance, such as `speaker`, as an array of N strings."""
        return np.array([getattr(utterance, name) for utterance in self.utterances], dtype=str)


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows of a dataset: what is trained on, what selects the epoch, and what is reported."""

    name: str
    train: Int[np.ndarray, " n_train"]
    validation: Int[np.ndarray, " n_validation"]
    test: Int[np.ndarray, " n_test"]


ABSENT: Any = None
"""The value of a batch's field that its recipe does not have."""


class Batch(NamedTuple):
    """What a model sees of B utterances. A model states which of these it needs; a recipe which it has.

    Each array comes with its mask; frames are normalised, and zero where padded. A filler is masked as a whole.
    """

    label: Int[AnyArray, " B"]
    weight: Float[AnyArray, " B"]  # 0 = filler
    audio: Float[Array, "B Ta D"] = ABSENT
    audio_mask: Bool[Array, "B Ta"] = ABSENT
    words: Int[Array, "B Tt"] = ABSENT
    words_mask: Bool[Array, "B Tt"] = ABSENT
    segments: Float[Array, "B Ts Ds"] = ABSENT  # the frames of an utterance's words, one word after the other
    segments_mask: Bool[Array, "B Ts"] = ABSENT
    segment_lengths: Int[Array, "B Tt"] = ABSENT  # frames of each word; 0 where padded
    segment_lengths_mask: Bool[Array, "B Tt"] = ABSENT
    video: Float[Array, "B Tv Dv"] = ABSENT
    video_mask: Bool[Array, "B Tv"] = ABSENT
    prosody: Float[Array, "B 1 Dp"] = ABSENT  # functionals of the whole utterance
    prosody_mask: Bool[Array, "B 1"] = ABSENT
    embeddings: Float[Array, "V E"] = ABSENT  # word vectors, shared by all replicas


class Output(NamedTuple):
    """What a model returns; `log_probs` follow the model's own inference rule."""

    log_probs: Float[Array, "B C"]
    logits: Mapping[str, Float[Array, "B C"]]
    attention: Mapping[str, Float[Array, "B ..."]]


class Normalisation(NamedTuple):
    """z-scores: statistics of the training fold's valid frames."""

    mean: Float[AnyArray, " D"]
    std: Float[AnyArray, " D"]


class Plateau(NamedTuple):
    """How a schedule that watches the validation loss stands."""

    scale: Float[AnyArray, ""]  # factor on the learning rate
    loss: Float[AnyArray, ""]  # the best so far
    bad_epochs: Int[AnyArray, ""]


class Best(NamedTuple):
    """The selected epoch of a replica, in buffers of its own."""

    params: PyTree
    batch_stats: PyTree
    metric: Float[Array, ""]
    loss: Float[Array, ""]
    epoch: Int[Array, ""]


class ReplicaState(NamedTuple):
    """One training run: everything that changes, and what of its fold it needs."""

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    hyper: Hyper
    key: PRNGKeyArray
    epoch: Int[Array, ""]
    step: Int[Array, ""]
    best: Best
    bad_epochs: Int[Array, ""]
    plateau: Plateau
    status: Int[Array, ""]  # RUNNING, STOPPED or NOT_FINITE
    normalisation: Mapping[str, Normalisation]
    class_weights: Float[Array, " C"]


class Trained(NamedTuple):
    """What is kept of a replica that has ended: enough to predict."""

    best: Best
    hyper: Hyper
    normalisation: Mapping[str, Normalisation]
    status: Int[AnyArray, ""]

    @classmethod
    def of(cls, state: ReplicaState) -> Trained:
        return cls(state.best, state.hyper, state.normalisation, state.status)


RUNNING, STOPPED, NOT_FINITE = 0, 1, 2
