"""A run's figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxser.evaluation.run_folder import Run
from jaxser.report import groups, tables
from jaxser.report.calibration import Calibration, calibration
from jaxser.report.style import (
    ACCENT,
    CELL,
    INK,
    MUTED,
    ON_CELL,
    SECOND,
    STYLE,
    WIDTH,
    named_below,
    named_rows,
    new_figure,
    percent_axis,
    strokes,
)
from jaxser.report.tables import Range, Score, Table


def figures(run: Run) -> dict[str, tuple[str, Figure]]:
    """Every figure of a run by name, with a description of it."""
    found = run.results
    chosen = tables.summarised(run)
    made = {}
    with matplotlib.rc_context(STYLE):
        if any(r["test"] for r in chosen):
            recall = recall_by_class(chosen, found["summary"], found["classes"])
            made["confusion"] = (
                "Confusion matrix",
                confusion_matrix(tested_confusion(run), found["classes"]),
            )
            made["recall"] = ("Recall by class", recall)
        if run.epochs:
            made["loss"] = (
                "Training loss by epoch",
                learning_curve({"": run}, "Training loss", ("train_loss",)),
            )
            ua = learning_curve({"": run}, "Validation UA (%)", ("validation", "ua"), share=True)
            made["ua"] = ("UA on the validation part by epoch", ua)
        if table := groups.speakers(run):
            made["speakers"] = ("UA by speaker", speakers(table, 1 / len(found["classes"])))
        if measured := calibration(run):
            made["calibration"] = ("Reliability diagram", reliability({"": measured}))
    return made


def tested_confusion(run: Run) -> Int[np.ndarray, "C C"]:
    """Test predictions of all replicas of the summarised setting."""
    return np.sum([r["test"]["confusion"] for r in tables.summarised(run) if r["test"]], axis=0)


def confusion_matrix(confusion: Int[np.ndarray, "C C"], classes: Sequence[str]) -> Figure:
    """Shares of each true class in percent, over the counts."""
    size = len(classes)
    rows = confusion.sum(axis=1, keepdims=True)
    share = confusion / np.maximum(rows, 1)
    figure, axes = new_figure(height=WIDTH * 0.94)
    for (row, column), value in np.ndenumerate(share):
        axes.add_patch(Rectangle((column, row), 0.96, 0.96, facecolor=CELL, alpha=0.04 + 0.96 * float(value)))
        _cell_text(axes, row, column, float(value), int(confusion[row, column]), empty=not rows[row, 0])
    axes.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="true", aspect="equal")
    axes.set_xticks(
        np.arange(size) + 0.48, classes, rotation=35 if size > 4 else 0, ha="right" if size > 4 else "center"
    )
    axes.set_yticks(np.arange(size) + 0.48, classes)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return figure


def recall_by_class(
    replicas: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], classes: Sequence[str]
) -> Figure:
    """Mean recall of each class with its standard deviation over folds, and a dot for every replica."""
    figure, axes = new_figure(height=0.9 + 0.36 * len(classes))
    mean, std = summary["recall"]["mean"], summary["recall"]["std_over_folds"]
    for row, name in enumerate(classes):
        values = [
            r["test"]["recall"][name] for r in replicas if r["test"] and r["test"]["recall"][name] is not None
        ]
        axes.plot(
            values, np.full(len(values), row), "o", color=MUTED, alpha=0.35, markersize=4, markeredgewidth=0
        )
        _mean_and_spread(axes, row, mean.get(name), std.get(name))
    axes.axvline(1 / len(classes), color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.text(1 / len(classes), -0.75, " chance", color=MUTED, fontsize=8, va="center")
    percent_axis(axes, "recall (%)")
    named_rows(axes, classes)
    return figure


def learning_curve(runs: Mapping[str, Run], title: str, keys: tuple[str, ...], share: bool = False) -> Figure:
    """A value of every replica by epoch, and the median of the replicas while at least half of them train.

    One run is drawn in the page's own colour, several by name in colours of their own.
    """
    figure, axes = new_figure(height=2.7)
    last = 0
    for stroke, (name, run) in zip(strokes(len(runs)), runs.items(), strict=False):
        table = _by_epoch(_curves(run, keys))
        epochs = np.arange(1, table.shape[1] + 1)
        marker = "o" if len(epochs) == 1 else None
        thin = MUTED if len(runs) == 1 else stroke["color"]
        for curve in table:
            axes.plot(epochs, curve, color=thin, linewidth=0.7, alpha=0.35, marker=marker, markersize=3)
        label = name or f"median of {len(table)}"
        axes.plot(epochs, _median(table), label=label, linewidth=2.2, marker=marker, **stroke)
        last = max(last, len(epochs))
    axes.set(title=title, xlabel="epoch", xlim=(1 - 0.02 * last, 1.02 * last))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    if share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}"))
    if len(runs) > 1:
        named_below(figure, axes)
    else:
        axes.legend(loc="best")
    return figure


def speakers(table: Table, chance: float) -> Figure:
    """UA of each row of the speakers' table, by gender."""
    places = {name: place for place, name in enumerate(table.header)}
    names = [str(row[places["speaker"]]) for row in table.rows]
    genders = [str(row[places["gender"]]) for row in table.rows]
    figure, axes = new_figure(height=0.95 + 0.26 * len(names))
    for gender, colour, mark in (("F", ACCENT, "o"), ("M", SECOND, "s"), ("", MUTED, "D")):
        rows = [row for row, own in enumerate(genders) if own == gender]
        values = [_mean(table.rows[row][places["UA"]]) for row in rows]
        for row in rows:
            ends = table.rows[row][places["95 % interval of UA"]]
            if isinstance(ends, Range) and ends.low is not None and ends.high is not None:
                axes.hlines(row, ends.low, ends.high, color=colour, linewidth=2, alpha=0.5)
        if rows:
            axes.plot(values, rows, mark, color=colour, markersize=6, label=_GENDERS[gender])
    axes.axvline(chance, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    percent_axis(axes, "UA (%)")
    named_rows(axes, names)
    axes.legend(loc="lower right", ncols=3, bbox_to_anchor=(1, 1), borderaxespad=0)
    return figure


def reliability(measured: Mapping[str, Calibration]) -> Figure:
    """Accuracy by confidence of one model, or of several by name."""
    figure, axes = new_figure(height=WIDTH * 0.8)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    for stroke, (name, one) in zip(strokes(len(measured)), measured.items(), strict=False):
        some = one.count > 0
        sizes = 12 + 160 * one.count[some] / one.count.sum()
        label = f"{name} (ECE {100 * one.error:.1f} %)" if name else None
        axes.plot(one.confidence[some], one.accuracy[some], label=label, linewidth=1.4, **stroke)
        dots = {"s": sizes, "color": stroke["color"], "alpha": 0.75, "linewidths": 0}
        axes.scatter(one.confidence[some], one.accuracy[some], **dots)
    percent_axis(axes, "confidence (%)")
    axes.set(ylim=(-0.02, 1.02), ylabel="accuracy (%)")
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "20", "40", "60", "80", "100"])
    axes.grid(axis="y")
    if len(measured) > 1:
        named_below(figure, axes)
    return figure


