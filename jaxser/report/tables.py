"""A run's tables: built once, printed as Markdown, CSV or (in the page) HTML.

A table holds scores as fractions; how they are printed is the printer's matter. Markdown and HTML print
percent, CSV the fractions in full.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxser.evaluation import metrics, run_folder
from jaxser.evaluation.comparisons import NAMES
from jaxser.evaluation.run_folder import Run
from jaxser.papers import Printed


@dataclass(frozen=True)
class Score:
    """A fraction, with its standard deviation where there is one; None is printed as a dash."""

    mean: float | None
    std: float | None = None
    best: bool = False  # of its column: printed bold
    mark: str = ""  # after it, such as a dagger that the caption explains


@dataclass(frozen=True)
class Range:
    """An interval of fractions."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Number:
    """A number that is no fraction, such as a p value: two significant digits, in full in CSV."""

    value: float


Cell = str | int | Score | Range | Number


@dataclass(frozen=True)
class Table:
    """`name` is a file-name-like word; every row has as many cells as the header."""

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def text(cell: Cell) -> str:
    """A cell in words: scores in percent."""
    if isinstance(cell, Range):
        return "–" if cell.low is None else f"{percent(cell.low)} to {percent(cell.high)}"
    if isinstance(cell, Score):
        return percent(cell.mean) + ("" if cell.std is None else f" ± {percent(cell.std)}") + cell.mark
    return f"{cell.value:.2g}" if isinstance(cell, Number) else str(cell)


