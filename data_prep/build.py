"""The folder of a prepared dataset, brought up to date: parts, word vectors, metadata, and the manifest last."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxser.data import shards
from jaxser.data.dataset import EMBEDDINGS, VOCABULARY
from jaxser.features import text
from jaxser.features.recipes import Recipe, tokens
from jaxser.features.sources import Source
from jaxser.types import InputError, Reading, Rejection, Utterance

from .jobs import Job, Part, Ready, finished_part, plan_jobs

Runner = Callable[[Sequence[Job], text.Vocabulary, Callable[[Job, Part], None]], None]
"""Makes the parts of all jobs and tells of each."""

EMBEDDING_SEED = 0
FOLDS = "folds.json"
REJECTED = "rejected.jsonl"
TFDS_FILES = ("dataset_info.json", "features.json")


@dataclass(frozen=True)
class Plan:
    """What is to be made of a corpus."""

    corpus: str
    recipe: Recipe
    name: str
    directory: Path
    reading: Reading
    rejected: tuple[Rejection, ...]  # before any sound was read
    vocabulary: text.Vocabulary
    jobs: tuple[Job, ...]
    ready: Ready | None = None


def make_plan(
    corpus: str,
    reading: Reading,
    root: Path,
    recipe: Recipe,
    name: str,
    out: Path,
    sources: Mapping[str, Source],
    ready: Ready | None = None,
) -> Plan:
    """The first utterance of every id, in jobs; raises `InputError` where none of the corpus can be used."""
    chosen: dict[str, Utterance] = {}
    rejected = list(reading.rejected)
    for utterance in reading.utterances:
        first = chosen.setdefault(utterance.id, utterance)
        if first is not utterance:
            rejected.append(
                Rejection(utterance.id, utterance.wav, f"the same id as {first.wav}, which is used")
            )
    if not chosen:
        why = f"; the first of {len(rejected)} rejected: {rejected[0].reason}" if rejected else ""
        raise InputError(f"{root}: no utterance of {corpus} can be used{why}")
    directory = out / name / recipe.name / recipe.version
    utterances = [chosen[key] for key in sorted(chosen)]
    if ready:
        recipe = replace(recipe, arrays=ready.arrays, parameters={**recipe.parameters, "made_by": corpus})
        vocabulary = ready.vocabulary()
    else:
        vocabulary = text.build_vocabulary(tokens(recipe, utterance) for utterance in utterances)
    jobs = plan_jobs(root, directory, name, recipe, utterances, vocabulary, sources, ready)
    return Plan(corpus, recipe, name, directory, reading, tuple(rejected), vocabulary, tuple(jobs), ready)


def bring_up_to_date(
    plan: Plan, glove: str | Path | None, run_all: Runner, max_rejected: float, quiet: bool
) -> bool:
    """Make what is missing; False if nothing was. Raises `InputError` where too many utterances are rejected."""
    directory = plan.directory
    parts = {job.index: part for job in plan.jobs if (part := finished_part(job))}
    table, vectors = None, _finished_vectors(plan, glove)
    if len(parts) == len(plan.jobs) and vectors:
        _refuse_too_many(plan, parts, max_rejected)
        if _is_current(directory, _manifest(plan, parts, vectors)):
            return False
    if not vectors:
        table, vectors = _vectors(plan, glove)  # before anything is removed: the GloVe file may be bad
    (directory / shards.MANIFEST).unlink(missing_ok=True)  # until it is whole again, this is no dataset
    _remove_stale(plan)
    if table is not None:
        _write_vectors(plan, table, vectors)
    _make_parts(plan, parts, run_all, quiet)
    rejected = _rejections(plan, parts)
    with shards.atomic_write(directory / REJECTED) as file:
        file.write("".join(json.dumps(asdict(entry)) + "\n" for entry in rejected).encode())
    _refuse_too_many(plan, parts, max_rejected)
    if plan.reading.folds:
        _write_folds(plan, {entry.id for entry in rejected})
    infos = [parts[job.index].shard for job in plan.jobs]
    shards.write_metadata(directory, plan.recipe.version, plan.recipe.arrays, infos)
    names = (VOCABULARY, EMBEDDINGS, REJECTED, *TFDS_FILES, *([FOLDS] if plan.reading.folds else []))
    files = {name: _sha256(directory / name) for name in names}
    shards.write_json(directory / shards.MANIFEST, {**_manifest(plan, parts, vectors), "files": files})
    return True


def _write_folds(plan: Plan, rejected: set[str]) -> None:
    """The corpus's own folds, for `--config.protocol.name=file --config.protocol.file=folds.json`."""
    folds = [
        {
            key: [identity for identity in value if identity not in rejected] if key != "name" else value
            for key, value in fold.items()
        }
        for fold in plan.reading.folds
    ]
    shards.write_json(plan.directory / FOLDS, {"folds": folds})


