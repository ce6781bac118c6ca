"""The model card of a run: what it was trained on, what it reaches, and what it must not be used for.

Sections after Mitchell et al. (2019, "Model Cards for Model Reporting").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jaxser.evaluation.run_folder import Run
from jaxser.report import checks, groups, tables
from jaxser.report.calibration import calibration
from jaxser.report.tables import Table, escape_markdown

SPEECH = {
    "iemocap": "Ten actors in Los Angeles, scripted and improvised dialogues in US English (IEMOCAP).",
    "meld": "Professional actors in scenes of the television series Friends, US English (MELD).",
    "ravdess": "24 professional actors who speak two fixed sentences in North American English (RAVDESS).",
    "emodb": "Ten actors who speak ten fixed sentences in German (EmoDB).",
}

ACTED = (
    "The corpus is acted speech: portrayed emotions are stronger and more alike than spontaneous ones, and scores on "
    "them do not carry over to everyday speech, to telephone lines or to people in distress."
)
UNSAID = (
    "Whether the corpus is acted or spontaneous speech is not known here. Acted emotions are stronger and more alike "
    "than spontaneous ones, and scores on them do not carry over to everyday speech, to telephone lines or to people "
    "in distress."
)
AGREEMENT = (
    "Labels are what annotators or instructions to actors say, not what somebody felt. Annotators agree only in part, "
    "and utterances on which they did not agree are usually left out of a corpus: real speech is harder than what was "
    "tested here."
)
LANGUAGE = (
    "Nothing is known of other languages, dialects, ages or cultures than the corpus's, nor of recordings that "
    "differ from its own (rooms, microphones, noise, compression)."
)
SYNTHETIC = (
    "The demo corpus is synthetic: a speech synthesiser speaks it, with planted cues. The model has never heard a "
    "person, and its numbers say nothing about human emotion."
)
USE = (
    "Research on speech emotion recognition: comparing models under one protocol, studying what they attend to.",
    "Not for decisions about people - hiring, schooling, policing, credit, health - nor for watching them at work or "
    "in public. In the EU the AI Act (Regulation (EU) 2024/1689) forbids inferring emotions of people at work and in "
    "education, but for medical or safety reasons (article 5(1)(f)), and counts emotion recognition elsewhere as "
    "high-risk (annex III).",
)


def card(run: Run, title: str, protocol: Sequence[str]) -> str:
    """The card as Markdown; `protocol` is said in sentences."""
    return "\n".join(
        [
            f"# Model card: {escape_markdown(title)}\n",
            *_section("Model", _model(run)),
            *_command(run),
            *_section("Intended use", USE),
            *_section("Data", _data(run)),
            *_section("Protocol", protocol),
            *_section("Results", _results(run)),
            *map(tables.markdown, _tables(run)),
            *_section("Leak checks", _warnings(run)),
            *_section("Limits", _limits(run)),
        ]
    )


def _section(title: str, sentences: Sequence[str]) -> list[str]:
    return [f"## {title}\n", *(f"- {escape_markdown(sentence)}" for sentence in sentences), ""]


def _model(run: Run) -> list[str]:
    found = run.results
    reads = ", ".join(found.get("reads", ())) or "not said"
    versions = (f"{name} {found['environment'].get(name)}" for name in ("jaxser", "jax", "flax"))
    return [
        f"Network: {found['model']}, variant {found['variant'] or 'none'}; it reads {reads}.",
        f"Classes: {', '.join(found['classes'])}.",
        *([f"Trained by {', '.join(versions)}."] if found["environment"] else []),
    ]


def _command(run: Run) -> list[str]:
    """The command as it can be copied."""
    told = run.config.get("command")
    return ["The command:\n", f"    {told}\n"] if told else []


def _data(run: Run) -> list[str]:
    rows = list(run.utterances.values())
    labels = Counter(row["label"] for row in rows)
    genders = Counter(row["gender"] or "not given" for row in rows)
    hours = sum(row["duration"] or 0.0 for row in rows) / 3600
    speakers = len({row["speaker"] for row in rows} - {""})
    return [
        f"Dataset: {run.results['dataset']}. "
        + (SYNTHETIC if run.results["synthetic"] else SPEECH.get(run.results["dataset"], "")),
        f"{len(rows):,} utterances"
        + (f", {hours:.1f} hours" if hours else "")
        + f", {speakers or 'no named'} speakers.",
        f"By class: {', '.join(f'{name} {number}' for name, number in labels.most_common())}.",
        f"By gender: {', '.join(f'{name} {number}' for name, number in genders.most_common())}.",
    ]


def _results(run: Run) -> list[str]:
    measured = calibration(run)
    error = f"Expected calibration error: {tables.percent(measured.error)} %." if measured else ""
    return [
        "WA is the share of correct utterances, UA the mean of the per-class recalls; ± is a standard deviation.",
        *groups.lowest(run),
        *filter(None, [error]),
    ]


def _tables(run: Run) -> list[Table]:
    found = (tables.headline(run), groups.intervals(run), groups.classes(run), groups.genders(run))
    return [table for table in found if table is not None]


def _warnings(run: Run) -> list[str]:
    return [*run.results["warnings"], *checks.exchanged(run)] or [
        "Nothing that was checked is shared by training, validation and test parts."
    ]


def _limits(run: Run) -> list[str]:
    real = ACTED if run.results["dataset"] in SPEECH else UNSAID
    return [
        SYNTHETIC if run.results["synthetic"] else real,
        AGREEMENT,
        LANGUAGE,
        "Intervals count other utterances or speakers of the same corpus, not other corpora.",
    ]
