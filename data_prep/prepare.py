"""Prepare a corpus as a dataset: TFRecord shards, and whatever else training needs.

    python -m jaxser.data_prep.prepare --corpus=ravdess --root=RAVDESS --recipe=mcsan --out=data
    python -m jaxser.data_prep.prepare --corpus=demo --recipe=mcsan --out=data

The dataset is the folder `<out>/<name>/<recipe>/<version>`. Its `manifest.json` is written last, so a folder without it
is not a dataset. After an interruption, the same command writes only the shards that are missing.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxser import cli

with cli.importing("prepare"):
    from rich.console import Console

    from jaxser.cli import run_command
    from jaxser.corpora import DEMO_DATASETS
    from jaxser.features.recipes import RECIPES, with_encoder, with_segmenter, with_sources
    from jaxser.features.sources import FILES
    from jaxser.features.text import SEGMENTERS
    from jaxser.files import lock, make_folder
    from jaxser.types import InputError, UsageError

    from .align import ALIGNERS, align_words
    from .augment import RANGES, with_copies
    from .build import Runner, build_dataset, is_up_to_date, plan_build
    from .jobs import Precomputed, run_jobs
    from .labels import apply_labels, read_label_map
    from .readers import CORPUS_FLAGS, READERS, CorpusReader, import_reader, reader_options
    from .sources import open_sources, within_root
    from .summary import print_recognised, print_summary

if TYPE_CHECKING:
    from jaxser.encoders.frames import FrameEncoder

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
    encoder: str | Path | None = None,
    layers: str = "last",
    padding: str | None = None,
    augment: Sequence[str] = (),
    copies: int = 1,
    workers: int | None = None,
    runner: str = "local",
    beam_options: str = "",
    max_rejected: float = 0.05,
    demo: Mapping[str, Any] | None = None,
    corpus_options: Mapping[str, Any] | None = None,
    segmenter: str = SEGMENTERS[0],
    allow_outside_root: bool = False,
    label_map: Mapping[str, str] | str | Path | None = None,
    classes: str = "",
    align: str | None = None,
    quiet: bool = False,
) -> Path:
    """Prepare a corpus with a recipe.

    Args:
        corpus: a key of `READERS`.
        root: the folder of the corpus; None makes the demo corpus in `<out>/<name>_release`.
        recipe: a key of `jaxser.features.recipes.RECIPES`.
        out: the folder of prepared datasets.
        name: the name of the dataset; None uses the name of the corpus.
        glove: a GloVe text file; None gives random word vectors.
        files: folders or HDF5 files of precomputed arrays, by flag (`frames`, `video`, `prosody`).
        resnet: an ONNX network that computes `video` from the corpus's own videos.
        encoder: the folder of a pretrained encoder in Hugging Face's layout, for recipe `encoder`.
        layers: the hidden states of the encoder: `last`, `all`, `mean` or numbers such as `3,6,9`.
        padding: "exact" or "as_published", see `jaxser.encoders.load`; None is the family's default.
        augment: the kinds of changes of augmented copies, of `data_prep.augment.RANGES`.
        copies: the number of augmented copies of each recording.
        workers: the number of processes; None uses one per core.
        runner: "local" or "beam".
        beam_options: the options of the Beam pipeline.
        max_rejected: the fraction of utterances that may be rejected.
        demo: the settings of the demo corpus (`utterances`, `mix`, `seed`).
        corpus_options: the arguments that only this corpus's `read` has (`CORPUS_FLAGS`).
        segmenter: how texts in scripts without spaces are divided (`jaxser.features.text.SEGMENTERS`).
        allow_outside_root: whether ids, paths and links may lead out of the corpus and the folders of features.
        label_map: the new name of each label, as a mapping, as "A=angry,H=happy" or as a file; labels that are renamed
            to "" are left out.
        classes: a label set of the corpus, or classes such as "ang,hap+exc,sad,neu"; utterances with other labels are
            left out.
        align: the aligner (`data_prep.align.ALIGNERS`) that times the words of utterances without an alignment.
        quiet: whether to hide progress and summary.

    Returns:
        The folder of the dataset.

    Raises:
        UsageError: if the arguments are invalid or do not fit together.
        InputError: if a file cannot be read or written, or if too many utterances are rejected.
    """
    started = time.monotonic()
    console = Console(quiet=quiet, markup=False, highlight=False, soft_wrap=True)
    reader = import_reader(corpus)
    _check(corpus, recipe, name, glove, workers, max_rejected)
    if encoder and runner == "beam":
        raise UsageError("--runner=beam: recipe encoder runs on this machine's device, with --runner=local")
    run_all = _runner(runner, 1 if encoder else workers or _cores(), beam_options)
    name, out = name or corpus, Path(out)
    try:
        if root is None and (table := (corpus_options or {}).get("metadata")):
            root = Path(table).parent  # `read` reports a missing table
        source = _corpus_root(corpus, root, out, name, demo or {}, quiet)
        options = dict(corpus_options or {})
        has_sound = RECIPES[recipe].has_sound
        if corpus == "folder":  # whose table names all files, or none
            options |= {"allow_outside_root": allow_outside_root, "has_sound": has_sound}
        reading = reader.read(source, **options)
        print_recognised(console, reading)
        if has_sound and not allow_outside_root:
            reading = within_root(reading, source)
        if not has_sound and not any(one.transcript or one.words for one in reading.utterances):
            raise InputError(f"{source}: no utterance of {corpus} has a text, which recipe {recipe} reads")
        reading, labels = apply_labels(corpus, reading, _label_map(label_map), classes)
        if align:
            if not has_sound:
                raise UsageError(f"--align={align}: recipe {recipe} does not read sound")
            kept = out / name / f"{align}.jsonl"
            reading = align_words(corpus, reading, source, align, kept, workers or _cores(), quiet)
        paths = {**_own_video(reader, source, recipe, make=root is None, resnet=resnet), **(files or {})}
        sources = open_sources(
            RECIPES[recipe], reader, source, reading.utterances, paths, resnet, allow_outside_root
        )
        precomputed = _precomputed(reader, source, recipe, glove)
        frame_encoder = _open_encoder(recipe, encoder, layers, padding)
        resolved = with_segmenter(RECIPES[recipe], segmenter)
        if frame_encoder:
            resolved = with_encoder(resolved, frame_encoder.described, frame_encoder.width)
        resolved = with_sources(resolved, sources)
        if augment and precomputed:
            raise UsageError("--augment: this corpus has features and no recordings")
        if augment:
            resolved = with_copies(resolved, augment, copies)
        plan = plan_build(
            corpus, reading, source, resolved, name, out, sources, precomputed, labels, frame_encoder
        )
        current = is_up_to_date(plan, glove, max_rejected)
        if not current:
            advice = "wait until it has ended, or give another --name or --out"
            make_folder(out / name, plan.directory.relative_to(out / name))  # refuses links below the name
            with lock(plan.directory, advice):
                build_dataset(plan, glove, run_all, max_rejected, quiet)
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror or error}") from error
    seconds = time.monotonic() - started
    if current:
        console.print(f"{plan.directory} is up to date ({seconds:.1f} s)")
    else:
        print_summary(console, plan, seconds)
    if not quiet:
        for warning in plan.reading.warnings:
            print(f"prepare: warning: {warning}", file=sys.stderr)
    return plan.directory


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; an error is printed as one line."""
    arguments = vars(_parser().parse_args(argv))
    demo = {key: arguments.pop(key) for key in ("utterances", "mix", "seed")}
    demo = {key: value for key, value in demo.items() if value is not None}
    files = {flag: path for flag in FILES if (path := arguments.pop(flag)) is not None}
    flags = {flag: arguments.pop(flag) for flag in CORPUS_FLAGS}

    def work() -> int:
        options = reader_options(arguments["corpus"], flags)
        prepare(**arguments, files=files, demo=demo, corpus_options=options)
        return 0

    stopped = "interrupted; run the same command again to resume"
    return run_command("prepare", work, output=arguments["out"], stopped=stopped)


