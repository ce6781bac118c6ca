"""The folder of a comparison: one page with the tables and figures of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxser import files
from jaxser.evaluation.run_folder import Run
from jaxser.evaluation.targets import CLASSES
from jaxser.papers.names import run_name
from jaxser.report import checks, comparison, comparison_plots, comparison_tables, media, tables
from jaxser.report.analysis import Analysis
from jaxser.report.comparison import METRICS, Comparable
from jaxser.report.page import DEMO, PAGE, Options, inline, publish, render
from jaxser.report.tables import Table
from jaxser.types import UsageError

MAX_MISTAKES = 5


def check_metric(metric: str) -> None:
    """Check that `metric` is compared.

    Raises:
        UsageError: if it is not.
    """
    if metric not in METRICS:
        raise UsageError(f"--metric={metric} is not one of {', '.join(METRICS)}")


def write(runs: Sequence[Run], out: Path, options: Options, metric: str = "ua") -> Path:
    """Write the page, tables and figures of a comparison; return the path of the page.

    Raises:
        UsageError: if a run has no scores, or the metric is unknown.
    """
    check_metric(metric)
    analyses = [Analysis(run) for run in runs]
    for one in analyses:
        if one.results.summary.mean[one.results.target.headline] is None:
            raise UsageError(f"{one.name} has no replica with a score: leave it out, or train it again")
    sets, refused = comparison.comparable_sets(analyses, metric)
    by_set = [comparison_tables.all_tables(found) for found in sets]
    printed = comparison_tables.printed(analyses)
    matrix = comparison_tables.matrix(analyses)
    figures = {name: one for found in sets for name, one in comparison_plots.figures(found).items()}
    published = [
        table for of in (*by_set, {"across": matrix, "printed": printed}) for table in of.values() if table
    ]
    values = {
        "title": f"{len(runs)} runs compared",
        "sections": [_section(found, of) for found, of in zip(sets, by_set, strict=True)],
        "refused": refused,
        "across": matrix,
        "printed": printed,
        "figures": inline(figures),
        "runs": [_describe(one, options) for one in analyses],
        "doubtful": _doubtful(analyses),
        "sound": _sound(analyses),
        "synthetic": _is_synthetic(analyses),
        "summary": [sentence for found in sets if (sentence := comparison.summary(found))],
    }
    with files.lock(out, "wait until it has ended, or give another --out"):
        publish(out, ".", published, figures, _heading(analyses, refused))
        return files.write(out, PAGE, render("comparison.html", values))


def _section(found: Comparable, chosen: Mapping[str, Table | None]) -> dict[str, Any]:
    """Return the part of the page about one set."""
    return {
        "set": found,
        "names": [run.name for run in found.runs],
        "tables": chosen,
        "suffix": found.suffix,
        "metric": found.metric,
        "has_classes": found.target.kind == CLASSES,
        "headline": found.target.headline,
        "title": f" (set {found.name})" if found.name else "",
    }


def _describe(analysis: Analysis, options: Options) -> dict[str, Any]:
    """Return what the page says about one run by itself."""
    results = analysis.results
    mistakes = analysis.mistakes[:MAX_MISTAKES] if results.target.kind == CLASSES else ()
    return {
        "name": analysis.name,
        "model": run_name(results.model, results.variant),
        "dataset": results.dataset,
        "mistakes": mistakes,
        "players": media.players(options.audio, [m.utterance for m in mistakes]),
        "command": analysis.run.config.command,
        "setting": results.setting,
    }


def _doubtful(analyses: Sequence[Analysis]) -> list[dict[str, Any]]:
    """Return warnings and shared values, once for all runs that have the same ones."""
    entries: list[dict[str, Any]] = []
    for one in analyses:
        lists = checks.leak_lists(one.leaks, one.run.utterances)
        if not one.warnings and not lists:
            continue
        own = {"warnings": one.warnings, "leaks": lists}
        same = next((entry for entry in entries if own.items() <= entry.items()), None)
        if same is None:
            entries.append({"names": [one.name], **own})
        else:
            same["names"].append(one.name)
    return entries


def _sound(analyses: Sequence[Analysis]) -> dict[str, list[str]]:
    """Return the names of the runs without warnings or leaks, by the verdict of their leak checks."""
    names: dict[str, list[str]] = {}
    for one in analyses:
        if not one.warnings and not one.leaks:
            names.setdefault(checks.leak_verdict((), one.run.utterances), []).append(one.name)
    return names


def _is_synthetic(analyses: Sequence[Analysis]) -> bool:
    return any(one.results.synthetic for one in analyses)


def _heading(analyses: Sequence[Analysis], refused: Sequence[str]) -> str:
    """Return the beginning of tables.md."""
    names: dict[str, list[str]] = {}
    for one in analyses:
        for sentence in one.warnings:
            names.setdefault(sentence, []).append(one.name)
    warnings = [f"{', '.join(own)}: {sentence}" for sentence, own in names.items()]
    marks = [DEMO] if _is_synthetic(analyses) else []
    lines = [f"- {tables.escape_markdown(sentence)}" for sentence in (*marks, *refused, *warnings)]
    return "\n".join([f"# {len(analyses)} runs compared\n", *lines, ""])
