"""Forced alignment: times for the words of utterances that have a transcript alone.

Results are kept in a file, so that another recipe, or the same command after an interruption, need not repeat them.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits

from jaxser import corpora, files
from jaxser.features.audio import read_audio, split_span
from jaxser.features.text import tokenize
from jaxser.types import InputError, Reading, Rejection, UsageError, Utterance, Word

from . import align_pocketsphinx

ALIGNERS = ("pocketsphinx",)
_CHUNK = 16  # utterances that a worker process takes at a time
_REPLACED_FLAGS = frozenset(("no_alignment", "bad_alignment"))


def align_words(
    corpus: str, reading: Reading, root: Path, aligner: str, kept: Path, workers: int = 1, quiet: bool = False
) -> Reading:
    """Align the utterances that have a transcript and no words with times.

    They get the flag `forced_alignment`. Those that cannot be aligned keep equal segments (`no_alignment`), and are
    listed as ignored with the reason.

    Args:
        corpus: the name of the corpus, whose language must be English or unknown.
        reading: its utterances.
        root: its folder.
        aligner: one of `ALIGNERS`.
        kept: the file of results, in a folder of the folder of prepared datasets.
        workers: the number of processes.
        quiet: whether to hide the progress bar.

    Raises:
        UsageError: if the aligner is unknown or not installed, or the corpus is in another language.
        InputError: if the file of results cannot be written, or a worker process dies.
    """
    if aligner not in ALIGNERS:
        raise UsageError(f"--align={aligner}: must be one of {', '.join(ALIGNERS)}")
    record = corpora.find(corpus)
    if record.language and not record.language.startswith("en"):
        raise UsageError(f"--align={aligner}: only for English, and {record.title} is in {record.language!r}")
    version = align_pocketsphinx.version()
    tasks = {
        one.id: _Task.of(version, root, one)
        for one in reading.utterances
        if one.words is None and one.transcript
    }
    results = _results(list(tasks.values()), kept, workers, quiet)
    outcomes = {identity: results[task.key] for identity, task in tasks.items()}
    utterances = tuple(
        _aligned(one, outcomes[one.id]) if one.id in outcomes else one for one in reading.utterances
    )
    ignored = tuple(
        Rejection(one.id, one.wav, f"not aligned: {outcomes[one.id]}")
        for one in reading.utterances
        if isinstance(outcomes.get(one.id), str)
    )
    done = sum(not isinstance(outcome, str) for outcome in outcomes.values())
    facts = {"aligner": version, "aligned": done, "not_aligned": len(outcomes) - done}
    return replace(
        reading,
        utterances=utterances,
        ignored=(*reading.ignored, *ignored),
        facts={**reading.facts, "alignment": facts},
    )


_Outcome = tuple[Word, ...] | str
"""The words, or why there are none."""


@dataclass(frozen=True)
class _Task:
    """An utterance to align; `key` changes whenever the result may change."""

    key: str
    recording: Path
    tokens: tuple[str, ...]

    @classmethod
    def of(cls, version: str, root: Path, utterance: Utterance) -> _Task:
        try:
            status = os.stat(root / split_span(utterance.wav)[0])
            stamp = [status.st_size, status.st_mtime_ns]
        except (OSError, ValueError):
            stamp = []
        tokens = tuple(token.lower() for token in tokenize(utterance.transcript) if token[0].isalnum())
        content = json.dumps([version, utterance.wav, stamp, tokens])
        return cls(hashlib.sha256(content.encode()).hexdigest()[:32], root / utterance.wav, tokens)


def _aligned(utterance: Utterance, outcome: _Outcome) -> Utterance:
    flags = tuple(flag for flag in utterance.flags if flag not in _REPLACED_FLAGS)
    if isinstance(outcome, str):
        return replace(utterance, flags=(*flags, "no_alignment"))
    return replace(utterance, words=outcome, flags=(*flags, "forced_alignment"))


def _results(tasks: Sequence[_Task], kept: Path, workers: int, quiet: bool) -> Mapping[str, _Outcome]:
    """Return the outcome of each task by its key; those that are not in `kept` are computed and appended to it."""
    known = _read(kept)
    missing = list({task.key: task for task in tasks if task.key not in known}.values())
    if not missing:
        return known
    out = kept.parent.parent
    out.mkdir(parents=True, exist_ok=True)
    with files.open_appending(out, kept.relative_to(out)) as file:
        file.write(b"\n")  # ends a line that an interruption has cut
        done = _run(missing, workers)
        shown = track(done, "word alignment", len(missing), console=Console(stderr=True), disable=quiet)
        for task, outcome in zip(missing, shown, strict=True):
            known[task.key] = outcome
            words = outcome if isinstance(outcome, str) else [asdict(word) for word in outcome]
            file.write(json.dumps([task.key, words]).encode() + b"\n")
            file.flush()
    return known


def _read(kept: Path) -> dict[str, _Outcome]:
    """Read the results; lines that an interruption has cut are left out."""
    results: dict[str, _Outcome] = {}
    try:
        lines = kept.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return results
    for line in lines:
        try:
            key, outcome = json.loads(line)
            results[key] = outcome if isinstance(outcome, str) else tuple(Word(**word) for word in outcome)
        except (ValueError, TypeError):
            continue
    return results


def _run(tasks: Sequence[_Task], workers: int) -> Iterator[_Outcome]:
    if workers == 1 or len(tasks) <= _CHUNK:
        _start_worker()
        with threadpool_limits(1):
            yield from map(_align, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            yield from pool.map(_align, tasks, chunksize=_CHUNK)
        except BrokenProcessPool:
            raise InputError(
                "a worker process died during the alignment; run the same command again to resume, with --workers=1"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker_aligner: align_pocketsphinx.Aligner | None = None


def _start_worker() -> None:
    global _worker_aligner
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it and stops the pool
    _worker_aligner = align_pocketsphinx.Aligner()


def _align(task: _Task) -> _Outcome:
    assert _worker_aligner is not None
    try:
        return _worker_aligner.align(read_audio(task.recording).samples, task.tokens)
    except (ValueError, RuntimeError) as error:
        return " ".join(str(error).split())