def _check(
    corpus: str,
    recipe: str,
    name: str | None,
    glove: str | Path | None,
    workers: int | None,
    max_rejected: float,
) -> None:
    if recipe not in RECIPES:
        raise UsageError(f"--recipe={recipe}: must be one of {', '.join(RECIPES)}")
    if name is not None and not re.fullmatch(r"[a-zA-Z]\w*", name, re.ASCII):
        raise UsageError(f"--name={name}: must consist of letters, digits and _, and start with a letter")
    if name in DEMO_DATASETS and corpus != "demo":
        raise UsageError(f"--name={name}: this dataset is made from the demo corpus; choose another name")
    if glove is not None and "words" not in RECIPES[recipe].arrays:
        raise UsageError(f"--glove={glove}: recipe {recipe} has no words")
    if glove is not None and not Path(glove).is_file():
        raise UsageError(f"--glove={glove}: no such file")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers={workers}: must be at least 1")
    if not 0 <= max_rejected <= 1 or math.isnan(max_rejected):
        raise UsageError(f"--max_rejected={max_rejected}: must be a fraction in [0, 1]")


def _runner(runner: str, workers: int, beam_options: str) -> Runner:
    if runner not in RUNNERS:
        raise UsageError(f"--runner={runner}: must be one of {', '.join(RUNNERS)}")
    if runner == "beam":
        from . import beam

        return lambda jobs, vocabulary, done: beam.run_jobs(jobs, vocabulary, beam_options, done)
    if beam_options:
        raise UsageError("--beam_options: only for --runner=beam")
    return lambda jobs, vocabulary, done: run_jobs(jobs, vocabulary, workers, done)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _corpus_root(
    corpus: str, root: str | Path | None, out: Path, name: str, demo: Mapping[str, Any], quiet: bool
) -> Path:
    """Return the folder of the corpus, after making the demo corpus if necessary."""
    if demo and (corpus != "demo" or root is not None):
        flags = ", ".join(f"--{flag}" for flag in demo)
        raise UsageError(f"{flags}: only for --corpus=demo without --root")
    if root is not None:
        if not Path(root).is_dir():
            raise UsageError(f"--root={root}: no such folder")
        return Path(root)
    if corpus != "demo":
        raise UsageError(f"--corpus={corpus} needs --root, the folder of the corpus")
    release = out / f"{name}_release"
    if demo or not release.is_dir():  # without settings, an existing release is used as it is
        from .demo.corpus import make

        make(root=release, **demo, progress=not quiet)
    return release


