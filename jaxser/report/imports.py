"""Import predictions of another framework as a run.

The imported run gets the same statistics and tables. A CSV file has one line per test prediction: `utterance`, `fold`,
`seed`, `true`, `predicted`, and optionally the probability of each class as `p_CLASS`. A second CSV file may describe
the utterances for the leak checks: `utterance`, and any of `speaker`, `gender`, `session`, `dialogue`, `transcript`,
`sha256`; other descriptions are taken from the runs that it is compared with. The training part of a fold is unknown:
leak checks assume that it is all that the fold does not test.
"""

from __future__ import annotations

import gc
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxser import files
from jaxser.cli import printable
from jaxser.corpora import MAX_CLASSES
from jaxser.data.leaks import FoldIds
from jaxser.data_prep.corpora.tables import MISSING
from jaxser.data_prep.labels import tidy
from jaxser.evaluation import run_folder
from jaxser.evaluation.records import RunConfig
from jaxser.evaluation.results import ReplicaResult, RunResults
from jaxser.evaluation.run_folder import Predictions, Run
from jaxser.evaluation.scores import Scores
from jaxser.evaluation.summary import with_summaries
from jaxser.report.analysis import Analysis
from jaxser.report.checks import assumed_folds
from jaxser.report.csv_input import Columns, read_columns
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
    with _without_garbage_collection():
        return run_folder.read_run(folder, _write_run(path, folder, utterances, like))


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Search for no cycles of references while millions of records are made, which have none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _write_run(path: Path, folder: Path, utterances: Path | None, like: Sequence[Run]) -> list[Utterance]:
    """Write the folder of a run, and return its utterances."""
    if path.stem.strip(".") == "":
        raise UsageError(f"{path}: rename the file; the run is named after it")
    if (folder / run_folder.CONFIG).exists() and not run_folder.read_config(folder).imported:
        raise UsageError(f"{folder} has a run that was trained: rename {path.name}, or give --imported_to")
    columns = read_columns(path, REQUIRED)
    _warn_of_unused(columns, [*REQUIRED, *(f"p_{name}" for name in _with_probabilities(columns))])
    predictions = _predictions(columns, _classes(columns, like))
    _check(columns, predictions)
    described = _utterances(path, predictions, utterances, like)
    folds = _folds(predictions)
    fields = {"dataset": _dataset(like), "corpus": _corpus(like)}
    results = _results(path, predictions, folds, described, like)
    files.make_folder(folder.parent, folder.name)  # refuses a link
    with files.lock(folder, "wait until it has ended, or give another --imported_to"):
        run_folder.write_config(folder, RunConfig(fields, imported=printable(path.name)))
        run_folder.write_folds(folder, {"name": "imported"}, 0, folds)
        run_folder.write_utterances(folder, described)
        run_folder.write_predictions(folder, [predictions])
        run_folder.write_results(folder, results)
    return described


def _classes(columns: Columns, like: Sequence[Run]) -> tuple[str, ...]:
    """Return the classes in the order of a run that has them all, and otherwise in alphabetical order."""
    found = {*columns["true"], *columns["predicted"], *_with_probabilities(columns)}
    same = (run.predictions.classes for run in like if found <= set(run.predictions.classes))
    classes = next(same, tuple(sorted(found)))
    if len(classes) < 2:
        raise InputError(
            f"{columns.path}: all lines are of class {classes[0]}; scores need two classes at least"
        )
    if len(classes) > MAX_CLASSES:
        raise InputError(
            f"{columns.path}: {len(classes)} classes, more than the {MAX_CLASSES} that a report shows; are the columns "
            "true and predicted classes?"
        )
    if "nan" in map(str.casefold, found):
        raise InputError(
            f"{columns.path} has the class 'nan', which other programs write for a missing label"
        )
    by_form: dict[str, str] = {}
    for name in classes:
        if not tidy(name):
            raise InputError(f"{columns.path}: the class {name!r} has no visible character")
        other = by_form.setdefault(unicodedata.normalize("NFKC", tidy(name)).casefold(), name)
        if other != name:
            raise InputError(
                f"{columns.path}: the classes {other!r} and {name!r} are written differently; use one"
            )
    return classes


