"""How a run's protocol differs from that of the paper's row beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxser.data.leaks import leaks
from jaxser.evaluation.run_folder import Run
from jaxser.papers import Printed


@dataclass(frozen=True)
class Aspect:
    """A line of the comparison of two protocols; `differs` is None where a program cannot tell."""

    name: str
    paper: str
    here: str
    differs: bool | None


def compare_protocols(row: Printed, run: Run) -> list[Aspect]:
    """What the paper says of its protocol beside what was done here."""
    paper, ours = row.protocol, run.results
    same_corpus = row.corpus == ours["dataset"].lower()
    count = paper.get("n_utterances")
    corpus = "synthetic demo speech" if ours["synthetic"] else corpus_name(ours["dataset"])
    shared = any(
        leak.kind == "speaker" and leak.parts[1] == "test" for leak in leaks(run.folds, run.utterances)
    )
    known = any(utterance["speaker"] for utterance in run.utterances.values())
    folds, seeds = len(run.folds), len({replica["seed"] for replica in ours["replicas"]})
    here_independent = ("no" if shared else "yes") if known else "not known"
    return [
        Aspect("Corpus", paper["dataset"], corpus, not same_corpus),
        Aspect(
            "Classes",
            str(paper["classes"]),
            str(len(ours["classes"])),
            paper["classes"] != len(ours["classes"]),
        ),
        Aspect("Utterances", str(count), str(len(run.utterances)), _unequal(count, len(run.utterances))),
        Aspect(
            "Folds", f"{paper['folds']} ({paper['split_ratio']})", f"{folds}", _unequal(paper["folds"], folds)
        ),
        Aspect("Seeds", str(paper["seeds"]), str(seeds), _unequal(paper["seeds"], seeds)),
        Aspect("Speakers apart", _yes_no(paper["speaker_independent"]), here_independent, None),
        Aspect("Epoch selected on", str(paper["selection_set"]), _selection(run), None),
    ]


def corpus_name(dataset: str) -> str:
    """A dataset's name as papers write it."""
    names = {"iemocap": "IEMOCAP", "meld": "MELD", "ravdess": "RAVDESS", "emodb": "EmoDB"}
    return names.get(dataset, dataset)


def _unequal(paper: Any, here: int) -> bool | None:
    return paper != here if isinstance(paper, int) else None


def _yes_no(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _selection(run: Run) -> str:
    return str(run.results["protocol"].get("select", "not said"))
