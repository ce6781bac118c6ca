"""Predictions of another framework, made into a run's folder: the same statistics, leak checks and tables.

A CSV with a line for every test prediction: `utterance`, `fold`, `seed`, `true`, `predicted`, and a probability for
each class in `p_CLASS` where they are known. Another CSV may say of the utterances what leak checks need: `utterance`,
and any of `speaker`, `gender`, `session`, `dialogue`, `transcript`, `sha256`; runs that are compared with are asked
otherwise. What a fold was trained on is not known: leak checks take all that it does not test.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxser.data.leaks import FoldIds, Row
from jaxser.evaluation import metrics, run_folder
from jaxser.evaluation.run_folder import Predictions, Run
from jaxser.evaluation.summary import replica_result
from jaxser.report.checks import assumed_folds
from jaxser.types import InputError, Status, UsageError, Utterance

NEEDED = ("utterance", "fold", "seed", "true", "predicted")
KNOWN = ("speaker", "gender", "session", "dialogue", "transcript", "sha256")


def import_csv(path: Path, folder: Path, *, utterances: Path | None = None, like: Sequence[Run] = ()) -> Run:
    """Make a run's folder of a file of predictions; classes and utterances are as in the runs that are `like` it.

    Raises:
        InputError: a file is not as described above, or contradicts itself.
        UsageError: the folder has a run that was not imported.
    """
    config = folder / run_folder.CONFIG
    if config.exists() and "imported" not in run_folder.read_json(config):
        raise UsageError(f"{folder} has a run of jaxser's own: rename {path.name}, or give --imported_to")
    lines = _read(path, NEEDED)
    classes = _classes(lines, like)
    predictions = _predictions(path, lines, classes)
    _check(path, predictions)
    rows = _rows(path, predictions, utterances, like)
    folds = _folds(predictions)
    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(config, {"imported": path.name, "config": {"dataset": _dataset(like)}})
    run_folder.write_folds(folder, {"name": "imported"}, 0, folds)
    run_folder.write_utterances(folder, rows)
    run_folder.write_predictions(folder, [predictions])
    run_folder.write_json(folder / run_folder.RESULTS, _results(path, predictions, folds, rows, like))
    return run_folder.read_run(folder)


def _read(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV by its header; every line has what is needed."""
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
        raise InputError(f"{path} has no line below its header")
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values() or not all(line[name].strip() for name in needed):
            raise InputError(f"{path}:{number} is not whole: a line needs {', '.join(needed)}")
    return lines


def _classes(lines: Sequence[Mapping[str, str]], like: Sequence[Run]) -> tuple[str, ...]:
    """In the order of a run of the same classes, otherwise by name."""
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
        raise InputError(f"{path}: seeds are whole numbers and probabilities numbers ({error})") from None
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
    """One true label an utterance, and one prediction in a fold and seed."""
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


def _rows(path: Path, p: Predictions, utterances: Path | None, like: Sequence[Run]) -> list[Row]:
    """Lines of utterances.jsonl."""
    known: dict[str, Mapping[str, str]] = {i: row for run in like for i, row in run.utterances.items()}
    if utterances:
        known |= {line["utterance"]: line for line in _read(utterances, ("utterance",))}
    label = dict(zip(p.utterance.tolist(), p.true.tolist(), strict=True))
    made: list[Utterance] = []
    for i in label:
        fields: dict[str, Any] = {name: str(known.get(i, {}).get(name) or "") for name in KNOWN}
        if fields["gender"] not in ("", "F", "M"):
            raise InputError(
                f"{utterances or path}: the gender of {i} is {fields['gender']!r}, not F, M or nothing"
            )
        made.append(dataclasses.replace(Utterance(id=i, wav="", label=p.classes[label[i]]), **fields))
    return list(run_folder.utterance_rows(made, [u.label for u in made]))


def _folds(p: Predictions) -> list[FoldIds]:
    """Each fold's tested utterances; the other parts are not known."""
    tests = {name: p.utterance[p.fold == name].tolist() for name in dict.fromkeys(p.fold.tolist())}
    order = sorted(tests, key=lambda name: (len(name), name))
    return [FoldIds(name, (), (), tuple(dict.fromkeys(tests[name]))) for name in order]


def _results(
    path: Path, p: Predictions, folds: Sequence[FoldIds], rows: Sequence[Row], like: Sequence[Run]
) -> dict[str, object]:
    replicas = []
    for fold in folds:
        for seed in np.unique(p.seed[p.fold == fold.name]):
            own = (p.fold == fold.name) & (p.seed == seed)
            counts = metrics.confusion(p.true[own], p.predicted[own], np.ones(own.sum()), len(p.classes))
            replicas.append(
                replica_result(
                    fold=fold.name,
                    seed=int(seed),
                    best_epoch=None,
                    status=Status.STOPPED,
                    classes=p.classes,
                    validation=None,
                    test=np.asarray(counts),
                )
            )
    return run_folder.results(
        model=path.stem,
        variant="",
        dataset=_dataset(like),
        protocol={"name": "imported", "select": "not said", "metric": "ua", "note": ""},
        classes=list(p.classes),
        epochs=0,
        environment={},
        synthetic=any(run.results["synthetic"] for run in like),
        reads=(),
        replicas=replicas,
        folds=assumed_folds(folds),  # of which it warns
        utterances=rows,
    )


def _dataset(like: Sequence[Run]) -> str:
    return str(like[0].results["dataset"]) if like else "imported"
