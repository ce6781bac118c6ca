"""Predict the emotion of recordings, or their attributes, with a finished run.

    python -m jaxser.predict --run=runs/mcsan clip.wav --text="thank you for being with me"
    python -m jaxser.predict --run=runs/mcsan recordings/ --csv > emotions.csv

Exit status: 0 on success, 1 if the run or a recording cannot be used (the other recordings are predicted), 2 for wrong
usage.
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
from jaxser.cli import CACHE_DIR, enable_compilation_cache, note, printable, run_command

with cli.importing("jaxser.predict"):
    from jaxser.evaluation.csv_cells import to_cells
    from jaxser.features.sources import FILES
    from jaxser.types import InputError, UsageError

if TYPE_CHECKING:
    from jaxser.inference.ensemble import Ensemble
    from jaxser.inference.predictions import AttributePrediction, Prediction
    from jaxser.inference.recordings import Reader, Text, Window

WINDOWS_AT_ONCE = 256  # windows that are read before they are predicted

ASR = ("faster-whisper",)

Failed = Sequence[tuple[Path, str]]
"""Recordings that cannot be used, with the reasons."""

PROGRAM = "jaxser.predict"


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line: entry point of `jaxser-predict` and `python -m jaxser.predict`."""
    sys.exit(main(arguments))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; errors are printed on one line each."""
    args = _parser().parse_args(arguments)
    return run_command(PROGRAM, lambda: _predict(args), output="standard output", prints_result=True)


def _predict(args: argparse.Namespace) -> int:
    from jaxser.inference.recordings import find_recordings
    from jaxser.inference.saved_model import load

    _check(args)
    enable_compilation_cache(args.cache_dir)
    ensemble = load(args.run, fold=args.fold, seed=args.seed, encoder=args.encoder)
    paths = find_recordings(args.paths)
    if args.text is not None and len(paths) > 1:
        raise UsageError(
            f"--text is the transcript of one recording, but {len(paths)} are given: put NAME.txt beside NAME.wav"
        )
    files = {flag: path for flag in FILES if (path := getattr(args, flag)) is not None}
    reader = ensemble.reader(
        paths, window=args.window, hop=args.hop, files=files, resnet=args.resnet, encoder=args.encoder
    )
    if args.explain and not ensemble.axes:
        raise UsageError(f"--explain: the network of {args.run} has no attention")
    predictor = _Predictor(ensemble, reader, _transcript(args, reader), args.explain)
    begin = time.monotonic()
    found: list[Prediction | AttributePrediction] = []

    def write() -> None:
        sys.stdout.write(_FORMATS[args.format](ensemble, found, predictor.failed))
        sys.stdout.flush()

    try:
        for one in predictor.predictions(paths):
            found.append(one)
    except BaseException:  # an error or an interrupt loses no finished prediction
        if found:
            write()
        raise
    write()
    seconds = time.monotonic() - begin
    for _, reason in predictor.failed:
        _log(reason)
    if found:
        _log(_summary(ensemble, found, len(paths) - len(predictor.failed), seconds))
    return 1 if predictor.failed else 0


class _Predictor:
    """Reads recordings, predicts many windows at once, and keeps a list of the recordings that cannot be used."""

    def __init__(self, ensemble: Ensemble, reader: Reader, transcript: Text, explain: Path | None):
        self.ensemble, self.reader, self.transcript, self.explain = ensemble, reader, transcript, explain
        self.failed: list[tuple[Path, str]] = []
        self._drawn: set[Path] = set()

    def predictions(self, paths: Sequence[Path]) -> Iterator[Prediction | AttributePrediction]:
        """Yield the predictions in the order of the recordings."""
        from rich.console import Console
        from rich.progress import track

        windows: list[Window] = []
        console = Console(stderr=True)
        hidden = len(paths) == 1 or not console.is_terminal
        for path in track(paths, "predicting", console=console, disable=hidden, transient=True):
            try:
                windows += self.reader.read(path, self.transcript)
            except InputError as error:
                self.failed.append((path, str(error)))
            if len(windows) >= WINDOWS_AT_ONCE:
                yield from self._predict(windows)
                windows = []
        yield from self._predict(windows)

    def _predict(self, windows: list[Window]) -> list[Prediction] | list[AttributePrediction]:
        if self.explain:
            for window in windows:
                self._draw(window, self.explain)
        return self.ensemble.predict_windows(windows)

    def _draw(self, window: Window, folder: Path) -> None:
        from jaxser.inference.attention_plots import save

        name = Path(window.path).stem + (f"-{window.start:.1f}s" if window.start else "")
        path, number = folder / f"{name}.png", 2
        while path in self._drawn:  # recordings in different folders can share a name
            path, number = folder / f"{name}-{number}.png", number + 1
        self._drawn.add(path)
        save(self.ensemble.attention_in(window), path)


def _transcript(args: argparse.Namespace, reader: Reader) -> Text:
    from jaxser.inference.recordings import faster_whisper

    if not reader.reads_words:
        if args.text is not None or args.asr:
            _log(f"note: the network of {args.run} reads no words")
        return None
    return faster_whisper(args.asr_model) if args.asr else args.text


def _check(args: argparse.Namespace) -> None:
    if args.asr and args.asr not in ASR:
        raise UsageError(f"--asr={args.asr} is not one of {', '.join(ASR)}")
    if bool(args.asr) != bool(args.asr_model):
        raise UsageError(
            "--asr=faster-whisper and --asr_model=FOLDER must be given together; nothing is downloaded"
        )
    if args.asr and args.text is not None:
        raise UsageError("--text and --asr cannot be combined")


def _summary(
    ensemble: Ensemble,
    found: Sequence[Prediction | AttributePrediction],
    recordings: int,
    seconds: float,
) -> str:
    audio = sum(one.end - one.start for one in found)
    replicas = len(ensemble.members)
    is_demo = ensemble.run_results.synthetic
    demo = "; this is a demo run, trained on synthetic speech" if is_demo else ""
    return (
        f"{recordings} recording{'s' * (recordings != 1)}, {audio:.1f} s of audio, {replicas} "
        f"replica{'s' * (replicas != 1)}: {seconds:.1f} s ({recordings / seconds:.1f} recordings/s){demo}"
    )


def _table(ensemble: Ensemble, found: Sequence[Prediction | AttributePrediction], failed: Failed) -> str:
    """Return a table of percentages or attributes: the mean over the replicas ± their standard deviation."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not found:
        return ""
    has_windows = len({one.path for one in found}) < len(found)
    has_several = len(ensemble.members) > 1
    table = Table(box=None, pad_edge=False)
    table.add_column("recording", overflow="fold")
    of_label = ["emotion", *(["agree"] if has_several else [])] if _has_classes(ensemble) else []
    heads = (["seconds"] if has_windows else []) + of_label
    for name in (*heads, *ensemble.target.names):
        table.add_column(
            Text(printable(name)), justify="left" if name == "emotion" else "right", no_wrap=True
        )
    table.add_column("notes", overflow="fold")
    for one in found:
        times = [f"{one.start:.1f}-{one.end:.1f}"] if has_windows else []
        texts = (one.path, *times, *_cells(one, has_several), _notes(ensemble, one))
        table.add_row(*(Text(printable(text)) for text in texts))
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    with console.capture() as printed:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in printed.get().splitlines())


