"""Make a prepared dataset of a corpus: features in TFRecord shards, and all that training needs.

    python -m data_prep.prepare --corpus=ravdess --root=RAVDESS --recipe=mcsan --out=data
    python -m data_prep.prepare --corpus=demo --recipe=mcsan --out=data

The dataset is the folder `<out>/<name>/<recipe>/<version>`. `manifest.json` is written last: without it the
folder is not a dataset. Killed at any moment, the same command goes on with the shards that are missing; run
again, it checks what is there and does nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from data_prep.jobs import Job, Part, Ready, finished_part, plan_jobs, run_jobs
from data_prep.sources import open_sources
from jaxser.data import shards
from jaxser.data.dataset import EMBEDDINGS, VOCABULARY
from jaxser.features import text
from jaxser.features.recipes import RECIPES, Recipe, tokens, with_sources
from jaxser.features.sources import FILES, Source
from jaxser.types import InputError, Reading, Rejection, UsageError, Utterance

CORPORA = {
    "demo": "data_prep.demo",
    "emodb": "data_prep.emodb",
    "folder": "data_prep.folder",
    "iemocap": "data_prep.iemocap",
    "meld": "data_prep.meld",
    "ravdess": "data_prep.ravdess",
    "yoon": "data_prep.yoon",
}
"""The module of each corpus; it has `read(root) -> Reading`, and `ready(root)` where it brings its own features."""

CORPUS_FLAGS = {
    "meld_twins": ("meld", "twins"),
    "max_seconds": ("meld", "max_seconds"),
    "metadata": ("folder", "metadata"),
}
"""Flags of single corpora: whose they are, and the argument of its `read`."""

RUNNERS = ("local", "beam")
Runner = Callable[[Sequence[Job], text.Vocabulary, Callable[[Job, Part], None]], None]
"""Makes the parts of all jobs and tells of each."""

EMBEDDING_SEED = 0
FOLDS = "folds.json"
REJECTED = "rejected.jsonl"
TFDS_FILES = ("dataset_info.json", "features.json")


def prepare(
    corpus: str,
    root: str | Path | None = None,
    recipe: str = "mcsan",
    out: str | Path = "data",
    *,
    name: str | None = None,
    glove: str | Path | None = None,
    files: Mapping[str, str | Path] | None = None,
    resnet: str | Path | None = None,
    workers: int | None = None,
    runner: str = "local",
    beam_options: str = "",
    max_rejected: float = 0.05,
    demo: Mapping[str, Any] | None = None,
    corpus_options: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Path:
    """Prepare a corpus under a recipe; returns the dataset's folder.

    `demo` are the settings of the demo corpus (`utterances`, `mix`, `seed`), which is made in
    `<out>/<name>_release` where no `root` is given. `corpus_options` are what only this corpus's `read` takes
    (`CORPUS_FLAGS`). `files` are folders or HDF5 files of arrays made elsewhere, by flag (`frames`, `video`,
    `prosody`); `resnet` is an ONNX network that makes `video` of the corpus's own videos. `max_rejected` is a
    fraction of the utterances. Raises `UsageError` for what cannot be asked, `InputError` for files that cannot
    be used or written.
    """
    started = time.monotonic()
    console = Console(quiet=quiet, markup=False, highlight=False, soft_wrap=True)
    _check(corpus, recipe, name, glove, workers, max_rejected)
    run_all = _runner(runner, workers or _cores(), beam_options)
    name, out = name or corpus, Path(out)
    try:
        if root is None and (table := (corpus_options or {}).get("metadata")):
            root = Path(table).parent  # and `read` says whether the table is there
        source = _corpus_root(corpus, root, out, name, demo or {}, quiet)
        module = importlib.import_module(CORPORA[corpus])
        reading = module.read(source, **corpus_options or {})
        paths = {**_own_files(module, source, recipe, is_own=root is None, resnet=resnet), **(files or {})}
        sources = open_sources(RECIPES[recipe], module, source, reading.utterances, paths, resnet)
        ready = _ready(module, source, recipe, glove)
        taken = with_sources(RECIPES[recipe], sources)
        plan = _plan(corpus, reading, source, taken, name, out, sources, ready)
        with _locked(plan.directory):
            remade = _bring_up_to_date(plan, glove, run_all, max_rejected, quiet)
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror or error}") from error
    if remade:
        _print_summary(console, plan, time.monotonic() - started)
    else:
        console.print(f"{plan.directory} is up to date: nothing to do ({time.monotonic() - started:.1f} s)")
    return plan.directory


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line: exit status 0 done, 1 failed, 2 wrong usage; errors are one line."""
    arguments = vars(_parser().parse_args(argv))
    demo = {key: arguments.pop(key) for key in ("utterances", "mix", "seed")}
    demo = {key: value for key, value in demo.items() if value is not None}
    files = {flag: path for flag in FILES if (path := arguments.pop(flag)) is not None}
    flags = {flag: arguments.pop(flag) for flag in CORPUS_FLAGS}
    try:
        options = _corpus_options(arguments["corpus"], flags)
        prepare(**arguments, files=files, demo=demo, corpus_options=options)
    except UsageError as error:
        _exit(2, str(error))
    except InputError as error:
        _exit(1, str(error))
    except KeyboardInterrupt:
        _exit(1, "interrupted; the same command goes on from here")
    sys.exit(0)


