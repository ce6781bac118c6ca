"""The figures of one run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxser.evaluation.records import EpochRecord
from jaxser.evaluation.results import ReplicaResult, RunResults
from jaxser.evaluation.run_folder import Run
from jaxser.report import run_tables
from jaxser.report.analysis import Analysis
from jaxser.report.calibration import Calibration
from jaxser.report.groups import Group
from jaxser.report.style import (
    ACCENT,
    CELL,
    INK,
    MUTED,
    ON_CELL,
    SECOND,
    STYLE,
    WIDTH,
    Drawing,
    named_below,
    named_rows,
    new_figure,
    percent_axis,
    shortened,
    strokes,
)

Curve = Callable[[EpochRecord], float | None]
"""A value of one epoch of one replica."""


def figures(analysis: Analysis) -> dict[str, Drawing]:
    """Return every figure of a run by name."""
    run, results = analysis.run, analysis.results
    made = {}
    with matplotlib.rc_context(STYLE):
        if any(replica.test for replica in results.reported):
            made["confusion"] = Drawing(
                "Confusion matrix", confusion_matrix(analysis.confusion, results.classes)
            )
            made["recall"] = Drawing("Recall by class", recall_by_class(results))
        if run.epochs:
            made["loss"] = Drawing(
                "Training loss by epoch", learning_curve({"": run}, "Training loss", train_loss)
            )
            made["ua"] = Drawing(
                "Validation UA by epoch",
                learning_curve({"": run}, "Validation UA (%)", validation_score, True),
            )
        if analysis.by_speaker:
            genders = run_tables.speaker_genders(run)
            made["speakers"] = Drawing(
                "UA by speaker", speakers(analysis.by_speaker, genders, 1 / len(results.classes))
            )
        if measured := analysis.calibration:
            made["calibration"] = Drawing("Reliability diagram", reliability({"": measured}))
    return made


def train_loss(record: EpochRecord) -> float | None:
    """Return the training loss of an epoch."""
    return record.train_loss


def validation_score(record: EpochRecord) -> float | None:
    """Return the headline score on the validation part after an epoch, such as UA."""
    return record.validation_score


def confusion_matrix(confusion: Int[np.ndarray, "C C"], classes: Sequence[str]) -> Figure:
    """Draw the predictions of each true class in percent, above their counts."""
    size = len(classes)
    rows = confusion.sum(axis=1, keepdims=True)
    share = confusion / np.maximum(rows, 1)
    figure, axes = new_figure(height=WIDTH * 0.94)
    for (row, column), value in np.ndenumerate(share):
        axes.add_patch(Rectangle((column, row), 0.96, 0.96, facecolor=CELL, alpha=0.04 + 0.96 * float(value)))
        _cell_text(axes, row, column, float(value), int(confusion[row, column]), empty=not rows[row, 0])
    axes.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="true", aspect="equal")
    names = shortened(classes)
    axes.set_xticks(
        np.arange(size) + 0.48, names, rotation=35 if size > 4 else 0, ha="right" if size > 4 else "center"
    )
    axes.set_yticks(np.arange(size) + 0.48, names)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return figure


def recall_by_class(results: RunResults) -> Figure:
    """Draw the mean recall of each class, its standard deviation, and one dot per replica.

    The standard deviation is over folds.
    """
    classes, found = results.classes, results.summary
    figure, axes = new_figure(height=0.9 + 0.36 * len(classes))
    for row, name in enumerate(classes):
        recalls = _recalls(results.reported, name)
        axes.plot(recalls, np.full(len(recalls), row), "o", color=MUTED, alpha=0.35, markersize=4, mew=0)
        _mean_and_spread(axes, row, found.recall_mean.get(name), found.recall_std_over_folds.get(name))
    axes.axvline(1 / len(classes), color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.text(1 / len(classes), -0.75, " chance", color=MUTED, fontsize=8, va="center")
    percent_axis(axes, "recall (%)")
    named_rows(axes, classes)
    return figure


def learning_curve(runs: Mapping[str, Run], title: str, value: Curve, share: bool = False) -> Figure:
    """Draw a value of every replica by epoch, and their median.

    The median ends when fewer than half of the replicas are training.

    Args:
        runs: runs by name; "" for a single run, which is drawn in the accent colour.
        value: the value of an epoch.
        share: whether it is a fraction, which is shown in percent.
    """
    figure, axes = new_figure(height=2.7)
    last = 0
    for stroke, (name, run) in zip(strokes(len(runs)), runs.items(), strict=False):
        table = _by_epoch(_curves(run, value))
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


def speakers(groups: Sequence[Group], genders: Mapping[str, str], chance: float) -> Figure:
    """Draw UA of each speaker with its interval, by gender."""
    figure, axes = new_figure(height=0.95 + 0.26 * len(groups))
    for gender, colour, mark in (("F", ACCENT, "o"), ("M", SECOND, "s"), ("", MUTED, "D")):
        own = [(row, group.ua) for row, group in enumerate(groups) if genders[group.name] == gender]
        for row, ua in own:
            if ua and ua.low != ua.high:
                axes.hlines(row, ua.low, ua.high, color=colour, linewidth=2, alpha=0.5)
        if own:
            values = [ua.value if ua else np.nan for _, ua in own]
            rows = [row for row, _ in own]
            axes.plot(values, rows, mark, color=colour, markersize=6, label=_GENDERS[gender])
    axes.axvline(chance, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    percent_axis(axes, "UA (%)")
    named_rows(axes, [group.name for group in groups])
    axes.legend(loc="lower right", ncols=3, bbox_to_anchor=(1, 1), borderaxespad=0)
    return figure


def reliability(measured: Mapping[str, Calibration]) -> Figure:
    """Draw accuracy by confidence of one model, or of several models by name."""
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


_GENDERS = {"F": "female", "M": "male", "": "gender unknown"}


def _cell_text(axes: Axes, row: int, column: int, share: float, count: int, empty: bool) -> None:
    if empty:
        axes.text(column + 0.48, row + 0.48, "–", ha="center", va="center", color=MUTED)
        return
    colour = ON_CELL if share > 0.66 else INK if count else MUTED
    shown = f"{100 * share:.0f}"
    axes.text(column + 0.48, row + 0.4, shown, ha="center", va="center", color=colour, fontsize=10)
    axes.text(column + 0.48, row + 0.76, f"{count}", ha="center", va="center", color=colour, fontsize=7)


def _recalls(replicas: Sequence[ReplicaResult], name: str) -> list[float]:
    """Return the recall of a class in every replica that has one."""
    found = [replica.test.recall[name] for replica in replicas if replica.test]
    return [recall for recall in found if recall is not None]


def _mean_and_spread(axes: Axes, row: int, mean: float | None, std: float | None) -> None:
    if mean is None:
        axes.text(0.01, row, "no utterances", color=MUTED, va="center", fontsize=9)
        return
    if std is not None:
        axes.hlines(row, mean - std, mean + std, color=ACCENT, linewidth=2.2)
    axes.plot([mean], [row], "o", color=ACCENT, markersize=8, clip_on=False)


def _curves(run: Run, value: Curve) -> list[dict[int, float | None]]:
    """Return the value by epoch (from 1), of every replica of the reported setting."""
    curves: dict[tuple[str, int], dict[int, float | None]] = defaultdict(dict)
    for record in run.epochs:
        if record.setting == run.results.setting:
            curves[record.fold, record.seed][record.epoch + 1] = value(record)
    return list(curves.values())


def _by_epoch(curves: Sequence[Mapping[int, float | None]]) -> Float[np.ndarray, "n epochs"]:
    """Return one row per curve; NaN for missing values."""
    last = max((max(curve) for curve in curves), default=0)
    table = np.full((len(curves), last), np.nan)
    for row, curve in enumerate(curves):
        for epoch, value in curve.items():
            if value is not None:
                table[row, epoch - 1] = value
    return table


def _median(table: Float[np.ndarray, "n epochs"]) -> Float[np.ndarray, " epochs"]:
    """Return the median of each epoch; NaN if fewer than half of the curves have a value."""
    enough = 2 * np.isfinite(table).sum(axis=0) >= max(1, len(table))
    median = np.full(table.shape[1], np.nan)
    median[enough] = np.nanmedian(table[:, enough], axis=0) if enough.any() else np.nan
    return median
