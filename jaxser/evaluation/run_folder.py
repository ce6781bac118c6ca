"""The folder of a run: its files, and how they are written and read.

    config.json       what the run was asked to do
    folds.json        the protocol, its split seed, and the utterance ids of each fold's parts
    utterances.jsonl  one line per utterance: id, label, speaker, ..., transcript, sha256
    metrics.jsonl     one line per epoch and replica
    predictions.csv   one line per replica and utterance that it was evaluated on
    results.json      scores of all replicas, summary, warnings, environment; written last
    model/  checkpoints/  report/

All files except `metrics.jsonl`, which grows, are written under a temporary name and then renamed. Scores are
fractions in [0, 1]; an undefined score (the recall of an absent class, the scores of a replica whose loss was not
finite) is null. A replica is identified by its fold (a name), seed (a number) and setting (see `setting_name`).
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxser.data.leaks import FoldIds
from jaxser.evaluation.records import EpochRecord, RunConfig, utterance_from_json, utterance_to_json
from jaxser.evaluation.results import RunResults
from jaxser.types import InputError, Utterance

CONFIG, FOLDS, UTTERANCES = "config.json", "folds.json", "utterances.jsonl"
METRICS, PREDICTIONS, RESULTS = "metrics.jsonl", "predictions.csv", "results.json"
MODEL, CHECKPOINTS, REPORT = "model", "checkpoints", "report"

RESUME = "run the command that started it again to resume"
"""How to finish an unfinished run, for messages."""

Record = TypeVar("Record")


@dataclass(frozen=True, eq=False)
class Predictions:
    """The columns of predictions.csv; `true` and `predicted` are indices of `classes`."""

    classes: tuple[str, ...]
    utterance: Shaped[np.ndarray, " N"]
    fold: Shaped[np.ndarray, " N"]
    seed: Int[np.ndarray, " N"]
    setting: Shaped[np.ndarray, " N"]
    split: Shaped[np.ndarray, " N"]  # "validation" or "test"
    true: Int[np.ndarray, " N"]
    predicted: Int[np.ndarray, " N"]
    probabilities: Float[np.ndarray, "N C"]

    def select(self, rows: Bool[np.ndarray, " N"]) -> Predictions:
        """Only some of the rows."""
        columns = {one.name: getattr(self, one.name)[rows] for one in fields(self) if one.name != "classes"}
        return Predictions(classes=self.classes, **columns)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run, as read from its folder.

    Attributes:
        utterances: the utterances by id. Their labels are classes of the run, and `wav` is empty.
        epochs: the lines of metrics.jsonl.
    """

    folder: Path
    config: RunConfig
    protocol: Mapping[str, Any]
    split_seed: int
    folds: tuple[FoldIds, ...]
    utterances: Mapping[str, Utterance]
    epochs: tuple[EpochRecord, ...]
    predictions: Predictions
    results: RunResults

    @cached_property
    def test_predictions(self) -> Predictions:
        """The test predictions of the reported setting, without those of replicas that have no score."""
        p, setting = self.predictions, self.results.setting
        scored = {(one.fold, one.seed) for one in self.results.reported if one.test is not None}
        has_score = [replica in scored for replica in zip(p.fold.tolist(), p.seed.tolist(), strict=True)]
        return p.select((p.split == "test") & (p.setting == setting) & np.array(has_score, dtype=bool))


