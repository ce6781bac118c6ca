"""The page of a run: what stands in it is gathered here, how it looks is `page.html`'s matter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from jaxser import papers
from jaxser.data.leaks import leaks
from jaxser.evaluation import run_folder
from jaxser.evaluation.run_folder import Run
from jaxser.report import (
    calibration,
    card,
    checks,
    groups,
    latex,
    media,
    plots,
    protocols,
    style,
    tables,
)

PAGE, TABLES, LATEX, SCORES, CARD = "index.html", "tables.md", "tables.tex", "results.csv", "card.md"

PROTOCOLS = {
    "random": "Utterances are dealt to the folds at random, stratified by class: fold k is tested.",
    "session": "Fold k tests session k and validates on the next session; all other sessions train.",
    "speaker": "Fold k tests one group of speakers and validates on the next group; all other speakers train.",
    "official": "The corpus's own training, validation and test parts are used.",
    "yoon": "The published folds of Yoon et al. are used.",
    "file": "The folds were read from a file of utterance ids.",
}

TITLES = {"mcsan": "MCSAN"}


@dataclass(frozen=True)
class Options:
    """What a report shows by option."""

    audio: Path | None = None  # the corpus's folder: the page gets players
    attention: int = 0  # of how many test utterances
    tensorboard: bool = False


def write(folder: Path, options: Options = Options()) -> Path:
    """Write the page, the tables, the figures and the model card of a run."""
    run = run_folder.read_run(folder)
    there = folder / run_folder.REPORT
    there.mkdir(exist_ok=True)
    chosen, figures = tables_of(run), plots.figures(run)
    publish(there, [table for table in chosen.values() if table is not None], figures, _heading(run))
    (there / SCORES).write_text(tables.results_csv(run), encoding="utf-8")
    (there / CARD).write_text(card.card(run, _title(run), _protocol(run)), encoding="utf-8")
    (there / PAGE).write_text(render("page.html", context(run, chosen, figures, options)), encoding="utf-8")
    if options.tensorboard:
        from jaxser.report import tensorboard  # imports TFDS

        tensorboard.write(run, folder / "tensorboard")
    return there / PAGE


def publish(
    there: Path, chosen: Sequence[tables.Table], figures: Mapping[str, tuple[str, Figure]], heading: str
) -> None:
    """Tables as Markdown, LaTeX and CSV; figures as PNG and SVG."""
    (there / TABLES).write_text("\n".join([heading, *map(tables.markdown, chosen)]), encoding="utf-8")
    (there / LATEX).write_text(latex.document(chosen), encoding="utf-8")
    (there / "tables").mkdir(exist_ok=True)
    for table in chosen:
        (there / "tables" / f"{table.name}.csv").write_text(tables.table_csv(table), encoding="utf-8")
    style.save(figures, there / "figures")


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page as HTML that is XML as well."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxser.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = tables.percent
    environment.globals.update(
        names=tables.NAMES,
        resamples=groups.RESAMPLES,
        is_score=lambda cell: isinstance(cell, tables.Score),
        is_range=lambda cell: isinstance(cell, tables.Range),
        is_number=lambda cell: isinstance(cell, tables.Number),
    )
    return environment.get_template(template).render(**values)


def inline(figures: Mapping[str, tuple[str, Figure]]) -> dict[str, Markup]:
    """Figures as SVG of the page."""
    return {
        name: Markup(style.inline_svg(figure, name, escape(says))) for name, (says, figure) in figures.items()
    }


def _heading(run: Run) -> str:
    """The marks at the head of the Markdown tables."""
    marks = ["Demo numbers: synthetic speech."] if run.results["synthetic"] else []
    lines = [f"- {tables.escape_markdown(sentence)}" for sentence in (*marks, *warnings_of(run))]
    return "\n".join([f"# {tables.escape_markdown(_title(run))}\n", *lines, ""])


def warnings_of(run: Run) -> list[str]:
    """What a reader must know before the scores."""
    return [*run.results["warnings"], *checks.exchanged(run)]


def context(
    run: Run,
    chosen: Mapping[str, tables.Table | None],
    figures: Mapping[str, tuple[str, Figure]],
    options: Options,
) -> dict[str, Any]:
    """What the template prints."""
    found, mistakes = run.results, calibration.mistakes(run)
    row = papers.printed(config_of(run))
    return {
        "title": _title(run),
        "lede": _lede(run),
        "results": found,
        "summary": found["summary"],
        "warnings": warnings_of(run),
        "tables": chosen,
        "leak_lists_of": checks.listed(run),
        "lowest": groups.lowest(run),
        "calibration": calibration.calibration(run),
        "mistakes": mistakes,
        "players": media.players(options.audio, [m.utterance for m in mistakes]),
        "attention": media.attention(run, options.audio, options.attention),
        "printed": row,
        "aspects": protocols.compare_protocols(row, run) if row else [],
        "protocol": _protocol(run),
        "flags": _flags(run),
        "figures": inline(figures),
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
    if protocol.get("group_by"):
        sentences.append(f"Utterances that share their {protocol['group_by']} stay in one part.")
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


def tables_of(run: Run) -> dict[str, tables.Table | None]:
    """Every table of the page; None where the run has nothing for it."""
    row = papers.printed(config_of(run))
    return {
        "headline": tables.headline(run),
        "intervals": groups.intervals(run),
        "settings": tables.settings(run),
        "paper": tables.paper(run, row) if row else None,
        "best_possible": tables.best_possible(run),
        "recalls": groups.classes(run),
        "speakers": groups.speakers(run),
        "genders": groups.genders(run),
        "leaks": checks.leak_table(run),
        "mistakes": calibration.mistakes_table(calibration.mistakes(run)),
        "folds": tables.folds(run),
        "replicas": tables.replicas(run),
    }


def _ceiling(run: Run) -> str:
    """Which of the best possible accuracies is this model's own."""
    return tables.OBSERVERS.get(run_folder.observer(run.results.get("reads", ())), "")


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
