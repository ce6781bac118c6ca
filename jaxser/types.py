"""Shared data types, and the glossary of shapes.

`N` utterances, `B` batch, `T` frames, `L` words, `S` frames of a word segment, `D` features, `E` embedding size,
`H` hidden, `K` heads, `V` vocabulary, `C` classes; suffixes `Ta Tt Tv` where modalities meet. `R`, the number of
replicas, appears in `jaxser.training.sweep` only. Masks are True where valid. Times are in seconds. Metrics are
fractions in [0, 1].

WA is the accuracy over all utterances; UA (also called UAR) is the mean of the per-class recalls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

AnyArray = np.ndarray | Array
"""An array on the host or on a device."""

Hyper = Mapping[str, Any]
"""Hyper-parameters of one replica by name (`learning_rate`, `dropout_rate`, ...): traced float32 scalars, so that they
can be swept within one program."""


class UsageError(ValueError):
    """Wrong usage.

    The message is one line: what is wrong, where, and what to do. Commands exit with status 2.
    """


class FieldError(UsageError):
    """A field of a network has an unsupported value.

    An example is a number of heads that does not divide the features. The message begins with `field=value`; whoever
    built the network from a config adds the config's path.
    """


class InputError(ValueError):
    """An input file cannot be used.

    The message is one line: which file, why, what to do. Commands exit with status 1.
    """


@dataclass(frozen=True)
class Word:
    """A spoken word and its start and end in the utterance's recording, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """One utterance, as a corpus reader in `data_prep.corpora` returns it."""

    id: str
    wav: str  # relative to the corpus root
    label: str  # the corpus's own name for the emotion
    transcript: str = ""
    words: tuple[Word, ...] | None = None  # None: the corpus has no usable alignment
    speaker: str = ""
    gender: str = ""  # "F", "M" or ""
    session: str = ""
    dialogue: str = ""
    split: str = ""  # official split: "train", "validation", "test" or ""
    votes: tuple[str, ...] = ()
    attributes: Mapping[str, float] = field(default_factory=dict)  # valence, activation, dominance
    flags: tuple[str, ...] = ()  # quality flags: "no_alignment", "bad_alignment", ...
    sha256: str = ""  # of the audio file's bytes; set when the file is read
    duration: float | None = None  # of the audio, in seconds; set when the file is read


@dataclass(frozen=True)
class Rejection:
    """An item of a corpus that is not used, and why: one line of `rejected.jsonl`."""

    id: str
    where: str  # the file, relative to the corpus root, with its line number if it has one
    reason: str


