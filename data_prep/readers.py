"""The corpora that can be prepared, their modules, and the flags that only one has."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast, runtime_checkable

from jaxser.types import Reading, UsageError

READERS = {
    "cafe": ".corpora.records:CAFE",
    "cremad": ".corpora.cremad",
    "demo": ".demo.corpus",
    "emodb": ".corpora.emodb",
    "emovdb": ".corpora.records:EMOVDB",
    "emovo": ".corpora.records:EMOVO",
    "esd": ".corpora.esd:BOTH",
    "esd_en": ".corpora.esd:ENGLISH",
    "esd_zh": ".corpora.esd:MANDARIN",
    "folder": ".corpora.folder",
    "iemocap": ".corpora.iemocap",
    "jl": ".corpora.records:JL",
    "meld": ".corpora.meld",
    "msp_improv": ".corpora.msp_improv",
    "msp_podcast": ".corpora.msp_podcast",
    "nemo": ".corpora.records:NEMO",
    "ravdess": ".corpora.ravdess",
    "savee": ".corpora.records:SAVEE",
    "subesco": ".corpora.records:SUBESCO",
    "tess": ".corpora.records:TESS",
    "yoon": ".corpora.yoon",
}
"""What reads each corpus: a module relative to this package, or an object in it after a colon."""

CORPUS_FLAGS = {
    "meld_twins": ("meld", "twins"),
    "max_seconds": ("meld", "max_seconds"),
    "metadata": ("folder", "metadata"),
    "columns": ("folder", "columns"),
    "words_tier": ("folder", "words_tier"),
}
"""Flags of a single corpus: the corpus, and the argument of its `read`."""


@runtime_checkable
class CorpusReader(Protocol):
    """The module or record of a corpus.

    Besides `read(root, **options) -> Reading`, it may have:

    - `clips(root, utterances) -> Mapping[str, Clip]`: the videos of the utterances, if they are not in the files that
      contain the sound.
    - `video(root, make) -> Path | None`: the folder of the corpus's own video features.
    - `precomputed(root) -> Precomputed`: features that replace the sound.
    """

    read: Callable[..., Reading]


def import_reader(corpus: str) -> CorpusReader:
    """Import the module or record that reads a corpus.

    Raises:
        UsageError: if the corpus is unknown.
    """
    if corpus not in READERS:
        raise UsageError(f"--corpus={corpus}: must be one of {', '.join(READERS)}")
    module, _, record = READERS[corpus].partition(":")
    reader = importlib.import_module(module, __package__)
    return cast(CorpusReader, getattr(reader, record) if record else reader)


def reader_options(corpus: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a corpus's `read`, from the flags that are not None.

    The flags are those of `CORPUS_FLAGS`.

    Raises:
        UsageError: if a flag belongs to another corpus.
    """
    options = {}
    for flag, value in flags.items():
        owner, argument = CORPUS_FLAGS[flag]
        if value is None:
            continue
        if corpus != owner:
            raise UsageError(f"--{flag}: only for --corpus={owner}")
        options[argument] = value
    return options
