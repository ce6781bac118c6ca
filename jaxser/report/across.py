"""Runs on several datasets: their names, and their protocol in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxser import corpora
from jaxser.corpora import Corpus
from jaxser.data.merging import Names
from jaxser.evaluation.run_folder import Run


def names_of(config: Mapping[str, Any]) -> Names | None:
    """Return the datasets of a run from its config.

    It is None if there is one, or the config is unknown.
    """
    datasets = str(config.get("datasets") or config.get("dataset") or "")
    if not datasets:
        return None
    names = Names.parse(datasets, str(config.get("test_on") or ""))
    return names if names.is_merged else None


def record(names: Names) -> Corpus:
    """Return a record of several datasets, each taken for the corpus of its name."""
    known = [corpora.find(name) for name in names.all]
    trained, tested = listed(names.training), listed(names.tested)
    title = f"{tested}, trained on {trained}" if tested else f"{trained}, merged"
    speech = {corpus.speech for corpus in known}
    return Corpus(
        name=names.title,
        title=title,
        description=" ".join(corpus.description for corpus in known if corpus.description),
        speech=known[0].speech if len(speech) == 1 else "",
    )


def sentences(run: Run) -> list[str]:
    """Return the protocol of a run on several datasets in sentences; none for one."""
    names = names_of(run.config.fields)
    if names is None:
        return []
    fields = run.config.fields["across"]
    said = []
    if names.tested:
        said.append(
            f"This protocol splits {listed(names.training)}, whose training and validation parts are used; every fold "
            f"is tested on all utterances of {listed(names.tested)}."
        )
    classes = ", ".join(run.results.classes)
    said.append(f"The labels of the datasets are mapped to common classes: {classes}.")
    if fields["normalise"] == "corpus":
        said.append(
            "Each dataset is normalised by the mean and standard deviation of all of its utterances, those of the test "
            "part included; no label is used."
        )
    if fields["sampling"] == "equal":
        said.append("An epoch sees the same number of utterances of each training dataset.")
    return said


def listed(names: Sequence[str]) -> str:
    """Return the corpora of some datasets in words: "RAVDESS and EmoDB"."""
    *first, last = [corpora.find(name).title for name in names] or [""]
    return f"{', '.join(first)} and {last}" if first else last
