"""Figures of several runs: their scores, who is told apart, and their curves in one picture."""

from __future__ import annotations

from itertools import cycle

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxser.evaluation.comparisons import NAMES, Ranking, name_of, replica_scores
from jaxser.evaluation.run_folder import Run
from jaxser.report import groups, plots
from jaxser.report.calibration import calibration
from jaxser.report.comparison import Comparable
from jaxser.report.style import INK, MUTED, SERIES, STYLE, WIDTH, named_rows, new_figure, percent_axis


def figures(found: Comparable, metric: str) -> dict[str, tuple[str, Figure]]:
    """Every figure of a set of runs by name, with a description of it."""
    runs, made = {name_of(run): run for run in found.runs}, {}
    with matplotlib.rc_context(STYLE):
        made["scores"] = (f"{NAMES[metric]} of every run", scores(runs, metric))
        if metric in found.rankings:
            made["ranks"] = ("Critical-difference diagram", critical_difference(found.rankings[metric]))
        trained = {name: run for name, run in runs.items() if run.epochs}
        if trained:
            loss = plots.learning_curve(trained, "Training loss", ("train_loss",))
            ua = plots.learning_curve(trained, "Validation UA (%)", ("validation", "ua"), share=True)
            made |= {"loss": ("Training loss by epoch", loss), "ua": ("Validation UA by epoch", ua)}
        measured = {name: one for name, run in runs.items() if (one := calibration(run))}
        if measured:
            made["calibration"] = ("Reliability diagrams", plots.reliability(measured))
        for place, run in enumerate(found.runs, start=1):
            made[f"confusion-{place}"] = (
                f"Confusion matrix of {name_of(run)}",
                plots.confusion_matrix(plots.tested_confusion(run), run.results["classes"]),
            )
    suffix = f"-{found.name.lower()}" if found.name else ""
    return {f"{name}{suffix}": figure for name, figure in made.items()}


def scores(runs: dict[str, Run], metric: str) -> Figure:
    """The pooled score of each run with its interval over speakers (or utterances), and a dot for every replica."""
    figure, axes = new_figure(height=0.9 + 0.36 * len(runs))
    shown = []
    for row, (colour, run) in enumerate(zip(cycle(SERIES), runs.values(), strict=False)):
        replicas = replica_scores(run, metric).ravel()
        axes.plot(
            replicas, np.full(len(replicas), row + 0.22), "o", color=MUTED, alpha=0.35, markersize=3.5, mew=0
        )
        shown += [*replicas[np.isfinite(replicas)], *_draw_interval(axes, row, run, metric, colour)]
    percent_axis(axes, f"{NAMES[metric]} (%)")
    low, high = min(shown), max(shown)
    axes.set_xlim(max(-0.02, low - 0.1 * (high - low) - 0.02), min(1.02, high + 0.1 * (high - low) + 0.02))
    axes.set_xticks(axes.get_xticks()) if high - low > 0.4 else _fine_ticks(axes, low, high)
    named_rows(axes, list(runs))
    return figure


_POINTS = 5.3  # a letter's width in the diagram of ranks
_SHORTEST = 120  # points of its axis


def critical_difference(ranking: Ranking) -> Figure:
    """Demšar's (2006) diagram: runs on an axis of their average ranks; a bar joins those not told apart."""
    number = len(ranking.runs)
    half = (number + 1) // 2
    label = _POINTS * (max(map(len, ranking.runs)) + len(" (10.0)"))
    width = max(WIDTH, (2 * label + _SHORTEST) / 72)
    figure, axes = new_figure(height=1.3 + 0.27 * half + 0.16 * len(ranking.groups), width=width)
    below = 0.35 * len(ranking.groups)
    axes.hlines(0, 1, number, color=INK, linewidth=1.2)
    for tick in range(1, number + 1):
        axes.vlines(tick, 0, 0.22, color=INK, linewidth=1)
        axes.text(tick, 0.38, str(tick), ha="center", va="bottom", color=MUTED, fontsize=9)
    _draw_length(axes, ranking.critical_difference, number)
    for place, group in enumerate(ranking.groups):
        ends = ranking.ranks[group[0]] - 0.03, ranking.ranks[group[-1]] + 0.03
        axes.hlines(-0.35 * (place + 1), *ends, color=INK, linewidth=4)
    for place, (name, rank) in enumerate(zip(ranking.runs, ranking.ranks, strict=True)):
        left = place < half
        y = -below - 0.6 * (1 + (place if left else number - 1 - place))
        edge = 0.85 if left else number + 0.15
        axes.plot([rank, rank, edge], [0, y, y], color=MUTED, linewidth=0.9)
        side = "right" if left else "left"
        axes.text(
            edge + (-0.06 if left else 0.06), y, f"{name} ({rank:.1f})", ha=side, va="center", fontsize=9
        )
    room = (number - 0.7) * label / (72 * width - 2 * label)
    axes.set(xlim=(0.85 - room, number + 0.15 + room), ylim=(-below - 0.6 * (half + 0.6), 2.1))
    axes.set_axis_off()
    return figure


def _draw_length(axes: Axes, length: float, number: int) -> None:
    """The critical difference as a length on the axis, cut at its end where it is longer."""
    end = min(1 + length, number + 0.4)
    axes.plot([1, end], [1.45, 1.45], color=INK, linewidth=1.2)
    axes.vlines([1, end] if end == 1 + length else [1], 1.33, 1.57, color=INK, linewidth=1.2)
    text = f"critical difference {length:.2f}"
    axes.text((1 + end) / 2, 1.6, text, ha="center", va="bottom", color=MUTED, fontsize=9)


def _draw_interval(axes: Axes, row: int, run: Run, metric: str, colour: str) -> list[float]:
    """Draws it, and says what the axis must hold."""
    found = groups.clustered(run, metric)
    if found is None:
        return []
    axes.hlines(row, found.low, found.high, color=colour, linewidth=2.4)
    axes.plot([found.value], [row], "o", color=colour, markersize=8)
    return [found.low, found.value, found.high]


def _fine_ticks(axes: Axes, low: float, high: float) -> None:
    step = 0.02 if high - low < 0.12 else 0.05
    ticks = np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step
    axes.set_xticks(ticks, [f"{100 * tick:.0f}" for tick in ticks])