def _with_probabilities(columns: Columns) -> list[str]:
    return [name.removeprefix("p_") for name in columns.by_name if name.startswith("p_")]


def _predictions(columns: Columns, classes: tuple[str, ...]) -> Predictions:
    number = len(columns.lines)
    row_of = {name: row for row, name in enumerate(classes)}
    true, predicted = (np.array([row_of[name] for name in columns[which]]) for which in ("true", "predicted"))
    return Predictions(
        classes=classes,
        utterance=np.array(columns["utterance"], dtype=str),
        fold=np.array(columns["fold"], dtype=str),
        seed=_numbers(columns, "seed", int, "a whole number"),
        setting=np.full(number, ""),
        split=np.full(number, "test"),
        true=true,
        predicted=predicted,
        probabilities=_probabilities(columns, classes, predicted),
    )


def _numbers(columns: Columns, name: str, kind: type[int] | type[float], wanted: str) -> np.ndarray:
    """Return a column as numbers."""
    dtype = np.int64 if kind is int else np.float64
    for row, cell in enumerate(columns[name]):
        if "_" in cell:  # Python would take 1_0 for 10
            raise columns.error(row, f"has {name} {cell!r}, which is not {wanted}")
    try:
        return np.array([kind(cell) for cell in columns[name]], dtype=dtype)
    except (ValueError, OverflowError):
        row = next(row for row, cell in enumerate(columns[name]) if not _is_number(cell, kind))
        raise columns.error(row, f"has {name} {columns[name][row]!r}, which is not {wanted}") from None


def _is_number(cell: str, kind: type[int] | type[float]) -> bool:
    try:
        return abs(kind(cell)) < 2**63 or kind is float
    except ValueError:
        return False


def _probabilities(
    columns: Columns, classes: Sequence[str], predicted: Int[np.ndarray, " N"]
) -> Float[np.ndarray, "N C"]:
    """Return the probabilities of the classes, checked; NaN if the file has none."""
    given = _with_probabilities(columns)
    if not given:
        return np.full((len(predicted), len(classes)), np.nan)
    if missing := [name for name in classes if name not in given]:
        raise InputError(
            f"{columns.path} has probabilities, but no column p_{missing[0]}: give those of all classes, or of none"
        )
    found = np.array([_numbers(columns, f"p_{name}", float, "a number") for name in classes]).T
    for is_wrong, reason in (
        (~((found >= 0) & (found <= 1)).all(axis=1), "has a probability that is not from 0 to 1"),
        (np.abs(found.sum(axis=1) - 1) > 1e-3, "has probabilities that do not sum to 1"),
    ):
        if is_wrong.any():
            raise columns.error(int(is_wrong.argmax()), reason)
    is_wrong = found.max(axis=1) > found[np.arange(len(found)), predicted]
    if is_wrong.any():
        row = int(is_wrong.argmax())
        higher, lower = classes[int(found[row].argmax())], classes[predicted[row]]
        raise columns.error(row, f"predicts {lower}, but p_{higher} is higher than p_{lower}")
    return found


def _check(columns: Columns, p: Predictions) -> None:
    """Check that an utterance has one true label, and one prediction of every seed of its fold."""
    labels: dict[str, int] = {}
    tested: dict[tuple[str, int], set[str]] = {}
    rows = zip(p.utterance.tolist(), p.fold.tolist(), p.seed.tolist(), p.true.tolist(), strict=True)
    for row, (i, fold, seed, true) in enumerate(rows):
        if labels.setdefault(i, true) != true:
            names = f"{p.classes[labels[i]]} in one line and {p.classes[true]} in another"
            raise columns.error(row, f"contradicts another line: utterance {i} is {names}")
        own = tested.setdefault((fold, seed), set())
        if i in own:
            raise columns.error(
                row, f"is a repetition: utterance {i} has two lines for fold {fold}, seed {seed}"
            )
        own.add(i)
    first_of: dict[str, set[str]] = {}
    for (fold, seed), own in tested.items():
        if lacking := own ^ first_of.setdefault(fold, own):
            raise InputError(
                f"{columns.path}: the seeds of fold {fold} have different utterances; seed {seed} and another one "
                f"differ in {len(lacking)}, such as {min(lacking)}"
            )


