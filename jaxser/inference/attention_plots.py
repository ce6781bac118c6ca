"""Attention weights of one recording, and figures of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from jaxser import files
from jaxser.features.audio import SAMPLE_RATE
from jaxser.inference import figure_text
from jaxser.types import Word

if TYPE_CHECKING:  # matplotlib takes half a second to import, and prediction does without it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.0  # inches
DPI = 120
ENVELOPE_POINTS = 2000  # of the drawn waveform

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
    """Attention weights for one window of a recording, averaged over the replicas.

    Attributes:
        path: the recording.
        start: the start of the window, in seconds.
        end: the end of the window, in seconds.
        samples: the window's samples at 16 kHz.
        seconds: how much of the window the network hears; the recipe cuts longer audio.
        words: the words as the network reads them.
        timed: the words with their times in the window; empty if the times are unknown.
        weights: the weights of each attention layer, without padding.
        axes: what each axis of the weights runs over: "words", "audio", ..., or "" (heads).
    """

    path: str
    start: float
    end: float
    samples: Float[np.ndarray, " samples"]
    seconds: float
    words: tuple[str, ...]
    timed: tuple[Word, ...]
    weights: Mapping[str, Float[np.ndarray, ...]]
    axes: Mapping[str, tuple[str, ...]]

    def figure(self) -> Figure:
        """Draw the weights over the waveform and the words, as a Matplotlib figure."""
        return figure(self)


def save(attention: Attention, path: Path) -> None:
    """Write the figure as PNG; the folder is created if it is missing.

    Raises:
        InputError: if the file is a link.
        OSError: if the file cannot be written.
    """
    with files.open_binary(path.parent, path.name) as file:
        figure(attention).savefig(file, format="png", dpi=DPI)


def figure(attention: Attention) -> Figure:
    """Draw the waveform with its words, and one panel per attention layer.

    The weights are averaged over heads. Attention over frames is a curve on the time axis of the waveform, attention
    over words has one bar per word, and attention between two sequences is a map whose rows are the queries.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {
        name: _without_heads(weights, attention.axes[name]) for name, weights in attention.weights.items()
    }
    heights = [1.1, *(_panel_height(weights, axes) for weights, axes in panels.values())]
    with matplotlib.rc_context(_STYLE):
        drawn = Figure((WIDTH, sum(heights) + 0.7 * len(heights)), layout="constrained")
        FigureCanvasAgg(drawn)
        first, *others = drawn.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        _draw_waveform(first, attention)
        for ax, (name, (weights, axes)) in zip(others, panels.items(), strict=True):
            ax.set_title(name.replace("_", " "))
            if len(axes) == 2:
                _draw_map(ax, weights, axes, attention)
            elif axes == ("words",):
                _draw_bars(ax, weights, attention)
            else:
                _draw_curve(ax, weights, axes[0], attention)
        with figure_text.without_layout_warnings():
            figure_text.choose_fonts(drawn)
            figure_text.warn_of_missing([drawn])
            figure_text.escape_missing(drawn)
    return drawn


def _without_heads(weights: np.ndarray, axes: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Average over all axes but the last two sequences; if no axis is a sequence, over all but the last axis."""
    kept = [position for position, axis in enumerate(axes) if axis][-2:] or [len(axes) - 1]
    others = tuple(position for position in range(len(axes)) if position not in kept)
    return weights.mean(others), tuple(axes[position] for position in kept)


def _panel_height(weights: np.ndarray, axes: Sequence[str]) -> float:
    if len(axes) < 2:
        return 0.9
    return float(np.clip(0.2 * len(weights), 0.9, 3.5)) if axes[0] == "words" else 2.5


def _draw_waveform(ax: Axes, attention: Attention) -> None:
    transcript = "" if attention.timed else " ".join(attention.words)
    title = ": ".join(filter(None, (Path(attention.path).name, transcript)))
    ax.set_title(title if len(title) < 110 else f"{title[:109]}…", pad=22 if attention.timed else 6)
    if not len(attention.samples):
        ax.set_axis_off()
        return
    cells = np.array_split(attention.samples, min(ENVELOPE_POINTS, len(attention.samples)))
    low, high = (np.array([reduce(cell) for cell in cells]) for reduce in (np.min, np.max))
    ax.fill_between(np.linspace(*_window(attention), len(cells)), low, high, color=_WAVE, linewidth=0.5)
    for number, word in enumerate(attention.timed):
        start, end = attention.start + word.start, attention.start + word.end
        ax.axvspan(start, end, color=_ACCENT, alpha=0.06 + 0.06 * (number % 2), linewidth=0)
        ax.annotate(
            word.text,
            ((start + end) / 2, 1),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=7,
            rotation=30,
        )
    ax.set_xlim(*_window(attention))
    ax.set_yticks([])
    ax.set_xlabel("seconds")


def _draw_curve(ax: Axes, weights: Float[np.ndarray, " T"], axis: str, attention: Attention) -> None:
    steps = np.linspace(*_extent(axis, len(weights), attention), len(weights) + 1)
    ax.stairs(weights, steps, fill=True, color=_ACCENT, alpha=0.7)
    ax.set_xlim(steps[0], steps[-1])
    ax.set_ylim(0)
    ax.set_xlabel(_label(axis))


def _draw_bars(ax: Axes, weights: Float[np.ndarray, " L"], attention: Attention) -> None:
    ax.bar(range(len(weights)), weights, color=_ACCENT, alpha=0.7)
    ax.set_xlim(-0.5, len(weights) - 0.5)
    _label_words(ax.xaxis, attention)


def _draw_map(
    ax: Axes, weights: Float[np.ndarray, "Tq Tk"], axes: tuple[str, str], attention: Attention
) -> None:
    down, across = (_extent(axis, size, attention) for axis, size in zip(axes, weights.shape, strict=True))
    image = ax.imshow(
        weights, aspect="auto", cmap="Reds", vmin=0, extent=(*across, *down[::-1]), interpolation="nearest"
    )
    for axis, ticks in zip(axes, (ax.yaxis, ax.xaxis), strict=True):
        if axis == "words":
            _label_words(ticks, attention)
        else:
            ticks.set_label_text(_label(axis))
    ax.figure.colorbar(image, ax=ax, pad=0.01)


def _label_words(ticks: Any, attention: Attention) -> None:
    words = [word if len(word) < 14 else f"{word[:13]}…" for word in attention.words]
    rotated: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    is_crowded = ticks.axis_name == "x" and sum(map(len, words)) > 80
    ticks.set_ticks(range(len(words)), words, **(rotated if is_crowded else {}))


def _window(attention: Attention) -> tuple[float, float]:
    """Start and end of the drawn samples, in seconds."""
    return attention.start, attention.start + len(attention.samples) / SAMPLE_RATE


_TIMED = ("audio", "waveform", "video")  # arrays whose axes are drawn in seconds


def _extent(axis: str, size: int, attention: Attention) -> tuple[float, float]:
    """Return the limits of an axis of `size` steps: in seconds for audio and video, in steps otherwise."""
    if axis in _TIMED:
        return attention.start, attention.start + attention.seconds
    return -0.5, size - 0.5


def _label(axis: str) -> str:
    return "seconds" if axis in _TIMED else {"segments": "frames of the words"}.get(axis, "")
