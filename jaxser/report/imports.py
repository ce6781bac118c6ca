"""Import predictions of another framework as the folder of a run, so that it gets the same statistics and tables.

A CSV file has one line per test prediction: `utterance`, `fold`, `seed`, `true`, `predicted`, and optionally the
probability of each class as `p_CLASS`. A second CSV file may describe the utterances for the leak checks: `utterance`,
and any of `speaker`, `gender`, `session`, `dialogue`, `transcript`, `sha256`; other descriptions are taken from the
runs that it is compared with. The training part of a fold is unknown: leak checks assume that it is all that the fold
does not test.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxser.data.leaks import FoldIds
from jaxser.evaluation import metrics, run_folder
from jaxser.evaluation.records import RunConfig
from jaxser.evaluation.results import ReplicaResult, RunResults, Scores
from jaxser.evaluation.run_folder import Predictions, Run
from jaxser.evaluation.summary import with_summaries
from jaxser.report.analysis import Analysis
from jaxser.report.checks import assumed_folds
from jaxser.types import InputError, Status, UsageError, Utterance

REQUIRED = ("utterance", "fold", "seed", "true", "predicted")
DESCRIPTION = ("speaker", "gender", "session", "dialogue", "transcript", "sha256")


def import_csv(path: Path, folder: Path, *, utterances: Path | None = None, like: Sequence[Run] = ()) -> Run:
    """Write the folder of a run from a file of predictions, and read it.

    Args:
        path: the predictions.
        folder: the folder to write; an earlier import in it is replaced.
        utterances: the descriptions of utterances.
        like: runs with the same classes and utterances, if there are any.

    Raises:
        InputError: if a file is not as described above, or contradicts itself.
        UsageError: if the folder has a run that was not imported.
    """
    if (folder / run_folder.CONFIG).exists() and not run_folder.read_config(folder).imported:
        raise UsageError(f"{folder} has a run that was trained: rename {path.name}, or give --imported_to")
    lines = _read(path, REQUIRED)
    predictions = _predictions(path, lines, _classes(lines, like))
    _check(path, predictions)
    described = _utterances(path, predictions, utterances, like)
    folds = _folds(predictions)
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"dataset": _dataset(like), "corpus": _corpus(like)}
    run_folder.write_config(folder, RunConfig(fields, imported=path.name))
    run_folder.write_folds(folder, {"name": "imported"}, 0, folds)
    run_folder.write_utterances(folder, described)
    run_folder.write_predictions(folder, [predictions])
    run_folder.write_results(folder, _results(path, predictions, folds, described, like))
    return run_folder.read_run(folder)


def _read(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV file by its header, checked for the columns that are needed."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    missing = [name for name in needed if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}: its first line must name {', '.join(needed)}"
        )
    if not lines:
        raise InputError(f"{path} has no lines below its header")
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values() or not all(line[name].strip() for name in needed):
            raise InputError(f"{path}:{number} is incomplete: each line needs {', '.join(needed)}")
    return lines


def _classes(lines: Sequence[Mapping[str, str]], like: Sequence[Run]) -> tuple[str, ...]:
    """The classes in the order of a run that has them all, and otherwise in alphabetical order."""
    found = {line[name] for line in lines for name in ("true", "predicted")}
    found |= {name.removeprefix("p_") for name in lines[0] if name.startswith("p_")}
    same = (run.predictions.classes for run in like if found <= set(run.predictions.classes))
    return next(same, tuple(sorted(found)))


def _predictions(path: Path, lines: Sequence[Mapping[str, str]], classes: tuple[str, ...]) -> Predictions:
    row_of = {name: row for row, name in enumerate(classes)}
    columns = [f"p_{name}" for name in classes]
    has_probabilities = all(column in lines[0] for column in columns)
    try:
        seed = np.array([int(line["seed"]) for line in lines])
        probabilities = np.array(
            [[float(line[column]) for column in columns] for line in lines]
            if has_probabilities
            else np.full((len(lines), len(classes)), np.nan)
        )
    except ValueError as error:
        raise InputError(
            f"{path}: seeds must be whole numbers, and probabilities numbers ({error})"
        ) from None
    if has_probabilities and not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise InputError(f"{path}: the probabilities of line {_first_off(probabilities)} do not sum to 1")
    return Predictions(
        classes=classes,
        utterance=np.array([line["utterance"] for line in lines], dtype=str),
        fold=np.array([line["fold"] for line in lines], dtype=str),
        seed=seed,
        setting=np.full(len(lines), ""),
        split=np.full(len(lines), "test"),
        true=np.array([row_of[line["true"]] for line in lines]),
        predicted=np.array([row_of[line["predicted"]] for line in lines]),
        probabilities=probabilities,
    )


def _first_off(probabilities: np.ndarray) -> int:
    return int(np.argmax(np.abs(probabilities.sum(axis=1) - 1) > 1e-3)) + 2


def _check(path: Path, p: Predictions) -> None:
    """Check that an utterance has one true label, and one prediction per fold and seed."""
    labels: dict[str, int] = {}
    seen = set()
    for i, fold, seed, true in zip(
        p.utterance.tolist(), p.fold.tolist(), p.seed.tolist(), p.true.tolist(), strict=True
    ):
        if labels.setdefault(i, true) != true:
            raise InputError(
                f"{path}: utterance {i} is {p.classes[labels[i]]} in one line and {p.classes[true]} in another"
            )
        if (i, fold, seed) in seen:
            raise InputError(f"{path}: utterance {i} has two lines for fold {fold}, seed {seed}")
        seen.add((i, fold, seed))


def _utterances(
    path: Path, p: Predictions, descriptions: Path | None, like: Sequence[Run]
) -> list[Utterance]:
    """The utterances with what is known about them."""
    known = {
        i: {name: getattr(u, name) for name in DESCRIPTION} for run in like for i, u in run.utterances.items()
    }
    if descriptions:
        known |= {line["utterance"]: line for line in _read(descriptions, ("utterance",))}
    label = dict(zip(p.utterance.tolist(), p.true.tolist(), strict=True))
    made = []
    for i in label:
        fields: dict[str, Any] = {name: known.get(i, {}).get(name) or "" for name in DESCRIPTION}
        if fields["gender"] not in ("", "F", "M"):
            where = descriptions or path
            raise InputError(f"{where}: the gender of {i} is {fields['gender']!r}; it must be F, M or empty")
        made.append(Utterance(id=i, wav="", label=p.classes[label[i]], **fields))
    return made


def _folds(p: Predictions) -> list[FoldIds]:
    """The test part of each fold; the other parts are empty."""
    tests = {name: p.utterance[p.fold == name].tolist() for name in dict.fromkeys(p.fold.tolist())}
    order = sorted(tests, key=lambda name: (len(name), name))
    return [FoldIds(name, (), (), tuple(dict.fromkeys(tests[name]))) for name in order]


def _results(
    path: Path,
    p: Predictions,
    folds: Sequence[FoldIds],
    utterances: Sequence[Utterance],
    like: Sequence[Run],
) -> RunResults:
    results = RunResults(
        model=path.stem,
        variant="",
        dataset=_dataset(like),
        protocol={"name": "imported", "select": "unknown", "metric": "ua", "note": ""},
        classes=p.classes,
        epochs=0,
        replicas=tuple(_replicas(p, folds)),
        synthetic=any(run.results.synthetic for run in like),
    )
    return with_summaries(results, assumed_folds(folds), utterances)


def _replicas(p: Predictions, folds: Sequence[FoldIds]) -> Iterator[ReplicaResult]:
    for fold in folds:
        for seed in np.unique(p.seed[p.fold == fold.name]):
            own = (p.fold == fold.name) & (p.seed == seed)
            counts = metrics.confusion(p.true[own], p.predicted[own], np.ones(own.sum()), len(p.classes))
            yield ReplicaResult(
                fold=fold.name,
                seed=int(seed),
                status=Status.STOPPED.final_label,
                test=Scores.of(np.asarray(counts), p.classes),
            )


def _dataset(like: Sequence[Run]) -> str:
    return like[0].results.dataset if like else "imported"


def _corpus(like: Sequence[Run]) -> str:
    return Analysis(like[0]).corpus.name if like else ""