def _own_video(
    reader: CorpusReader, root: Path, recipe: str, *, make: bool, resnet: str | Path | None
) -> dict[str, Path]:
    """Return the folder of the corpus's own video features by flag, if the recipe needs and the corpus has them."""
    if "video" not in RECIPES[recipe].precomputed or resnet or not hasattr(reader, "video"):
        return {}
    folder = reader.video(root, make=make)
    return {"video": folder} if folder else {}


def _precomputed(
    reader: CorpusReader, root: Path, recipe: str, glove: str | Path | None
) -> Precomputed | None:
    """Return the features that the corpus provides instead of sound, if it does."""
    if not hasattr(reader, "precomputed"):
        return None
    precomputed: Precomputed = reader.precomputed(root)
    if recipe != precomputed.recipe:
        raise UsageError(f"--recipe={recipe}: this corpus only has features of recipe {precomputed.recipe}")
    if glove is not None:
        raise UsageError(f"--glove={glove}: this corpus has its own word vectors")
    return precomputed


def _open_encoder(
    recipe: str, folder: str | Path | None, layers: str, padding: str | None
) -> FrameEncoder | None:
    """Load the encoder of recipe `encoder`; None for other recipes."""
    if recipe != "encoder":
        if folder is not None:
            raise UsageError(f"--encoder={folder}: only for --recipe=encoder, not for {recipe}")
        if layers != "last" or padding is not None:
            raise UsageError(f"--layers, --padding: only for --recipe=encoder, not for {recipe}")
        return None
    if folder is None:
        return None  # `with_sources` asks for it
    from jaxser.encoders.frames import open_encoder  # imports JAX

    return open_encoder(folder, layers, padding)


