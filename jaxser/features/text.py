"""Tokenisation and vocabularies."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import regex
from jaxtyping import Int

from jaxser.types import InputError

PAD, UNKNOWN, NO_WORDS = "<pad>", "<unk>", "<none>"
MAX_WORDS = 128

UNKNOWN_ID = 1
"""The id of an unknown word in every vocabulary."""

TOKENIZER = 2
"""The version of `tokenize` for new datasets; those without a version in their manifest have version 1."""

SEGMENTERS = ("characters", "spaces")
"""How a text in a script without spaces is divided: into its characters, or at the spaces that a segmenter added."""


def tokenize(text: str, version: int = TOKENIZER, segmenter: str = "characters") -> tuple[str, ...]:
    """Split a text into words, which may contain apostrophes, and punctuation marks.

    The case is kept. Version 1 splits between letters and everything else, which is right for English. Version 2 does
    the same for words in Latin letters, and divides all other words at the word boundaries of Unicode (UAX 29).
    Chinese, Japanese, Thai, Lao, Khmer and Burmese have no spaces between words, and are divided into grapheme
    clusters.

    Args:
        text: the text; version 2 brings it into Unicode's composed form (NFC).
        version: 1 or 2.
        segmenter: one of `SEGMENTERS`; ignored by version 1.

    Raises:
        InputError: if the version is unknown.
    """
    if version not in (1, TOKENIZER):
        raise InputError(f"version {version} of the tokenizer is not known to this version of jaxser")
    if version == 1 or text.isascii():
        return tuple(_TOKEN.findall(text.replace("’", "'")))
    tokens: list[str] = []
    for word in normalised(text).replace("’", "'").split():
        if _LATIN.fullmatch(word):
            tokens += _TOKEN.findall(word)
        elif segmenter == "spaces":
            tokens += _LETTERS_OR_MARK.findall(word)
        else:
            for characters, others in _RUNS.findall(word):
                tokens += _CLUSTER.findall(characters) if characters else _BOUNDARY.split(others)
    return tuple(filter(None, tokens))


def normalised(text: str) -> str:
    """Return a text in NFC, without invisible characters that do not belong to words."""
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text.replace("\u200b", " ")))


def has_no_spaces(text: str) -> bool:
    """Return whether a text contains a script that is written without spaces between words."""
    return not text.isascii() and _SPACELESS.search(text) is not None


def without_punctuation(word: str) -> str:
    """Remove punctuation at both ends of a word, but not its combining marks."""
    return _EDGES.sub("", word)


_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]|_")
_LATIN = regex.compile(r"(?V1)[[\p{Latin}\p{Common}]--[\p{M}\p{Cf}]]*")
_SPACELESS_CLASS = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}"
    r"\p{Tai_Viet}]"
)
_SPACELESS = regex.compile(_SPACELESS_CLASS)
_RUNS = regex.compile(
    rf"((?:{_SPACELESS_CLASS}[\p{{M}}\u200c\u200d]*)+)|((?:(?!{_SPACELESS_CLASS}).)+)", regex.DOTALL
)
_CLUSTER = regex.compile(r"\X\p{M}*")
_BOUNDARY = regex.compile(r"(?V1w)\b")
_LETTERS = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}\u200c\u200d]*"
_LETTERS_OR_MARK = regex.compile(rf"{_LETTERS}(?:'{_LETTERS})*|\X")
_EDGES = regex.compile(r"^[^\p{L}\p{N}\p{M}_]+|[^\p{L}\p{N}\p{M}_]+$")
_INVISIBLE = re.compile("[\u00ad\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")


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
    """Build the vocabulary of tokenized texts.

    Words of equal frequency are in alphabetical order.
    """
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


def _frequency_then_alphabet(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
