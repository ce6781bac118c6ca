"""The plan of the demo corpus: who says what and how, as a pure function of the settings.

Every draw uses a generator seeded by (seed, stream, ...), so that drawing one utterance again does not change the
others.
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
MIN_UTTERANCES = SESSIONS
MIN_LABELS = 8  # of each class in each session, if the corpus is large enough
MIN_EMOTIONS = 10  # of each class in each session, from which raters usually produce MIN_LABELS labels
BURSTS = ("1", "3", "all")
GENDER_GAP = 0.5  # fraction of male utterances that lose their cues
SPEAKER_PRIOR = 0.8  # fraction of an emotion's utterances in a session that one of its two speakers has
DUPLICATES = 0.02  # fraction of copies
LEAKED = 0.5  # fraction of utterances whose sentence reveals the label
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
ACCENTED = "café"  # rare; adds Latin-1 bytes to the transcripts, which the release has as well
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
    """The settings of a demo corpus; the same settings give the same bytes.

    The last four plant leaks and biases, to test the checks that should find them. The best possible accuracies take
    only `gender_gap` into account, so a model that exceeds them has used one of the others.

    Attributes:
        utterances: the size of the corpus.
        seed: of all random draws.
        mix: the name of a mix of mechanisms, or their shares.
        burst: the number of words that carry a redundant voice cue.
        leak: half of the sentences reveal the label.
        gender_gap: half of the male utterances have no cues.
        speaker_prior: each speaker has preferred emotions.
        duplicates: some utterances are byte-identical copies from another session.
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
        if self.utterances < MIN_UTTERANCES:
            raise UsageError(
                f"--utterances={self.utterances}: must be at least {MIN_UTTERANCES}, one per session"
            )
        if self.seed < 0:
            raise UsageError(f"--seed={self.seed}: must be 0 or more")
        if self.burst not in BURSTS:
            raise UsageError(f"--burst={self.burst}: must be one of {', '.join(BURSTS)}")
        parse_mix(self.mix)

    @property
    def parsed_mix(self) -> Mix:
        """The mix of mechanisms."""
        return parse_mix(self.mix)


@dataclass(frozen=True)
class Turn:
    """An utterance before it is synthesised."""

    index: int
    id: str
    session: int
    gender: str
    dialogue: str
    emotion: str
    mechanism: str
    words: str  # the symbol carried by the words
    voice: str  # the symbol carried by the voice
    votes: tuple[str, ...] = ()
    copy_of: str = ""  # the id of the utterance whose recording it repeats

    @property
    def label(self) -> str:
        """The majority of the votes."""
        return majority(self.votes)

    @property
    def speaker(self) -> str:
        """The speaker's id, such as `Ses01F`."""
        return f"Ses{self.session:02d}{self.gender}"


@dataclass(frozen=True)
class Sentence:
    """The words of an utterance and their prosody."""

    words: tuple[str, ...]
    styles: tuple[tuple[int, int, str], ...] = ()  # first word, end, key of PROSODY
    pauses: dict[int, int] = field(default_factory=dict)  # in ms, by the index of the word that follows
    cues: tuple[int, ...] = ()  # indices of the words that carry the symbol

    def ssml(self) -> tuple[str, list[tuple[int, int]]]:
        """Return the text for espeak-ng, and the position (from 1) and length of its words."""
        opens = {first: f"<prosody {PROSODY[style]}>" for first, _, style in self.styles}
        closes = {end - 1 for _, end, _ in self.styles}
        text, spans = "<speak>", []
        for index, word in enumerate(self.words):
            if index in self.pauses:
                text += f'<break time="{self.pauses[index]}ms"/>'
            text += opens.get(index, "")
            spans.append((len(text) + 1, len(word)))
            # The full stop is inside the prosody element; after it, espeak-ng would count it as a word.
            text += word + ("." if index == len(self.words) - 1 else "")
            text += "</prosody> " if index in closes else " "
        return text.rstrip() + "</speak>", spans


def plan_turns(settings: Settings) -> list[Turn]:
    """Draw all utterances of the corpus, in the order of sessions and dialogues."""
    turns: list[Turn] = []
    for session in range(1, SESSIONS + 1):
        turns += _plan_session(session, len(turns), settings)
    return _with_duplicates(turns, settings) if settings.duplicates else turns


def truth_of(turns: list[Turn], settings: Settings) -> Truth:
    """Return the distribution that turns were drawn from, given the shares of emotions."""
    emotions = [turn.emotion for turn in turns]
    prior = tuple(emotions.count(c) / len(emotions) for c in CLASSES)
    return Truth(settings.parsed_mix, prior, GENDER_GAP if settings.gender_gap else 0.0)


