"""Predict the emotion of recordings by the networks of a finished run.

    python -m jaxser.predict --run=runs/mcsan clip.wav --text="thank you for being with me"
    python -m jaxser.predict --run=runs/mcsan recordings/ --csv > emotions.csv

Exit status: 0 done, 1 a recording or the run cannot be used (the others are predicted), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jaxser import cli
from jaxser.cli import CACHE_DIR, exit_status, keep_programs
from jaxser.features.sources import FILES
from jaxser.types import InputError, UsageError

if TYPE_CHECKING:
    from jaxser.inference.ensemble import Ensemble, Prediction
    from jaxser.inference.recordings import Reader, Text, Window

TOGETHER = 256  # windows that are read before they are predicted

ASR = ("faster-whisper",)

Failed = Sequence[tuple[Path, str]]
"""Recordings that could not be used, and why."""

PROGRAM = "jaxser.predict"


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command `jaxser-predict`, and `python -m jaxser.predict`."""
    sys.exit(main(arguments))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line's exit status; errors are one line each."""
    args = _parser().parse_args(arguments)
    return exit_status(PROGRAM, lambda: _predict(args))


def _predict(args: argparse.Namespace) -> int:
    from jaxser.inference.recordings import find
    from jaxser.inference.saved_model import load

    _check(args)
    keep_programs(args.cache_dir)
    ensemble = load(args.run, fold=args.fold, seed=args.seed)
    paths = find(args.paths)
    if args.text is not None and len(paths) > 1:
        raise UsageError(
            f"--text is of one recording, and {len(paths)} are given: write NAME.txt beside each NAME.wav"
        )
    files = {flag: path for flag in FILES if (path := getattr(args, flag)) is not None}
    reader = ensemble.reader(paths, window=args.window, hop=args.hop, files=files, resnet=args.resnet)
    if args.explain and not ensemble.axes:
        raise UsageError(f"--explain: the network of {args.run} has no attention")
    job = _Job(ensemble, reader, _said(args, reader), args.explain)
    begin = time.monotonic()
    found = list(job.predictions(paths))
    seconds = time.monotonic() - begin
    sys.stdout.write(_FORMATS[args.format](ensemble, found, job.failed))
    for _, reason in job.failed:
        _note(reason)
    if found:
        _note(_summary(ensemble, found, len(paths) - len(job.failed), seconds))
    return 1 if job.failed else 0