_GENDERS = {"F": "female", "M": "male", "": "gender not given"}


def _cell_text(axes: Axes, row: int, column: int, share: float, count: int, empty: bool) -> None:
    if empty:
        axes.text(column + 0.48, row + 0.48, "–", ha="center", va="center", color=MUTED)
        return
    colour = ON_CELL if share > 0.66 else INK if count else MUTED
    shown = f"{100 * share:.0f}"
    axes.text(column + 0.48, row + 0.4, shown, ha="center", va="center", color=colour, fontsize=10)
    axes.text(
        column + 0.48,
        row + 0.76,
        f"{count}",
        ha="center",
        va="center",
        color=colour,
        fontsize=7,
    )


def _mean_and_spread(axes: Axes, row: int, mean: float | None, std: float | None) -> None:
    if mean is None:
        axes.text(0.01, row, "no utterance", color=MUTED, va="center", fontsize=9)
        return
    if std is not None:
        axes.hlines(row, mean - std, mean + std, color=ACCENT, linewidth=2.2)
    axes.plot([mean], [row], "o", color=ACCENT, markersize=8, clip_on=False)


def _mean(cell: Any) -> float:
    return cell.mean if isinstance(cell, Score) and cell.mean is not None else float("nan")


def _curves(run: Run, keys: tuple[str, ...]) -> list[dict[int, float | None]]:
    """The value at `keys` by epoch (from 1), of every replica of the summarised setting."""
    curves: dict[tuple[str, int], dict[int, float | None]] = defaultdict(dict)
    for line in run.epochs:
        if line["setting"] == run.results["summary"]["setting"]:
            value: Any = line
            for key in keys:
                value = value and value.get(key)
            curves[line["fold"], line["seed"]][line["epoch"] + 1] = value
    return list(curves.values())


def _by_epoch(curves: Sequence[Mapping[int, float | None]]) -> Float[np.ndarray, "n epochs"]:
    """One row a curve, NaN where it has no value."""
    last = max((max(curve) for curve in curves), default=0)
    table = np.full((len(curves), last), np.nan)
    for row, curve in enumerate(curves):
        for epoch, value in curve.items():
            if value is not None:
                table[row, epoch - 1] = value
    return table


def _median(table: Float[np.ndarray, "n epochs"]) -> Float[np.ndarray, " epochs"]:
    """Of the values of an epoch; NaN where fewer than half the curves have one."""
    enough = 2 * np.isfinite(table).sum(axis=0) >= max(1, len(table))
    median = np.full(table.shape[1], np.nan)
    median[enough] = np.nanmedian(table[:, enough], axis=0) if enough.any() else np.nan
    return median