def quotas(utterances: int) -> dict[str, int]:
    """Return the number of utterances of each emotion in a session.

    The shares are IEMOCAP's, with a minimum. The minimum is `MIN_EMOTIONS`, or less if that would take up most of a
    small session.
    """
    minimum = min(MIN_EMOTIONS, utterances // 12)
    counts = dict.fromkeys(CLASSES, minimum)
    total = sum(COUNTS.values())
    for _ in range(utterances - minimum * len(CLASSES)):
        deficits = {c: COUNTS[c] / total * utterances - counts[c] for c in CLASSES}
        counts[max(deficits, key=lambda c: deficits[c])] += 1
    return counts


def compose(turn: Turn, settings: Settings, attempt: int = 0) -> Sentence:
    """Draw the words of an utterance and the positions of its cues.

    Every attempt gives other words.
    """
    rng = np.random.default_rng([settings.seed, STREAM_SENTENCE, turn.index, attempt])
    kind, _, detail = turn.voice.partition(":")
    count = int(rng.integers(8, 15))
    if turn.mechanism == "B":
        return _compose_binding(turn, count, settings, rng)
    if kind == "turn":
        return _compose_order(detail.split(","), max(count, 11), turn, settings, rng)
    words = _neutral_words(turn, count, settings, rng)
    cues = _insert_cues(words, turn.words, settings.parsed_mix, rng)
    styles: tuple[tuple[int, int, str], ...] = ()
    if kind == "like":
        length = count if settings.burst == "all" else int(settings.burst)
        first = int(rng.integers(0, count - length + 1))
        styles = ((first, first + length, detail),)
    elif kind != NONE:
        styles = ((0, count, kind),)
    return Sentence(tuple(words), styles, cues=cues)


def _neutral_words(turn: Turn, count: int, settings: Settings, rng: np.random.Generator) -> list[str]:
    words = rng.choice(NEUTRAL_WORDS, size=count, replace=False).tolist()
    if rng.random() < 0.02:
        words[int(rng.integers(count))] = ACCENTED
    if settings.leak and turn.label != NO_MAJORITY and rng.random() < LEAKED:
        row = CLASSES.index(turn.label)
        frame = np.random.default_rng([settings.seed, STREAM_LEAK, row]).permutation(NEUTRAL_WORDS)[:count]
        words = frame.tolist()
    return words


def _insert_cues(words: list[str], symbol: str, mix: Mix, rng: np.random.Generator) -> tuple[int, ...]:
    """Replace words of a sentence in place by words that carry the symbol; return their indices."""
    if symbol == NONE:
        return ()
    kind, _, detail = symbol.partition(":")
    source = CUE_WORDS[detail] if kind == "cue" else TONE_WORDS[kind]
    repeats = int(rng.choice(mix.repeats)) if kind == "cue" else 2
    indices = sorted(rng.choice(len(words), size=repeats, replace=False).tolist())
    for index, word in zip(indices, rng.choice(source, size=repeats, replace=False), strict=True):
        words[index] = str(word)
    return tuple(indices)


def _compose_binding(turn: Turn, count: int, settings: Settings, rng: np.random.Generator) -> Sentence:
    words = _neutral_words(turn, count, settings, rng)
    first = int(rng.integers(0, count - 2))
    for index, emotion in zip((first, first + 2), turn.words.partition(":")[2].split(","), strict=True):
        words[index] = str(rng.choice(CUE_WORDS[emotion]))
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
    """Draw two words in one voice and two in the other, at least seven plain words apart."""
    words = _neutral_words(turn, count, settings, rng)
    first = int(rng.integers(0, count - 10))
    second = int(rng.integers(first + 9, count - 1))
    return Sentence(tuple(words), ((first, first + 2, voices[0]), (second, second + 2, voices[1])))


def _plan_session(session: int, index: int, settings: Settings) -> list[Turn]:
    rng = np.random.default_rng([settings.seed, STREAM_SESSION, session])
    size = settings.utterances // SESSIONS + (session <= settings.utterances % SESSIONS)
    emotions = [emotion for emotion, count in quotas(size).items() for _ in range(count)]
    rng.shuffle(emotions)
    preferred = set(rng.choice(CLASSES, size=len(CLASSES) // 2, replace=False).tolist())
    dialogues = _Dialogues(session, size)
    turns = []
    for offset, emotion in enumerate(emotions):
        female_share = 0.5
        if settings.speaker_prior:
            female_share = SPEAKER_PRIOR if emotion in preferred else 1 - SPEAKER_PRIOR
        gender = "F" if rng.random() < female_share else "M"
        dialogue, number = dialogues.assign(gender, offset)
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
    """Draw the raters' votes, again if a class of the session would have too few labels (which is rare)."""
    enough = MIN_LABELS if quotas(len(turns))["sur"] >= MIN_EMOTIONS else 0
    while True:
        voted = [replace(turn, votes=vote(turn.emotion, rng)) for turn in turns]
        labels = [turn.label for turn in voted]
        if all(labels.count(c) >= enough for c in CLASSES):
            return voted


class _Dialogues:
    """Assigns the utterances of a session to dialogues."""

    def __init__(self, session: int, size: int) -> None:
        self._length = min(max(20, -(-size // 30)), 50)
        count = -(-size // self._length)
        scenes = itertools.islice(itertools.product(_scene_names(count), "FM"), count)
        self._names = [f"Ses{session:02d}{wearer}_{scene}" for scene, wearer in scenes]
        self._spoken: dict[tuple[str, str], int] = {}

    def assign(self, gender: str, offset: int) -> tuple[str, int]:
        """Return the dialogue of the next utterance, and the utterance's number among its speaker's there."""
        dialogue = self._names[offset // self._length]
        number = self._spoken.get((dialogue, gender), 0)
        self._spoken[dialogue, gender] = number + 1
        return dialogue, number


def _scene_names(count: int) -> list[str]:
    """Return improvised and scripted scenes alternately, with IEMOCAP's irregular names."""
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
    """Turn some utterances into copies of one with the same emotion in an earlier session, with their own votes."""
    rng = np.random.default_rng([settings.seed, STREAM_DUPLICATES])
    count = max(1, round(DUPLICATES * len(turns)))
    result = list(turns)
    sources: set[int] = set()
    for index in rng.permutation(len(turns)).tolist():
        if count == 0:
            break
        turn = turns[index]
        candidates = [t.index for t in turns if t.emotion == turn.emotion and t.session < turn.session]
        candidates = [t for t in candidates if not result[t].copy_of]
        if index in sources or not candidates:
            continue
        source = turns[int(rng.choice(candidates))]
        sources.add(source.index)
        result[index] = replace(
            turn, mechanism=source.mechanism, words=source.words, voice=source.voice, copy_of=source.id
        )
        count -= 1
    return result
