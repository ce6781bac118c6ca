"""The generative model of the demo corpus, and the best possible accuracies on it.

Every utterance has an emotion. A mechanism turns it into two symbols, one carried by the words and one by the voice;
three raters turn it into a label. All probabilities are known, so the best possible accuracy of an observer of the
words, of the voice or of both is a finite sum; nothing here is sampled.

The mechanisms are R, redundant cues; B, binding (which word is stressed); O, the order of two voices; X, exclusive-or
of words and voice; and N, no cue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxser.types import UsageError

from .attributes import best_scores
from .votes import best_divergences

COUNTS = {
    "ang": 1103,
    "hap": 595,
    "exc": 1041,
    "sad": 1084,
    "neu": 1708,
    "fru": 1849,
    "sur": 107,
}
"""Utterances per label in IEMOCAP."""

CLASSES = tuple(COUNTS)
MECHANISMS = "RBOXN"
NO_MAJORITY = "xxx"
NONE = "none"
RATERS = 3
VOTE_TRUE, VOTE_NEAR, VOTE_FAR = 0.85, 0.105, 0.045
NEAR = {
    "ang": ("fru", "sad"),
    "hap": ("exc", "neu"),
    "exc": ("hap", "ang"),
    "sad": ("neu", "fru"),
    "neu": ("fru", "sad"),
    "fru": ("ang", "neu"),
    "sur": ("exc", "hap"),
}
ORDER_PAIRS = (
    ("fru", "ang"),
    ("exc", "hap"),
    ("neu", "sad"),
)  # each has the same two voices, in either order
OBSERVERS = ("prior", "text", "audio", "late_fusion", "joint")
INDISTINCT = {  # voices that sound the same to an observer who cannot use the mechanism
    "B": (("stress:0", "stress:1"),),
    "O": tuple((f"turn:{a},{b}", f"turn:{b},{a}") for a, b in ORDER_PAIRS),
    "X": (("bright", "harsh"),),
}
KEPT = 0.9  # probability that binding, order and exclusive-or indicate the emotion


class Cue(NamedTuple):
    """Probabilities that a redundant cue is its emotion's, is missing, or is another class's."""

    own: float
    none: float
    other: float


class Outcome(NamedTuple):
    """The symbols carried by an utterance's words and voice, and their joint probability."""

    words: str
    voice: str
    probability: float


WORDS, VOICE = Cue(0.60, 0.25, 0.15), Cue(0.50, 0.30, 0.20)


@dataclass(frozen=True)
class Mix:
    """The probability of each mechanism, and the strength of the redundant cues."""

    name: str
    shares: Mapping[str, float]
    words: Cue = WORDS
    voice: Cue = VOICE
    repeats: tuple[int, ...] = (1,)  # cue words in a sentence with a redundant cue


MIXES = {
    # Learnable from a thousand utterances, and balanced such that each modality adds to the other.
    "tutorial": Mix("tutorial", {"R": 0.95, "N": 0.05}, Cue(0.75, 0.20, 0.05), Cue(0.75, 0.15, 0.10), (2, 3)),
    "redundant": Mix("redundant", {"R": 0.95, "N": 0.05}),
    "planted": Mix("planted", {"R": 0.35, "B": 0.30, "O": 0.15, "X": 0.15, "N": 0.05}),
}


def parse_mix(text: str) -> Mix:
    """Parse the name of a mix, or shares that add up to one: `R=.5,B=.3,N=.2`.

    Raises:
        UsageError: if the text is neither.
    """
    if text in MIXES:
        return MIXES[text]
    allowed = f"one of {', '.join(MIXES)}, or shares of {', '.join(MECHANISMS)} such as R=.5,B=.3,N=.2"
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not equals or name not in tuple(MECHANISMS) or name in shares or not 0 <= share <= 1:
            raise UsageError(
                f"--mix={text}: {part.strip()!r} is not the share of a mechanism; must be {allowed}"
            )
        shares[name] = share
    if abs(sum(shares.values()) - 1) > 1e-6:
        total = sum(shares.values())
        raise UsageError(f"--mix={text}: the shares add up to {total:g}, not 1; must be {allowed}")
    return Mix(text, shares)


