"""A run's tables: built once, printed as Markdown, CSV or (in the page) HTML.

A table holds scores as fractions; how they are printed is the printer's matter. Markdown and HTML print
percent, CSV the fractions in full.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxser import metrics, results
from jaxser.papers import Printed
from jaxser.results import Run
from jaxser.statistics import NAMES, tested

MOST_SPEAKERS = 40
"""Corpora such as MELD have hundreds of speakers, most with a sentence or two: the rest is one line."""


@dataclass(frozen=True)
class Score:
    """A fraction, with its standard deviation where there is one; None is printed as a dash."""

    mean: float | None
    std: float | None = None


Cell = str | int | Score


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
    if isinstance(cell, Score):
        return percent(cell.mean) + ("" if cell.std is None else f" ± {percent(cell.std)}")
    return str(cell)


def markdown(table: Table) -> str:
    """A pipe table with its caption; what Markdown would take for markup is escaped."""
    rows = [table.header, *([text(cell) for cell in row] for row in table.rows)]
    lines = ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows]
    numeric = [
        all(not isinstance(row[place], str) for row in table.rows) for place in range(len(table.header))
    ]
    rule = "|" + "|".join("---:" if right else "---" for right in numeric) + "|"
    return "\n".join([f"**{escape_markdown(table.caption)}**", "", lines[0], rule, *lines[1:], ""])


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


def recalls(run: Run) -> Table:
    recall = run.results["summary"]["recall"]
    tested = [run.utterances[i]["label"] for i in _tested(run)]
    rows = (
        (name, tested.count(name), Score(recall["mean"].get(name), recall["std_over_folds"].get(name)))
        for name in run.results["classes"]
    )
    caption = "Recall by class (%), mean ± standard deviation over folds"
    return Table("recall", caption, ("class", "utterances tested", "recall"), tuple(rows))


def speakers(run: Run) -> Table | None:
    """WA and UA by test speaker, or None where the corpus names none."""
    rows = _grouped(run, lambda utterance: (utterance["speaker"], utterance["gender"]))
    rows = {names: scores for names, scores in rows.items() if names[0]}
    if not rows:
        return None
    kept = sorted(sorted(rows, key=lambda names: -rows[names][0])[:MOST_SPEAKERS])
    caption = "Test scores by speaker (%), mean over seeds"
    if len(rows) > len(kept):
        caption += f"; the {len(kept)} of {len(rows)} speakers with the most utterances"
    header = ("speaker", "gender", "utterances", "WA", "UA")
    return Table("speakers", caption, header, tuple((*names, *rows[names]) for names in kept))


def genders(run: Run) -> Table | None:
    """WA and UA by gender, or None where fewer than two are known."""
    rows = _grouped(run, lambda utterance: (utterance["gender"],))
    rows = {names: scores for names, scores in rows.items() if names[0]}
    if len(rows) < 2:
        return None
    header = ("gender", "utterances", "WA", "UA")
    caption = "Test scores by gender (%), mean over seeds"
    return Table("genders", caption, header, tuple((*names, *rows[names]) for names in sorted(rows)))


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
            Score(results.validation_score(s, metric)),
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


def summarised(run: Run) -> list[Mapping[str, Any]]:
    """The replicas of the setting that the summary is about."""
    return [r for r in run.results["replicas"] if r["setting"] == run.results["summary"]["setting"]]


def _tested(run: Run) -> list[str]:
    """Ids of the utterances that some fold tests, each once."""
    return list(dict.fromkeys(i for fold in run.folds for i in fold.test))


def _grouped(
    run: Run, key: Callable[[Mapping[str, Any]], tuple[str, ...]]
) -> dict[tuple[str, ...], tuple[int, Score, Score]]:
    """Utterances, WA and UA of groups of test utterances, scored a seed at a time and averaged over seeds."""
    p = tested(run)
    ids = p.utterance.tolist()
    names = {i: key(run.utterances[i]) for i in set(ids)}
    groups = {group: number for number, group in enumerate(dict.fromkeys(names.values()))}
    group = np.array([groups[names[i]] for i in ids], dtype=int)
    seeds, seed = np.unique(p.seed, return_inverse=True)
    size = len(p.classes)
    shape = (len(groups), len(seeds), size, size)
    cell = np.ravel_multi_index((group, seed, p.true, p.predicted), shape)
    counts = np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)
    found = {}
    for name, number in groups.items():
        scores = [metrics.scores(c) for c in counts[number] if c.any()]
        mean = (Score(float(np.mean([score[n] for score in scores]))) for n in ("wa", "ua"))
        found[name] = (sum(value == name for value in names.values()), *mean)
    return found  # type: ignore[return-value]
