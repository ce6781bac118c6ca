"""The figures of a comparison: scores, ranks, curves, calibration, confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxser.evaluation.comparisons import Ranking
from jaxser.evaluation.intervals import Interval
from jaxser.evaluation.metrics import describe
from jaxser.evaluation.run_scores import replica_scores
from jaxser.evaluation.targets import CLASSES
from jaxser.report import plots
from jaxser.report.analysis import Analysis
from jaxser.report.comparison import Comparable
from jaxser.report.style import (
    INK,
    MUTED,
    SERIES,
    STYLE,
    WIDTH,
    Drawing,
    named_rows,
    new_figure,
    percent_axis,
)


def figures(found: Comparable) -> dict[str, Drawing]:
    """Return every figure of a set of runs by name."""
    made, metric, headline = {}, found.metric, describe(found.target.headline)
    title, has_classes = describe(metric).title, found.target.kind == CLASSES
    with matplotlib.rc_context(STYLE):
        made["scores"] = Drawing(f"{title} of every run", scores(found.runs, metric))
        if metric in found.rankings:
            ranks = critical_difference(found.rankings[metric])
            made["ranks"] = Drawing("Critical-difference diagram", ranks)
        if trained := {one.name: one.run for one in found.runs if one.run.epochs}:
            loss = plots.learning_curve(trained, "Training loss", plots.train_loss)
            named = f"Validation {headline.title}{' (%)' * headline.is_percentage}"
            curve = plots.learning_curve(trained, named, plots.validation_score, share=headline.is_percentage)
            made["loss"] = Drawing("Training loss by epoch", loss)
            made[found.target.headline] = Drawing(f"Validation {headline.title} by epoch", curve)
        calibrations = {one.name: one.calibration for one in found.runs} if has_classes else {}
        if measured := {name: one for name, one in calibrations.items() if one}:
            made["calibration"] = Drawing("Reliability diagrams", plots.reliability(measured))
        for number, one in enumerate(found.runs if has_classes else (), start=1):
            matrix = plots.confusion_matrix(one.confusion, one.results.classes)
            made[f"confusion-{number}"] = Drawing(f"Confusion matrix of {one.name}", matrix)
    return {f"{name}{found.suffix}": drawing for name, drawing in made.items()}


def scores(runs: Sequence[Analysis], metric: str) -> Figure:
    """Draw the pooled score of each run with its interval, and one dot per replica.

    The interval is over speakers or, if they are too few, over utterances.
    """
    figure, axes = new_figure(height=0.9 + 0.36 * len(runs))
    shown: list[float] = []
    for row, (colour, one) in enumerate(zip(cycle(SERIES), runs, strict=False)):
        replicas = replica_scores(one.run, metric).ravel()
        height = np.full(len(replicas), row + 0.22)
        axes.plot(replicas, height, "o", color=MUTED, alpha=0.35, markersize=3.5, mew=0)
        shown += replicas[np.isfinite(replicas)].tolist()
        if interval := one.clustered_interval(metric):
            _draw_interval(axes, row, interval, colour)
            shown += [interval.low, interval.value, interval.high]
    described = describe(metric)
    low, high = min(shown), max(shown)
    if not described.is_percentage:
        edge = 0.1 * (high - low) + 0.01
        axes.set(xlim=(low - edge, high + edge), xlabel=described.title)
        axes.grid(axis="x")
        axes.spines[:].set_visible(False)
        named_rows(axes, [one.name for one in runs])
        return figure
    percent_axis(axes, f"{described.title} (%)")
    axes.set_xlim(max(-0.02, low - 0.1 * (high - low) - 0.02), min(1.02, high + 0.1 * (high - low) + 0.02))
    axes.set_xticks(axes.get_xticks()) if high - low > 0.4 else _fine_ticks(axes, low, high)
    named_rows(axes, [one.name for one in runs])
    return figure


_POINTS = 5.3  # width of a letter in the diagram of ranks
_SHORTEST = 120  # length of its axis in points


def critical_difference(ranking: Ranking) -> Figure:
    """Draw the diagram of Demšar (2006): runs on an axis of average ranks.

    Bars join those that do not differ.
    """
    number = len(ranking.runs)
    half = (number + 1) // 2
    label = _POINTS * (max(map(len, ranking.runs)) + len(" (10.0)"))
    width = max(WIDTH, (2 * label + _SHORTEST) / 72)
    figure, axes = new_figure(height=1.3 + 0.27 * half + 0.16 * len(ranking.groups), width=width)
    below = 0.35 * len(ranking.groups)
    _draw_axis(axes, number)
    _draw_length(axes, ranking.critical_difference, number)
    for row, group in enumerate(ranking.groups):
        ends = ranking.ranks[group[0]] - 0.03, ranking.ranks[group[-1]] + 0.03
        axes.hlines(-0.35 * (row + 1), *ends, color=INK, linewidth=4)
    for index, (name, rank) in enumerate(zip(ranking.runs, ranking.ranks, strict=True)):
        is_left = index < half
        y = -below - 0.6 * (1 + (index if is_left else number - 1 - index))
        edge = 0.85 if is_left else number + 0.15
        axes.plot([rank, rank, edge], [0, y, y], color=MUTED, linewidth=0.9)
        side, gap = ("right", -0.06) if is_left else ("left", 0.06)
        axes.text(edge + gap, y, f"{name} ({rank:.1f})", ha=side, va="center", fontsize=9)
    room = (number - 0.7) * label / (72 * width - 2 * label)
    axes.set(xlim=(0.85 - room, number + 0.15 + room), ylim=(-below - 0.6 * (half + 0.6), 2.1))
    axes.set_axis_off()
    return figure


def _draw_axis(axes: Axes, number: int) -> None:
    """Draw the axis of ranks from 1 to `number`."""
    axes.hlines(0, 1, number, color=INK, linewidth=1.2)
    for tick in range(1, number + 1):
        axes.vlines(tick, 0, 0.22, color=INK, linewidth=1)
        axes.text(tick, 0.38, str(tick), ha="center", va="bottom", color=MUTED, fontsize=9)


def _draw_length(axes: Axes, length: float, number: int) -> None:
    """Draw the critical difference above the axis, cut off if it is longer than the axis."""
    end = min(1 + length, number + 0.4)
    axes.plot([1, end], [1.45, 1.45], color=INK, linewidth=1.2)
    axes.vlines([1, end] if end == 1 + length else [1], 1.33, 1.57, color=INK, linewidth=1.2)
    text = f"critical difference {length:.2f}"
    axes.text((1 + end) / 2, 1.6, text, ha="center", va="bottom", color=MUTED, fontsize=9)


def _draw_interval(axes: Axes, row: int, interval: Interval, colour: str) -> None:
    axes.hlines(row, interval.low, interval.high, color=colour, linewidth=2.4)
    axes.plot([interval.value], [row], "o", color=colour, markersize=8)


def _fine_ticks(axes: Axes, low: float, high: float) -> None:
    step = 0.02 if high - low < 0.12 else 0.05
    ticks = np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step
    axes.set_xticks(ticks, [f"{100 * tick:.0f}" for tick in ticks])