def outcomes(emotion: str, mechanism: str, mix: Mix) -> list[Outcome]:
    """Return all pairs of symbols that a mechanism can produce for an emotion.

    Their probabilities add up to one.
    """
    if mechanism == "R":
        return [
            Outcome(words, voice, p * q)
            for words, p in _cue(emotion, "cue", mix.words)
            for voice, q in _cue(emotion, "like", mix.voice)
        ]
    if mechanism == "B":
        return _binding(emotion)
    if mechanism == "O":
        for pair in ORDER_PAIRS:
            if emotion in pair:
                other = pair[1 - pair.index(emotion)]
                return [
                    Outcome(NONE, f"turn:{emotion},{other}", KEPT),
                    Outcome(NONE, f"turn:{other},{emotion}", 1 - KEPT),
                ]
    if mechanism == "X" and emotion in ("exc", "fru"):
        agrees, differs = ("bright", "harsh") if emotion == "exc" else ("harsh", "bright")
        return [
            Outcome("positive", agrees, KEPT / 2),
            Outcome("negative", differs, KEPT / 2),
            Outcome("positive", differs, (1 - KEPT) / 2),
            Outcome("negative", agrees, (1 - KEPT) / 2),
        ]
    return [Outcome(NONE, NONE, 1.0)]


def _cue(emotion: str, kind: str, cue: Cue) -> list[tuple[str, float]]:
    others = [c for c in CLASSES if c != emotion]
    return [(f"{kind}:{emotion}", cue.own), (NONE, cue.none)] + [
        (f"{kind}:{c}", cue.other / len(others)) for c in others
    ]


def _binding(emotion: str) -> list[Outcome]:
    """Cue words of the emotion and of another one, in either order; the stress is mostly on that of the emotion."""
    pairs = []
    for other in (c for c in CLASSES if c != emotion):
        for first, second, index in ((emotion, other, 0), (other, emotion, 1)):
            share = 1 / (2 * (len(CLASSES) - 1))
            pairs.append(Outcome(f"pair:{first},{second}", f"stress:{index}", share * KEPT))
            pairs.append(Outcome(f"pair:{first},{second}", f"stress:{1 - index}", share * (1 - KEPT)))
    return pairs


