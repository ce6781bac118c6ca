"""Plot one utterance of a prepared dataset: its waveform, and each input array.

    python -m jaxser.data_prep.show --data=data/demo/mcsan/1.0.0 --root=data/demo_release --out=figure.png

`--id` selects the utterance (default: the first). The arrays are read from the shards, so they are what training uses,
before normalisation.
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

from jaxser import cli, files
from jaxser.cli import run_command
from jaxser.data import shards
from jaxser.data.dataset import find_prepared, read_vocabulary
from jaxser.data.manifest import array_specs, read_manifest
from jaxser.features import video
from jaxser.features.audio import HOP, SAMPLE_RATE, read_audio
from jaxser.features.extraction import segment_bounds
from jaxser.features.recipes import RECIPES
from jaxser.types import InputError, UsageError, Utterance

BORDER, SOUND, FADED = "#c2410c", "#475569", "#94a3b8"
_TITLES = {
    "audio": "audio",
    "audio_noisy": "audio_noisy: the copy with white noise",
    "segments": "segments: the words, each computed separately",
    "video": "video: 2048 features per frame",
    "prosody": "prosody of the whole utterance",
}
_GROUPS = {  # groups of features: name, and the centre of its rows
    "lld": (("energy", 0.5), ("MFCC", 7), ("zero crossings, voicing, pitch", 14.5), ("deltas", 24)),
    "self_cross": (("MFCC", 20), ("Δ", 60), ("ΔΔ", 100)),
}


@dataclass(frozen=True, eq=False)
class Shown:
    """An utterance with its arrays and its waveform."""

    utterance: Utterance
    arrays: shards.Arrays
    manifest: Mapping[str, Any]
    vocabulary: tuple[str, ...]
    samples: Float[np.ndarray, " samples"]

    @property
    def seconds(self) -> float:
        """The duration of the waveform."""
        return len(self.samples) / SAMPLE_RATE


def show(data: str | Path, root: str | Path, out: str | Path, identity: str | None = None) -> None:
    """Plot an utterance into an image file.

    Args:
        data: the folder of the prepared dataset.
        root: the folder of its corpus.
        out: the image file.
        identity: the id of the utterance; None selects the first.

    Raises:
        UsageError: if there is no such dataset or utterance.
        InputError: if a file cannot be read or written.
    """
    shown = _read(find_prepared(data), Path(root), identity)
    figure = draw(shown)
    try:
        path = Path(out) if Path(out).suffix else Path(f"{out}.png")
        with files.open_binary(path.parent, path.name) as file:
            figure.savefig(file, format=path.suffix[1:], dpi=110)
    except (OSError, ValueError) as error:
        raise InputError(f"--out={out}: the figure cannot be written ({error})") from None


def draw(shown: Shown) -> Figure:
    """Draw the waveform at the top, and an image of each two-dimensional array below it."""
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
                recording = read_audio(root / utterance.wav)
                if recording.sha256 != utterance.sha256:
                    raise InputError(
                        f"{root / utterance.wav}: not the audio that the dataset was prepared from"
                    )
                return Shown(utterance, arrays, manifest, read_vocabulary(folder), recording.samples)
    raise UsageError(f"--id={identity}: {folder} has no such utterance")


def _draw_sound(panel: Axes, shown: Shown) -> None:
    """Draw the waveform, the words at their times, and the borders of the recipe's segments."""
    times = np.arange(len(shown.samples)) / SAMPLE_RATE
    panel.plot(times, shown.samples, color=SOUND, linewidth=0.4)
    peak = max(1e-3, float(np.abs(shown.samples).max()))
    panel.set(xlim=(0, shown.seconds), ylim=(-1.1 * peak, 1.6 * peak), ylabel="amplitude")
    for index, word in enumerate(shown.utterance.words or ()):
        panel.axvspan(word.start, word.end, color=FADED, alpha=0.25 if index % 2 else 0.12, linewidth=0)
        _write(panel, (word.start + word.end) / 2, (1.25 + 0.18 * (index % 2)) * peak, word.text)
    if "segments" in shown.arrays:
        for start, end in _bounds(shown) / SAMPLE_RATE:
            panel.axvline(start, color=BORDER, linewidth=0.8)
            panel.axvline(end, color=BORDER, linewidth=0.8, linestyle=":")
        panel.set_xlabel("time (s); segments start at solid lines and end at dotted lines", fontsize=8)
    else:
        panel.set_xlabel("time (s)", fontsize=8)