def _make_parts(plan: Plan, parts: dict[int, Part], run_all: Runner, quiet: bool) -> None:
    """Make the parts that are not there yet, and add them."""
    missing = [job for job in plan.jobs if job.index not in parts]
    display = Progress(
        TextColumn(f"{plan.name}, recipe {plan.recipe.name}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )
    total = sum(len(job.utterances) for job in plan.jobs)
    with display:
        task = display.add_task(
            "", total=total, completed=total - sum(len(job.utterances) for job in missing)
        )

        def done(job: Job, part: Part) -> None:
            parts[job.index] = part
            display.advance(task, len(job.utterances))

        run_all(missing, plan.vocabulary, done)


def _manifest(plan: Plan, parts: Mapping[int, Part], vectors: Mapping[str, Any]) -> dict[str, Any]:
    recipe, whole = plan.recipe, [parts[job.index] for job in plan.jobs]
    labels, flags = _added(part.labels for part in whole), _added(part.flags for part in whole)
    return {
        "name": plan.name,
        "corpus": plan.corpus,
        "recipe": recipe.name,
        "version": recipe.version,
        "parameters": dict(recipe.parameters),
        "normalise": recipe.normalise,
        "arrays": {key: {"dtype": spec.dtype, "shape": spec.shape} for key, spec in recipe.arrays.items()},
        "utterances": sum(labels.values()),
        "labels": {"found": labels, "expected": dict(plan.reading.expected)},
        "rejected": len(_rejections(plan, parts)),
        "flags": flags,
        "cut": {key.removeprefix("cut_"): count for key, count in flags.items() if key.startswith("cut_")},
        "facts": dict(plan.reading.facts),
        "embeddings": dict(vectors),
        "jaxser": importlib.metadata.version("jaxser"),
        "number_of_shards": len(whole),
        "shards": [shards.shard_json(part.shard) for part in whole],
    }


def _is_current(directory: Path, wanted: Mapping[str, Any]) -> bool:
    try:
        found = json.loads((directory / shards.MANIFEST).read_text(encoding="utf-8"))
        files = found.pop("files")
        if json.dumps(found) != json.dumps(wanted):
            return False
        return all(_sha256(directory / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _vectors_source(plan: Plan, glove: str | Path | None) -> dict[str, Any]:
    """What the word vectors are made from."""
    words = hashlib.sha256("\n".join(plan.vocabulary.words).encode()).hexdigest()
    if plan.ready:
        table = plan.ready.embeddings()
        digest = hashlib.sha256(table.tobytes()).hexdigest()
        return {"source": "corpus", "dimension": table.shape[1], "vocabulary": words, "vectors": digest}
    source: dict[str, Any] = {"seed": EMBEDDING_SEED, "dimension": text.DIMENSION, "vocabulary": words}
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


def _vectors(plan: Plan, glove: str | Path | None) -> tuple[np.ndarray, dict[str, Any]]:
    """The word vectors, and the manifest's entry about them."""
    source = _vectors_source(plan, glove)
    if plan.ready:
        return plan.ready.embeddings(), source
    if glove is None:
        return text.random_embeddings(plan.vocabulary, EMBEDDING_SEED), source
    table, coverage = text.load_glove(glove, plan.vocabulary, EMBEDDING_SEED)
    return table, {**source, "coverage": coverage._asdict()}


def _write_vectors(plan: Plan, table: np.ndarray, entry: Mapping[str, Any]) -> None:
    """Write vocabulary and vectors, and then how they came about."""
    with shards.atomic_write(plan.directory / EMBEDDINGS) as file:
        np.save(file, table, allow_pickle=False)
    shards.write_json(plan.directory / VOCABULARY, asdict(plan.vocabulary))
    files = {name: _sha256(plan.directory / name) for name in (EMBEDDINGS, VOCABULARY)}
    shards.write_json(plan.directory / "parts" / "embeddings.json", {"entry": entry, "files": files})


def _finished_vectors(plan: Plan, glove: str | Path | None) -> dict[str, Any] | None:
    """The entry of vectors that are there, of the same source and whole; None otherwise."""
    wanted = _vectors_source(plan, glove)
    try:
        found = json.loads((plan.directory / "parts" / "embeddings.json").read_text(encoding="utf-8"))
        same = all(found["entry"].get(key) == value for key, value in wanted.items())
        whole = all(_sha256(plan.directory / name) == digest for name, digest in found["files"].items())
        return found["entry"] if same and whole else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _rejections(plan: Plan, parts: Mapping[int, Part]) -> list[Rejection]:
    return [*plan.rejected, *(entry for job in plan.jobs for entry in parts[job.index].rejected)]


def _refuse_too_many(plan: Plan, parts: Mapping[int, Part], max_rejected: float) -> None:
    rejected = _rejections(plan, parts)
    used = sum(parts[job.index].shard.records for job in plan.jobs)
    if rejected and (not used or len(rejected) > max_rejected * (used + len(rejected))):
        reason, times = Counter(entry.reason for entry in rejected).most_common(1)[0]
        raise InputError(
            f"{len(rejected)} of {used + len(rejected)} utterances are rejected, more than "
            f"--max_rejected={max_rejected:g} allows; most often ({times}): {reason}; "
            f"all reasons are in {plan.directory / REJECTED}"
        )


def _remove_stale(plan: Plan) -> None:
    """Remove half-written files of killed runs, and shards of another cut of the corpus."""
    directory = plan.directory
    expected = {shards.shard_name(plan.name, job.index, job.count) for job in plan.jobs}
    expected |= {job.part.name for job in plan.jobs} | {"embeddings.json"}
    for path in [*directory.glob("*.tfrecord-*"), *directory.glob("*.tmp"), *directory.glob("parts/*")]:
        if path.name not in expected:
            path.unlink(missing_ok=True)  # a worker of a killed run may just be renaming it


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Two preparations of one dataset at the same time would delete each other's files."""
    (directory / "parts").mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{directory}: another preparation is writing there; wait for it") from None
        except OSError:
            pass  # a file system without locks
        yield


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