def _has_classes(ensemble: Ensemble) -> bool:
    from jaxser.evaluation.targets import ATTRIBUTES

    return ensemble.target.kind != ATTRIBUTES


def _cells(one: Prediction | AttributePrediction, has_several: bool) -> list[str]:
    """Return the label and the percentages of the classes, or the attributes."""
    from jaxser.inference.predictions import AttributePrediction

    if isinstance(one, AttributePrediction):
        pairs = zip(one.values, one.std, strict=True)
        return [f"{mean:.2f} ±{std:<4.2f}" if has_several else f"{mean:.2f}" for mean, std in pairs]
    agree = [f"{round(one.agreement * len(one.replicas))}/{len(one.replicas)}"] if has_several else []
    pairs = zip(100 * one.probabilities, 100 * one.std, strict=True)
    return [
        one.label,
        *agree,
        *(f"{mean:.0f} ±{std:<2.0f}" if has_several else f"{mean:.0f}" for mean, std in pairs),
    ]


def _notes(ensemble: Ensemble, one: Prediction | AttributePrediction) -> str:
    from jaxser.features.audio import SAMPLE_RATE

    recipe = ensemble.recipe
    heard = recipe.max_samples / SAMPLE_RATE
    wording = {} if "audio" in recipe.precomputed else {"cut_audio": f"cut audio (heard: {heard:g} s)"}
    unknown = [f"unknown words: {' '.join(one.unknown)}"] if one.unknown else []
    return ", ".join([*(wording.get(flag, flag.replace("_", " ")) for flag in one.flags), *unknown])


