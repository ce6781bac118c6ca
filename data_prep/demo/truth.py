"""What the demo corpus plants: emotions, mechanisms, symbols, raters, and the best accuracies that follow.

An utterance has an emotion; a mechanism turns it into two symbols, one that its words carry and one that its
voice carries; three raters turn the emotion into a label. All three steps have known probabilities, so the
best possible accuracy of an observer of the words, of the voice or of both is a finite sum: no sampling here.

Mechanisms: R redundant cues, B binding (which word is stressed), O order of two voices, X exclusive-or of
words and voice, N nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxser.types import UsageError

COUNTS = {
    "ang": 1103,
    "hap": 595,
    "exc": 1041,
    "sad": 1084,
    "neu": 1708,
    "fru": 1849,
    "sur": 107,
}  # IEMOCAP's
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
ORDER_PAIRS = (("fru", "ang"), ("exc", "hap"), ("neu", "sad"))  # the same two voices, in either order
OBSERVERS = ("prior", "text", "audio", "late_fusion", "joint")
INDISTINCT = {  # by mechanism: the voices that sound the same to an observer who cannot use it
    "B": (("stress:0", "stress:1"),),
    "O": tuple((f"turn:{a},{b}", f"turn:{b},{a}") for a, b in ORDER_PAIRS),
    "X": (("bright", "harsh"),),
}
KEPT = 0.9  # how often binding, order and exclusive-or hold


class Cue(NamedTuple):
    """How often a redundant cue is that of the emotion, is missing, or is that of another class."""

    own: float
    none: float
    other: float


class Outcome(NamedTuple):
    """What the words and the voice of an utterance say, and how often."""

    words: str
    voice: str
    probability: float


WORDS, VOICE = Cue(0.60, 0.25, 0.15), Cue(0.50, 0.30, 0.20)


@dataclass(frozen=True)
class Mix:
    """How the mechanisms are mixed: the share of each, and how strong the redundant cues are."""

    name: str
    shares: Mapping[str, float]
    words: Cue = WORDS
    voice: Cue = VOICE
    repeats: tuple[int, ...] = (1,)  # cue words in a sentence with a redundant cue


MIXES = {
    # Cues that a thousand utterances can teach, and neither so strong that the other modality adds little.
    "tutorial": Mix("tutorial", {"R": 0.95, "N": 0.05}, Cue(0.75, 0.20, 0.05), Cue(0.75, 0.15, 0.10), (2, 3)),
    "redundant": Mix("redundant", {"R": 0.95, "N": 0.05}),
    "planted": Mix("planted", {"R": 0.35, "B": 0.30, "O": 0.15, "X": 0.15, "N": 0.05}),
}


def parse_mix(text: str) -> Mix:
    """A mix by its name, or by shares that add up to one: `R=.5,B=.3,N=.2`. Raises `UsageError`."""
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
            raise UsageError(f"--mix={text}: {part.strip()!r} is no share of a mechanism; expected {allowed}")
        shares[name] = share
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UsageError(
            f"--mix={text}: the shares add up to {sum(shares.values()):g}, expected 1; {allowed}"
        )
    return Mix(text, shares)


def outcomes(emotion: str, mechanism: str, mix: Mix) -> list[Outcome]:
    """Every pair of symbols that a mechanism can give an emotion, with probabilities that add up to one."""
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
    """Cue words of the emotion and of another, in either order; the stress is mostly on the emotion's."""
    found = []
    for other in (c for c in CLASSES if c != emotion):
        for first, second, place in ((emotion, other, 0), (other, emotion, 1)):
            share = 1 / (2 * (len(CLASSES) - 1))
            found.append(Outcome(f"pair:{first},{second}", f"stress:{place}", share * KEPT))
            found.append(Outcome(f"pair:{first},{second}", f"stress:{1 - place}", share * (1 - KEPT)))
    return found


def vote(emotion: str, rng: np.random.Generator) -> tuple[str, ...]:
    """What each of the three raters says."""
    near, far = NEAR[emotion]
    return tuple(rng.choice((emotion, near, far), size=RATERS, p=(VOTE_TRUE, VOTE_NEAR, VOTE_FAR)).tolist())


def majority(votes: Sequence[str]) -> str:
    """The label: what more than half of the raters say, else `xxx`."""
    for candidate in votes:
        if 2 * list(votes).count(candidate) > len(votes):
            return candidate
    return NO_MAJORITY


def rater_table() -> np.ndarray:
    """`[emotion, label]`: how often the majority of the raters gives the label; the rest of a row is
    `xxx`."""
    table = np.zeros((len(CLASSES), len(CLASSES)))
    for row, emotion in enumerate(CLASSES):
        for name, p in zip((emotion, *NEAR[emotion]), (VOTE_TRUE, VOTE_NEAR, VOTE_FAR), strict=True):
            table[row, CLASSES.index(name)] = p**3 + 3 * p**2 * (1 - p)
    return table


