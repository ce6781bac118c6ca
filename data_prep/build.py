"""Building a prepared dataset: shards, word vectors, metadata and, last, the manifest."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxser import files
from jaxser.data import shards
from jaxser.data.dataset import EMBEDDINGS, VOCABULARY
from jaxser.features import text
from jaxser.features.recipes import Recipe, tokens
from jaxser.features.sources import Source
from jaxser.types import InputError, Reading, Rejection, Utterance

from .corpora.parsing import is_copy
from .jobs import Job, Part, Precomputed, finished_part, plan_jobs
from .labels import Labels
from .word_vectors import finished_vectors, make_vectors, vectors_source, write_vectors

if TYPE_CHECKING:
    from jaxser.encoders.frames import FrameEncoder

Runner = Callable[[Sequence[Job], text.Vocabulary, Callable[[Job, Part], None]], None]
"""Runs all jobs and calls the function with each job and its part."""

FOLDS = "folds.json"
REJECTED = "rejected.jsonl"
IGNORED = "ignored.jsonl"


@dataclass(frozen=True)
class BuildPlan:
    """Everything that determines a prepared dataset, except its word vectors."""

    corpus: str
    recipe: Recipe
    name: str
    directory: Path
    reading: Reading
    labels: Labels
    rejected: tuple[Rejection, ...]  # before any audio is read
    copies: int  # byte-identical copies of utterances, which count once
    vocabulary: text.Vocabulary
    jobs: tuple[Job, ...]
    precomputed: Precomputed | None = None


def plan_build(
    corpus: str,
    reading: Reading,
    root: Path,
    recipe: Recipe,
    name: str,
    out: Path,
    sources: Mapping[str, Source],
    precomputed: Precomputed | None = None,
    labels: Labels | None = None,
    encoder: FrameEncoder | None = None,
) -> BuildPlan:
    """Plan the jobs of a dataset.

    Of utterances with the same id only the first is used. The others are copies if their files are byte-identical and
    their annotations equal; otherwise they are rejected. Counts by label that differ from those of the original release
    are a warning.

    Raises:
        InputError: if the corpus has no usable utterance.
    """
    chosen: dict[str, Utterance] = {}
    rejected, copies = list(reading.rejected), reading.copies
    for utterance in reading.utterances:
        first = chosen.setdefault(utterance.id, utterance)
        if first is utterance:
            continue
        if is_copy(root, first, utterance):
            copies += 1
        else:
            reason = f"has the same id as {first.wav}, which is used"
            rejected.append(Rejection(utterance.id, utterance.wav, reason))
    assert len(chosen) + copies + len(rejected) == (
        len(reading.utterances) + reading.copies + len(reading.rejected)
    )
    if not chosen:
        why = f"; {len(rejected)} were rejected, {_most_common(rejected)}" if rejected else ""
        raise InputError(f"{root}: no utterance of {corpus} can be used{why}")
    directory = out / name / recipe.name / recipe.version
    utterances = [chosen[key] for key in sorted(chosen)]
    warnings = _count_warnings(Counter(one.label for one in utterances), reading.expected)
    reading = replace(reading, warnings=(*reading.warnings, *warnings))
    if precomputed:
        parameters = {**recipe.parameters, "made_by": corpus}
        recipe = replace(recipe, arrays=precomputed.arrays, parameters=parameters)
        vocabulary = precomputed.vocabulary()
    else:
        vocabulary = text.build_vocabulary(tokens(recipe, utterance) for utterance in utterances)
    jobs = plan_jobs(root, directory, name, recipe, utterances, vocabulary, sources, precomputed, encoder)
    return BuildPlan(
        corpus=corpus,
        recipe=recipe,
        name=name,
        directory=directory,
        reading=reading,
        labels=labels or Labels(),
        rejected=tuple(rejected),
        copies=copies,
        vocabulary=vocabulary,
        jobs=tuple(jobs),
        precomputed=precomputed,
    )


def _count_warnings(found: Mapping[str, int], expected: Mapping[str, int]) -> tuple[str, ...]:
    """Return a sentence on the labels whose counts differ from those of the original release, if there are any."""
    differ = [label for label in sorted(expected) if found.get(label, 0) != expected[label]]
    if not differ:
        return ()
    counts = ", ".join(f"{label} {found.get(label, 0)} of {expected[label]}" for label in differ)
    total = f"{sum(found.get(label, 0) for label in expected)} of {sum(expected.values())} utterances"
    return (f"the counts differ from those of the original release ({total}): {counts}",)


def is_up_to_date(plan: BuildPlan, glove: str | Path | None, max_rejected: float) -> bool:
    """Return whether a dataset is complete and current.

    Nothing is written, so its folder may be read-only.

    Raises:
        InputError: if it is, but has too many rejected utterances.
    """
    if not (plan.directory / shards.MANIFEST).is_file():
        return False
    parts = {job.index: part for job in plan.jobs if (part := finished_part(job))}
    vectors = finished_vectors(plan.directory, vectors_source(plan.vocabulary, glove, plan.precomputed))
    if len(parts) < len(plan.jobs) or not vectors:
        return False
    if not _is_current(plan.directory, _manifest(plan, parts, vectors)):
        return False
    _check_rejections(plan, parts, max_rejected)
    return True


def build_dataset(
    plan: BuildPlan, glove: str | Path | None, run_all: Runner, max_rejected: float, quiet: bool
) -> None:
    """Build the parts of a dataset that are missing or outdated.

    Args:
        plan: the dataset.
        glove: a GloVe text file; None gives random word vectors.
        run_all: runs the jobs that are not finished.
        max_rejected: the fraction of utterances that may be rejected.
        quiet: whether to hide the progress bar.

    Raises:
        InputError: if too many utterances are rejected, or if the GloVe file cannot be read.
    """
    directory = plan.directory
    parts = {job.index: part for job in plan.jobs if (part := finished_part(job))}
    inputs = (plan.vocabulary, glove, plan.precomputed)
    table, vectors = None, finished_vectors(directory, vectors_source(*inputs))
    if not vectors:
        table, vectors = make_vectors(*inputs)  # before anything is removed, as the GloVe file may be damaged
    files.remove(directory, shards.MANIFEST)  # an incomplete folder must not look like a dataset
    _remove_stale(plan)
    if table is not None:
        write_vectors(directory, plan.vocabulary, table, vectors)
    _run_missing(plan, parts, run_all, quiet)
    rejected = _rejections(plan, parts)
    for name, entries in ((REJECTED, rejected), (IGNORED, plan.reading.ignored)):
        files.write(directory, name, "".join(json.dumps(asdict(entry)) + "\n" for entry in entries))
    _check_rejections(plan, parts, max_rejected)
    _write_metadata(plan, parts, vectors)


def _write_metadata(plan: BuildPlan, parts: Mapping[int, Part], vectors: Mapping[str, Any]) -> None:
    """Write the corpus's own folds, the files that TensorFlow Datasets reads, and then the manifest."""
    directory = plan.directory
    if plan.reading.folds:
        _write_folds(plan, parts)
    infos = [parts[job.index].shard for job in plan.jobs]
    shards.write_metadata(directory, plan.recipe.version, plan.recipe.arrays, infos)
    names = (
        VOCABULARY,
        EMBEDDINGS,
        REJECTED,
        IGNORED,
        *shards.TFDS_FILES,
        *([FOLDS] if plan.reading.folds else []),
    )
    digests = {name: files.sha256(directory / name) for name in names}
    manifest = {**_manifest(plan, parts, vectors), "files": digests}
    shards.write_json(directory, shards.MANIFEST, files.sealed(manifest))


