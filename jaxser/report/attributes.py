"""The tables and figures of a run that predicts attributes such as valence."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxser.evaluation.metrics import describe
from jaxser.report import checks, groups, plots, run_tables
from jaxser.report.analysis import Analysis
from jaxser.report.groups import CLUSTERED
from jaxser.report.run_tables import interval_cells, score
from jaxser.report.style import ACCENT, MUTED, STYLE, WIDTH, Drawing, named_rows, new_figure
from jaxser.report.tables import Cell, Table


def tables(analysis: Analysis) -> dict[str, Table | None]:
    """Return every table by its name in the template; None if it does not apply."""
    run = analysis.run
    return {
        "headline": run_tables.headline(run),
        "intervals": run_tables.intervals(analysis),
        "settings": run_tables.settings(run),
        "best_possible": run_tables.best_possible(run),
        "attributes": by_attribute(analysis),
        "genders": genders(analysis),
        "speakers": speakers(analysis),
        "leaks": checks.leak_table(analysis.leaks, run),
        "folds": run_tables.folds(run),
        "replicas": run_tables.replicas(run),
    }


def figures(analysis: Analysis) -> dict[str, Drawing]:
    """Return every figure by name."""
    run, names = analysis.run, analysis.results.target.names
    made = {}
    with matplotlib.rc_context(STYLE):
        if any(replica.test for replica in analysis.results.reported):
            made["attributes"] = Drawing("CCC by attribute", ccc_by_attribute(analysis))
            for name, identity in zip(names, scatter_names(analysis), strict=True):
                made[identity] = Drawing(f"True and predicted {name}", scatter(analysis, name))
        if run.epochs:
            loss = plots.learning_curve({"": run}, "Training loss", plots.train_loss)
            made["loss"] = Drawing("Training loss by epoch", loss)
            curve = plots.learning_curve({"": run}, "Validation CCC", plots.validation_score)
            made["ccc"] = Drawing("Validation CCC by epoch", curve)
    return made


def scatter_names(analysis: Analysis) -> list[str]:
    """Return the names of the scatter plots, in the order of the attributes."""
    return [f"scatter-{number}" for number, _ in enumerate(analysis.results.target.names, start=1)]


def by_attribute(analysis: Analysis) -> Table:
    """Return the scores of each attribute: means, and the pooled CCC with its interval."""
    found, target = analysis.results.summary, analysis.results.target
    rows: list[tuple[Cell, ...]] = []
    for name in target.names:
        metrics = [f"{metric}_{name}" for metric in target.main]
        means = (score(m, found.mean.get(m), found.std_over_folds.get(m)) for m in metrics)
        rows.append((name, *means, *interval_cells(analysis.clustered_interval(f"ccc_{name}"))))
    columns = (f"{describe(metric).title}, ± over folds" for metric in target.main)
    header = ("attribute", *columns, "CCC, pooled", "95 % interval")
    return Table("attributes", f"Scores by attribute; intervals {CLUSTERED}", header, tuple(rows))


def genders(analysis: Analysis) -> Table | None:
    """Return CCC by gender; None unless two genders are known."""
    names = groups.known_genders(analysis.run)
    return _by_group(analysis, "gender", names, "speaker", f"intervals {CLUSTERED}")


def speakers(analysis: Analysis) -> Table | None:
    """Return CCC by test speaker; None if no speakers are known."""
    names = groups.known_speakers(analysis.run)
    return _by_group(analysis, "speaker", names, "utterance", "intervals resample the speaker’s utterances")


def _by_group(analysis: Analysis, field: str, names: Sequence[str], by: str, intervals: str) -> Table | None:
    """Return CCC for each of some values of a field of utterances, with intervals over `by`."""
    run, attributes = analysis.run, analysis.results.target.names
    rows: list[tuple[Cell, ...]] = []
    ids = run.test_predictions.utterance.tolist()
    of_utterance = np.array([getattr(run.utterances[i], field) for i in ids], dtype=str)
    for name in names:
        own = groups.part(run, of_utterance == name)
        number = len(set(own.predictions.utterance.tolist()))
        found = groups.clustered(own, by)
        by_attribute = (interval_cells(found.get(f"ccc_{attribute}")) for attribute in attributes)
        rows.append((name, number, *(cell for pair in by_attribute for cell in pair)))
    columns = (column for one in attributes for column in (f"CCC of {one}", f"95 % interval of {one}"))
    caption = f"CCC by {field}, averaged over seeds; {intervals}"
    return Table(f"{field}s", caption, (field, "utterances", *columns), tuple(rows)) if rows else None


def ccc_by_attribute(analysis: Analysis) -> Figure:
    """Draw the mean CCC of each attribute, its spread over folds, and one dot per replica."""
    results = analysis.results
    names, found = results.target.names, results.summary
    figure, axes = new_figure(height=1.0 + 0.36 * len(names))
    for row, name in enumerate(names):
        metric = f"ccc_{name}"
        own = [value for one in results.reported if one.test and (value := one.test[metric]) is not None]
        axes.plot(own, np.full(len(own), row), "o", color=MUTED, alpha=0.35, markersize=4, mew=0)
        if (mean := found.mean.get(metric)) is None:
            continue
        if (std := found.std_over_folds.get(metric)) is not None:
            axes.hlines(row, mean - std, mean + std, color=ACCENT, linewidth=2.2)
        axes.plot([mean], [row], "o", color=ACCENT, markersize=8, clip_on=False)
    axes.set_xlabel("CCC")
    axes.grid(axis="x")
    axes.spines[:].set_visible(False)
    named_rows(axes, names)
    return figure


def scatter(analysis: Analysis, name: str) -> Figure:
    """Draw the true and the predicted value of each test utterance, averaged over replicas."""
    target = analysis.results.target
    true, predicted = mean_predictions(analysis, target.names.index(name))
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    edge = 0.04 * (high - low)
    figure, axes = new_figure(height=WIDTH * 0.8)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.plot(true, predicted, "o", color=ACCENT, alpha=0.3, markersize=4, mew=0)
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}", aspect="equal")
    axes.set(xlim=(low - edge, high + edge), ylim=(low - edge, high + edge))
    axes.grid()
    axes.spines[:].set_visible(False)
    return figure


def mean_predictions(
    analysis: Analysis, column: int
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Return the true value of an attribute, and its mean prediction, of each test utterance."""
    p = analysis.run.test_predictions
    _, first, row = np.unique(p.utterance, return_index=True, return_inverse=True)
    mean = np.bincount(row, p.predicted[:, column]) / np.bincount(row)
    return p.true[first, column], mean
