"""Word vectors: random ones, or those of a GloVe, fastText or word2vec text file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import unicodedata
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
from jaxtyping import Float

from jaxser.features.paths import open_regular
from jaxser.features.text import NO_WORDS, PAD, UNKNOWN, Vocabulary
from jaxser.types import InputError

DIMENSION = 300
"""The size of random vectors."""


class Coverage(NamedTuple):
    """How much of a corpus has a vector.

    Attributes:
        types: the fraction of its distinct words.
        tokens: the fraction of its running words.
        duplicates: how many of its words have several vectors in the file, of which the first is used.
    """

    types: float
    tokens: float
    duplicates: int = 0


def random_embeddings(
    vocabulary: Vocabulary, seed: int = 0, dimension: int = DIMENSION
) -> Float[np.ndarray, "V E"]:
    """Draw word vectors from the standard normal distribution, with zeros for padding.

    With a standard deviation of 0.3, models did not learn from the words of the demo corpus.
    """
    table = np.random.default_rng(seed).standard_normal((len(vocabulary.words), dimension), np.float32)
    table[0] = 0
    return table


def vector_width(path: str | Path) -> int:
    """Return the size of the vectors in a file, from its first lines.

    Raises:
        InputError: as `load_vectors`.
    """
    with _opened(Path(path)) as file:
        return _layout(file).width


def load_vectors(
    path: str | Path, vocabulary: Vocabulary, seed: int = 0
) -> tuple[Float[np.ndarray, "V E"], Coverage]:
    """Read the vectors of a vocabulary from a text file, line by line.

    A word is looked up in lower case first, and then in the spellings of the corpus. The vectors of missing words are
    drawn from the uniform distribution on [-0.25, 0.25]; padding is zero.

    Args:
        path: a file of GloVe, or of fastText or word2vec, whose first line has the number of vectors and their size. It
            may be packed by gzip, bzip2, xz or as the only file of a zip archive. Tokens may contain spaces.
        vocabulary: the words.
        seed: the seed of the vectors of missing words.

    Raises:
        InputError: if the file cannot be read, is not in this format, or has none of the words.
    """
    path = Path(path)
    wanted = _wanted_spellings(vocabulary)
    best = np.full(len(vocabulary.words), np.inf)  # rank of the spelling found so far; 0 is lower case
    twice: set[bytes] = set()
    seen: set[bytes] = set()
    with _opened(path) as file:
        layout = _layout(file)
    rng = np.random.default_rng(seed)
    table = rng.uniform(-_OOV_RANGE, _OOV_RANGE, (len(vocabulary.words), layout.width)).astype(np.float32)
    table[0] = 0
    with _opened(path) as file:
        for token, values in _vectors(file, layout, wanted):
            (twice if token in seen else seen).add(token)
            for index, rank in wanted[token]:
                if rank < best[index]:
                    table[index], best[index] = values, rank
    return table, _coverage(path, vocabulary, np.isfinite(best), len(twice))


_OOV_RANGE = 0.25  # customary with GloVe
_MAX_BYTES = 2**36
_MAX_LINE = 2**17  # bytes
_WIDTHS = range(2, 4097)
_PROBED_LINES = 100
_HEADER = re.compile(rb"(\d+)[ \t]+(\d+)\s*")


class _Layout(NamedTuple):
    """The format of a file; `stated` is the number of vectors that its first line states, if it does."""

    width: int
    separator: bytes
    stated: int | None


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file that may be packed."""
    try:
        with open_regular(path, _MAX_BYTES) as file:
            head = file.read(6)
            file.seek(0)
            if head.startswith(b"PK\x03\x04"):
                with (
                    zipfile.ZipFile(cast(IO[bytes], file)) as archive,
                    archive.open(_only_member(archive)) as member,
                ):
                    yield cast(io.BufferedIOBase, member)
            elif head.startswith(b"\x1f\x8b"):
                yield gzip.GzipFile(fileobj=file)
            elif head.startswith(b"BZh"):
                yield bz2.BZ2File(file)
            elif head.startswith(b"\xfd7zXZ\x00"):
                with lzma.LZMAFile(cast(IO[bytes], file)) as unpacked:
                    yield unpacked
            else:
                yield file
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be unpacked ({' '.join(str(error).split())})") from None


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [
        one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX")
    ]
    if len(members) != 1:
        names = ", ".join(one.filename for one in members[:5]) or "none"
        raise InputError(f"a zip archive of {len(members)} files ({names}): unpack it, and give one of them")
    return members[0]