def _utterances(
    path: Path, p: Predictions, descriptions: Path | None, like: Sequence[Run]
) -> list[Utterance]:
    """Return the utterances with what is known about them."""
    known = {
        i: {name: getattr(u, name) for name in DESCRIPTION} for run in like for i, u in run.utterances.items()
    }
    if descriptions:
        known |= _descriptions(descriptions, set(p.utterance.tolist()))
    label = dict(zip(p.utterance.tolist(), p.true.tolist(), strict=True))
    made, unknown = [], dict.fromkeys(DESCRIPTION, "")
    for i in label:
        fields: dict[str, Any] = unknown | known.get(i, unknown)
        if fields["gender"] not in ("", "F", "M"):
            where = descriptions or path
            raise InputError(f"{where}: the gender of {i} is {fields['gender']!r}; it must be F, M or empty")
        made.append(Utterance(id=i, wav="", label=p.classes[label[i]], **fields))
    return made


def _descriptions(path: Path, wanted: set[str]) -> dict[str, dict[str, str]]:
    """Return what a file says about the utterances, by their ids."""
    columns = read_columns(path, ("utterance",))
    _warn_of_unused(columns, ("utterance", *DESCRIPTION))
    names = [name for name in DESCRIPTION if name in columns]
    _warn_of_missing(columns, [name for name in names if name != "transcript"])
    cells = zip(columns["utterance"], *(columns[name] for name in names), strict=True)
    found: dict[str, dict[str, str]] = {}
    for row, (i, *values) in enumerate(cells):
        if i in found:
            raise columns.error(row, f"is a repetition: utterance {i} has two lines")
        found[i] = {
            name: "" if value in MISSING and name != "transcript" else value
            for name, value in zip(names, values, strict=True)
        }
    if not found.keys() & wanted:
        raise InputError(f"{path} describes none of the predicted utterances, such as {min(wanted)}")
    return found


def _warn_of_unused(columns: Columns, used: Sequence[str]) -> None:
    if unused := [name for name in columns.by_name if name not in used]:
        warnings.warn(f"{columns.path}: columns that are not used: {', '.join(unused)}", stacklevel=2)


def _warn_of_missing(columns: Columns, names: Sequence[str]) -> None:
    """Warn of cells by which programs write that a value is missing."""
    for name in names:
        if found := sorted(MISSING.intersection(columns[name])):
            warnings.warn(
                f"{columns.path}: {name} is unknown where the table says {', '.join(found)}", stacklevel=2
            )


def _folds(p: Predictions) -> list[FoldIds]:
    """Return the test part of each fold; the other parts are empty."""
    tests: dict[str, dict[str, None]] = {}
    for fold, i in zip(p.fold.tolist(), p.utterance.tolist(), strict=True):
        tests.setdefault(fold, {})[i] = None
    order = sorted(tests, key=lambda name: (len(name), name))
    return [FoldIds(name, (), (), tuple(tests[name])) for name in order]


def _results(
    path: Path,
    p: Predictions,
    folds: Sequence[FoldIds],
    utterances: Sequence[Utterance],
    like: Sequence[Run],
) -> RunResults:
    results = RunResults(
        model=printable(path.stem),
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
    rows_of: dict[str, dict[int, list[int]]] = {}
    for row, (fold, seed) in enumerate(zip(p.fold.tolist(), p.seed.tolist(), strict=True)):
        rows_of.setdefault(fold, {}).setdefault(seed, []).append(row)
    for name in (fold.name for fold in folds):
        for seed, rows in sorted(rows_of[name].items()):
            yield ReplicaResult(
                fold=name,
                seed=seed,
                status=Status.STOPPED.final_label,
                test=Scores.of(_confusion(p, np.array(rows)), p.classes),
            )


def _confusion(p: Predictions, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, "C C"]:
    size = len(p.classes)
    return np.bincount(p.true[rows] * size + p.predicted[rows], minlength=size * size).reshape(size, size)


def _dataset(like: Sequence[Run]) -> str:
    return like[0].results.dataset if like else "imported"


def _corpus(like: Sequence[Run]) -> str:
    return Analysis(like[0]).corpus.name if like else ""
