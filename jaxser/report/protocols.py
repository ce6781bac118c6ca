"""A run's protocol in sentences, and how it differs from that of a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxser import corpora
from jaxser.data.folds import BOTH
from jaxser.encoders.contamination import contamination
from jaxser.evaluation import metrics
from jaxser.evaluation.run_folder import Run
from jaxser.papers import Printed
from jaxser.report import across, settings
from jaxser.report.analysis import Analysis
from jaxser.report.checks import shares_speakers

PROTOCOLS = {
    "random": "Utterances are assigned to the folds at random, stratified by class if classes are predicted.",
    "session": "Fold k is tested on session k, validated on the next session and trained on all others.",
    "holdout": "There is one fold: the last session (or the last speaker, if there are no sessions) is the test part, "
    "the one before it the validation part, and all others the training part.",
    "speaker": "Fold k is tested on one group of speakers, validated on the next group and trained on all others.",
    "official": "The training, validation and test parts are the official ones of the corpus; without an official "
    "validation part, a share of the training part validates.",
    "corpus": "The folds are those published with the corpus.",
    "emobox": "The folds are those published by EmoBox (Ma et al. 2024); where it has no validation part, a share of "
    "the training part validates.",
    "leave_corpus_out": "Each dataset is the test part of a fold that is trained on the others. A fifth of each of "
    "these, in whole speakers if three at least are known, validates.",
    "file": "The folds were read from a file of utterance ids.",
    "imported": "The predictions were imported; only their test folds are known.",
}
"""One sentence for each protocol of `jaxser.data.folds`, and for imported runs."""


@dataclass(frozen=True)
class Aspect:
    """One row of the comparison of two protocols.

    Attributes:
        differs: None if the program cannot tell.
    """

    name: str
    paper: str
    here: str
    differs: bool | None


def describe(run: Run) -> list[str]:
    """Return the protocol of a run in sentences."""
    protocol = run.results.protocol
    name = str(protocol.get("name", ""))
    sentences = [
        PROTOCOLS.get(name, f"The protocol is called {name}." if name else "The protocol is unknown.")
    ]
    sentences += [*across.sentences(run), *_training(run)]
    if protocol.get("group_by") == BOTH:
        sentences.append("Neither the speakers nor the sentences of a test part are heard in training.")
    elif protocol.get("group_by"):
        sentences.append(f"Utterances with the same {protocol['group_by']} are kept in the same part.")
    if protocol.get("twin"):
        sentences.append(
            "Whole speakers were then moved between the parts, which keep their sizes as nearly as possible, so that "
            "no speaker is both tested and trained on."
        )
    sentences += [_selection(protocol), _sizes(run), *_heard(run)]
    if run.results.training:
        sentences.append(f"Training settings: {run.results.training}.")
    if protocol.get("note"):
        sentences.append(f"Note in the config: {protocol['note']}.")
    return sentences


def compare_protocols(row: Printed, analysis: Analysis) -> list[Aspect]:
    """Return the protocol of a paper's row next to that of a run."""
    paper, run, results = row.protocol, analysis.run, analysis.results
    classes, utterances = len(results.classes), len(run.utterances)
    folds, seeds = len(run.folds), len({replica.seed for replica in results.replicas})
    same_corpus = row.corpus == analysis.corpus.name
    return [
        Aspect("Corpus", paper["dataset"], corpus_title(analysis), not same_corpus),
        Aspect("Classes", str(paper["classes"]), str(classes), paper["classes"] != classes),
        Aspect("Utterances", *_numbers(paper.get("n_utterances"), utterances)),
        Aspect(
            "Folds", f"{paper['folds']} ({paper['split_ratio']})", str(folds), _unequal(paper["folds"], folds)
        ),
        Aspect("Seeds", *_numbers(paper["seeds"], seeds)),
        Aspect("Speaker-independent", _yes_no(paper["speaker_independent"]), _independent(analysis), None),
        Aspect("Epoch selected on", str(paper["selection_set"]), _selection_part(run), None),
        *_training_sessions(row, run),
        *(
            Aspect(one.name, one.paper, one.here, None if one.paper == "not stated" else True)
            for one in settings.differences(row, run.config.fields)
        ),
    ]


def _training_sessions(row: Printed, run: Run) -> list[Aspect]:
    """Return the number of sessions that are trained on, if the paper holds out sessions."""
    printed = row.protocol.get("training_sessions")
    if printed is None:
        return []
    counts = [len({run.utterances[i].session for i in fold.train} - {""}) for fold in run.folds]
    here = _range(counts) if all(counts) else "unknown"
    return [Aspect("Training sessions", str(printed), here, set(counts) != {printed})]


def corpus_title(analysis: Analysis) -> str:
    """Return the corpus's name as in papers, or that of synthetic speech beside a paper."""
    return "synthetic demo speech" if analysis.results.synthetic else analysis.corpus.title


def _training(run: Run) -> list[str]:
    """Return how many replicas were trained, and what their seeds change."""
    results, found = run.results, run.results.summary
    if not results.epochs:  # imported
        return [f"There are {_count(len(results.replicas), 'set')} of predictions, one per fold and seed."]
    settings = f" × {len(results.summaries)} settings" if results.is_sweep else ""
    factors = f"{_count(found.folds, 'fold')} × {_count(found.seeds, 'seed')}{settings}"
    return [
        f"{factors} = {_count(len(results.replicas), 'replica')}, each trained for at most "
        f"{_count(results.epochs, 'epoch')}. All replicas use the same split (split seed {run.split_seed}); the seed "
        "of a replica only changes its initialisation, batch order and dropout."
    ]


def _heard(run: Run) -> list[str]:
    """Return whether the pretrained encoder was trained or tuned on the corpus; nothing of synthetic speech."""
    encoder, results = run.results.encoder, run.results
    if encoder is None or results.synthetic:
        return []
    corpus = corpora.find(str(run.config.fields.get("corpus", "")), title=results.dataset)
    return [contamination(encoder.family, encoder.num_layers, encoder.width, corpus)]


def _selection(protocol: Mapping[str, Any]) -> str:
    metric = str(protocol.get("metric", "score"))
    metric = metrics.title(metric)
    select = protocol.get("select")
    if select == "test":
        return f"As in the paper, the epoch is selected by its {metric} on the test part, so the scores are optimistic."
    if select == "validation":
        return f"The epoch with the best {metric} on the validation part is tested once; the test part selects nothing."
    return "How the epoch was selected is unknown."


def _sizes(run: Run) -> str:
    """Return the number of utterances in the parts of a fold, as ranges over the folds."""
    parts = ("training", "validation", "test")
    columns = zip(*((f.train, f.validation, f.test) for f in run.folds), strict=True)
    sizes = [_range([len(part) for part in column]) for column in columns]
    listed = ", ".join(f"{size} {part}" for size, part in zip(sizes, parts, strict=True) if size != "0")
    return f"Utterances per fold: {listed}."


def _independent(analysis: Analysis) -> str:
    known = any(row.speaker for row in analysis.run.utterances.values())
    return "unknown" if not known else "no" if shares_speakers(analysis.leaks) else "yes"


def _selection_part(run: Run) -> str:
    return str(run.results.protocol.get("select", "unknown"))


def _numbers(paper: Any, here: int) -> tuple[str, str, bool | None]:
    return str(paper), str(here), _unequal(paper, here)


def _unequal(paper: Any, here: int) -> bool | None:
    return paper != here if isinstance(paper, int) else None


def _yes_no(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