def _layout(file: io.BufferedIOBase) -> _Layout:
    """Find the format by the header, or by the most frequent width of the first lines."""
    lines = [line for _, line in zip(range(_PROBED_LINES), _lines(file), strict=False)]
    if not lines:
        raise InputError("the file is empty")
    separator = b"\t" if lines[-1].count(b"\t") > 1 else b" "
    if header := _HEADER.fullmatch(lines[0]):
        layout = _Layout(int(header[2]), separator, int(header[1]))
    else:
        counts = Counter(line.rstrip().count(separator) for line in lines)
        layout = _Layout(counts.most_common(1)[0][0], separator, None)
    if layout.width not in _WIDTHS:
        raise InputError(
            "line 1 is not a token and numbers; is it a text file of GloVe, fastText or word2vec?"
        )
    return layout


def _lines(file: io.BufferedIOBase) -> Iterator[bytes]:
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        if len(line) == _MAX_LINE:
            raise InputError(f"line {number} is longer than {_MAX_LINE:,} bytes; is it a text file?")
        yield line


def _vectors(
    file: io.BufferedIOBase, layout: _Layout, wanted: Mapping[bytes, object]
) -> Iterator[tuple[bytes, Float[np.ndarray, " E"]]]:
    """Yield the wanted tokens of the file and their vectors.

    Tokens may contain spaces ("at name@domain.com" of GloVe's 840B release), so the values are counted from the end of
    the line. The separators of all lines are counted, but only lines whose first word starts a wanted token are parsed.
    """
    width, separator, stated = layout
    firsts = {token.split(separator, 1)[0] for token in wanted}
    count = 0
    for number, raw in enumerate(_lines(file), 1):
        line = raw.rstrip()
        if not line or (number == 1 and stated is not None):
            continue
        count += 1
        found = line.count(separator)
        if found == width and number > 2 and line[: line.find(separator)] not in firsts:
            continue
        token, *values = line.rsplit(separator, width)
        vector = _numbers(values)
        if len(vector) != width or _numbers(token.split(separator)[1:]).size:
            raise InputError(
                f"line {number} is not a token and {width} numbers, as the other lines; is the file damaged?"
            )
        if token in wanted:
            yield token, vector
    if stated is not None and count < stated:
        raise InputError(
            f"line 1 announces {stated:,} vectors, but there are {count:,}; if the file is not damaged, correct line 1"
        )


def _numbers(values: list[bytes]) -> Float[np.ndarray, " numbers"]:
    """Return finite numbers, or an empty array if one is not finite."""
    try:
        with np.errstate(over="ignore"):
            numbers = np.array(values, dtype=np.float32)
    except ValueError:
        return np.zeros(0, np.float32)
    return numbers if np.isfinite(numbers).all() else np.zeros(0, np.float32)


def _wanted_spellings(vocabulary: Vocabulary) -> dict[bytes, list[tuple[int, int]]]:
    """Return the ids that a token of the file provides a vector for, with the rank of its spelling."""
    wanted = defaultdict(list)
    for index, word in enumerate(vocabulary.words):
        if word in (PAD, UNKNOWN, NO_WORDS):
            continue
        spellings = (word, *vocabulary.cased.get(word, ()))
        decomposed = (unicodedata.normalize("NFD", spelling) for spelling in spellings)
        for rank, spelling in enumerate(dict.fromkeys((*spellings, *decomposed))):
            wanted[spelling.encode("utf-8", "surrogatepass")].append((index, rank))
    return dict(wanted)


def _coverage(path: Path, vocabulary: Vocabulary, found: np.ndarray, duplicates: int) -> Coverage:
    counted = np.array([word not in (PAD, UNKNOWN, NO_WORDS) for word in vocabulary.words])
    spoken = np.array([any(map(str.isalnum, word)) for word in vocabulary.words]) & counted
    if not (found & spoken).any():
        words = [word for word, is_spoken in zip(vocabulary.words, spoken, strict=True) if is_spoken]
        if not words:
            raise InputError(f"{path}: the corpus has no words that could have vectors")
        raise InputError(
            f"{path}: has none of the {len(words):,} words of the corpus ({', '.join(words[:5])}); is it of another "
            "language?"
        )
    counts = np.array(vocabulary.counts or np.ones(len(counted)), dtype=float) * counted
    return Coverage(float(found[counted].mean()), float(counts[found].sum() / counts.sum()), duplicates)