def markdown(table: Table) -> str:
    """A pipe table with its caption; what Markdown would take for markup is escaped."""
    rows = [map(escape_markdown, table.header), *(map(_markdown_cell, row) for row in table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    numeric = [
        all(not isinstance(row[place], str) for row in table.rows) for place in range(len(table.header))
    ]
    rule = "|" + "|".join("---:" if right else "---" for right in numeric) + "|"
    return "\n".join([f"**{escape_markdown(table.caption)}**", "", lines[0], rule, *lines[1:], ""])


def _markdown_cell(cell: Cell) -> str:
    shown = escape_markdown(text(cell))
    return f"**{shown}**" if isinstance(cell, Score) and cell.best else shown


def escape_markdown(value: str) -> str:
    """Text of a line, with what Markdown or HTML would take for markup escaped."""
    value = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for mark in "|*_`[":
        value = value.replace(mark, "\\" + mark)
    return value


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return file.getvalue()


def table_csv(table: Table) -> str:
    """A table as CSV: fractions in full, a ± and the ends of an interval in columns of their own."""
    columns: list[tuple[Any, ...]] = []
    for place, name in enumerate(table.header):
        columns += _csv_columns(name, [row[place] for row in table.rows])
    return csv_text([column[0] for column in columns], zip(*(column[1:] for column in columns), strict=True))


def _csv_columns(name: str, cells: Sequence[Cell]) -> list[tuple[Any, ...]]:
    """One column as one or two, each its name and its values."""
    if any(isinstance(cell, Range) for cell in cells):
        ends = [(cell.low, cell.high) if isinstance(cell, Range) else (cell, None) for cell in cells]
        low, high = zip(*ends, strict=True)
        return [(f"{name} low", *low), (f"{name} high", *high)]
    found = [(name, *map(_plain, cells))]
    stds = [cell.std if isinstance(cell, Score) else None for cell in cells]
    return found if all(std is None for std in stds) else [*found, (f"{name} ±", *stds)]


def _plain(cell: Cell) -> Any:
    return cell.mean if isinstance(cell, Score) else cell.value if isinstance(cell, Number) else cell


def results_csv(run: Run) -> str:
    """A line a replica, its test scores as fractions in full; empty where there is none."""
    classes = run.results["classes"]
    header = ["model", "variant", "dataset", "fold", "seed", "setting", "status", "best_epoch"]
    header += [*metrics.SCORES, *(f"recall_{name}" for name in classes)]
    rows = []
    for replica in run.results["replicas"]:
        test = replica["test"] or {"recall": {}}
        own = [replica[name] for name in ("fold", "seed", "setting", "status", "best_epoch")]
        scores = [test.get(name) for name in metrics.SCORES] + [test["recall"].get(name) for name in classes]
        rows.append([*(run.results[name] for name in header[:3]), *own, *scores])
    return csv_text(header, rows)


def headline(run: Run) -> Table:
    """The four scores: mean, the three spreads, and pooled over the folds."""
    summary = run.results["summary"]
    columns = [
        summary[name] for name in ("mean", "std_over_folds", "std_over_seeds", "std_over_runs", "pooled")
    ]
    rows: list[tuple[Cell, ...]] = []
    for name in metrics.SCORES:
        rows.append((NAMES[name], *(Score((column or {}).get(name)) for column in columns)))
    header = ("", "mean", "± over folds", "± over seeds", "± over runs", "pooled")
    return Table("scores", "Test scores (%)", header, tuple(rows))


def folds(run: Run) -> Table:
    """Utterances of each part, and who is tested."""
    rows = []
    for fold in run.folds:
        speakers = sorted({run.utterances[i]["speaker"] for i in fold.test} - {""})
        named = ", ".join(speakers) if len(speakers) <= 6 else f"{len(speakers)} speakers"
        rows.append((fold.name, len(fold.train), len(fold.validation), len(fold.test), named or "not known"))
    header = ("fold", "training", "validation", "test", "speakers tested")
    return Table("folds", "Utterances in the parts of each fold", header, tuple(rows))


def replicas(run: Run) -> Table:
    swept = bool(run.results["summaries"])
    header = (
        "fold",
        "seed",
        *(("setting",) if swept else ()),
        "status",
        "epochs",
        "best epoch",
        "validation UA",
    )
    trained: dict[tuple[str, int, str], int] = {}
    for line in run.epochs:
        key = (line["fold"], line["seed"], line["setting"])
        trained[key] = max(trained.get(key, 0), line["epoch"] + 1)
    rows = []
    for r in run.results["replicas"]:
        key = (r["fold"], r["seed"], r["setting"])
        best = "–" if r["best_epoch"] is None else r["best_epoch"] + 1
        own = (
            r["fold"],
            r["seed"],
            *((r["setting"],) if swept else ()),
            r["status"],
            trained.get(key, 0),
            best,
        )
        scores = (Score((r["test"] or {}).get(name)) for name in metrics.SCORES)
        rows.append((*own, Score((r["validation"] or {}).get("ua")), *scores))
    return Table("replicas", "Every replica (%)", (*header, *NAMES.values()), tuple(rows))


def settings(run: Run) -> Table | None:
    """The settings of a sweep, or None where nothing is swept. The chosen one is summarised."""
    if not run.results["summaries"]:
        return None
    summary = run.results["summary"]
    metric = summary["chosen_by"].removeprefix("validation ")
    rows = (
        (
            name,
            Score(run_folder.validation_score(s, metric)),
            *(Score(s["mean"][m], s["std"][m]) for m in ("wa", "ua", "f1_weighted")),
        )
        for name, s in run.results["summaries"].items()
    )
    score = f"validation {' + '.join(NAMES.get(name, name) for name in metric.split('_plus_'))}"
    caption = f"Settings (%); “{summary['setting']}” was chosen by {score}, never by test"
    return Table("settings", caption, ("setting", score, "WA", "UA", "weighted F1"), tuple(rows))


def paper(run: Run, row: Printed) -> Table:
    """The paper's printed scores above ours; a printed ± has the same kind of ± beside it."""
    summary = run.results["summary"]
    std = summary[f"std_over_{row.std_over}"] if row.std_over else dict.fromkeys(metrics.SCORES)
    names = [name for name in NAMES if name in row.scores]
    theirs = [Score(*row.scores[name]) for name in names]
    ours = [Score(summary["mean"][name], std[name]) for name in names]
    caption = f"Printed and measured (%{f', ± over {row.std_over}' if row.std_over else ''})"
    rows: tuple[tuple[Cell, ...], ...] = ((f"{row.model} (table {row.table})", *theirs), ("this run", *ours))
    return Table("paper", caption, ("", *(NAMES[name] for name in names)), rows)


OBSERVERS = {
    "prior": "the most frequent class",
    "text": "words alone",
    "audio": "voice alone",
    "late_fusion": "words and voice, scores added",
    "joint": "words and voice together",
}


def best_possible(run: Run) -> Table | None:
    """The demo corpus's exact best accuracies above ours."""
    best: Mapping[str, Any] = run.results["best_possible"] or {}
    known = {name: best[name] for name in OBSERVERS if name in best}
    if not known:
        return None
    summary = run.results["summary"]
    rows = [(OBSERVERS[name], Score(value["wa"]), Score(value["ua"])) for name, value in known.items()]
    wa, ua = (Score(summary["mean"][name], summary["std"][name]) for name in ("wa", "ua"))
    rows.append(("this run", wa, ua))
    caption = (
        f"Best possible accuracy by what is heard or read (%), and this run (± over {summary['std_over']})"
    )
    return Table("best_possible", caption, ("", "WA", "UA"), tuple(rows))


def best_possible_score(run: Run, metric: str) -> Score:
    """The best possible accuracy with what the run's model reads; None where it is not known."""
    best: Mapping[str, Any] = run.results["best_possible"] or {}
    return Score(best.get(run_folder.observer(run.results.get("reads", ())), {}).get(metric))


def summarised(run: Run) -> list[Mapping[str, Any]]:
    """The replicas of the setting that the summary is about."""
    return [r for r in run.results["replicas"] if r["setting"] == run.results["summary"]["setting"]]