def _label_map(value: Mapping[str, str] | str | Path | None) -> Mapping[str, str] | None:
    return read_label_map(str(value)) if isinstance(value, str | Path) else value


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("prepare", "python -m jaxser.data_prep.prepare", __doc__)
    features = "a folder of <id>.npy files, or an HDF5 file"
    parser.add_argument("--corpus", required=True, help=f"one of {', '.join(READERS)}")
    parser.add_argument("--root", help="folder of the corpus; not needed for the demo corpus")
    parser.add_argument("--recipe", default="mcsan", help=f"one of {', '.join(RECIPES)} (default: mcsan)")
    parser.add_argument("--out", default="data", help="folder of prepared datasets (default: data)")
    parser.add_argument("--name", help="name of the dataset (default: that of the corpus)")
    parser.add_argument(
        "--glove", help="word vectors: text of GloVe, fastText or word2vec, which may be packed (.gz, .zip)"
    )
    parser.add_argument(
        "--segmenter",
        default=SEGMENTERS[0],
        help=f"words in scripts without spaces: {' or '.join(SEGMENTERS)} (default: {SEGMENTERS[0]})",
    )
    parser.add_argument(
        "--allow_outside_root",
        action="store_true",
        help="use files outside the corpus and the folders of features, by paths or links",
    )
    parser.add_argument("--frames", help=f"recipe frames: {features}")
    parser.add_argument("--video", help=f"recipe self_cross: {features}")
    parser.add_argument("--resnet", help="recipe self_cross: ONNX network that computes video features")
    parser.add_argument(
        "--encoder", help="recipe encoder: folder of a pretrained encoder (Hugging Face's layout)"
    )
    parser.add_argument(
        "--layers", default="last", help="recipe encoder: last (default), all, mean, or numbers such as 3,6,9"
    )
    parser.add_argument(
        "--padding",
        help="recipe encoder: exact or as_published (default: as the family is published, if it can be)",
    )
    parser.add_argument("--prosody", help=f"recipe self_cross: {features}")
    parser.add_argument(
        "--augment",
        type=lambda kinds: kinds.split(","),
        default=(),
        help=f"make augmented copies for training: some of {','.join(RANGES)}",
    )
    parser.add_argument("--copies", type=int, default=1, help="number of augmented copies (default: 1)")
    parser.add_argument("--workers", type=int, help="number of processes (default: one per core)")
    parser.add_argument(
        "--runner", default="local", help="local (default), or beam for a cluster (see data_prep/beam.py)"
    )
    parser.add_argument("--beam_options", default="", help="beam: pipeline options in one string")
    parser.add_argument(
        "--max_rejected",
        type=float,
        default=0.05,
        help="largest fraction of rejected utterances (default: 0.05)",
    )
    parser.add_argument("--utterances", type=int, help="demo: number of utterances")
    parser.add_argument("--mix", help="demo: mix of mechanisms, such as tutorial or planted")
    parser.add_argument("--seed", type=int, help="demo: random seed")
    parser.add_argument(
        "--meld_twins", help="meld: cut of test clips with two cuts, plain (default) or final"
    )
    parser.add_argument("--max_seconds", type=float, help="meld: cut longer clips to the times in the tables")
    parser.add_argument(
        "--label_map", help="new names of labels: a JSON, YAML, CSV or TSV file, or A=angry,H=happy"
    )
    parser.add_argument(
        "--classes", default="", help="labels to use: a label set such as four, or ang,hap+exc,sad,neu"
    )
    parser.add_argument(
        "--words_tier", help="folder: tier of words in TextGrids (default: words, word or ORT-MAU)"
    )
    parser.add_argument(
        "--align", help=f"time the words of English utterances without an alignment: {', '.join(ALIGNERS)}"
    )
    parser.add_argument("--metadata", help="folder: its table (default: metadata.csv or .jsonl in --root)")
    parser.add_argument(
        "--columns", help="folder: names of the table's columns, such as path=FileName,label=EmoClass"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
