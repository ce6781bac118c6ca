"""Draw one utterance of a prepared dataset: its sound with the words, and below it every array that a network gets.

    python -m data_prep.show --data=data/demo/mcsan/1.0.0 --root=data/demo_release --out=picture.png

`--id` chooses the utterance (default: the first). What is drawn is read from the shards, so it is what
training sees before normalisation.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxser import cli
from jaxser.cli import exit_status
from jaxser.data import shards
from jaxser.data.dataset import array_specs, find, read_manifest, read_vocabulary
from jaxser.features import video
from jaxser.features.audio import HOP, SAMPLE_RATE, read_audio
from jaxser.features.recipes import RECIPES, segment_bounds
from jaxser.types import InputError, UsageError, Utterance

BORDER, SOUND, FADED = "#c2410c", "#475569", "#94a3b8"
_TITLES = {
    "audio": "audio",
    "audio_noisy": "audio_noisy: the copy in white noise",
    "segments": "segments: each word by itself, one after the other",
    "video": "video: 2048 numbers a picture",
    "prosody": "prosody of the whole utterance",
}
_GROUPS = {  # of features: name, and the middle of its rows
    "lld": (("energy", 0.5), ("MFCC", 7), ("crossings, voicing, pitch", 14.5), ("slopes", 24)),
    "self_cross": (("MFCC", 20), ("Δ", 60), ("ΔΔ", 100)),
}


@dataclass(frozen=True, eq=False)
class Shown:
    """An utterance as training gets it, and its sound."""

    utterance: Utterance
    arrays: shards.Arrays
    manifest: Mapping[str, Any]
    vocabulary: tuple[str, ...]
    samples: Float[np.ndarray, " samples"]

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def show(data: str | Path, root: str | Path, out: str | Path, identity: str | None = None) -> None:
    """Draw an utterance of the dataset in folder `data`, whose corpus is in folder `root`, into a picture file.

    Raises `UsageError` where there is no such dataset or utterance, `InputError` where a file cannot be used.
    """
    shown = _read(find(data), Path(root), identity)
    figure = draw(shown)
    try:
        figure.savefig(out, dpi=110)
    except (OSError, ValueError) as error:
        raise InputError(f"--out={out}: the picture cannot be written ({error})") from None


def draw(shown: Shown) -> Figure:
    """The picture: the sound above, an image of each array of numbers below it."""
    names = [name for name, rows in shown.arrays.items() if rows.ndim == 2]
    figure = Figure(figsize=(11, 2.4 + 1.9 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    sound, *panels = figure.subplots(
        1 + len(names), 1, squeeze=False, height_ratios=[1.1] + [1] * len(names)
    )[:, 0]
    _draw_sound(sound, shown)
    for panel, name in zip(panels, names, strict=True):
        _draw_array(figure, panel, name, shown)
        if name in ("audio", "audio_noisy", "video"):
            panel.set_xlim(0, shown.seconds)
    utterance = shown.utterance
    flags = f"   flags: {', '.join(utterance.flags)}" if utterance.flags else ""
    recipe = f"recipe {shown.manifest['recipe']} {shown.manifest['version']}"
    heading = f"{utterance.id}   {utterance.label}   {recipe}{flags}"
    transcript = textwrap.fill(utterance.transcript or "(no transcript)", 110, max_lines=2)
    figure.suptitle(f"{heading}\n{transcript}", fontsize=10, x=0.01, ha="left", parse_math=False)
    return figure


def _read(folder: Path, root: Path, identity: str | None) -> Shown:
    manifest = read_manifest(folder)
    specs = array_specs(manifest)
    for entry in manifest["shards"]:
        for utterance, arrays in shards.read_shard(folder / entry["file"], specs):
            if identity in (None, utterance.id):
                samples, sha256 = read_audio(root / utterance.wav)
                if sha256 != utterance.sha256:
                    raise InputError(f"{root / utterance.wav}: not the sound that the dataset was made of")
                return Shown(utterance, arrays, manifest, read_vocabulary(folder), samples)
    raise UsageError(f"--id={identity}: no utterance of {folder}")


def _draw_sound(panel: Axes, shown: Shown) -> None:
    """The waveform, the words where they are spoken, and where a recipe cuts them."""
    times = np.arange(len(shown.samples)) / SAMPLE_RATE
    panel.plot(times, shown.samples, color=SOUND, linewidth=0.4)
    peak = max(1e-3, float(np.abs(shown.samples).max()))
    panel.set(xlim=(0, shown.seconds), ylim=(-1.1 * peak, 1.6 * peak), ylabel="amplitude")
    for place, word in enumerate(shown.utterance.words or ()):
        panel.axvspan(word.start, word.end, color=FADED, alpha=0.25 if place % 2 else 0.12, linewidth=0)
        _write(panel, (word.start + word.end) / 2, (1.25 + 0.18 * (place % 2)) * peak, word.text)
    if "segments" in shown.arrays:
        for start, end in _bounds(shown) / SAMPLE_RATE:
            panel.axvline(start, color=BORDER, linewidth=0.8)
            panel.axvline(end, color=BORDER, linewidth=0.8, linestyle=":")
        panel.set_xlabel("s (segments begin at full lines and end at dotted ones)", fontsize=8)
    else:
        panel.set_xlabel("s", fontsize=8)


def _draw_array(figure: Figure, panel: Axes, name: str, shown: Shown) -> None:
    rows, title = shown.arrays[name], _TITLES.get(name, name)
    if _has_units_of_its_own(name, shown):
        rows = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-6)
        title += ", each feature standardised over the utterance"
    picture = panel.imshow(
        rows.T,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(*_span(name, shown), 0, rows.shape[1]),
        vmin=float(np.percentile(rows, 1)),
        vmax=float(np.percentile(rows, 99)),
    )
    figure.colorbar(picture, ax=panel, pad=0.01, aspect=12)
    panel.set_title(f"{title}, {len(rows)} x {rows.shape[1]}", fontsize=9, loc="left")
    panel.set_xlabel({"segments": "frames", "prosody": ""}.get(name, "s"), fontsize=8)
    if name == "audio" and (groups := _GROUPS.get(shown.manifest["recipe"])):
        panel.set_yticks([middle for _, middle in groups], [group for group, _ in groups], fontsize=7)
    if name == "segments":
        _draw_borders(panel, shown)


def _has_units_of_its_own(name: str, shown: Shown) -> bool:
    """Whether an array's features cannot be compared with each other: dB and a network's numbers can be."""
    return name in ("audio", "segments") and not shown.manifest["recipe"].startswith("cat")


def _span(name: str, shown: Shown) -> tuple[float, float]:
    """Where an array's first row begins and its last one ends: in s, of the packed words in frames."""
    count = len(shown.arrays[name])
    if name in ("segments", "prosody"):
        return 0, count
    if name == "video":
        return 0, count / video.RATE
    if shown.manifest["recipe"] == "frames":  # at whatever rate they were made
        return 0, shown.seconds
    if shown.manifest["recipe"] == "lld":  # the windows of openSMILE begin at the hop
        return 0.0075, 0.0075 + count * HOP / SAMPLE_RATE
    return -HOP / SAMPLE_RATE / 2, (count - 0.5) * HOP / SAMPLE_RATE  # frames are centred at the hops


