"""The model card of a run: its training data, its scores, and its limits.

The sections follow Mitchell et al. (2019, "Model Cards for Model Reporting").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from jaxser.evaluation.targets import ATTRIBUTES, CLASSES, VOTES, Attributes, Votes
from jaxser.papers.names import run_name
from jaxser.report import attributes, checks, run_tables, tables, votes
from jaxser.report.analysis import Analysis
from jaxser.report.tables import Table, escape_markdown

SPEECH = {
    "acted": "The corpus is acted speech. Portrayed emotions are stronger and more uniform than spontaneous ones, so "
    "the scores do not carry over to everyday speech, to telephone lines or to people in distress.",
    "spontaneous": "The corpus is spontaneous speech from particular situations, and the scores do not carry over to "
    "others.",
    "": "Whether the corpus is acted or spontaneous speech is unknown. Acted emotions are stronger and more uniform "
    "than spontaneous ones, so scores on them do not carry over to everyday speech, to telephone lines or to people in "
    "distress.",
}
"""What the kind of speech means for a reader, by `Corpus.speech`."""

AGREEMENT = (
    "Labels are the judgements of annotators, or the instructions that actors were given, not what anybody felt. "
    "Annotators agree only partly, and corpora usually leave out the utterances on which they disagree, so real speech "
    "is harder than the test utterances."
)
LANGUAGE = (
    "Nothing is known about languages, dialects, ages or cultures that are not in the corpus, or about other recording "
    "conditions (rooms, microphones, noise, compression)."
)
SYNTHETIC = (
    "The demo corpus is synthetic: a speech synthesiser speaks it, with planted cues. The model has never heard a "
    "person, and its scores say nothing about human emotion."
)
USE = (
    "Research on speech emotion recognition: comparing models under one protocol, and studying what they attend to.",
    "Not for decisions about people (hiring, schooling, policing, credit, health), and not for monitoring people at "
    "work or in public. In the EU, the AI Act (Regulation (EU) 2024/1689) prohibits inferring the emotions of people "
    "at work and in education except for medical or safety reasons (Article 5(1)(f)), and classifies other uses of "
    "emotion recognition as high-risk (Annex III).",
)
SCORES = (
    "WA is the accuracy over all utterances, UA the mean of the per-class recalls; ± is a standard deviation."
)
ATTRIBUTE_SCORES = (
    "CCC is the concordance correlation coefficient, RMSE the root mean square error on the scale of the corpus; ± is "
    "a standard deviation."
)
VOTE_SCORES = (
    "The Jensen-Shannon divergence is between votes and prediction, in bits; for macro F1, a class is present if its "
    "share exceeds 1/C; WA and UA are over utterances with a majority; ± is a standard deviation."
)
INTERVALS = (
    "The intervals account for other utterances or speakers of the same corpus, not for other corpora."
)


def card(analysis: Analysis, title: str, protocol: Sequence[str]) -> str:
    """Return the card in Markdown; `protocol` describes the protocol, one sentence per item."""
    return "\n".join(
        [
            f"# Model card: {escape_markdown(title)}\n",
            *_section("Model", _model(analysis)),
            *_command(analysis),
            *_section("Intended use", USE),
            *_section("Data", _data(analysis)),
            *_section("Protocol", protocol),
            *_section("Results", _results(analysis)),
            *map(tables.markdown, _tables(analysis)),
            *_section("Leak checks", _leak_checks(analysis)),
            *_section("Limitations", _limitations(analysis)),
        ]
    )


def _section(title: str, sentences: Sequence[str]) -> list[str]:
    return [f"## {title}\n", *(f"- {escape_markdown(sentence)}" for sentence in sentences), ""]


def _model(analysis: Analysis) -> list[str]:
    results = analysis.results
    inputs = [f"Inputs: {', '.join(results.reads)}."] if results.reads else []
    versions = ", ".join(
        f"{name} {results.environment[name]}"
        for name in ("jaxser", "jax", "flax")
        if name in results.environment
    )
    return [
        f"Network: {run_name(results.model, results.variant)}.",
        *inputs,
        *([f"Pretrained encoder: {results.encoder}."] if results.encoder else []),
        _outputs(analysis),
        *([f"Trained with {versions}."] if versions else []),
    ]


def _outputs(analysis: Analysis) -> str:
    target = analysis.results.target
    if isinstance(target, Attributes):
        return f"Attributes: {', '.join(target.names)}, on a scale from {target.low:g} to {target.high:g}."
    what = "Distribution of votes over classes" if isinstance(target, Votes) else "Classes"
    return f"{what}: {', '.join(target.names)}."


def _command(analysis: Analysis) -> list[str]:
    """Return the command in a code block, so that it can be copied."""
    return ["The command:\n", f"    {analysis.run.config.command}\n"] if analysis.run.config.command else []


def _data(analysis: Analysis) -> list[str]:
    rows = list(analysis.run.utterances.values())
    labels = Counter(row.label or "none" for row in rows)
    genders = Counter(row.gender or "unknown" for row in rows)
    hours = sum(row.duration or 0.0 for row in rows) / 3600
    speakers = len({row.speaker for row in rows} - {""})
    description = SYNTHETIC if analysis.results.synthetic else analysis.corpus.description
    return [
        f"Dataset: {analysis.results.dataset}. {description}".strip(),
        f"{len(rows):,} utterances"
        + (f", {hours:.1f} hours" if hours else "")
        + f", {f'{speakers} speakers' if speakers else 'speakers unknown'}.",
        f"By class: {', '.join(f'{name} {number}' for name, number in labels.most_common())}.",
        f"By gender: {', '.join(f'{name} {number}' for name, number in genders.most_common())}.",
    ]


def _results(analysis: Analysis) -> list[str]:
    if analysis.results.target.kind != CLASSES:
        return [_SCORES[analysis.results.target.kind]]
    measured = analysis.calibration
    error = [f"Expected calibration error: {tables.percent(measured.error)} %."] if measured else []
    if analysis.scaling is not None:
        after = tables.percent(analysis.scaling.error[1])
        error = [f"{error[0][:-1]}; {after} % after temperature scaling on validation."]
    return [SCORES, *map(str, analysis.worst), *error]


_SCORES = {ATTRIBUTES: ATTRIBUTE_SCORES, VOTES: VOTE_SCORES}
_TABLES: dict[str, tuple[Callable[[Analysis], Table | None], ...]] = {
    CLASSES: (run_tables.recalls, run_tables.genders),
    ATTRIBUTES: (attributes.by_attribute, attributes.genders),
    VOTES: (votes.by_class, votes.genders),
}
"""Further tables of the card, by target."""


def _tables(analysis: Analysis) -> list[Table]:
    chosen = (
        run_tables.headline(analysis.run),
        run_tables.intervals(analysis),
        *(table(analysis) for table in _TABLES[analysis.results.target.kind]),
    )
    return [table for table in chosen if table is not None]


def _leak_checks(analysis: Analysis) -> list[str]:
    return [checks.leak_verdict(analysis.leaks, analysis.run.utterances), *analysis.warnings]


def _limitations(analysis: Analysis) -> list[str]:
    speech = SYNTHETIC if analysis.results.synthetic else SPEECH[analysis.corpus.speech]
    return [speech, AGREEMENT, LANGUAGE, INTERVALS]