def vote(emotion: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw the votes of the three raters."""
    near, far = NEAR[emotion]
    return tuple(rng.choice((emotion, near, far), size=RATERS, p=(VOTE_TRUE, VOTE_NEAR, VOTE_FAR)).tolist())


def majority(votes: Sequence[str]) -> str:
    """Return the label: the vote of more than half of the raters, else `xxx`."""
    for candidate in votes:
        if 2 * list(votes).count(candidate) > len(votes):
            return candidate
    return NO_MAJORITY


def rater_table() -> Float[np.ndarray, "emotions labels"]:
    """Return the probability of each label given the emotion.

    The rest of each row, up to 1, is the probability of `xxx`.
    """
    p = vote_table()
    return p**3 + 3 * p**2 * (1 - p)


def vote_table() -> Float[np.ndarray, "emotions classes"]:
    """Return the probability that a rater names each class, given the emotion."""
    table = np.zeros((len(CLASSES), len(CLASSES)))
    for row, emotion in enumerate(CLASSES):
        for name, p in zip((emotion, *NEAR[emotion]), (VOTE_TRUE, VOTE_NEAR, VOTE_FAR), strict=True):
            table[row, CLASSES.index(name)] = p
    return table


@dataclass(frozen=True)
class Truth:
    """The exact joint distribution of labels and symbols.

    Attributes:
        mix: the mechanisms.
        prior: the share of each emotion in the corpus, in the order of `CLASSES`; adds up to one.
        weaker: the share of male utterances without any cue (the setting `gender_gap`). If it is not 0, observers are
            assumed to know the gender.
    """

    mix: Mix
    prior: tuple[float, ...]
    weaker: float = 0.0

    def best(self) -> dict[str, object]:
        """Return the best possible WA and UA of each observer, in total and by mechanism.

        They are over the labelled utterances. Under `attributes`, there are the best possible CCC and RMSE over all
        utterances, and under `votes` the lowest possible divergences from the raters' votes.

        `late_fusion` multiplies the posteriors of words and voice and divides by the prior, the best that a sum of the
        scores of two separate networks can do. Observers never know the mechanism. `joint_without` is the joint
        observer without what one mechanism requires: which word is stressed, the order of the voices, or whether a
        voice is bright or harsh.
        """
        overall: dict[str, object] = {name: self._accuracy(self._scores(name)) for name in OBSERVERS}
        overall["joint_without"] = {
            m: self._accuracy(self._indistinct_scores(voices)) for m, voices in INDISTINCT.items()
        }
        present = [m for m in MECHANISMS if sum(table[m].sum() for table in self._by_mechanism) > 0]
        overall["mechanisms"] = {
            m: {
                "share": float(sum(table[m].sum() for table in self._by_mechanism) / self._total),
                **{name: self._accuracy(self._scores(name), m) for name in OBSERVERS},
            }
            for m in present
        }
        observed = self._observed_emotions()
        overall["attributes"] = best_scores(observed, CLASSES)
        overall["votes"] = best_divergences(observed, CLASSES, vote_table(), RATERS)
        overall["label_prior"] = dict(zip(CLASSES, self._label_prior.round(9).tolist(), strict=True))
        overall["without_majority"] = 1 - float(self._total)
        return overall

    def posterior(self, words: str, voice: str, gender: str = "F") -> dict[str, list[float]]:
        """Return each observer's probability of each label, given an utterance's symbols.

        The labels are in the order of `CLASSES`.
        """
        group = self._group(gender)
        row, column = self._words.index(words), self._voices.index(voice)
        return {
            name: (score[:, row, column] / score[:, row, column].sum()).round(6).tolist()
            for name, score in ((name, self._scores(name)[group]) for name in OBSERVERS)
        }

    def _group(self, gender: str) -> int:
        return 1 if self.weaker and gender == "M" else 0

    @cached_property
    def _words(self) -> list[str]:
        return sorted({o.words for e in CLASSES for m in MECHANISMS for o in outcomes(e, m, self.mix)})

    @cached_property
    def _voices(self) -> list[str]:
        return sorted({o.voice for e in CLASSES for m in MECHANISMS for o in outcomes(e, m, self.mix)})

    @cached_property
    def _by_mechanism(self) -> list[dict[str, Float[np.ndarray, "labels words voices"]]]:
        """Joint probabilities by mechanism, for each gender if they differ."""
        return [{m: share * self._table(m) for m, share in shares.items()} for shares in self._shares]

    @cached_property
    def _shares(self) -> list[dict[str, float]]:
        """The share of each mechanism, for each gender if they differ; they add up to one together."""
        groups = (1.0, 1 - self.weaker) if self.weaker else (1.0,)
        found = []
        for strength in groups:
            shares = {m: strength * self.mix.shares.get(m, 0.0) for m in MECHANISMS}
            shares["N"] += 1 - strength
            found.append({m: share / len(groups) for m, share in shares.items()})
        return found

    def _observed_emotions(self) -> dict[str, list[Float[np.ndarray, "emotions symbols"]]]:
        """Return, for each observer, the joint probabilities of emotions and of what it observes, by gender."""
        number = len(CLASSES)
        tables = [
            sum((share * self._emotions(m) for m, share in shares.items()), np.zeros(()))
            for shares in self._shares
        ]
        return {
            "prior": [table.reshape(number, -1).sum(axis=1, keepdims=True) for table in tables],
            "text": [table.sum(axis=2) for table in tables],
            "audio": [table.sum(axis=1) for table in tables],
            "joint": [table.reshape(number, -1) for table in tables],
        }

    def _table(self, mechanism: str) -> Float[np.ndarray, "labels words voices"]:
        return np.einsum("el,ewv->lwv", rater_table(), self._emotions(mechanism))

    def _emotions(self, mechanism: str) -> Float[np.ndarray, "emotions words voices"]:
        by_emotion = np.zeros((len(CLASSES), len(self._words), len(self._voices)))
        for row, emotion in enumerate(CLASSES):
            for words, voice, probability in outcomes(emotion, mechanism, self.mix):
                by_emotion[row, self._words.index(words), self._voices.index(voice)] += probability
        return np.array(self.prior)[:, None, None] * by_emotion

    @cached_property
    def _joint(self) -> list[Float[np.ndarray, "labels words voices"]]:
        return [sum(table.values(), np.zeros(())) for table in self._by_mechanism]

    @cached_property
    def _total(self) -> float:
        return float(sum(joint.sum() for joint in self._joint))

    @cached_property
    def _label_prior(self) -> Float[np.ndarray, " labels"]:
        return sum(joint.sum(axis=(1, 2)) for joint in self._joint) / self._total

    def _scores(self, observer: str) -> list[Float[np.ndarray, "labels words voices"]]:
        """For each gender, scores proportional to the observer's posterior of the labels."""
        prior = self._label_prior[:, None, None] + np.finfo(float).tiny
        return [self._observer_score(observer, joint, prior) for joint in self._joint]

    def _observer_score(
        self,
        observer: str,
        joint: Float[np.ndarray, "labels words voices"],
        prior: Float[np.ndarray, "labels 1 1"],
    ) -> Float[np.ndarray, "labels words voices"]:
        words, voice = joint.sum(axis=2, keepdims=True), joint.sum(axis=1, keepdims=True)
        scores = {
            "prior": prior,
            "text": words,
            "audio": voice,
            "late_fusion": words * voice / prior,
            "joint": joint,
        }
        return np.broadcast_to(scores[observer], joint.shape)

    def _indistinct_scores(
        self, groups: Sequence[tuple[str, ...]]
    ) -> list[Float[np.ndarray, "labels words voices"]]:
        """Return the scores of the joint observer if the voices of each group sound the same."""
        scores = [joint.copy() for joint in self._joint]
        for voices in groups:
            columns = [self._voices.index(voice) for voice in voices]
            for score in scores:
                score[:, :, columns] = score[:, :, columns].sum(axis=2, keepdims=True)
        return scores

    def _accuracy(
        self, scores: list[Float[np.ndarray, "labels words voices"]], mechanisms: str = MECHANISMS
    ) -> dict[str, float]:
        """WA and UA over the utterances of these mechanisms, each with its optimal decision rule."""
        hits = {"wa": np.zeros(len(CLASSES)), "ua": np.zeros(len(CLASSES))}
        mass = np.zeros(len(CLASSES))
        prior = self._label_prior[:, None, None] + np.finfo(float).tiny
        for score, tables in zip(scores, self._by_mechanism, strict=True):
            table = sum((tables[m] for m in mechanisms), np.zeros(()))
            mass += table.sum(axis=(1, 2))
            for metric, weighted in (("wa", score), ("ua", score / prior)):
                chosen = weighted.argmax(axis=0) == np.arange(len(CLASSES))[:, None, None]
                hits[metric] += (table * chosen).sum(axis=(1, 2))
        present = mass > 0
        return {
            "wa": float(hits["wa"].sum() / mass.sum()),
            "ua": float((hits["ua"][present] / mass[present]).mean()),
        }
