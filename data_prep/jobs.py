"""Preparation as a map over shards: one function writes one shard, a process pool runs it.

A shard is done when its part file (`parts/00000.json`) says so: it holds a fingerprint of everything that
went into the shard and the checksum of what came out. Whatever is missing, stale or damaged is made again,
and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from threadpoolctl import threadpool_limits

from jaxser.data import shards
from jaxser.features.audio import SAMPLE_RATE, read_audio, split_span
from jaxser.features.recipes import ArraySpec, Recipe, doubts, extract
from jaxser.features.sources import Source
from jaxser.features.text import Vocabulary
from jaxser.types import InputError, Rejection, Utterance

UTTERANCES_PER_SHARD = 128
_RECORD_FORMAT = 2


@runtime_checkable
class Ready(Protocol):
    """Features that a corpus brings in the place of sound; it goes to worker processes, so it holds no open file."""

    @property
    def recipe(self) -> str:
        """The recipe whose place they take."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """What there is of an utterance."""

    def vocabulary(self) -> Vocabulary:
        """The words whose ids the array `words` has."""

    def embeddings(self) -> np.ndarray:
        """The vectors of these words, [V, E]."""

    def read(self, utterance: Utterance) -> tuple[Utterance, shards.Arrays]:
        """The utterance with its flags and digest, and its arrays; `InputError` says why there are none."""

    def stamp(self, identity: str) -> list[Any]:
        """What changes when the features of an utterance change, as JSON has it."""


@dataclass(frozen=True)
class Job:
    """One shard to be made."""

    root: Path
    directory: Path
    dataset: str
    recipe: Recipe
    index: int
    count: int
    utterances: tuple[Utterance, ...]
    fingerprint: str
    sources: Mapping[str, Source] = field(default_factory=dict)  # of the arrays that are made elsewhere
    ready: Ready | None = None

    @property
    def part(self) -> Path:
        return self.directory / "parts" / f"{self.index:05d}.json"


@dataclass(frozen=True)
class Part:
    """What came of a job."""

    fingerprint: str
    shard: shards.ShardInfo
    labels: Mapping[str, int]
    flags: Mapping[str, int]
    rejected: tuple[Rejection, ...]


def plan_jobs(
    root: Path,
    directory: Path,
    dataset: str,
    recipe: Recipe,
    utterances: Sequence[Utterance],
    vocabulary: Vocabulary,
    sources: Mapping[str, Source],
    ready: Ready | None = None,
) -> list[Job]:
    """Cut the utterances, in their order, into shards of `UTTERANCES_PER_SHARD`."""
    starts = range(0, len(utterances), UTTERANCES_PER_SHARD)
    common = [_RECORD_FORMAT, dataset, len(starts), _described(recipe), vocabulary.words]
    salt = hashlib.sha256(json.dumps(common).encode()).hexdigest()
    jobs = []
    for index, start in enumerate(starts):
        chosen = tuple(utterances[start : start + UTTERANCES_PER_SHARD])
        own = {name: source.only([u.id for u in chosen]) for name, source in sources.items()}
        fingerprint = _fingerprint(salt, root, chosen, {**own, **({"ready": ready} if ready else {})})
        jobs.append(
            Job(root, directory, dataset, recipe, index, len(starts), chosen, fingerprint, own, ready)
        )
    return jobs


def make_part(job: Job, vocabulary: Vocabulary) -> Part:
    """Write a job's shard and then its part file. The same job gives the same bytes."""
    rejected: list[Rejection] = []
    labels: Counter[str] = Counter()
    flags: Counter[str] = Counter()

    def records() -> Iterator[tuple[Utterance, shards.Arrays]]:
        for utterance in job.utterances:
            try:
                whole, arrays = job.ready.read(utterance) if job.ready else _heard(job, utterance, vocabulary)
            except InputError as error:
                reason = str(error).removeprefix(f"{job.root / utterance.wav}: ")
                rejected.append(Rejection(utterance.id, utterance.wav, reason))
                continue
            labels[whole.label] += 1
            flags.update(whole.flags)
            yield whole, arrays

    path = job.directory / shards.shard_name(job.dataset, job.index, job.count)
    shard = shards.write_shard(path, records(), job.recipe.arrays)
    part = Part(
        job.fingerprint, shard, dict(sorted(labels.items())), dict(sorted(flags.items())), tuple(rejected)
    )
    shards.write_json(job.part, asdict(part))
    return part


def _heard(job: Job, utterance: Utterance, vocabulary: Vocabulary) -> tuple[Utterance, shards.Arrays]:
    """The utterance with its flags and digest, and its arrays, from its sound and what was made elsewhere."""
    samples, sha256 = read_audio(job.root / utterance.wav)
    elsewhere = {name: source.read(utterance.id) for name, source in job.sources.items()}
    arrays = extract(job.recipe, utterance, samples, vocabulary, elsewhere)
    found = doubts(job.recipe, utterance, samples, elsewhere)
    flags = tuple(dict.fromkeys((*utterance.flags, *found)))
    return replace(utterance, sha256=sha256, duration=len(samples) / SAMPLE_RATE, flags=flags), arrays


def finished_part(job: Job) -> Part | None:
    """The part of a job that is done; None where anything of it is missing, stale or damaged."""
    try:
        content = json.loads(job.part.read_text(encoding="utf-8"))
        part = Part(
            content["fingerprint"],
            shards.shard_info(content["shard"]),
            content["labels"],
            content["flags"],
            tuple(Rejection(**entry) for entry in content["rejected"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if part.fingerprint != job.fingerprint or not shards.shard_is_whole(job.directory, part.shard):
        return None
    return part


def run_jobs(
    jobs: Sequence[Job], vocabulary: Vocabulary, workers: int, done: Callable[[Job, Part], None]
) -> None:
    """Make the parts of all jobs, in worker processes where there are several; `done` is told of each."""
    if workers == 1 or len(jobs) <= 1:
        with threadpool_limits(1):
            for job in jobs:
                done(job, make_part(job, vocabulary))
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of running threads
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (vocabulary,))
    try:
        futures = {pool.submit(_work, job): job for job in jobs}
        for future in as_completed(futures):
            done(futures[future], future.result())
    except BrokenProcessPool:
        raise InputError(
            "a worker process died (out of memory?); the same command goes on from here, with --workers=1 "
            "it needs the least"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker_vocabulary: Vocabulary | None = None


def _start_worker(vocabulary: Vocabulary) -> None:
    global _worker_vocabulary
    _worker_vocabulary = vocabulary
    threadpool_limits(1)  # the pool has a process a core already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and stops the pool
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job) -> Part:
    assert _worker_vocabulary is not None
    return make_part(job, _worker_vocabulary)


def _described(recipe: Recipe) -> list[Any]:
    arrays = {name: list(spec) for name, spec in recipe.arrays.items()}
    return [recipe.name, recipe.version, arrays, dict(recipe.parameters)]


def _fingerprint(
    salt: str, root: Path, utterances: Iterable[Utterance], sources: Mapping[str, Source | Ready]
) -> str:
    """A digest of what goes into a shard; files count by size and time of change, as in `make`."""
    digest = hashlib.sha256(salt.encode())
    for utterance in utterances:
        try:
            status = os.stat(split_span(root / utterance.wav)[0])
            stamp = [status.st_size, status.st_mtime_ns]
        except (OSError, ValueError):
            stamp = []
        stamps = [[name, source.stamp(utterance.id)] for name, source in sources.items()]
        digest.update(json.dumps([asdict(utterance), stamp, *stamps]).encode())
    return digest.hexdigest()
