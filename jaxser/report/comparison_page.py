"""The folder of a comparison: a page, tables and figures of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxser.evaluation.comparisons import NAMES, name_of
from jaxser.evaluation.run_folder import Run
from jaxser.report import calibration, checks, comparison, comparison_plots, media, tables
from jaxser.report.comparison import METRICS, Comparable
from jaxser.report.page import PAGE, Options, inline, publish, render, warnings_of
from jaxser.report.tables import Table
from jaxser.types import UsageError


def check_metric(metric: str) -> None:
    """Raises UsageError where a metric is not one that is compared."""
    if metric not in METRICS:
        raise UsageError(f"--metric={metric} is not one of {', '.join(METRICS)}")


def write(runs: Sequence[Run], out: Path, options: Options, metric: str = "ua") -> Path:
    """Write the page, the tables and the figures of a comparison; returns the page.

    Raises:
        UsageError: a run has no score, or the metric is not one that is compared.
    """
    check_metric(metric)
    for run in runs:
        if run.results["summary"]["mean"]["ua"] is None:
            raise UsageError(f"{name_of(run)} has no replica with a score: leave it out, or train it again")
    sets, refused = comparison.comparable_sets(runs, metric)
    by_set = [_tables(found) for found in sets]
    figures = [comparison_plots.figures(found, metric) for found in sets]
    printed = comparison.printed(runs)
    every = [table for of in by_set for table in of.values() if table is not None]
    out.mkdir(parents=True, exist_ok=True)
    everything = {name: figure for of in figures for name, figure in of.items()}
    publish(out, [*every, *([printed] if printed else [])], everything, _heading(runs, refused))
    sections = [
        {
            "set": found,
            "names": [name_of(run) for run in found.runs],
            "tables": of,
            "suffix": f"-{found.name.lower()}" if found.name else "",
        }
        for found, of in zip(sets, by_set, strict=True)
    ]
    values = {
        "title": f"{len(runs)} runs compared",
        "sections": sections,
        "refused": refused,
        "printed": printed,
        "metric": metric,
        "figures": inline(everything),
        "runs": [_of(run, options) for run in runs],
        "warned": _warned(runs),
        "synthetic": any(run.results["synthetic"] for run in runs),
        "summary": _summary(sets, metric),
    }
    (out / PAGE).write_text(render("comparison.html", values), encoding="utf-8")
    return out / PAGE


def _tables(found: Comparable) -> Mapping[str, Table | None]:
    return {
        "scores": comparison.scores(found),
        "comparisons": comparison.comparisons(found),
        "recalls": comparison.recalls(found),
        "worst": comparison.worst(found),
        "genders": comparison.genders(found),
        "speakers": comparison.speakers(found),
    }


def _of(run: Run, options: Options) -> dict[str, Any]:
    """What the page says of one run by itself."""
    mistakes = calibration.mistakes(run, most=5)
    found = run.results
    return {
        "name": name_of(run),
        "model": " / ".join(dict.fromkeys(filter(None, (found["model"], found["variant"])))),
        "dataset": found["dataset"],
        "mistakes": mistakes,
        "players": media.players(options.audio, [m.utterance for m in mistakes]),
        "command": run.config.get("command", ""),
        "setting": found["summary"]["setting"],
    }


def _warned(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Warnings and shared values, once for all runs that have the same."""
    found: list[dict[str, Any]] = []
    for run in runs:
        own = {"warnings": warnings_of(run), "leaks": checks.listed(run)}
        same = next((entry for entry in found if own.items() <= entry.items()), None)
        if same is None:
            found.append({"names": [name_of(run)], **own})
        else:
            same["names"].append(name_of(run))
    return found


def _summary(sets: Sequence[Comparable], metric: str) -> list[str]:
    """What can be claimed, in sentences."""
    sentences = []
    for found in sets:
        name = name_of(found.runs[0])
        if len(found.runs) < 2:
            continue
        pairs = [found.pair(name, name_of(run), metric) for run in found.runs[1:]]
        beaten = [_other(pair.a, pair.b, name) for pair in pairs if pair and pair.significant]
        level = [_other(pair.a, pair.b, name) for pair in pairs if pair and not pair.significant]
        told = f"{name} has the highest mean {NAMES[metric]}"
        if beaten:
            told += f"; it differs significantly from {', '.join(beaten)}"
        if level:
            least = max(pair.detectable or 0 for pair in pairs if pair and not pair.significant)
            told += (
                f"; it does not differ significantly from {', '.join(level)}, where true differences of up to "
                f"{100 * least:.1f} points would be missed in a fifth of cases or more"
            )
        sentences.append(f"{told}.")
    return sentences


def _other(a: str, b: str, name: str) -> str:
    return b if a == name else a


def _heading(runs: Sequence[Run], refused: Sequence[str]) -> str:
    marks = ["Demo numbers: synthetic speech."] if any(run.results["synthetic"] for run in runs) else []
    names: dict[str, list[str]] = {}
    for run in runs:
        for sentence in warnings_of(run):
            names.setdefault(sentence, []).append(name_of(run))
    warned = [f"{', '.join(own)}: {sentence}" for sentence, own in names.items()]
    lines = [f"- {tables.escape_markdown(sentence)}" for sentence in (*marks, *refused, *warned)]
    return "\n".join([f"# {len(runs)} runs compared\n", *lines, ""])