def _write_folds(plan: BuildPlan, parts: Mapping[int, Part]) -> None:
    """Write the corpus's own folds, for `--config.protocol.name=file --config.protocol.file=folds.json`."""
    unusable = {entry.id for job in plan.jobs for entry in parts[job.index].rejected}
    used = {utterance.id for job in plan.jobs for utterance in job.utterances} - unusable
    folds = [
        {
            key: [identity for identity in value if identity in used] if key != "name" else value
            for key, value in fold.items()
        }
        for fold in plan.reading.folds
    ]
    shards.write_json(plan.directory, FOLDS, {"folds": folds})


def _run_missing(plan: BuildPlan, parts: dict[int, Part], run_all: Runner, quiet: bool) -> None:
    """Run the jobs without a part, and add their parts to `parts`."""
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


def _manifest(plan: BuildPlan, parts: Mapping[int, Part], vectors: Mapping[str, Any]) -> dict[str, Any]:
    recipe, in_order = plan.recipe, [parts[job.index] for job in plan.jobs]
    labels, flags = _sum(part.labels for part in in_order), _sum(part.flags for part in in_order)
    for job in plan.jobs:
        part = parts[job.index]
        assert len(job.utterances) == part.shard.records + len(part.rejected)
    return {
        "name": plan.name,
        "corpus": plan.corpus,
        "recipe": recipe.name,
        "version": recipe.version,
        "parameters": dict(recipe.parameters),
        "normalise": recipe.normalise,
        "arrays": {key: {"dtype": spec.dtype, "shape": spec.shape} for key, spec in recipe.arrays.items()},
        "utterances": sum(labels.values()),
        "labels": {
            "found": labels,
            "expected": dict(plan.reading.expected),
            "label_map": dict(plan.labels.label_map),
            "classes": dict(plan.labels.classes),
            "left_out": dict(plan.labels.left_out),
        },
        "rejected": len(_rejections(plan, parts)),
        "ignored": len(plan.reading.ignored),
        "copies": plan.copies,
        "identical_recordings": _identical(in_order),
        "flags": flags,
        "cut": {key.removeprefix("cut_"): count for key, count in flags.items() if key.startswith("cut_")},
        "facts": dict(plan.reading.facts),
        "warnings": list(plan.reading.warnings),
        "embeddings": dict(vectors),
        "jaxser": importlib.metadata.version("jaxser"),
        "number_of_shards": len(in_order),
        "shards": [shards.shard_json(part.shard) for part in in_order],
    }