def _draw_array(figure: Figure, panel: Axes, name: str, shown: Shown) -> None:
    rows, title = shown.arrays[name], _TITLES.get(name, name)
    if _has_mixed_units(name, shown):
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
    panel.set_xlabel({"segments": "frames", "prosody": ""}.get(name, "time (s)"), fontsize=8)
    if name == "audio" and (groups := _GROUPS.get(shown.manifest["recipe"])):
        panel.set_yticks([centre for _, centre in groups], [group for group, _ in groups], fontsize=7)
    if name == "segments":
        _draw_borders(panel, shown)


def _has_mixed_units(name: str, shown: Shown) -> bool:
    """Return whether the features of an array have different units, unlike bands in dB and the outputs of a network."""
    return name in ("audio", "segments") and not shown.manifest["recipe"].startswith("cat")


def _span(name: str, shown: Shown) -> tuple[float, float]:
    """Return the start of an array's first row and the end of its last one, in seconds, for segments in frames."""
    count = len(shown.arrays[name])
    if name in ("segments", "prosody"):
        return 0.0, float(count)
    if name == "video":
        return 0.0, count / video.RATE
    if shown.manifest["recipe"] == "frames":  # the frame rate is unknown
        return 0.0, shown.seconds
    if shown.manifest["recipe"] == "lld":  # openSMILE's windows start at the hops
        return 0.0075, 0.0075 + count * HOP / SAMPLE_RATE
    return -HOP / SAMPLE_RATE / 2, (count - 0.5) * HOP / SAMPLE_RATE  # frames are centred at the hops


def _draw_borders(panel: Axes, shown: Shown) -> None:
    """Draw the borders between words, and the words."""
    ends = np.cumsum(shown.arrays["segment_lengths"])
    middles = ends - shown.arrays["segment_lengths"] / 2
    for end in ends[:-1]:
        panel.axvline(end, color=BORDER, linewidth=0.8)
    for middle, word in zip(middles, shown.arrays["words"], strict=True):
        _write(panel, float(middle), 37.0, shown.vocabulary[word], background="white")


def _bounds(shown: Shown) -> np.ndarray:
    return segment_bounds(RECIPES[shown.manifest["recipe"]], shown.utterance, len(shown.samples))[0]


def _write(panel: Axes, x: float, y: float, word: str, background: str = "none") -> None:
    box = {"facecolor": background, "edgecolor": "none", "alpha": 0.8, "pad": 1}
    panel.text(x, y, word, fontsize=7, ha="center", va="center", bbox=box, clip_on=True, parse_math=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; an error is printed as one line."""
    parser = cli.parser("show", "python -m jaxser.data_prep.show", __doc__)
    parser.add_argument(
        "--data", required=True, help="folder of the prepared dataset, with its manifest.json"
    )
    parser.add_argument("--root", required=True, help="folder of its corpus")
    parser.add_argument("--out", required=True, help="image file to write: .png, .pdf or .svg")
    parser.add_argument("--id", help="id of the utterance (default: the first)")
    arguments = parser.parse_args(argv)

    def work() -> int:
        show(arguments.data, arguments.root, arguments.out, arguments.id)
        print(arguments.out)
        return 0

    return run_command("show", work, output=arguments.out)


if __name__ == "__main__":
    sys.exit(main())
