"""The word vectors of a prepared dataset: the corpus's own, GloVe, or random ones."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxser import files
from jaxser.data import shards
from jaxser.data.dataset import EMBEDDINGS, VOCABULARY
from jaxser.features import text, vectors

from .jobs import Precomputed

SEED = 0
"""The seed of random vectors, also of words that are not in the GloVe file."""

_PART = "embeddings.json"


def vectors_source(
    vocabulary: text.Vocabulary, glove: str | Path | None, precomputed: Precomputed | None
) -> dict[str, Any]:
    """Return a description of everything that determines the word vectors."""
    words = hashlib.sha256("\n".join(vocabulary.words).encode()).hexdigest()
    if precomputed:
        table = precomputed.embeddings()
        digest = hashlib.sha256(table.tobytes()).hexdigest()
        return {"source": "corpus", "dimension": table.shape[1], "vocabulary": words, "vectors": digest}
    dimension = vectors.DIMENSION if glove is None else vectors.vector_width(glove)
    source: dict[str, Any] = {"seed": SEED, "dimension": dimension, "vocabulary": words}
    if glove is None:
        return {"source": "random", **source}
    status = os.stat(glove)
    return {
        "source": "glove",
        "file": Path(glove).name,
        "bytes": status.st_size,
        "changed": status.st_mtime_ns,
        **source,
    }


def make_vectors(
    vocabulary: text.Vocabulary, glove: str | Path | None, precomputed: Precomputed | None
) -> tuple[Float[np.ndarray, "V E"], dict[str, Any]]:
    """Return the word vectors and their entry in the manifest."""
    source = vectors_source(vocabulary, glove, precomputed)
    if precomputed:
        return precomputed.embeddings(), source
    if glove is None:
        return vectors.random_embeddings(vocabulary, SEED), source
    table, coverage = vectors.load_vectors(glove, vocabulary, SEED)
    return table, {**source, "coverage": coverage._asdict()}


def write_vectors(
    directory: Path, vocabulary: text.Vocabulary, table: Float[np.ndarray, "V E"], entry: Mapping[str, Any]
) -> None:
    """Write the vectors and the vocabulary, then their part file."""
    with files.open_binary(directory, EMBEDDINGS) as file:
        np.save(file, table, allow_pickle=False)
    shards.write_json(directory, VOCABULARY, asdict(vocabulary))
    digests = {name: files.sha256(directory / name) for name in (EMBEDDINGS, VOCABULARY)}
    shards.write_json(directory, f"parts/{_PART}", {"entry": entry, "files": digests})


def finished_vectors(directory: Path, source: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the entry of existing vectors; None if missing, damaged or of another source."""
    try:
        part = json.loads((directory / "parts" / _PART).read_text(encoding="utf-8"))
        same = all(part["entry"].get(key) == value for key, value in source.items())
        intact = all(files.sha256(directory / name) == digest for name, digest in part["files"].items())
        return part["entry"] if same and intact else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
