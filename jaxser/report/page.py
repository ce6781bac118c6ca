"""The page of one run and the files beside it: what `page.html` shows is collected here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

from jaxser import files
from jaxser.cli import printable
from jaxser.evaluation import run_folder
from jaxser.evaluation.metrics import describe
from jaxser.evaluation.run_folder import Run
from jaxser.evaluation.targets import ATTRIBUTES, CLASSES, VOTES
from jaxser.papers.names import run_name
from jaxser.report import (
    attributes,
    card,
    checks,
    groups,
    latex,
    media,
    plots,
    protocols,
    run_tables,
    style,
    tables,
    votes,
)
from jaxser.report.analysis import Analysis
from jaxser.report.style import Drawing
from jaxser.report.tables import Table

PAGE, TABLES, LATEX, SCORES, CARD = "index.html", "tables.md", "tables.tex", "results.csv", "card.md"

DEMO = "Demo numbers: synthetic speech."


@dataclass(frozen=True)
class Options:
    """Optional contents of a report.

    Attributes:
        audio: the folder of the corpus's recordings, to embed players.
        attention: the number of test utterances whose attention is shown.
        tensorboard: whether to write event files for TensorBoard.
        encoder: the folder of the pretrained encoder, to show the attention of a run that reads its frames.
    """

    audio: Path | None = None
    attention: int = 0
    tensorboard: bool = False
    encoder: Path | None = None


class _View(NamedTuple):
    """The tables, figures and template that show runs of one target."""

    tables: Callable[[Analysis], dict[str, Table | None]]
    figures: Callable[[Analysis], dict[str, Drawing]]
    template: str


_VIEWS = {
    CLASSES: _View(run_tables.all_tables, plots.figures, "page.html"),
    ATTRIBUTES: _View(attributes.tables, attributes.figures, "attributes.html"),
    VOTES: _View(votes.tables, votes.figures, "votes.html"),
}
"""How runs are shown, by target."""


def write(folder: Path, options: Options = Options()) -> Path:
    """Write the report of a run, and return the path of its page.

    It consists of the page, the tables, the figures and the model card.
    """
    return write_run(run_folder.read_run(folder), options)


def write_run(run: Run, options: Options = Options()) -> Path:
    """Write the report of a run that has been read; see `write`."""
    analysis, report = Analysis(run), run_folder.REPORT
    view = _VIEWS[run.results.target.kind]
    chosen, figures = view.tables(analysis), view.figures(analysis)
    made = card.card(analysis, title(analysis), protocols.describe(run))
    page = render(view.template, context(analysis, chosen, figures, options))
    published = [table for table in chosen.values() if table]
    with files.lock(run.folder, "wait until it has ended"):
        publish(run.folder, report, published, figures, _heading(analysis))
        files.write(run.folder, f"{report}/{SCORES}", run_tables.results_csv(run))
        files.write(run.folder, f"{report}/{CARD}", printable(made))
        path = files.write(run.folder, f"{report}/{PAGE}", page)
        if options.tensorboard:
            from jaxser.report import tensorboard  # needs an optional package

            tensorboard.write(run, run.folder)
    return path


def publish(
    root: Path, name: str, chosen: Sequence[Table], figures: Mapping[str, Drawing], heading: str
) -> None:
    """Write tables and figures into a folder below the root.

    Tables are Markdown, LaTeX and CSV, and figures PNG and SVG.
    """
    text = "\n".join([heading, *map(tables.markdown, chosen)])
    files.write(root, f"{name}/{TABLES}", printable(text))
    files.write(root, f"{name}/{LATEX}", latex.document(chosen))
    for table in chosen:
        files.write(root, f"{name}/tables/{table.name}.csv", tables.table_csv(table))
    style.save(figures, root, f"{name}/figures")


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page as HTML that is also well-formed XML, without control characters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxser.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = tables.percent
    environment.globals.update(
        title_of=lambda metric: describe(metric).title,
        shown=lambda metric, value, sign="": describe(metric).show(value, sign),
        resamples=groups.RESAMPLES,
        is_score=lambda cell: isinstance(cell, tables.Score),
        is_range=lambda cell: isinstance(cell, tables.Range),
        is_number=lambda cell: isinstance(cell, tables.Number),
    )
    return printable(environment.get_template(template).render(**values))


def inline(figures: Mapping[str, Drawing]) -> dict[str, Markup]:
    """Return figures as SVG to embed in a page."""
    return {name: style.inline_svg(drawing, name) for name, drawing in figures.items()}


def title(analysis: Analysis) -> str:
    """Return the model and the corpus, such as "MCSAN (no cross) on IEMOCAP"."""
    results = analysis.results
    return f"{run_name(results.model, results.variant)} on {analysis.corpus_name}"


def context(
    analysis: Analysis, chosen: Mapping[str, Table | None], figures: Mapping[str, Drawing], options: Options
) -> dict[str, Any]:
    """Return the values that the template shows, in the order of the page."""
    run, row = analysis.run, analysis.printed
    has_classes = run.results.target.kind == CLASSES
    mistakes = analysis.mistakes if has_classes else ()
    return {
        "title": title(analysis),
        "lede": _lede(analysis),
        "results": run.results,
        "summary": run.results.summary,
        "headline": run.results.target.headline,
        "scatters": attributes.scatter_names(analysis) if run.results.target.kind == ATTRIBUTES else (),
        "tables": chosen,
        "figures": inline(figures),
        "warnings": analysis.warnings,
        "leaks": analysis.leaks,
        "leak_verdict": checks.leak_verdict(analysis.leaks, run.utterances),
        "leak_lists_of": checks.leak_lists(analysis.leaks, run.utterances),
        "ceiling": run_tables.OBSERVERS.get(run.results.observer, ""),
        "printed": row,
        "aspects": protocols.compare_protocols(row, analysis) if row else [],
        "worst": analysis.worst if has_classes else (),
        "calibration": analysis.calibration if has_classes else None,
        "scaling": analysis.scaling if has_classes else None,
        "mistakes": mistakes,
        "players": media.players(options.audio, [m.utterance for m in mistakes]),
        "attention": media.attention(run, options.audio, options.attention, options.encoder),
        "protocol": protocols.describe(run),
        "flags": _flags(run),
        "seconds": _training_seconds(run),
        "valid_frames": _valid_frame_fraction(run),
        "command": run.config.command,
        "config": json.dumps(analysis.config, indent=2, ensure_ascii=False),
    }


def _heading(analysis: Analysis) -> str:
    """Return the beginning of tables.md."""
    marks = [DEMO] if analysis.results.synthetic else []
    lines = [f"- {tables.escape_markdown(sentence)}" for sentence in (*marks, *analysis.warnings)]
    return "\n".join([f"# {tables.escape_markdown(title(analysis))}\n", *lines, ""])


def _lede(analysis: Analysis) -> dict[str, Any]:
    """Return the numbers of the page's first sentence."""
    run = analysis.run
    tested = {i for fold in run.folds for i in fold.test}
    speakers = {run.utterances[i].speaker for i in tested} - {""}
    heard = (
        "some of them heard in training"
        if checks.shares_speakers(analysis.leaks)
        else "all unseen in training"
    )
    return {
        "tested": len(tested),
        "folds": len(run.folds),
        "seeds": run.results.summary.seeds,
        "who": f"{len(speakers)} speakers ({heard})" if speakers else "unknown speakers",
    }


def _flags(run: Run) -> dict[str, int]:
    """Return the number of utterances with each quality flag, such as "no_alignment"."""
    return dict(
        Counter(flag for utterance in run.utterances.values() for flag in utterance.flags).most_common()
    )


def _training_seconds(run: Run) -> float:
    """Return the seconds of all epochs; the replicas of a wave are trained together and share them."""
    by_epoch = {(one.wave, one.epoch): one.seconds or 0.0 for one in run.epochs}
    return float(sum(by_epoch.values()))


def _valid_frame_fraction(run: Run) -> float | None:
    """Return the fraction of computed frames that are not padding; None if it was not recorded."""
    known = [one.valid_frame_fraction for one in run.epochs if one.valid_frame_fraction is not None]
    return float(np.mean(known)) if known else None
