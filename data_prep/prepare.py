"""Make a prepared dataset of a corpus: features in TFRecord shards, and all that training needs.

    python -m data_prep.prepare --corpus=ravdess --root=RAVDESS --recipe=mcsan --out=data
    python -m data_prep.prepare --corpus=demo --recipe=mcsan --out=data

The dataset is the folder `<out>/<name>/<recipe>/<version>`. `manifest.json` is written last: without it the
folder is not a dataset. Killed at any moment, the same command goes on with the shards that are missing; run
again, it checks what is there and does nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxser import cli
from jaxser.cli import exit_status
from jaxser.data import shards
from jaxser.features.recipes import RECIPES, with_sources
from jaxser.features.sources import FILES
from jaxser.types import InputError, UsageError

from .build import REJECTED, Plan, Runner, bring_up_to_date, locked, make_plan
from .jobs import Ready, run_jobs
from .sources import open_sources

CORPORA = {
    "demo": ".demo.corpus",
    "emodb": ".corpora.emodb",
    "folder": ".corpora.folder",
    "iemocap": ".corpora.iemocap",
    "meld": ".corpora.meld",
    "ravdess": ".corpora.ravdess",
    "yoon": ".corpora.yoon",
}
"""The module of each corpus; it has `read(root) -> Reading`, and `ready(root)` where it brings its own features."""

CORPUS_FLAGS = {
    "meld_twins": ("meld", "twins"),
    "max_seconds": ("meld", "max_seconds"),
    "metadata": ("folder", "metadata"),
}
"""Flags of single corpora: whose they are, and the argument of its `read`."""

RUNNERS = ("local", "beam")


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
        module = importlib.import_module(CORPORA[corpus], __package__)
        reading = module.read(source, **corpus_options or {})
        paths = {**_own_files(module, source, recipe, is_own=root is None, resnet=resnet), **(files or {})}
        sources = open_sources(RECIPES[recipe], module, source, reading.utterances, paths, resnet)
        ready = _ready(module, source, recipe, glove)
        taken = with_sources(RECIPES[recipe], sources)
        plan = make_plan(corpus, reading, source, taken, name, out, sources, ready)
        with locked(plan.directory):
            remade = bring_up_to_date(plan, glove, run_all, max_rejected, quiet)
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror or error}") from error
    if remade:
        _print_summary(console, plan, time.monotonic() - started)
    else:
        console.print(f"{plan.directory} is up to date: nothing to do ({time.monotonic() - started:.1f} s)")
    return plan.directory


def run(argv: Sequence[str] | None = None) -> int:
    """The command line's exit status; errors are one line."""
    arguments = vars(_parser().parse_args(argv))
    demo = {key: arguments.pop(key) for key in ("utterances", "mix", "seed")}
    demo = {key: value for key, value in demo.items() if value is not None}
    files = {flag: path for flag in FILES if (path := arguments.pop(flag)) is not None}
    flags = {flag: arguments.pop(flag) for flag in CORPUS_FLAGS}

    def work() -> int:
        options = _corpus_options(arguments["corpus"], flags)
        prepare(**arguments, files=files, demo=demo, corpus_options=options)
        return 0

    stopped = "interrupted; the same command goes on from here"
    return exit_status("prepare", work, output=arguments["out"], stopped=stopped)


RESERVED = ("demo", "iemocap")
"""Configs know these corpora by the beginning of the dataset's name, which so may be `demo_large`."""


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


def _runner(runner: str, workers: int, beam_options: str) -> Runner:
    if runner not in RUNNERS:
        raise UsageError(f"--runner={runner}: must be one of {', '.join(RUNNERS)}")
    if runner == "beam":
        from . import beam

        return lambda jobs, vocabulary, done: beam.run_jobs(jobs, vocabulary, beam_options, done)
    if beam_options:
        raise UsageError("--beam_options: only for --runner=beam")
    return lambda jobs, vocabulary, done: run_jobs(jobs, vocabulary, workers, done)


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
        importlib.import_module(CORPORA["demo"], __package__).make(root=release, **demo, progress=not quiet)
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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("prepare", "python -m data_prep.prepare", __doc__)
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
    sys.exit(run())