@dataclass(frozen=True)
class Reading:
    """The contents of a corpus, as its reader returns them.

    Attributes:
        utterances: the utterances that can be used.
        rejected: the utterances that cannot be used.
        expected: the number of utterances per label in the original release.
        facts: what the manifest keeps, such as the demo's best possible scores.
        folds: the corpus's own folds: their names, and the ids of the training, validation and test parts.
        ignored: files and lines about utterances that are used without them, such as a contradictory alignment.
        copies: the number of byte-identical copies of utterances, which count once.
        warnings: sentences for the user.
    """

    utterances: tuple[Utterance, ...]
    rejected: tuple[Rejection, ...] = ()
    expected: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    folds: tuple[Mapping[str, Any], ...] = ()
    ignored: tuple[Rejection, ...] = ()
    copies: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequences of different lengths, concatenated.

    Row n is `values[offset[n] : offset[n] + length[n]]`.
    """

    values: Shaped[np.ndarray, "total ..."]
    length: Int[np.ndarray, " N"]

    @property
    def offset(self) -> Int[np.ndarray, " N"]:
        """The index of the first value of each row."""
        return np.concatenate([[0], np.cumsum(self.length)[:-1]]).astype(np.int32)

    def __getitem__(self, row: int | np.integer) -> Shaped[np.ndarray, "length ..."]:
        start = int(self.length[:row].sum())
        return self.values[start : start + int(self.length[row])]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Utterances prepared with a recipe, with the label set chosen when they are loaded."""

    name: str
    recipe: str
    version: str
    classes: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    label: Int[np.ndarray, " N"]  # -1: none of the classes, which attributes and votes allow
    arrays: Mapping[str, Ragged]  # "audio": float32 [total, D]; "words": int32 [total]
    vocabulary: tuple[str, ...] = ()
    embeddings: Float[np.ndarray, "V E"] | None = None
    encoder: Any = None  # the pretrained encoder that reads the waveforms, a `jaxser.encoders.Encoder`
    left_out: Mapping[str, int] = field(
        default_factory=dict
    )  # utterances per label that is not in the label set
    manifest: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None  # of the files; None if the dataset has none
    attributes: tuple[str, ...] = ()  # the names of the columns of `target`
    target: Float[np.ndarray, "N A"] | None = (
        None  # the attributes, or the votes for each class; None: the labels are predicted
    )
    sources: tuple[Dataset, ...] = ()  # without arrays, in order of rows; () if it is not merged of several
    raw: Mapping[str, Normalisation] = field(
        default_factory=dict
    )  # what the training datasets' arrays had before each dataset was normalised by itself

    def column(self, name: str) -> np.ndarray:
        """Return one field of all utterances, such as `speaker`, as an array of N strings."""
        return np.array([getattr(utterance, name) for utterance in self.utterances], dtype=str)


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows of a dataset: the parts for training, for selecting the epoch, and for testing."""

    name: str
    train: Int[np.ndarray, " n_train"]
    validation: Int[np.ndarray, " n_validation"]
    test: Int[np.ndarray, " n_test"]


ABSENT: Any = None
"""The value of a batch field that the recipe does not provide."""


class Batch(NamedTuple):
    """The input of a model: B utterances.

    A model declares which fields it needs, a recipe which it provides. Each array comes with its mask. Frames are
    normalised, and zero where padded. A padding row is masked as a whole.
    """

    label: Int[AnyArray, " B"]
    weight: Float[AnyArray, " B"]  # 1, or 0 for a padding row
    audio: Float[Array, "B Ta D"] = ABSENT
    audio_mask: Bool[Array, "B Ta"] = ABSENT
    words: Int[Array, "B Tt"] = ABSENT
    words_mask: Bool[Array, "B Tt"] = ABSENT
    segments: Float[Array, "B Ts Ds"] = ABSENT  # the frames of an utterance's words, concatenated
    segments_mask: Bool[Array, "B Ts"] = ABSENT
    segment_lengths: Int[Array, "B Tt"] = ABSENT  # frames of each word; 0 where padded
    segment_lengths_mask: Bool[Array, "B Tt"] = ABSENT
    video: Float[Array, "B Tv Dv"] = ABSENT
    video_mask: Bool[Array, "B Tv"] = ABSENT
    prosody: Float[Array, "B 1 Dp"] = ABSENT  # functionals over the whole utterance
    prosody_mask: Bool[Array, "B 1"] = ABSENT
    waveform: Int[Array, "B Tw"] = ABSENT  # 16-bit samples at 16 kHz
    waveform_mask: Bool[Array, "B Tw"] = ABSENT
    embeddings: Float[Array, "V E"] = ABSENT  # word vectors, shared by all replicas
    encoder: PyTree = ABSENT  # pretrained parameters, shared by all replicas
    target: Float[Array, "B A"] = ABSENT  # the attributes, or the votes for each class


class Axis(NamedTuple):
    """An axis of an attention map.

    Attributes:
        array: the batch field that it runs over, such as "audio" or "words"; "" if there is none, as for heads.
        stride: steps of that field per step of the axis, such as 9 after two poolings by 3.
    """

    array: str
    stride: int = 1


HEADS = Axis("")
"""The axis over the heads of an attention layer."""


@partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["axes"])
@dataclass(frozen=True, eq=False)
class AttentionMap:
    """Attention weights, and what their axes run over.

    Attributes:
        weights: the weights, [B, ...]. The type is not checked, since JAX's transformations put other leaves here.
        axes: what each axis after the batch axis runs over.
    """

    weights: Any
    axes: tuple[Axis, ...]


class Output(NamedTuple):
    """The output of a model; `log_probs` follow the model's own inference rule."""

    log_probs: Float[Array, "B C"]
    logits: Mapping[str, Float[Array, "B C"]]
    attention: Mapping[str, AttentionMap]


class Normalisation(NamedTuple):
    """Mean and standard deviation of each feature over valid frames of a training part."""

    mean: Float[AnyArray, " D"]
    std: Float[AnyArray, " D"]


class Status(IntEnum):
    """Status of a replica. A replica that is still `RUNNING` after the last epoch is complete."""

    RUNNING = 0
    STOPPED = 1  # early: `patience` epochs without a better one
    NOT_FINITE = 2  # its loss was not finite

    @property
    def label(self) -> str:
        """The status during training, as in metrics.jsonl."""
        return self.name.lower().replace("_", " ")

    @property
    def final_label(self) -> str:
        """The status of a finished replica, as in results.json."""
        return {Status.RUNNING: "complete", Status.STOPPED: "stopped early"}.get(self, self.label)


class Plateau(NamedTuple):
    """State of a learning-rate schedule that follows the validation loss."""

    scale: Float[AnyArray, ""]  # factor on the learning rate
    loss: Float[AnyArray, ""]  # the lowest so far
    bad_epochs: Int[AnyArray, ""]


class Best(NamedTuple):
    """The selected epoch of a replica.

    Its buffers are its own, so that the state can be donated.
    """

    params: PyTree
    batch_stats: PyTree
    metric: Float[Array, ""]
    loss: Float[Array, ""]
    epoch: Int[Array, ""]


class ReplicaState(NamedTuple):
    """The state of one training run (a fold, seed and setting), and its part's statistics."""

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
    status: Int[Array, ""]  # a `Status`
    normalisation: Mapping[str, Normalisation]
    class_weights: Float[Array, " C"]
    average: PyTree = ()  # of the parameters; () if there is none (`jaxser.training.averaging`)
    runners_up: PyTree = ()  # the next best epochs (`jaxser.training.selection`)


class Trained(NamedTuple):
    """A finished replica, as it is kept for predictions."""

    best: Best
    hyper: Hyper
    normalisation: Mapping[str, Normalisation]
    status: Int[AnyArray, ""]
    runners_up: PyTree = ()

    @classmethod
    def of(cls, state: ReplicaState) -> Trained:
        """Return what is kept of a replica's state."""
        return cls(state.best, state.hyper, state.normalisation, state.status, state.runners_up)