def _csv(ensemble: Ensemble, found: Sequence[Prediction | AttributePrediction], failed: Failed) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    has_classes, names = _has_classes(ensemble), ensemble.target.names
    of_label = ["label", "agreement", *(f"p_{name}" for name in names)] if has_classes else [*names]
    stds = [f"std_{name}" for name in names]
    writer.writerow(to_cells(["path", "start", "end", *of_label, *stds, "text", "notes"]))
    for one in found:
        times = [f"{one.start:.3f}", f"{one.end:.3f}"]
        row = [one.path, *times, *_numbers(one), one.text, _notes(ensemble, one)]
        writer.writerow(to_cells(row))
    return _for_terminal(file.getvalue())


def _numbers(one: Prediction | AttributePrediction) -> list[str]:
    """Return the cells of CSV: the label and its probabilities, or the attributes, and standard deviations."""
    from jaxser.inference.predictions import AttributePrediction

    if isinstance(one, AttributePrediction):
        return [f"{value:.6g}" for value in (*one.values, *one.std)]
    return [one.label, *(f"{value:.6g}" for value in (one.agreement, *one.probabilities, *one.std))]


def _for_terminal(text: str) -> str:
    """Return the text, without control characters if it goes to a terminal."""
    return printable(text) if sys.stdout.isatty() else text


def _json(ensemble: Ensemble, found: Sequence[Prediction | AttributePrediction], failed: Failed) -> str:
    value = {
        "run": str(ensemble.folder),
        "synthetic": ensemble.run_results.synthetic,
        **_described(ensemble),
        "replicas": [{"fold": fold, "seed": seed} for fold, seed in ensemble.members],
        "predictions": [_to_json(one) for one in found],
        "failed": [{"path": str(path), "reason": reason} for path, reason in failed],
    }
    is_unicode = "utf" in (sys.stdout.encoding or "").lower()
    return _for_terminal(json.dumps(value, ensure_ascii=not is_unicode, indent=2) + "\n")


def _described(ensemble: Ensemble) -> dict[str, Any]:
    described = dict(ensemble.run_results.described_target)
    return {
        **({"classes": ensemble.classes} if _has_classes(ensemble) else {}),
        **({"target": described} if described else {}),
    }


def _to_json(one: Prediction | AttributePrediction) -> dict[str, Any]:
    from jaxser.inference.predictions import AttributePrediction

    def named(values: Any) -> dict[str, float]:
        names = one.attributes if isinstance(one, AttributePrediction) else one.classes
        return dict(zip(names, values.round(6).tolist(), strict=True))

    if isinstance(one, AttributePrediction):
        own: dict[str, Any] = {"attributes": named(one.values)}
    else:
        own = {
            "label": one.label,
            "agreement": one.agreement,
            "probabilities": named(one.probabilities),
        }
    return {
        "path": one.path,
        "start": round(one.start, 3),
        "end": round(one.end, 3),
        "text": one.text,
        **own,
        "std": named(one.std),
        "unknown_words": one.unknown,
        "flags": one.flags,
    }


_FORMATS = {"table": _table, "csv": _csv, "json": _json}


def _log(line: str) -> None:
    note(f"{PROGRAM}: {line}")


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(PROGRAM, "jaxser-predict", __doc__)
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="an audio or video file, or a folder of them")
    add("--run", type=Path, required=True, help="the folder of a finished run")
    add("--fold", help="use only the replicas of this fold (default: all)")
    add("--seed", type=int, help="use only the replicas of this seed (default: all)")
    add("--text", help="the transcript (default: the .txt file beside the recording)")
    add("--asr", help="transcribe with a speech recogniser: faster-whisper")
    add("--asr_model", type=Path, help="the folder of the recogniser's model")
    add(
        "--window", type=float, help="seconds per window (default: the recipe's maximum; 0: whole recordings)"
    )
    add("--hop", type=float, help="seconds from one window to the next (default: --window)")
    add("--explain", type=Path, metavar="FOLDER", help="draw the attention weights into PNG files in FOLDER")
    add("--frames", type=Path, help="precomputed audio features: a folder of <recording>.npy, or HDF5")
    add("--video", type=Path, help="precomputed video features: a folder of <recording>.npy, or HDF5")
    add("--prosody", type=Path, help="precomputed prosody: a folder of <recording>.npy, or HDF5")
    add("--encoder", type=Path, help="the folder of the pretrained encoder that the run was trained with")
    add("--resnet", type=Path, help="the ONNX network that extracted the run's video features")
    add("--cache_dir", default=CACHE_DIR, help="folder for compiled programs; empty: do not keep them")
    output = parser.add_mutually_exclusive_group()
    for name in ("json", "csv"):
        output.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, help=f"print {name.upper()}"
        )
    parser.set_defaults(format="table")
    return parser


if __name__ == "__main__":
    run()
