"""Preparation as a map over shards: a process pool runs jobs that write one shard each.

A shard is complete once its part file (`parts/00000.json`) exists, which contains a fingerprint of all inputs of the
shard and the checksum of the shard itself. Only shards that are missing, outdated or damaged are written again.
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
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from threadpoolctl import threadpool_limits

from jaxser.data import shards
from jaxser.features.audio import NO_RECORDING, SAMPLE_RATE, Recording, read_audio, split_span
from jaxser.features.quality import quality_flags
from jaxser.features.recipes import ArraySpec, Recipe
from jaxser.features.sources import Source
from jaxser.features.text import Vocabulary
from jaxser.types import InputError, Rejection, Utterance

from .augment import extract_with_copies

if TYPE_CHECKING:
    from jaxser.encoders.frames import FrameEncoder  # imports JAX, which worker processes do not need
UTTERANCES_PER_SHARD = 128
_RECORD_FORMAT = 2
_DIGEST_DIGITS = 16


@runtime_checkable
class Precomputed(Protocol):
    """Features that a corpus provides instead of sound.

    Instances are sent to worker processes, so they must not hold open files.
    """

    @property
    def recipe(self) -> str:
        """The name of the recipe that the features follow."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """The specs of the arrays of an utterance."""

    def vocabulary(self) -> Vocabulary:
        """Return the words whose ids are in the array `words`."""

    def embeddings(self) -> np.ndarray:
        """Return the word vectors, [V, E]."""

    def read(self, utterance: Utterance) -> tuple[Utterance, shards.Arrays]:
        """Return the utterance with its flags and digest, and its arrays.

        Raises:
            InputError: if the features of the utterance cannot be used.
        """

    def stamp(self, identity: str) -> list[Any]:
        """Return a JSON value that changes whenever the features of an utterance change."""


@dataclass(frozen=True)
class Job:
    """A shard that has to be written."""

    root: Path
    directory: Path
    dataset: str
    recipe: Recipe
    index: int
    count: int
    utterances: tuple[Utterance, ...]
    fingerprint: str
    sources: Mapping[str, Source] = field(default_factory=dict)  # of precomputed arrays
    precomputed: Precomputed | None = None
    encoder: FrameEncoder | None = None  # a job with an encoder runs in this process

    @property
    def part(self) -> Path:
        """The path of the part file."""
        return self.directory / "parts" / f"{self.index:05d}.json"


@dataclass(frozen=True)
class Part:
    """The outcome of a job: its shard, counts by label and by flag, and the rejected ones.

    `digests` are the first digits of the SHA-256 of each recording, by which identical ones are counted.
    """

    fingerprint: str
    shard: shards.ShardInfo
    labels: Mapping[str, int]
    flags: Mapping[str, int]
    rejected: tuple[Rejection, ...]
    digests: tuple[str, ...]


def plan_jobs(
    root: Path,
    directory: Path,
    dataset: str,
    recipe: Recipe,
    utterances: Sequence[Utterance],
    vocabulary: Vocabulary,
    sources: Mapping[str, Source],
    precomputed: Precomputed | None = None,
    encoder: FrameEncoder | None = None,
) -> list[Job]:
    """Split the utterances, in their order, into shards of `UTTERANCES_PER_SHARD`."""
    starts = range(0, len(utterances), UTTERANCES_PER_SHARD)
    common = [_RECORD_FORMAT, dataset, len(starts), _described(recipe), vocabulary.words]
    salt = hashlib.sha256(json.dumps(common).encode()).hexdigest()
    jobs = []
    for index, start in enumerate(starts):
        chosen = tuple(utterances[start : start + UTTERANCES_PER_SHARD])
        own = {name: source.only([u.id for u in chosen]) for name, source in sources.items()}
        stamped: dict[str, Source | Precomputed] = {**own}
        if precomputed:
            stamped["ready"] = precomputed  # the key is part of the digest
        fingerprint = _fingerprint(salt, root, chosen, stamped)
        jobs.append(
            Job(
                root=root,
                directory=directory,
                dataset=dataset,
                recipe=recipe,
                index=index,
                count=len(starts),
                utterances=chosen,
                fingerprint=fingerprint,
                sources=own,
                precomputed=precomputed,
                encoder=encoder,
            )
        )
    return jobs


def make_part(job: Job, vocabulary: Vocabulary) -> Part:
    """Write the shard of a job, then its part file. Equal jobs write equal bytes."""
    rejected: list[Rejection] = []
    digests: list[str] = []
    labels: Counter[str] = Counter()
    flags: Counter[str] = Counter()
    encoded = _encoded(job)

    def records() -> Iterator[tuple[Utterance, shards.Arrays]]:
        for utterance in job.utterances:
            try:
                if job.precomputed:
                    complete, arrays = job.precomputed.read(utterance)
                else:
                    complete, arrays = _features(job, utterance, vocabulary, encoded.pop(utterance.id, None))
            except InputError as error:
                rejected.append(
                    Rejection(
                        utterance.id, utterance.wav, str(error).removeprefix(f"{job.root / utterance.wav}: ")
                    )
                )
                continue
            if complete.sha256:
                digests.append(complete.sha256[:_DIGEST_DIGITS])
            labels[complete.label] += 1
            flags.update(complete.flags)
            yield complete, arrays

    path = job.directory / shards.shard_name(job.dataset, job.index, job.count)
    shard = shards.write_shard(path, records(), job.recipe.arrays)
    part = Part(
        fingerprint=job.fingerprint,
        shard=shard,
        labels=dict(sorted(labels.items())),
        flags=dict(sorted(flags.items())),
        rejected=tuple(rejected),
        digests=tuple(digests),
    )
    shards.write_json(job.directory, job.part.relative_to(job.directory), asdict(part))
    return part


class _Encoded(NamedTuple):
    """A recording and its frames by the encoder."""

    recording: Recording
    frames: np.ndarray


def _encoded(job: Job) -> dict[str, _Encoded]:
    """Return all recordings that can be read with their frames, by the ids of their utterances."""
    if job.encoder is None:
        return {}
    recordings = {}
    for utterance in job.utterances:
        with suppress(InputError):  # `_features` reports it
            recordings[utterance.id] = read_audio(job.root / utterance.wav)
    longest = job.recipe.max_samples + job.recipe.hop
    frames = job.encoder.encode([recording.samples[:longest] for recording in recordings.values()])
    pairs = zip(recordings.items(), frames, strict=True)
    return {identity: _Encoded(recording, own) for (identity, recording), own in pairs}


def _recording(job: Job, utterance: Utterance) -> Recording:
    return read_audio(job.root / utterance.wav) if job.recipe.has_sound else NO_RECORDING


def _features(
    job: Job, utterance: Utterance, vocabulary: Vocabulary, encoded: _Encoded | None
) -> tuple[Utterance, shards.Arrays]:
    """Return the utterance with its flags and digest, and its arrays."""
    recording = encoded.recording if encoded else _recording(job, utterance)
    samples = recording.samples
    precomputed = {name: source.read(utterance.id) for name, source in job.sources.items()}
    if encoded:
        precomputed["audio"] = encoded.frames
    arrays = extract_with_copies(job.recipe, utterance, samples, vocabulary, precomputed)
    quality = quality_flags(job.recipe, utterance, samples, precomputed)
    flags = tuple(dict.fromkeys((*utterance.flags, *recording.flags, *quality)))
    duration = len(samples) / SAMPLE_RATE if job.recipe.has_sound else None
    return replace(utterance, sha256=recording.sha256, duration=duration, flags=flags), arrays


def finished_part(job: Job) -> Part | None:
    """Return the part of a finished job, or None if it is missing, outdated or damaged."""
    try:
        content = json.loads(job.part.read_text(encoding="utf-8"))
        part = Part(
            content["fingerprint"],
            shards.shard_info(content["shard"]),
            content["labels"],
            content["flags"],
            tuple(Rejection(**entry) for entry in content["rejected"]),
            tuple(content["digests"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if part.fingerprint != job.fingerprint or not shards.shard_is_whole(job.directory, part.shard):
        return None
    return part


def run_jobs(
    jobs: Sequence[Job], vocabulary: Vocabulary, workers: int, done: Callable[[Job, Part], None]
) -> None:
    """Run jobs, in worker processes if `workers` is above 1, and call `done` after each.

    Raises:
        InputError: if a worker process dies.
    """
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
            "a worker process died, possibly out of memory; run the same command again to resume, with --workers=1 "
            "to use the least memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker_vocabulary: Vocabulary | None = None


def _start_worker(vocabulary: Vocabulary) -> None:
    global _worker_vocabulary
    _worker_vocabulary = vocabulary
    threadpool_limits(1)  # the pool already has one process per core
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it and stops the pool
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Exit with the parent; otherwise, a worker of a killed parent would wait for its next job forever."""
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
    salt: str, root: Path, utterances: Iterable[Utterance], sources: Mapping[str, Source | Precomputed]
) -> str:
    """Return a digest of the inputs of a shard, with files represented by size and modification time."""
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