RESERVED = ("demo", "iemocap")
"""Configs know these corpora by the beginning of the dataset's name, which so may be `demo_large`."""


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


def _plan(
    corpus: str,
    reading: Reading,
    root: Path,
    recipe: Recipe,
    name: str,
    out: Path,
    sources: Mapping[str, Source],
    ready: Ready | None = None,
) -> Plan:
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


def _ready(module: ModuleType, root: Path, recipe: str, glove: str | Path | None) -> Ready | None:
    """The features that the corpus brings, if it does."""
    if not hasattr(module, "ready"):
        return None
    ready: Ready = module.ready(root)
    if recipe != ready.recipe:
        raise UsageError(f"--recipe={recipe}: this corpus brings features of recipe {ready.recipe} alone")
    if glove is not None:
        raise UsageError(f"--glove={glove}: this corpus brings its own word vectors")
    return ready


def _bring_up_to_date(
    plan: Plan, glove: str | Path | None, run_all: Runner, max_rejected: float, quiet: bool
) -> bool:
    """Make what is missing; False if nothing was."""
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


def _runner(runner: str, workers: int, beam_options: str) -> Runner:
    if runner not in RUNNERS:
        raise UsageError(f"--runner={runner}: must be one of {', '.join(RUNNERS)}")
    if runner == "beam":
        from data_prep import beam

        return lambda jobs, vocabulary, done: beam.run_jobs(jobs, vocabulary, beam_options, done)
    if beam_options:
        raise UsageError("--beam_options: only for --runner=beam")
    return lambda jobs, vocabulary, done: run_jobs(jobs, vocabulary, workers, done)


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


def _print_summary(console: Console, plan: Plan, seconds: float) -> None:
    manifest = json.loads((plan.directory / shards.MANIFEST).read_text(encoding="utf-8"))
    found, expected = manifest["labels"]["found"], manifest["labels"]["expected"]
    table = Table("label", "found")
    for column in table.columns[1:]:
        column.justify = "right"
    if expected:
        table.add_column("in the genuine release", justify="right")
    for label in sorted(found | expected):
        table.add_row(label, *(str(counts.get(label, 0)) for counts in (found, expected) if counts))
    console.print(f"{plan.name}: {manifest['utterances']} utterances")
    console.print(table)
    where = f" (see {plan.directory / REJECTED})" if manifest["rejected"] else ""
    flags = ", ".join(f"{flag} {count}" for flag, count in manifest["flags"].items()) or "none"
    megabytes = sum(shard["bytes"] for shard in manifest["shards"]) / 1e6
    console.print(f"rejected: {manifest['rejected']}{where}; flags: {flags}")
    if coverage := manifest["embeddings"].get("coverage"):
        console.print(f"GloVe has {coverage['types']:.1%} of the words, {coverage['tokens']:.1%} of the text")
    console.print(
        f"{plan.directory}: {megabytes:.1f} MB in {manifest['number_of_shards']} shards, {seconds:.1f} s"
    )


