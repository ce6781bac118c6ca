"""The papers' printed numbers (`papers/results.yaml`) beside a run, and how the protocols differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from jaxser.leaks import leaks
from jaxser.results import Run

PRINTED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("mcsan", "mcsan"): ("sun2021_mcsan/t1/018", "sun2021_mcsan/t2/022"),  # MCSAN (ours): IEMOCAP, MELD
    ("mcsan", "text_only"): ("sun2021_mcsan/t3/024",),  # w/o audio
    ("mcsan", "audio_only"): ("sun2021_mcsan/t3/025",),  # w/o text
    ("mcsan", "no_self"): ("sun2021_mcsan/t3/026",),  # w/o self
    ("mcsan", "no_cross"): ("sun2021_mcsan/t3/027",),  # w/o cross
    ("mcsan", "cross_then_self"): ("sun2021_mcsan/t3/028",),  # cross + self (seq)
    ("mcsan", "self_then_cross"): ("sun2021_mcsan/t3/029",),  # self + cross (seq)
    ("mcsan", "two_layers"): ("sun2021_mcsan/t3/030",),  # N = 2
    ("mcsan", "three_layers"): ("sun2021_mcsan/t3/031",),  # N = 3
}
"""Rows of the papers' tables by (model, variant), at most one for each corpus."""

STD_OVER = {"lee2020_can": "folds", "sun2021_mcsan": "folds", "rajan2022_self_cross": "runs"}
"""What a paper's printed standard deviation is over; ours beside it is of the same kind."""

_FIELDS = {"WA": "wa", "UA": "ua", "weighted_F1": "f1_weighted"}


@dataclass(frozen=True)
class Printed:
    """A row of a paper's table: scores as fractions, under the standard names of WA and UA."""

    id: str
    title: str
    venue: str
    table: str
    model: str
    std_over: str  # "folds", "runs" or "" (not printed, or not said)
    scores: Mapping[str, tuple[float | None, float | None]]  # mean and std by our name of the metric
    exchanged: bool  # the paper prints WA under the name of UA, and UA under that of WA
    note: str
    protocol: Mapping[str, Any]


@dataclass(frozen=True)
class Aspect:
    """A line of the comparison of two protocols; `differs` is None where a program cannot tell."""

    name: str
    paper: str
    here: str
    differs: bool | None


def printed(model: str, variant: str, dataset: str) -> Printed | None:
    """The row that a run should be held against: on the same corpus where the paper has one, else its
    first."""
    rows = [_row(identity) for identity in PRINTED.get((model, variant), ())]
    same = [row for row in rows if _corpus(row) == dataset.lower()]
    return next(iter(same or rows), None)


def compare_protocols(row: Printed, run: Run) -> list[Aspect]:
    """What the paper says of its protocol beside what was done here."""
    paper, ours = row.protocol, run.results
    same_corpus = _corpus(row) == ours["dataset"].lower()
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


@cache
def _papers() -> Mapping[str, Any]:
    text = files("jaxser").joinpath("papers/results.yaml").read_text(encoding="utf-8")
    return yaml.load(
        text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )  # the safe loader, in C where there is one


def _row(identity: str) -> Printed:
    data = _papers()
    row = next(row for row in data["results"] if row["id"] == identity)
    paper = data["papers"][row["paper"]]
    scale = 100 if paper["unit"] == "percent" else 1
    scores = {
        _FIELDS[name]: tuple(None if value[key] is None else value[key] / scale for key in ("mean", "std"))
        for name, value in row["metrics"].items()
        if name in _FIELDS
    }
    return Printed(
        id=identity,
        title=paper["title"],
        venue=paper["venue"],
        table=row["table"],
        model=row["model"],
        std_over=STD_OVER.get(row["paper"], ""),
        scores=scores,  # type: ignore[arg-type]
        exchanged=any("printed_as" in value for value in row["metrics"].values()),
        note=row.get("note", ""),
        protocol=data["protocols"][row["protocol"]],
    )


def _corpus(row: Printed) -> str:
    return row.protocol["dataset"].lower()


def _unequal(paper: Any, here: int) -> bool | None:
    return paper != here if isinstance(paper, int) else None


def _yes_no(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _selection(run: Run) -> str:
    return str(run.results["protocol"].get("select", "not said"))
