"""Attention as a picture: over the waveform, over the words, and as maps between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxser.features.audio import SAMPLE_RATE
from jaxser.types import Word

WIDTH = 9.0  # inches
DOTS = 120  # an inch
POINTS = 2000  # of the waveform's outline

_ACCENT, _WAVE = "#b3261e", "#8a949e"
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
}


@dataclass(frozen=True, eq=False)
class Attention:
    """What a network attends to in a window of a recording, as a mean over the replicas."""

    path: str
    start: float  # s
    end: float  # s
    samples: Float[np.ndarray, " samples"]  # at 16 kHz
    seconds: float  # of them that the network hears
    words: tuple[str, ...]  # as the network reads them
    timed: tuple[Word, ...]  # by their times in the window; empty where none are known
    weights: Mapping[str, Float[np.ndarray, ...]]  # without padding
    axes: Mapping[str, tuple[str, ...]]  # of each: "words", "audio", ... or "" (heads)

    def figure(self) -> Figure:
        """The weights over the waveform and the words, as a figure of matplotlib."""
        return figure(self)


def save(attention: Attention, path: Path) -> None:
    """Write the figure as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure(attention).savefig(path, dpi=DOTS)


def figure(attention: Attention) -> Figure:
    """The waveform with its words, and below it every attention; heads are averaged.

    Attention over frames is a line over the waveform's seconds, over words a bar a word, between two sequences a map:
    a row's weights say where that step looks.
    """
    shown = {
        name: _without_heads(weights, attention.axes[name]) for name, weights in attention.weights.items()
    }
    heights = [1.1, *(_height(weights, axes) for weights, axes in shown.values())]
    with matplotlib.rc_context(_STYLE):
        drawn = Figure((WIDTH, sum(heights) + 0.7 * len(heights)), layout="constrained")
        FigureCanvasAgg(drawn)
        first, *others = drawn.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        _draw_wave(first, attention)
        for place, (name, (weights, axes)) in zip(others, shown.items(), strict=True):
            place.set_title(name.replace("_", " "))
            if len(axes) == 2:
                _draw_map(place, weights, axes, attention)
            elif axes == ("words",):
                _draw_bars(place, weights, attention)
            else:
                _draw_line(place, weights, axes[0], attention)
    return drawn


def _without_heads(weights: np.ndarray, axes: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Averaged over what is no sequence; of more than two sequences, the last two remain, and of none the last axis."""
    sequences = [place for place, axis in enumerate(axes) if axis][-2:] or [len(axes) - 1]
    others = tuple(place for place in range(len(axes)) if place not in sequences)
    return weights.mean(others), tuple(axes[place] for place in sequences)


def _height(weights: np.ndarray, axes: Sequence[str]) -> float:
    if len(axes) < 2:
        return 0.9
    return float(np.clip(0.2 * len(weights), 0.9, 3.5)) if axes[0] == "words" else 2.5


def _draw_wave(place: Axes, attention: Attention) -> None:
    samples = attention.samples
    cells = np.array_split(samples, min(POINTS, len(samples)))
    low, high = (np.array([of(cell) for cell in cells]) for of in (np.min, np.max))
    place.fill_between(np.linspace(*_extent(attention), len(cells)), low, high, color=_WAVE, linewidth=0.5)
    for number, word in enumerate(attention.timed):
        start, end = attention.start + word.start, attention.start + word.end
        place.axvspan(start, end, color=_ACCENT, alpha=0.06 + 0.06 * (number % 2), linewidth=0)
        place.annotate(
            word.text,
            ((start + end) / 2, 1),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=7,
            rotation=30,
        )
    said = "" if attention.timed else " ".join(attention.words)
    title = ": ".join(filter(None, (Path(attention.path).name, said)))
    place.set_title(title if len(title) < 110 else f"{title[:109]}…", pad=22 if attention.timed else 6)
    place.set_xlim(*_extent(attention))
    place.set_yticks([])
    place.set_xlabel("seconds")


def _draw_line(place: Axes, weights: Float[np.ndarray, " T"], axis: str, attention: Attention) -> None:
    steps = np.linspace(*_extent_of(axis, len(weights), attention), len(weights) + 1)
    place.stairs(weights, steps, fill=True, color=_ACCENT, alpha=0.7)
    place.set_xlim(steps[0], steps[-1])
    place.set_ylim(0)
    place.set_xlabel(_label(axis))


def _draw_bars(place: Axes, weights: Float[np.ndarray, " L"], attention: Attention) -> None:
    place.bar(range(len(weights)), weights, color=_ACCENT, alpha=0.7)
    place.set_xlim(-0.5, len(weights) - 0.5)
    _name_words(place.xaxis, attention)


def _draw_map(
    place: Axes, weights: Float[np.ndarray, "Tq Tk"], axes: tuple[str, str], attention: Attention
) -> None:
    down, across = (_extent_of(axis, size, attention) for axis, size in zip(axes, weights.shape, strict=True))
    image = place.imshow(
        weights, aspect="auto", cmap="Reds", vmin=0, extent=(*across, *down[::-1]), interpolation="nearest"
    )
    for axis, ticks in zip(axes, (place.yaxis, place.xaxis), strict=True):
        if axis == "words":
            _name_words(ticks, attention)
        else:
            ticks.set_label_text(_label(axis))
    place.figure.colorbar(image, ax=place, pad=0.01)


def _name_words(ticks, attention: Attention) -> None:
    words = [word if len(word) < 14 else f"{word[:13]}…" for word in attention.words]
    turned: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    is_crowded = ticks.axis_name == "x" and sum(map(len, words)) > 80
    ticks.set_ticks(range(len(words)), words, **(turned if is_crowded else {}))


def _extent(attention: Attention) -> tuple[float, float]:
    return attention.start, attention.start + len(attention.samples) / SAMPLE_RATE


def _extent_of(axis: str, size: int, attention: Attention) -> tuple[float, float]:
    """What an axis of so many steps covers: seconds, or numbers of words or frames."""
    if axis in ("audio", "video"):
        return attention.start, attention.start + attention.seconds
    return -0.5, size - 0.5


def _label(axis: str) -> str:
    return {"audio": "seconds", "video": "seconds", "segments": "frames of the words"}.get(axis, "")
