"""Words as ids into a vocabulary, and the vectors that go with them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxser.types import InputError

PAD, UNKNOWN, NO_WORDS = "<pad>", "<unk>", "<none>"
MAX_WORDS = 128
DIMENSION = 300

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]|_")
_OOV_RANGE = 0.25  # usual with GloVe


def tokenize(text: str) -> tuple[str, ...]:
    """Words, with apostrophes inside them, and single punctuation marks, in their own case."""
    return tuple(_TOKEN.findall(text.replace("’", "'")))


@dataclass(frozen=True)
class Vocabulary:
    """Lower-cased words by id: 0 is padding, 1 any word that is not here, then the most frequent first."""

    words: tuple[str, ...]
    counts: tuple[int, ...] = ()
    cased: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # other spellings seen, most frequent first

    @cached_property
    def index(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def ids(self, tokens: Iterable[str]) -> Int[np.ndarray, " words"]:
        unknown = self.index[UNKNOWN]
        return np.array([self.index.get(token.lower(), unknown) for token in tokens], dtype=np.int32)


def build_vocabulary(texts: Iterable[Sequence[str]]) -> Vocabulary:
    """The vocabulary of tokenized texts; words of the same frequency stand in alphabetical order."""
    spellings = Counter(token for tokens in texts for token in tokens)
    counts: Counter[str] = Counter()
    cased: defaultdict[str, list[str]] = defaultdict(list)
    for token, count in sorted(spellings.items(), key=_frequency_then_alphabet):
        counts[token.lower()] += count
        if token != token.lower():
            cased[token.lower()].append(token)
    ordered = sorted(counts.items(), key=_frequency_then_alphabet)
    return Vocabulary(
        words=(PAD, UNKNOWN, *(word for word, _ in ordered)),
        counts=(0, 0, *(count for _, count in ordered)),
        cased={word: tuple(cased[word]) for word, _ in ordered if word in cased},
    )


class Coverage(NamedTuple):
    """How much of a corpus the vectors of a file cover, as fractions in [0, 1]."""

    types: float
    tokens: float


def random_embeddings(
    vocabulary: Vocabulary, seed: int = 0, dimension: int = DIMENSION
) -> Float[np.ndarray, "V E"]:
    """Standard normal vectors, padding zero. (With a deviation of 0.3 the demo's words were not learned.)"""
    table = np.random.default_rng(seed).standard_normal((len(vocabulary.words), dimension), np.float32)
    table[0] = 0
    return table


def load_glove(
    path: str | Path, vocabulary: Vocabulary, seed: int = 0, dimension: int = DIMENSION
) -> tuple[Float[np.ndarray, "V E"], Coverage]:
    """The vectors of the vocabulary's words from a GloVe text file, which is streamed.

    A word is looked up in lower case, then in the spellings that the corpus has. What the file lacks is drawn
    from uniform(-0.25, 0.25) by `seed`; padding is zero. Raises `InputError` for a file that is not GloVe's.
    """
    rng = np.random.default_rng(seed)
    table = rng.uniform(-_OOV_RANGE, _OOV_RANGE, (len(vocabulary.words), dimension)).astype(np.float32)
    table[0] = 0
    best = np.full(len(vocabulary.words), np.inf)  # rank of the spelling that was found, 0 = lower case
    wanted = _wanted_spellings(vocabulary)
    try:
        for token, values in _glove_lines(Path(path), wanted, dimension):
            for index, rank in wanted[token]:
                if rank < best[index]:
                    table[index], best[index] = values, rank
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return table, _coverage(vocabulary, np.isfinite(best))


def _frequency_then_alphabet(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _wanted_spellings(vocabulary: Vocabulary) -> dict[bytes, list[tuple[int, int]]]:
    """Which ids a token of the file serves, and as which choice."""
    wanted = defaultdict(list)
    for index, word in enumerate(vocabulary.words):
        if word not in (PAD, UNKNOWN, NO_WORDS):
            for rank, spelling in enumerate((word, *vocabulary.cased.get(word, ()))):
                wanted[spelling.encode()].append((index, rank))
    return dict(wanted)


def _glove_lines(
    path: Path, wanted: Mapping[bytes, object], dimension: int
) -> Iterator[tuple[bytes, Float[np.ndarray, " E"]]]:
    """The wanted tokens of the file and their vectors.

    Tokens of the 840B release may hold spaces ("at name@domain.com"), so the values are counted from the
    line's end; that is slow, hence only lines whose first piece begins a wanted token are taken apart.
    """
    firsts = {token.split(b" ", 1)[0] for token in wanted}
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and re.fullmatch(rb"\d+ \d+\s*", line):
                continue  # word2vec's header, which converted files have
            if number > 2 and line[: line.find(b" ")] not in firsts:
                continue
            token, *values = line.rstrip().rsplit(b" ", dimension)
            try:
                vector = np.array(values, dtype=np.float32)
            except ValueError:
                vector = np.zeros(0, np.float32)
            if len(vector) != dimension or not np.isfinite(vector).all():
                raise InputError(
                    f"{path}: line {number} is not a token and {dimension} numbers: unpacked GloVe text?"
                )
            if token in wanted:
                yield token, vector
    if number < 1:
        raise InputError(f"{path}: the file is empty")


def _coverage(vocabulary: Vocabulary, found: np.ndarray) -> Coverage:
    counted = np.array([word not in (PAD, UNKNOWN, NO_WORDS) for word in vocabulary.words])
    counts = np.array(vocabulary.counts or np.ones(len(counted)), dtype=float) * counted
    if not counts.sum():
        return Coverage(0.0, 0.0)
    return Coverage(float(found[counted].mean()), float(counts[found].sum() / counts.sum()))
