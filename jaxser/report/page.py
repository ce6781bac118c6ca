"""The page of a run: what stands in it is gathered here, how it looks is `page.html`'s matter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from jaxser import papers, results
from jaxser.leaks import leaks
from jaxser.report import drawing, plots, protocols, tables
from jaxser.results import Run

PAGE, TABLES, SCORES = "index.html", "tables.md", "results.csv"

PROTOCOLS = {
    "random": "Utterances are dealt to the folds at random, stratified by class: fold k is tested.",
    "session": "Fold k tests session k and validates on the next session; all other sessions train.",
    "speaker": "Fold k tests one group of speakers and validates on the next group; all other speakers train.",
    "official": "The corpus's own training, validation and test parts are used.",
    "yoon": "The published folds of Yoon et al. are used.",
    "file": "The folds were read from a file of utterance ids.",
}

TITLES = {"mcsan": "MCSAN"}


def write(folder: Path) -> Path:
    """Write the page, the Markdown tables and the CSV of a run."""
    run = results.read_run(folder)
    there = folder / results.REPORT
    there.mkdir(exist_ok=True)
    (there / TABLES).write_text(markdown(run), encoding="utf-8")
    (there / SCORES).write_text(tables.results_csv(run), encoding="utf-8")
    (there / PAGE).write_text(render(run), encoding="utf-8")
    return there / PAGE


def render(run: Run) -> str:
    """The page as HTML that is XML as well."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxser.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = tables.percent
    environment.globals.update(names=tables.NAMES, is_score=lambda cell: isinstance(cell, tables.Score))
    return environment.get_template("page.html").render(**context(run))


def markdown(run: Run) -> str:
    """The marks and every table of the page."""
    marks = ["Demo numbers: synthetic speech."] if run.results["synthetic"] else []
    lines = [f"- {tables.escape_markdown(sentence)}" for sentence in (*marks, *run.results["warnings"])]
    chosen = [table for table in _tables(run).values() if table is not None]
    return "\n".join(
        [f"# {tables.escape_markdown(_title(run))}\n", *lines, "", *map(tables.markdown, chosen)]
    )


def context(run: Run) -> dict[str, Any]:
    """What the template prints."""
    found = run.results
    row = papers.printed(config_of(run))
    return {
        "title": _title(run),
        "lede": _lede(run),
        "results": found,
        "summary": found["summary"],
        "tables": _tables(run),
        "printed": row,
        "aspects": protocols.compare_protocols(row, run) if row else [],
        "protocol": _protocol(run),
        "flags": _flags(run),
        "figures": _figures(run),
        "ceiling": _ceiling(run),
        "settings": found["settings"],
        "seconds": sum({(e.get("wave"), e["epoch"]): e["seconds"] or 0.0 for e in run.epochs}.values()),
        "real_share": _mean([e["real_share"] for e in run.epochs]),
        "command": run.config.get("command", ""),
        "config": json.dumps(config_of(run), indent=2, ensure_ascii=False),
        "tested": len({i for fold in run.folds for i in fold.test}),
    }


def config_of(run: Run) -> Mapping[str, Any]:
    """What the run was asked for."""
    return run.config.get("config", run.config)


def _title(run: Run) -> str:
    found = run.results
    name = TITLES.get(found["model"], found["model"])
    variant = "" if found["variant"] in ("", found["model"]) else f" ({found['variant'].replace('_', ' ')})"
    corpus = "the demo corpus" if found["dataset"] == "demo" else protocols.corpus_name(found["dataset"])
    return f"{name}{variant} on {corpus}"


def _lede(run: Run) -> dict[str, Any]:
    speakers = {run.utterances[i]["speaker"] for fold in run.folds for i in fold.test} - {""}
    shared = any(
        leak.kind == "speaker" and leak.parts[1] == "test" for leak in leaks(run.folds, run.utterances)
    )
    who = f"{len(speakers)} speakers" if speakers else "speakers that the corpus does not name"
    heard = "" if not speakers else (" heard in training" if shared else " never heard in training")
    return {"folds": len(run.folds), "seeds": run.results["summary"]["seeds"], "who": who + heard}


def _protocol(run: Run) -> list[str]:
    """The protocol in sentences."""
    found, protocol = run.results, run.results["protocol"]
    name = str(protocol.get("name", "not named"))
    summary = found["summary"]
    sentences = [PROTOCOLS.get(name, f"Protocol: {name}.")]
    runs = f"{_count(summary['folds'], 'fold')} × {_count(summary['seeds'], 'seed')}"
    settings = max(1, len(found["summaries"]))
    more = f" × {settings} settings" if settings > 1 else ""
    replicas, epochs = _count(len(found["replicas"]), "replica"), _count(found["epochs"], "epoch")
    sentences.append(
        f"{runs}{more} = {replicas}, of at most {epochs} each. The split seed ({run.split_seed}) is fixed; a "
        "replica’s seed changes initialisation, order and dropout only."
    )
    sentences.append(_selection(protocol))
    parts = ("training", "validation", "test")
    sizes = (
        _range([len(p) for p in column])
        for column in zip(*((f.train, f.validation, f.test) for f in run.folds), strict=True)
    )
    sentences.append(
        f"Utterances in a fold: {', '.join(f'{s} {p}' for s, p in zip(sizes, parts, strict=True))}."
    )
    if protocol.get("note"):
        sentences.append(f"Note of the config: {protocol['note']}.")
    return sentences


def _selection(protocol: Mapping[str, Any]) -> str:
    metric = str(protocol.get("metric", "the score of the config"))
    metric = {**tables.NAMES, "wa_plus_ua": "WA + UA"}.get(metric, metric)
    if protocol.get("select") == "test":
        return f"The epoch with the best {metric} on the test part is reported, as published: optimistic."
    return f"The epoch with the best {metric} on the validation part is tested, once; the test part selects nothing."


def _flags(run: Run) -> dict[str, int]:
    """How many utterances have each flag, such as "no_alignment"."""
    return dict(Counter(flag for row in run.utterances.values() for flag in row["flags"]).most_common())


def _tables(run: Run) -> dict[str, tables.Table | None]:
    row = papers.printed(config_of(run))
    return {
        "headline": tables.headline(run),
        "settings": tables.settings(run),
        "paper": tables.paper(run, row) if row else None,
        "best_possible": tables.best_possible(run),
        "recalls": tables.recalls(run),
        "speakers": tables.speakers(run),
        "genders": tables.genders(run),
        "folds": tables.folds(run),
        "replicas": tables.replicas(run),
    }


def _figures(run: Run) -> dict[str, Markup]:
    made = plots.figures(run).items()
    return {name: Markup(drawing.inline_svg(figure, name, escape(says))) for name, (says, figure) in made}


def _ceiling(run: Run) -> str:
    """Which of the best possible accuracies is this model's own."""
    return tables.OBSERVERS.get(results.observer(run.results.get("reads", ())), "")


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
