"""Tokenisation, vocabularies and word vectors."""

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
_OOV_RANGE = 0.25  # customary with GloVe


def tokenize(text: str) -> tuple[str, ...]:
    """Split a text into words, which may contain apostrophes, and single punctuation marks. Keeps the case."""
    return tuple(_TOKEN.findall(text.replace("’", "'")))


@dataclass(frozen=True)
class Vocabulary:
    """Lower-cased words and their ids.

    Attributes:
        words: the words by id. Id 0 is padding and id 1 an unknown word; the others are sorted by frequency.
        counts: the number of occurrences of each word in the corpus.
        cased: the spellings of a word with capital letters, most frequent first.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...] = ()
    cased: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def index(self) -> dict[str, int]:
        """The id of each word."""
        return {word: index for index, word in enumerate(self.words)}

    def ids(self, tokens: Iterable[str]) -> Int[np.ndarray, " words"]:
        """Return the ids of tokens in any case."""
        unknown = self.index[UNKNOWN]
        return np.array([self.index.get(token.lower(), unknown) for token in tokens], dtype=np.int32)


def build_vocabulary(texts: Iterable[Sequence[str]]) -> Vocabulary:
    """Build the vocabulary of tokenized texts; words of equal frequency are in alphabetical order."""
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
    """The fractions of a corpus's distinct words (types) and of its running words (tokens) that have a vector."""

    types: float
    tokens: float


def random_embeddings(
    vocabulary: Vocabulary, seed: int = 0, dimension: int = DIMENSION
) -> Float[np.ndarray, "V E"]:
    """Draw word vectors from the standard normal distribution, with zeros for padding.

    With a standard deviation of 0.3, models did not learn from the words of the demo corpus.
    """
    table = np.random.default_rng(seed).standard_normal((len(vocabulary.words), dimension), np.float32)
    table[0] = 0
    return table


def load_glove(
    path: str | Path, vocabulary: Vocabulary, seed: int = 0, dimension: int = DIMENSION
) -> tuple[Float[np.ndarray, "V E"], Coverage]:
    """Read the vectors of a vocabulary from a GloVe text file, line by line.

    A word is looked up in lower case first, and then in the spellings of the corpus. The vectors of missing words are
    drawn from the uniform distribution on [-0.25, 0.25]; padding is zero.

    Args:
        path: an unpacked GloVe file; tokens of the 840B release may contain spaces.
        vocabulary: the words.
        seed: the seed of the vectors of missing words.
        dimension: the size of the vectors.

    Raises:
        InputError: if the file cannot be read or is not in GloVe's format.
    """
    rng = np.random.default_rng(seed)
    table = rng.uniform(-_OOV_RANGE, _OOV_RANGE, (len(vocabulary.words), dimension)).astype(np.float32)
    table[0] = 0
    best = np.full(len(vocabulary.words), np.inf)  # rank of the spelling found so far; 0 is lower case
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
    """The ids that a token of the file provides a vector for, with the rank of its spelling."""
    wanted = defaultdict(list)
    for index, word in enumerate(vocabulary.words):
        if word not in (PAD, UNKNOWN, NO_WORDS):
            for rank, spelling in enumerate((word, *vocabulary.cased.get(word, ()))):
                wanted[spelling.encode()].append((index, rank))
    return dict(wanted)


def _glove_lines(
    path: Path, wanted: Mapping[bytes, object], dimension: int
) -> Iterator[tuple[bytes, Float[np.ndarray, " E"]]]:
    """Yield the wanted tokens of the file and their vectors.

    Tokens of the 840B release may contain spaces ("at name@domain.com"), so the values are counted from the end of the
    line. As this is slow, only lines whose first word starts a wanted token are parsed.
    """
    firsts = {token.split(b" ", 1)[0] for token in wanted}
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and re.fullmatch(rb"\d+ \d+\s*", line):
                continue  # the header of files converted from word2vec
            if number > 2 and line[: line.find(b" ")] not in firsts:
                continue
            token, *values = line.rstrip().rsplit(b" ", dimension)
            try:
                vector = np.array(values, dtype=np.float32)
            except ValueError:
                vector = np.zeros(0, np.float32)
            if len(vector) != dimension or not np.isfinite(vector).all():
                raise InputError(
                    f"{path}: line {number} is not a token and {dimension} numbers; is it an unpacked GloVe file?"
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