def _check(
    corpus: str,
    recipe: str,
    name: str | None,
    glove: str | Path | None,
    workers: int | None,
    max_rejected: float,
) -> None:
    if corpus not in CORPORA:
        raise UsageError(f"--corpus={corpus}: must be one of {', '.join(CORPORA)}")
    if recipe not in RECIPES:
        raise UsageError(f"--recipe={recipe}: must be one of {', '.join(RECIPES)}")
    if name is not None and not re.fullmatch(r"[a-zA-Z]\w*", name, re.ASCII):
        raise UsageError(f"--name={name}: must be letters, digits and _, a letter first")
    for reserved in RESERVED:
        if name is not None and name.startswith(reserved) and corpus != reserved:
            raise UsageError(
                f"--name={name}: names that begin with {reserved} get its settings; take another"
            )
    if glove is not None and "words" not in RECIPES[recipe].arrays:
        raise UsageError(f"--glove={glove}: recipe {recipe} has no words")
    if glove is not None and not Path(glove).is_file():
        raise UsageError(f"--glove={glove}: there is no such file")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers={workers}: must be at least 1")
    if not 0 <= max_rejected <= 1 or math.isnan(max_rejected):
        raise UsageError(f"--max_rejected={max_rejected}: must be a fraction in [0, 1]")


def _corpus_root(
    corpus: str, root: str | Path | None, out: Path, name: str, demo: Mapping[str, Any], quiet: bool
) -> Path:
    """Where the corpus is; the demo corpus is made if need be."""
    if demo and (corpus != "demo" or root is not None):
        flags = ", ".join(f"--{flag}" for flag in demo)
        raise UsageError(f"{flags}: only for --corpus=demo without --root")
    if root is not None:
        if not Path(root).is_dir():
            raise UsageError(f"--root={root}: there is no such folder")
        return Path(root)
    if corpus != "demo":
        raise UsageError(f"--corpus={corpus} needs --root, the folder of its release")
    release = out / f"{name}_release"
    if demo or not release.is_dir():  # one that is there is taken as it is, unless the settings are asked for
        importlib.import_module(CORPORA["demo"]).make(root=release, **demo, progress=not quiet)
    return release


def _corpus_options(corpus: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the corpus's `read` by the flags that were given; those of others are wrong usage."""
    options = {}
    for flag, value in flags.items():
        owner, argument = CORPUS_FLAGS[flag]
        if value is None:
            continue
        if corpus != owner:
            raise UsageError(f"--{flag}: only for --corpus={owner}")
        options[argument] = value
    return options


def _own_files(
    module: ModuleType, root: Path, recipe: str, *, is_own: bool, resnet: str | Path | None
) -> dict[str, Path]:
    """Arrays that a corpus brings along: the demo's video, which is made if need be where the demo is our own."""
    if "video" not in RECIPES[recipe].elsewhere or resnet or not hasattr(module, "video"):
        return {}
    folder = module.video(root, make=is_own)
    return {"video": folder} if folder else {}


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _exit(status: int, line: str) -> NoReturn:
    print(f"prepare: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(status)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _exit(2, f"{message} (--help shows all flags)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="prepare", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--corpus", required=True, help=f"one of {', '.join(CORPORA)}")
    parser.add_argument("--root", help="the folder of the corpus's release; the demo corpus needs none")
    parser.add_argument("--recipe", default="mcsan", help=f"one of {', '.join(RECIPES)} (default: mcsan)")
    parser.add_argument("--out", default="data", help="the folder of prepared datasets (default: data)")
    parser.add_argument("--name", help="the dataset's name (default: the corpus's)")
    parser.add_argument("--glove", help="a GloVe text file, such as glove.840B.300d.txt")
    parser.add_argument("--frames", help="recipe frames: a folder of <id>.npy files, or an HDF5 file")
    parser.add_argument("--video", help="recipe self_cross: a folder of <id>.npy files, or an HDF5 file")
    parser.add_argument("--resnet", help="recipe self_cross: an ONNX network that makes video features")
    parser.add_argument("--prosody", help="recipe self_cross: a folder of <id>.npy files, or an HDF5 file")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument(
        "--runner", default="local", help="local (default), or beam for a cluster (data_prep/beam.py)"
    )
    parser.add_argument("--beam_options", default="", help="beam: options of its pipeline, in one string")
    parser.add_argument("--max_rejected", type=float, default=0.05, help="fraction, default 0.05")
    parser.add_argument("--utterances", type=int, help="demo corpus: how many")
    parser.add_argument("--mix", help="demo corpus: which mechanisms, such as tutorial or planted")
    parser.add_argument("--seed", type=int, help="demo corpus: its seed")
    parser.add_argument("--meld_twins", help="meld: of test clips with two cuts, plain (default) or final")
    parser.add_argument("--max_seconds", type=float, help="meld: cut clips that last longer by the tables")
    parser.add_argument("--metadata", help="folder: its table (default: metadata.csv or .jsonl in --root)")
    return parser


if __name__ == "__main__":
    run()