@dataclass(frozen=True)
class Truth:
    """The exact distribution of labels and symbols under a mix and the shares of the emotions in a corpus.

    `weaker` is the share of utterances of one gender whose mechanism is replaced by nothing (the switch
    `gender_gap`); observers are then taken to know the gender.
    """

    mix: Mix
    prior: tuple[float, ...]  # by emotion, in the order of CLASSES; adds up to one
    weaker: float = 0.0

    def best(self) -> dict[str, object]:
        """The best possible WA and UA of each observer, over labelled utterances, in all and by mechanism.

        `late_fusion` multiplies the posteriors of words and voice and divides by the prior: what a sum of two
        separate networks' scores can do. In a mechanism's figures the observer does not know the mechanism.
        `joint_without` is the joint observer who is deaf to what one mechanism needs: to which word is
        stressed, to the order of voices, to whether a voice is bright or harsh.
        """
        overall: dict[str, object] = {name: self._accuracy(self._scores(name)) for name in OBSERVERS}
        overall["joint_without"] = {m: self._accuracy(self._deaf(same)) for m, same in INDISTINCT.items()}
        present = [m for m in MECHANISMS if sum(table[m].sum() for table in self._by_mechanism) > 0]
        overall["mechanisms"] = {
            m: {
                "share": float(sum(table[m].sum() for table in self._by_mechanism) / self._total),
                **{name: self._accuracy(self._scores(name), m) for name in OBSERVERS},
            }
            for m in present
        }
        overall["label_prior"] = dict(zip(CLASSES, self._label_prior.round(9).tolist(), strict=True))
        overall["without_majority"] = 1 - float(self._total)
        return overall

    def posterior(self, words: str, voice: str, gender: str = "F") -> dict[str, list[float]]:
        """The probability of each label, in the order of CLASSES, to each observer of an utterance."""
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
    def _by_mechanism(self) -> list[dict[str, np.ndarray]]:
        """For each gender, if they differ, and mechanism: joint probabilities `[label, words, voice]`."""
        groups = (1.0, 1 - self.weaker) if self.weaker else (1.0,)
        tables = []
        for strength in groups:
            shares = {m: strength * self.mix.shares.get(m, 0.0) for m in MECHANISMS}
            shares["N"] += 1 - strength
            tables.append({m: share / len(groups) * self._table(m) for m, share in shares.items()})
        return tables

    def _table(self, mechanism: str) -> np.ndarray:
        by_emotion = np.zeros((len(CLASSES), len(self._words), len(self._voices)))
        for row, emotion in enumerate(CLASSES):
            for words, voice, probability in outcomes(emotion, mechanism, self.mix):
                by_emotion[row, self._words.index(words), self._voices.index(voice)] += probability
        return np.einsum("e,el,ewv->lwv", np.array(self.prior), rater_table(), by_emotion)

    @cached_property
    def _joint(self) -> list[np.ndarray]:
        return [sum(table.values(), np.zeros(())) for table in self._by_mechanism]

    @cached_property
    def _total(self) -> float:
        return float(sum(joint.sum() for joint in self._joint))

    @cached_property
    def _label_prior(self) -> np.ndarray:
        return sum(joint.sum(axis=(1, 2)) for joint in self._joint) / self._total

    def _scores(self, observer: str) -> list[np.ndarray]:
        """For each group: `[label, words, voice]`, proportional to what the observer believes of the
        labels."""
        prior = self._label_prior[:, None, None] + np.finfo(float).tiny
        return [self._belief(observer, joint, prior) for joint in self._joint]

    def _belief(self, observer: str, joint: np.ndarray, prior: np.ndarray) -> np.ndarray:
        words, voice = joint.sum(axis=2, keepdims=True), joint.sum(axis=1, keepdims=True)
        beliefs = {
            "prior": prior,
            "text": words,
            "audio": voice,
            "late_fusion": words * voice / prior,
            "joint": joint,
        }
        return np.broadcast_to(beliefs[observer], joint.shape)

    def _deaf(self, same: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
        """The joint observer to whom some voices sound the same."""
        scores = [joint.copy() for joint in self._joint]
        for voices in same:
            columns = [self._voices.index(voice) for voice in voices]
            for score in scores:
                score[:, :, columns] = score[:, :, columns].sum(axis=2, keepdims=True)
        return scores

    def _accuracy(self, scores: list[np.ndarray], mechanisms: str = MECHANISMS) -> dict[str, float]:
        """WA and UA over the utterances of these mechanisms, each by the rule that is best for it."""
        hits = {"wa": np.zeros(len(CLASSES)), "ua": np.zeros(len(CLASSES))}
        mass = np.zeros(len(CLASSES))
        prior = self._label_prior[:, None, None] + np.finfo(float).tiny
        for score, tables in zip(scores, self._by_mechanism, strict=True):
            table = sum((tables[m] for m in mechanisms), np.zeros(()))
            mass += table.sum(axis=(1, 2))
            for metric, belief in (("wa", score), ("ua", score / prior)):
                chosen = belief.argmax(axis=0) == np.arange(len(CLASSES))[:, None, None]
                hits[metric] += (table * chosen).sum(axis=(1, 2))
        seen = mass > 0
        return {
            "wa": float(hits["wa"].sum() / mass.sum()),
            "ua": float((hits["ua"][seen] / mass[seen]).mean()),
        }