def _draw_borders(panel: Axes, shown: Shown) -> None:
    """Where one word ends and the next begins, and which they are."""
    ends = np.cumsum(shown.arrays["segment_lengths"])
    middles = ends - shown.arrays["segment_lengths"] / 2
    for end in ends[:-1]:
        panel.axvline(end, color=BORDER, linewidth=0.8)
    for middle, word in zip(middles, shown.arrays["words"], strict=True):
        _write(panel, middle, 37, shown.vocabulary[word], background="white")


def _bounds(shown: Shown) -> np.ndarray:
    return segment_bounds(RECIPES[shown.manifest["recipe"]], shown.utterance, len(shown.samples))[0]


def _write(panel: Axes, x: float, y: float, word: str, background: str = "none") -> None:
    box = {"facecolor": background, "edgecolor": "none", "alpha": 0.8, "pad": 1}
    panel.text(x, y, word, fontsize=7, ha="center", va="center", bbox=box, clip_on=True, parse_math=False)


def run(argv: Sequence[str] | None = None) -> int:
    """The command line's exit status; errors are one line."""
    parser = cli.parser("show", "python -m data_prep.show", __doc__)
    parser.add_argument(
        "--data", required=True, help="the folder of a prepared dataset, with its manifest.json"
    )
    parser.add_argument("--root", required=True, help="the folder of its corpus's release")
    parser.add_argument("--out", required=True, help="the picture to write: .png, .pdf or .svg")
    parser.add_argument("--id", help="the utterance (default: the first)")
    arguments = parser.parse_args(argv)

    def work() -> int:
        show(arguments.data, arguments.root, arguments.out, arguments.id)
        print(arguments.out)
        return 0

    return exit_status("show", work, output=arguments.out)


if __name__ == "__main__":
    sys.exit(run())