def _is_current(directory: Path, wanted: Mapping[str, Any]) -> bool:
    try:
        found = json.loads((directory / shards.MANIFEST).read_text(encoding="utf-8"))
        if not files.is_intact(found):
            return False
        digests = found.pop("files")
        found.pop("digest", None)
        if json.dumps(found) != json.dumps(wanted):
            return False
        return all(files.sha256(directory / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _rejections(plan: BuildPlan, parts: Mapping[int, Part]) -> list[Rejection]:
    return [*plan.rejected, *(entry for job in plan.jobs for entry in parts[job.index].rejected)]


def _check_rejections(plan: BuildPlan, parts: Mapping[int, Part], max_rejected: float) -> None:
    rejected = _rejections(plan, parts)
    used = sum(parts[job.index].shard.records for job in plan.jobs)
    if rejected and (not used or len(rejected) > max_rejected * (used + len(rejected))):
        raise InputError(
            f"{len(rejected)} of {used + len(rejected)} utterances were rejected, more than "
            f"--max_rejected={max_rejected:g} allows; {_most_common(rejected)}; "
            f"all reasons are in {plan.directory / REJECTED}"
        )


def _most_common(rejected: Sequence[Rejection]) -> str:
    """Describe the most common kind of reason by its first example."""
    kinds = [reason_kind(entry.reason) for entry in rejected]
    kind, times = Counter(kinds).most_common(1)[0]
    return f"most often ({times} times): {rejected[kinds.index(kind)].reason}"


def reason_kind(reason: str) -> str:
    """Return a reason without quotations, paths and numbers, which differ by utterance."""
    quoted = re.sub(r"'[^']*'|\"[^\"]*\"", "...", reason)
    return " ".join("..." if re.search(r"[0-9/\\]|\w\.\w", word) else word for word in quoted.split())


def _identical(parts: Sequence[Part]) -> int:
    """Count the recordings that are byte-identical to an earlier one of another id."""
    digests = [digest for part in parts for digest in part.digests]
    return len(digests) - len(set(digests))


def _remove_stale(plan: BuildPlan) -> None:
    """Remove half-written files of killed runs, and shards of another division of the corpus."""
    directory = plan.directory
    expected = {shards.shard_name(plan.name, job.index, job.count) for job in plan.jobs}
    expected |= {job.part.name for job in plan.jobs} | {"embeddings.json"}
    for path in [*directory.glob("*.tfrecord-*"), *directory.glob("*.tmp"), *directory.glob("parts/*")]:
        if path.name not in expected:
            files.remove(
                directory, path.relative_to(directory)
            )  # a worker of a killed run may be renaming it right now


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))