class _Job:
    """Reads recordings, predicts many windows at once, and remembers what could not be used."""

    def __init__(self, ensemble: Ensemble, reader: Reader, said: Text, explain: Path | None):
        self.ensemble, self.reader, self.said, self.explain = ensemble, reader, said, explain
        self.failed: list[tuple[Path, str]] = []
        self._drawn: set[Path] = set()

    def predictions(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """In the order of the recordings."""
        from rich.console import Console
        from rich.progress import track

        windows: list[Window] = []
        console = Console(stderr=True)
        hidden = len(paths) == 1 or not console.is_terminal
        for path in track(paths, "predicting", console=console, disable=hidden, transient=True):
            try:
                windows += self.reader.read(path, self.said)
            except InputError as error:
                self.failed.append((path, str(error)))
            if len(windows) >= TOGETHER:
                yield from self._predict(windows)
                windows = []
        yield from self._predict(windows)

    def _predict(self, windows: list[Window]) -> list[Prediction]:
        if self.explain:
            for window in windows:
                self._draw(window)
        return self.ensemble.predict_windows(windows)

    def _draw(self, window: Window) -> None:
        assert self.explain
        from jaxser.inference.attention_plots import save

        name = Path(window.path).stem + (f"-{window.start:.1f}s" if window.start else "")
        path, number = self.explain / f"{name}.png", 2
        while path in self._drawn:  # recordings of one name in two folders
            path, number = self.explain / f"{name}-{number}.png", number + 1
        self._drawn.add(path)
        save(self.ensemble.attention_in(window), path)


def _said(args: argparse.Namespace, reader: Reader) -> Text:
    from jaxser.inference.recordings import faster_whisper

    if not reader.reads_words:
        if args.text is not None or args.asr:
            _note(f"note: the network of {args.run} reads no words")
        return None
    return faster_whisper(args.asr_model) if args.asr else args.text


def _check(args: argparse.Namespace) -> None:
    if args.asr and args.asr not in ASR:
        raise UsageError(f"--asr={args.asr} is not one of {', '.join(ASR)}")
    if bool(args.asr) != bool(args.asr_model):
        raise UsageError("--asr=faster-whisper and --asr_model=FOLDER belong together; nothing is downloaded")
    if args.asr and args.text is not None:
        raise UsageError("--text and --asr: choose one")


def _summary(ensemble: Ensemble, found: Sequence[Prediction], recordings: int, seconds: float) -> str:
    sound = sum(one.end - one.start for one in found)
    replicas = len(ensemble.members)
    mark = "; the run is a demo: it was trained on synthetic speech" if ensemble.results["synthetic"] else ""
    return (
        f"{recordings} recording{'s' * (recordings != 1)}, {sound:.1f} s of sound, {replicas} "
        f"replica{'s' * (replicas != 1)}: {seconds:.1f} s ({recordings / seconds:.1f} recordings/s){mark}"
    )


def _table(ensemble: Ensemble, found: Sequence[Prediction], failed: Failed) -> str:
    """Percentages: the mean over the replicas, and ± their standard deviation."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not found:
        return ""
    has_windows = len({one.path for one in found}) < len(found)
    has_several = len(ensemble.members) > 1
    table = Table(box=None, pad_edge=False)
    table.add_column("recording", overflow="fold")
    heads = (["seconds"] if has_windows else []) + ["emotion"] + (["agree"] if has_several else [])
    for name in (*heads, *ensemble.classes):
        table.add_column(name, justify="left" if name == "emotion" else "right", no_wrap=True)
    table.add_column("notes", overflow="fold")
    for one in found:
        times = [f"{one.start:.1f}-{one.end:.1f}"] if has_windows else []
        agree = [f"{round(one.agreement * len(one.replicas))}/{len(one.replicas)}"] if has_several else []
        cells = [
            f"{mean:.0f} ±{deviation:<2.0f}" if has_several else f"{mean:.0f}"
            for mean, deviation in zip(100 * one.probabilities, 100 * one.std, strict=True)
        ]
        table.add_row(*map(Text, (one.path, *times, one.label, *agree, *cells, _notes(ensemble, one))))
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    with console.capture() as printed:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in printed.get().splitlines())


def _notes(ensemble: Ensemble, one: Prediction) -> str:
    from jaxser.features.audio import HOP, SAMPLE_RATE

    recipe = ensemble.recipe
    heard = recipe.parameters["max_frames"] * HOP / SAMPLE_RATE
    told = {} if "audio" in recipe.elsewhere else {"cut_audio": f"cut audio (heard: {heard:g} s)"}
    unknown = [f"unknown words: {' '.join(one.unknown)}"] if one.unknown else []
    return ", ".join([*(told.get(flag, flag.replace("_", " ")) for flag in one.flags), *unknown])


def _csv(ensemble: Ensemble, found: Sequence[Prediction], failed: Failed) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    numbers = [f"{kind}_{name}" for kind in ("p", "std") for name in ensemble.classes]
    writer.writerow(["path", "start", "end", "label", "agreement", *numbers, "text", "notes"])
    for one in found:
        cells = [f"{value:.6g}" for value in (one.agreement, *one.probabilities, *one.std)]
        writer.writerow(
            [
                one.path,
                f"{one.start:.3f}",
                f"{one.end:.3f}",
                one.label,
                *cells,
                one.text,
                _notes(ensemble, one),
            ]
        )
    return file.getvalue()


def _json(ensemble: Ensemble, found: Sequence[Prediction], failed: Failed) -> str:
    value = {
        "run": str(ensemble.folder),
        "synthetic": ensemble.results["synthetic"],
        "classes": ensemble.classes,
        "replicas": [{"fold": fold, "seed": seed} for fold, seed in ensemble.members],
        "predictions": [_plain(one) for one in found],
        "failed": [{"path": str(path), "reason": reason} for path, reason in failed],
    }
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _plain(one: Prediction) -> dict[str, Any]:
    return {
        "path": one.path,
        "start": round(one.start, 3),
        "end": round(one.end, 3),
        "text": one.text,
        "label": one.label,
        "agreement": one.agreement,
        "probabilities": dict(zip(one.classes, one.probabilities.round(6).tolist(), strict=True)),
        "std": dict(zip(one.classes, one.std.round(6).tolist(), strict=True)),
        "unknown_words": one.unknown,
        "flags": one.flags,
    }


_FORMATS = {"table": _table, "csv": _csv, "json": _json}


def _note(line: str) -> None:
    print(f"{PROGRAM}: {line}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(PROGRAM, "jaxser-predict", __doc__)
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a sound or video file, or a folder of them"
    )
    parser.add_argument("--run", type=Path, required=True, help="the folder of a finished run")
    parser.add_argument("--fold", help="only the replicas of this fold (default: all)")
    parser.add_argument("--seed", type=int, help="only the replicas of this seed (default: all)")
    parser.add_argument(
        "--text", help="what is said (default: the file beside the recording that ends in .txt)"
    )
    parser.add_argument("--asr", help="let a model hear what is said: faster-whisper")
    parser.add_argument("--asr_model", type=Path, help="the folder of that model")
    parser.add_argument(
        "--window", type=float, help="seconds (default: the recipe's maximum; 0: whole recordings)"
    )
    parser.add_argument("--hop", type=float, help="seconds between windows (default: the window)")
    parser.add_argument("--explain", type=Path, metavar="FOLDER", help="draw the attention into PNG files")
    parser.add_argument(
        "--frames", type=Path, help="features made elsewhere: a folder of <recording>.npy, or HDF5"
    )
    parser.add_argument("--video", type=Path, help="video features: a folder of <recording>.npy, or HDF5")
    parser.add_argument("--prosody", type=Path, help="prosody: a folder of <recording>.npy, or HDF5")
    parser.add_argument("--resnet", type=Path, help="the ONNX network that made the run's video features")
    parser.add_argument(
        "--cache_dir", default=CACHE_DIR, help="compiled programs are kept here; empty: nowhere"
    )
    chosen = parser.add_mutually_exclusive_group()
    for name in ("json", "csv"):
        chosen.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, help=f"print {name.upper()}"
        )
    parser.set_defaults(format="table")
    return parser


if __name__ == "__main__":
    run()
