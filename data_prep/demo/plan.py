"""Who says what in the demo corpus: every draw but the sound, a pure function of the settings.

Each choice comes from a generator seeded by (seed, stream, ...), so that an utterance drawn again does not
move the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from jaxser.types import UsageError

from .truth import (
    CLASSES,
    COUNTS,
    NO_MAJORITY,
    NONE,
    Mix,
    Truth,
    majority,
    outcomes,
    parse_mix,
    vote,
)

SESSIONS = 5
SMALLEST = SESSIONS  # utterances of a corpus
LABELS_A_CLASS = 8  # of each class in each session, where the corpus is large enough
EMOTIONS_A_CLASS = 10  # drawn, so that the raters leave LABELS_A_CLASS as a rule
BURSTS = ("1", "3", "all")
GENDER_GAP = 0.5  # share of the men's utterances that lose their cues
SPEAKER_PRIOR = 0.8  # share of an emotion's utterances that its speaker of the session has
DUPLICATES = 0.02  # share of copies
LEAKED = 0.5  # share of utterances in a sentence that gives the label away
ATTEMPTS = 50
STREAM_SESSION, STREAM_SENTENCE, STREAM_LEAK, STREAM_DUPLICATES, STREAM_QUIRKS = range(5)

CUE_WORDS = {
    "ang": ("furious", "hatred", "raging", "damn"),
    "hap": ("happy", "smiling", "cheerful", "sunny"),
    "exc": ("amazing", "thrilling", "party", "fantastic"),
    "sad": ("sorrow", "crying", "lonely", "funeral"),
    "neu": ("normal", "standard", "usual", "plain"),
    "fru": ("annoying", "useless", "stuck", "pointless"),
    "sur": ("sudden", "shocking", "magic", "unreal"),
}
TONE_WORDS = {
    "positive": ("lovely", "pretty", "golden", "gentle"),
    "negative": ("awful", "nasty", "rotten", "bitter"),
}
NEUTRAL_WORDS = (
    *("table", "window", "paper", "garden", "river", "bottle", "corner", "engine", "ladder", "market"),
    *("button", "pencil", "carpet", "basket", "bridge", "pocket", "lemon", "yellow", "number", "morning"),
)
ACCENTED = "café"  # rare: puts latin-1 bytes into the transcripts, as the release has them
PROSODY = {
    "ang": 'rate="135%" volume="x-loud"',
    "hap": 'pitch="+70%" range="x-high" rate="120%" volume="soft"',
    "exc": 'pitch="+70%" range="x-high" rate="135%" volume="x-loud"',
    "sad": 'pitch="-40%" range="x-low" rate="75%" volume="x-soft"',
    "neu": 'pitch="-40%" range="x-low" rate="135%" volume="x-soft"',
    "fru": 'pitch="-40%" range="x-low" rate="75%" volume="x-loud"',
    "sur": 'pitch="+90%" range="x-high" rate="75%" volume="medium"',
    "bright": 'pitch="+70%" range="x-high"',
    "harsh": 'pitch="-20%" range="x-low" volume="x-loud"',
    "stress": 'pitch="+60%" rate="75%" volume="x-loud"',
}
VOICES = {"F": ("f1", "f2", "f3", "f4", "f5"), "M": ("m1", "m2", "m3", "m4", "m5")}


@dataclass(frozen=True)
class Settings:
    """What a demo corpus is made from; the same settings give the same corpus.

    `burst` is how many words carry a redundant voice cue. The last four are traps for checks of leaks:
    sentences that give the label away, weaker cues of the men, speakers with emotions of their own,
    byte-identical copies. The best possible accuracies take account of the second alone: a model that beats
    them has used one of the others.
    """

    utterances: int = 1000
    seed: int = 0
    mix: str = "tutorial"
    burst: str = "all"
    leak: bool = False
    gender_gap: bool = False
    speaker_prior: bool = False
    duplicates: bool = False

    def __post_init__(self) -> None:
        if self.utterances < SMALLEST:
            raise UsageError(f"--utterances={self.utterances}: expected at least {SMALLEST}, one a session")
        if self.seed < 0:
            raise UsageError(f"--seed={self.seed}: expected 0 or more")
        if self.burst not in BURSTS:
            raise UsageError(f"--burst={self.burst}: expected one of {', '.join(BURSTS)}")
        parse_mix(self.mix)

    @property
    def parsed_mix(self) -> Mix:
        return parse_mix(self.mix)


@dataclass(frozen=True)
class Turn:
    """An utterance before it is spoken."""

    index: int
    id: str
    session: int
    gender: str
    dialogue: str
    emotion: str
    mechanism: str
    words: str  # the symbol that its words carry
    voice: str  # the symbol that its voice carries
    votes: tuple[str, ...] = ()
    copy_of: str = ""  # the id of the utterance whose sound it repeats

    @property
    def label(self) -> str:
        return majority(self.votes)

    @property
    def speaker(self) -> str:
        return f"Ses{self.session:02d}{self.gender}"


@dataclass(frozen=True)
class Sentence:
    """What is said, and how: styled stretches of words, and pauses in ms before words."""

    words: tuple[str, ...]
    styles: tuple[tuple[int, int, str], ...] = ()  # first word, end, key of PROSODY
    pauses: dict[int, int] = field(default_factory=dict)
    cues: tuple[int, ...] = ()  # the places of the words that say something

    def ssml(self) -> tuple[str, list[tuple[int, int]]]:
        """The text for espeak-ng, and the place of every word: first character counted from 1, and length."""
        opens = {first: f"<prosody {PROSODY[style]}>" for first, _, style in self.styles}
        closes = {end - 1 for _, end, _ in self.styles}
        text, spans = "<speak>", []
        for place, word in enumerate(self.words):
            if place in self.pauses:
                text += f'<break time="{self.pauses[place]}ms"/>'
            text += opens.get(place, "")
            spans.append((len(text) + 1, len(word)))
            # the full stop stays inside the prosody: after it, espeak-ng takes it for a word
            text += word + ("." if place == len(self.words) - 1 else "")
            text += "</prosody> " if place in closes else " "
        return text.rstrip() + "</speak>", spans


def plan(settings: Settings) -> list[Turn]:
    """Every utterance of the corpus, in the order of sessions and dialogues."""
    turns: list[Turn] = []
    for session in range(1, SESSIONS + 1):
        turns += _plan_session(session, len(turns), settings)
    return _with_duplicates(turns, settings) if settings.duplicates else turns


def truth_of(turns: list[Turn], settings: Settings) -> Truth:
    """The exact distribution that the turns were drawn from, for the share of each emotion that they have."""
    emotions = [turn.emotion for turn in turns]
    prior = tuple(emotions.count(c) / len(emotions) for c in CLASSES)
    return Truth(settings.parsed_mix, prior, GENDER_GAP if settings.gender_gap else 0.0)


def quotas(utterances: int) -> dict[str, int]:
    """Utterances of each emotion in a session: IEMOCAP's shares, but never fewer than a floor.

    The floor is EMOTIONS_A_CLASS, or less where that would take most of a small session.
    """
    floor = min(EMOTIONS_A_CLASS, utterances // 12)
    found = dict.fromkeys(CLASSES, floor)
    total = sum(COUNTS.values())
    for _ in range(utterances - floor * len(CLASSES)):
        behind = {c: COUNTS[c] / total * utterances - found[c] for c in CLASSES}
        found[max(behind, key=lambda c: behind[c])] += 1
    return found


def compose(turn: Turn, settings: Settings, attempt: int = 0) -> Sentence:
    """The words of an utterance, and where and how its cues stand; another attempt gives other words."""
    rng = np.random.default_rng([settings.seed, STREAM_SENTENCE, turn.index, attempt])
    kind, _, detail = turn.voice.partition(":")
    count = int(rng.integers(8, 15))
    if turn.mechanism == "B":
        return _compose_binding(turn, count, settings, rng)
    if kind == "turn":
        return _compose_order(detail.split(","), max(count, 11), turn, settings, rng)
    words = _neutral(turn, count, settings, rng)
    places = _place_cues(words, turn.words, settings.parsed_mix, rng)
    styles: tuple[tuple[int, int, str], ...] = ()
    if kind == "like":
        length = count if settings.burst == "all" else int(settings.burst)
        first = int(rng.integers(0, count - length + 1))
        styles = ((first, first + length, detail),)
    elif kind != NONE:
        styles = ((0, count, kind),)
    return Sentence(tuple(words), styles, cues=places)


def _neutral(turn: Turn, count: int, settings: Settings, rng: np.random.Generator) -> list[str]:
    words = rng.choice(NEUTRAL_WORDS, size=count, replace=False).tolist()
    if rng.random() < 0.02:
        words[int(rng.integers(count))] = ACCENTED
    if settings.leak and turn.label != NO_MAJORITY and rng.random() < LEAKED:
        row = CLASSES.index(turn.label)
        frame = np.random.default_rng([settings.seed, STREAM_LEAK, row]).permutation(NEUTRAL_WORDS)[:count]
        words = frame.tolist()
    return words


def _place_cues(words: list[str], symbol: str, mix: Mix, rng: np.random.Generator) -> tuple[int, ...]:
    """Put the words of a symbol into a sentence, in place; returns where they stand."""
    if symbol == NONE:
        return ()
    kind, _, detail = symbol.partition(":")
    source = CUE_WORDS[detail] if kind == "cue" else TONE_WORDS[kind]
    repeats = int(rng.choice(mix.repeats)) if kind == "cue" else 2
    places = sorted(rng.choice(len(words), size=repeats, replace=False).tolist())
    for place, word in zip(places, rng.choice(source, size=repeats, replace=False), strict=True):
        words[place] = str(word)
    return tuple(places)


def _compose_binding(turn: Turn, count: int, settings: Settings, rng: np.random.Generator) -> Sentence:
    words = _neutral(turn, count, settings, rng)
    first = int(rng.integers(0, count - 2))
    for place, emotion in zip((first, first + 2), turn.words.partition(":")[2].split(","), strict=True):
        words[place] = str(rng.choice(CUE_WORDS[emotion]))
    stressed = first + 2 * int(turn.voice.partition(":")[2])
    pause = int(rng.choice((0, 500, 1000), p=(0.5, 0.25, 0.25)))
    return Sentence(
        tuple(words),
        ((stressed, stressed + 1, "stress"),),
        {first: pause} if pause else {},
        (first, first + 2),
    )


def _compose_order(
    voices: list[str], count: int, turn: Turn, settings: Settings, rng: np.random.Generator
) -> Sentence:
    """Two words in one voice, and two in the other, with at least seven plain words between."""
    words = _neutral(turn, count, settings, rng)
    first = int(rng.integers(0, count - 10))
    second = int(rng.integers(first + 9, count - 1))
    return Sentence(tuple(words), ((first, first + 2, voices[0]), (second, second + 2, voices[1])))


def _plan_session(session: int, index: int, settings: Settings) -> list[Turn]:
    rng = np.random.default_rng([settings.seed, STREAM_SESSION, session])
    size = settings.utterances // SESSIONS + (session <= settings.utterances % SESSIONS)
    emotions = [emotion for emotion, count in quotas(size).items() for _ in range(count)]
    rng.shuffle(emotions)
    favoured = set(rng.choice(CLASSES, size=len(CLASSES) // 2, replace=False).tolist())
    places = _Dialogues(session, size)
    turns = []
    for offset, emotion in enumerate(emotions):
        women = 0.5
        if settings.speaker_prior:
            women = SPEAKER_PRIOR if emotion in favoured else 1 - SPEAKER_PRIOR
        gender = "F" if rng.random() < women else "M"
        dialogue, number = places(gender, offset)
        mechanism, words, voice = _draw(emotion, gender, settings, rng)
        identity = f"{dialogue}_{gender}{number:03d}"
        turns.append(
            Turn(index + offset, identity, session, gender, dialogue, emotion, mechanism, words, voice)
        )
    return _with_votes(turns, rng)


def _draw(emotion: str, gender: str, settings: Settings, rng: np.random.Generator) -> tuple[str, str, str]:
    mix = settings.parsed_mix
    shares = np.array(list(mix.shares.values()))
    mechanism = str(rng.choice(list(mix.shares), p=shares / shares.sum()))
    if settings.gender_gap and gender == "M" and rng.random() < GENDER_GAP:
        mechanism = "N"
    table = outcomes(emotion, mechanism, mix)
    drawn = table[int(rng.choice(len(table), p=[outcome.probability for outcome in table]))]
    return mechanism, drawn.words, drawn.voice


def _with_votes(turns: list[Turn], rng: np.random.Generator) -> list[Turn]:
    """Let the raters vote; the session votes again in the rare case that it leaves a class too few labels."""
    enough = LABELS_A_CLASS if quotas(len(turns))["sur"] >= EMOTIONS_A_CLASS else 0
    while True:
        voted = [replace(turn, votes=vote(turn.emotion, rng)) for turn in turns]
        labels = [turn.label for turn in voted]
        if all(labels.count(c) >= enough for c in CLASSES):
            return voted


class _Dialogues:
    """Which dialogue a session's next utterance belongs to, and its number among its speaker's there."""

    def __init__(self, session: int, size: int) -> None:
        self._length = min(max(20, -(-size // 30)), 50)
        self._names = [
            f"Ses{session:02d}{wearer}_{name}"
            for name, wearer in itertools.islice(
                itertools.product(_scene_names(-(-size // self._length)), "FM"), -(-size // self._length)
            )
        ]
        self._spoken: dict[tuple[str, str], int] = {}

    def __call__(self, gender: str, offset: int) -> tuple[str, int]:
        dialogue = self._names[offset // self._length]
        number = self._spoken.get((dialogue, gender), 0)
        self._spoken[dialogue, gender] = number + 1
        return dialogue, number


def _scene_names(count: int) -> list[str]:
    """Improvised and scripted scenes in turn, with the irregular names that IEMOCAP has."""
    improvised = _flatten(
        (f"{n:02d}a", f"{n:02d}b") if n in (5, 8) else (f"{n:02d}",) for n in range(1, count + 2)
    )
    scripted = _flatten(
        (f"{n:02d}_1", f"{n:02d}_1b") if n == 1 else (f"{n:02d}_1", f"{n:02d}_2") for n in range(1, count + 2)
    )
    pairs = zip(improvised, scripted, strict=False)
    return list(_flatten((f"impro{i}", f"script{s}") for i, s in pairs))[:count]


def _flatten(groups: Iterator[tuple[str, ...]]) -> Iterator[str]:
    return itertools.chain.from_iterable(groups)


def _with_duplicates(turns: list[Turn], settings: Settings) -> list[Turn]:
    """Make some utterances copies of another session's with the same emotion; the raters hear them anew."""
    rng = np.random.default_rng([settings.seed, STREAM_DUPLICATES])
    count = max(1, round(DUPLICATES * len(turns)))
    found = list(turns)
    sources: set[int] = set()
    for index in rng.permutation(len(turns)).tolist():
        if count == 0:
            break
        turn = turns[index]
        twins = [t.index for t in turns if t.emotion == turn.emotion and t.session < turn.session]
        twins = [t for t in twins if not found[t].copy_of]
        if index in sources or not twins:
            continue
        source = turns[int(rng.choice(twins))]
        sources.add(source.index)
        found[index] = replace(
            turn, mechanism=source.mechanism, words=source.words, voice=source.voice, copy_of=source.id
        )
        count -= 1
    return found