def read_run(folder: str | Path) -> Run:
    """Read everything that a report needs.

    Raises:
        InputError: if the folder is not a finished run, or one of its files is missing or damaged.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} is not a run: it has no {CONFIG}; give the folder that training wrote")
    if not (folder / RESULTS).is_file():
        raise InputError(f"{folder} is not finished: it has no {RESULTS}; {RESUME}")
    results = read_results(folder)
    protocol, split_seed, folds = read_folds(folder)
    return Run(
        folder=folder,
        config=read_config(folder),
        protocol=protocol,
        split_seed=split_seed,
        folds=folds,
        utterances={utterance.id: utterance for utterance in read_utterances(folder)},
        epochs=tuple(read_epochs(folder)),
        predictions=read_predictions(folder, results.classes),
        results=results,
    )


def write_config(folder: Path, config: RunConfig) -> None:
    """Write config.json."""
    write_json(folder / CONFIG, config.to_json())


def read_config(folder: Path) -> RunConfig:
    """Read config.json."""
    return _read_record(folder / CONFIG, RunConfig.from_json)


def write_results(folder: Path, results: RunResults) -> None:
    """Write results.json, which marks the run as finished: call it last."""
    write_json(folder / RESULTS, results.to_json())


def read_results(folder: Path) -> RunResults:
    """Read results.json."""
    return _read_record(folder / RESULTS, RunResults.from_json)


def write_folds(folder: Path, protocol: Mapping[str, Any], split_seed: int, folds: Iterable[FoldIds]) -> None:
    """Write folds.json."""
    parts = [{"name": f.name, "train": f.train, "validation": f.validation, "test": f.test} for f in folds]
    write_json(folder / FOLDS, {"protocol": protocol, "split_seed": split_seed, "folds": parts})


def read_folds(folder: Path) -> tuple[dict[str, Any], int, tuple[FoldIds, ...]]:
    """Read the protocol, the split seed and the folds."""

    def read(value: Any) -> tuple[dict[str, Any], int, tuple[FoldIds, ...]]:
        parts = ("train", "validation", "test")
        folds = tuple(
            FoldIds(fold["name"], *(tuple(fold[part]) for part in parts)) for fold in value["folds"]
        )
        return value["protocol"], value["split_seed"], folds

    return _read_record(folder / FOLDS, read)


def write_utterances(folder: Path, utterances: Iterable[Utterance]) -> None:
    """Write utterances.jsonl.

    Args:
        utterances: the utterances, labelled with classes of the run (not with the corpus's own labels).
    """
    lines = (_dumps(utterance_to_json(utterance)) + "\n" for utterance in utterances)
    _write_atomically(folder / UTTERANCES, lambda file: file.writelines(lines))


def read_utterances(folder: Path) -> list[Utterance]:
    """Read utterances.jsonl; `wav` of the utterances is empty."""
    return list(_read_lines(folder / UTTERANCES, utterance_from_json))


def append_epochs(folder: Path, records: Iterable[EpochRecord]) -> None:
    """Append an epoch's records, one per replica, to metrics.jsonl; call it before the epoch's checkpoint is saved."""
    text = "".join(_dumps(record.to_json()) + "\n" for record in records)
    with (folder / METRICS).open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def truncate_epochs(folder: Path, keeps: Callable[[EpochRecord], bool]) -> None:
    """Drop the lines of metrics.jsonl whose epochs are trained (again) after an interruption.

    Args:
        keeps: whether a line is kept.
    """
    kept = [record for record in read_epochs(folder) if keeps(record)]
    lines = (_dumps(record.to_json()) + "\n" for record in kept)
    _write_atomically(folder / METRICS, lambda file: file.writelines(lines))


def read_epochs(folder: Path) -> list[EpochRecord]:
    """Read metrics.jsonl, without a last line that was cut short; an empty list if the file is missing."""
    path = folder / METRICS
    return list(_read_lines(path, EpochRecord.from_json, cut_short=True)) if path.exists() else []


def write_predictions(folder: Path, parts: Iterable[Predictions]) -> None:
    """Write predictions.csv from parts, such as one per replica, that have the same classes."""

    def write(file: TextIO) -> None:
        writer = csv.writer(file, lineterminator="\n")
        for number, part in enumerate(parts):
            if number == 0:
                writer.writerow(_header(part.classes))
            names = np.array(part.classes, dtype=object)
            named = (names[part.true], names[part.predicted])
            columns = (part.utterance, part.fold, part.seed, part.setting, part.split, *named)
            layout = " ".join(["%.6g"] * len(names))
            probabilities = ((layout % tuple(row)).split() for row in part.probabilities.tolist())
            cells = zip(*(column.tolist() for column in columns), strict=True)
            writer.writerows([*first, *last] for first, last in zip(cells, probabilities, strict=True))

    _write_atomically(folder / PREDICTIONS, write)


def read_predictions(folder: Path, classes: Sequence[str]) -> Predictions:
    """Read predictions.csv.

    Raises:
        InputError: if the file is missing or damaged, or is of other classes.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        raise InputError(_is_missing(path))
    with path.open(encoding="utf-8", newline="") as file:
        expected = _header(classes)
        header, *rows = list(csv.reader(file)) or [expected]  # an empty file: no replica has predictions
    if header != expected or any(len(row) != len(expected) for row in rows):
        raise InputError(f"{path} is damaged or of other classes: each line needs {', '.join(expected)}")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(expected)
    utterance, fold, setting, split = (np.array(columns[column], dtype=str) for column in (0, 1, 3, 4))
    row_of = {name: row for row, name in enumerate(classes)}
    true, predicted = (np.array([row_of[name] for name in columns[column]], dtype=int) for column in (5, 6))
    return Predictions(
        classes=tuple(classes),
        utterance=utterance,
        fold=fold,
        seed=np.array(columns[2], dtype=int),
        setting=setting,
        split=split,
        true=true,
        predicted=predicted,
        probabilities=np.array(columns[7:], dtype=np.float64).reshape(len(classes), -1).T,
    )


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, as `plain` makes it."""
    _write_atomically(path, lambda file: file.write(_dumps(value, indent=2) + "\n"))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: if the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(_is_missing(path)) from None
    except ValueError as error:
        raise InputError(_is_damaged(path, error)) from None


def plain(value: Any) -> Any:
    """The same value in JSON's types: no NumPy arrays, no tuples, None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.generic) or hasattr(value, "__array_namespace__"):
        return plain(np.asarray(value).tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _header(classes: Sequence[str]) -> list[str]:
    names = (f"p_{name}" for name in classes)
    return ["utterance", "fold", "seed", "setting", "split", "true", "predicted", *names]


def _dumps(value: Any, indent: int | None = None) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _write_atomically(path: Path, write: Callable[[TextIO], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_record(path: Path, read: Callable[[Any], Record]) -> Record:
    """The record that a JSON file holds."""
    value = read_json(path)
    try:
        return read(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(_is_damaged(path, error)) from None


def _read_lines(path: Path, read: Callable[[Any], Record], cut_short: bool = False) -> Iterator[Record]:
    """The records of a JSON lines file; with `cut_short`, a last line without a line feed is skipped."""
    if not path.is_file():
        raise InputError(_is_missing(path))
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines if cut_short or not rest else [*lines, rest], start=1):
        try:
            yield read(json.loads(line))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(_is_damaged(f"{path}:{number}", error)) from None


def _is_missing(path: Path) -> str:
    return f"{path} is missing: the folder of the run is incomplete; train again"


def _is_damaged(where: Path | str, error: Exception) -> str:
    reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return f"{where} is damaged ({reason}); train again into another folder"
