"""The tables and figures of a run that predicts the distribution of raters' votes."""

from __future__ import annotations

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxser.evaluation import divergence
from jaxser.report import checks, groups, plots, run_tables
from jaxser.report.analysis import Analysis
from jaxser.report.groups import CLUSTERED
from jaxser.report.run_tables import interval_cells
from jaxser.report.style import ACCENT, MUTED, STYLE, WIDTH, Drawing, new_figure
from jaxser.report.tables import Cell, Score, Table


def tables(analysis: Analysis) -> dict[str, Table | None]:
    """Return every table by its name in the template; None if it does not apply."""
    run = analysis.run
    return {
        "headline": run_tables.headline(run),
        "intervals": run_tables.intervals(analysis),
        "settings": run_tables.settings(run),
        "best_possible": run_tables.best_possible(run),
        "votes": by_class(analysis),
        "genders": genders(analysis),
        "leaks": checks.leak_table(analysis.leaks, run),
        "folds": run_tables.folds(run),
        "replicas": run_tables.replicas(run),
    }


def figures(analysis: Analysis) -> dict[str, Drawing]:
    """Return every figure by name."""
    run, made = analysis.run, {}
    with matplotlib.rc_context(STYLE):
        if any(replica.test for replica in analysis.results.reported):
            made["entropies"] = Drawing("Entropy of votes and predictions", entropies(analysis))
        if run.epochs:
            loss = plots.learning_curve({"": run}, "Training loss", plots.train_loss)
            made["loss"] = Drawing("Training loss by epoch", loss)
            curve = plots.learning_curve({"": run}, "Validation divergence", plots.validation_score)
            made["js"] = Drawing("Validation divergence by epoch", curve)
    return made


def by_class(analysis: Analysis) -> Table:
    """Return the mean shares of votes and predictions by class, and how often it is present."""
    p = analysis.run.test_predictions
    parts = [divergence.shares(one.astype(float)) for one in (p.true, p.predicted)]
    means = [part.mean(axis=0) for part in parts]
    present = [divergence.is_present(part) for part in parts]
    hits, total = (present[0] & present[1]).sum(axis=0), present[0].sum(axis=0) + present[1].sum(axis=0)
    rows: list[tuple[Cell, ...]] = []
    for n, name in enumerate(analysis.results.target.names):
        f1 = 2 * hits[n] / total[n] if total[n] else None
        shares = (Score(float(mean[n])) for mean in means)
        rows.append((name, *shares, *(Score(float(one[:, n].mean())) for one in present), Score(f1)))
    header = (
        "class",
        "share of votes",
        "share predicted",
        "present in votes",
        "present in predictions",
        "F1",
    )
    caption = "Votes by class (%): mean shares, how often the share exceeds 1/C, and F1, over all replicas"
    return Table("votes", caption, header, tuple(rows))


def genders(analysis: Analysis) -> Table | None:
    """Return the divergence by gender; None unless two genders are known."""
    ids = analysis.run.test_predictions.utterance.tolist()
    of_utterance = np.array([analysis.run.utterances[i].gender for i in ids], dtype=str)
    rows: list[tuple[Cell, ...]] = []
    for gender in groups.known_genders(analysis.run):
        own = groups.part(analysis.run, of_utterance == gender)
        number = len(set(own.predictions.utterance.tolist()))
        rows.append((gender, number, *interval_cells(groups.clustered(own).get("js"))))
    caption = f"Divergence by gender, averaged over seeds; intervals {CLUSTERED}"
    header = ("gender", "utterances", "divergence", "95 % interval")
    return Table("genders", caption, header, tuple(rows)) if rows else None


def entropies(analysis: Analysis) -> Figure:
    """Draw the entropy of the votes and of the mean prediction of each test utterance."""
    true, predicted = mean_entropies(analysis)
    high = max(true.max(), predicted.max(), 0.1)
    figure, axes = new_figure(height=WIDTH * 0.8)
    axes.plot([0, high], [0, high], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.plot(true, predicted, "o", color=ACCENT, alpha=0.3, markersize=4, mew=0)
    for level in np.unique(true.round(6)):
        own = predicted[true.round(6) == level]
        axes.plot([level], [own.mean()], "_", color=MUTED, markersize=14, mew=2)
    edge = 0.04 * high
    axes.set(xlabel="entropy of the votes (bits)", ylabel="entropy of the prediction (bits)", aspect="equal")
    axes.set(xlim=(-edge, high + edge), ylim=(-edge, high + edge))
    axes.grid()
    axes.spines[:].set_visible(False)
    return figure


def mean_entropies(analysis: Analysis) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Return the entropy of votes, and the mean one of predictions, of each test utterance."""
    p = analysis.run.test_predictions
    _, first, row = np.unique(p.utterance, return_index=True, return_inverse=True)
    found = (divergence.entropy(divergence.shares(x.astype(float))) for x in (p.true, p.predicted))
    true, predicted = map(np.asarray, found)
    return true[first], np.bincount(row, predicted) / np.bincount(row)
