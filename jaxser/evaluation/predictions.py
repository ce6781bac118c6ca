"""Predictions of the replicas of a run, and the lines of predictions.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxser.evaluation.csv_cells import from_cell, to_cell


@dataclass(frozen=True, eq=False)
class Predictions:
    """The columns of predictions.csv.

    Attributes:
        classes: the names of the classes, or of numeric attributes.
        split: "validation" or "test".
        true: the index of the true class, or the true value of each attribute.
        predicted: the index of the predicted class, or the predicted value of each attribute.
        probabilities: the probability of each class; of attributes there are none.
    """

    classes: tuple[str, ...]
    utterance: Shaped[np.ndarray, " N"]
    fold: Shaped[np.ndarray, " N"]
    seed: Int[np.ndarray, " N"]
    setting: Shaped[np.ndarray, " N"]
    split: Shaped[np.ndarray, " N"]
    true: Int[np.ndarray, " N"] | Float[np.ndarray, "N A"]
    predicted: Int[np.ndarray, " N"] | Float[np.ndarray, "N A"]
    probabilities: Float[np.ndarray, "N _"]

    @property
    def is_numeric(self) -> bool:
        """Whether the predictions are values of attributes."""
        return self.true.ndim == 2

    def select(self, rows: Bool[np.ndarray, " N"]) -> Predictions:
        """Return only some of the rows."""
        columns = {one.name: getattr(self, one.name)[rows] for one in fields(self) if one.name != "classes"}
        return Predictions(classes=self.classes, **columns)


_TEXTS = (0, 1, 3)
"""The columns of names that all targets have: utterance, fold and setting."""

_IDENTITY = 5
"""The number of columns before the predictions."""


def rows(parts: Iterable[Predictions]) -> Iterator[list[object]]:
    """Yield the rows of predictions.csv, the header first.

    The parts must have the same classes.
    """
    for number, part in enumerate(parts):
        if number == 0:
            yield [*_header(part.classes, part.is_numeric)]
        if part.is_numeric:
            yield from _numeric_rows(part)
            continue
        names = np.array(part.classes, dtype=object)
        named = (names[part.true], names[part.predicted])
        layout = " ".join(["%.6g"] * len(names))
        probabilities = ((layout % tuple(row)).split() for row in part.probabilities.tolist())
        cells = zip(*map(_cells, (*_identity(part), *named)), strict=True)
        yield from ([*first, *last] for first, last in zip(cells, probabilities, strict=True))


def _numeric_rows(part: Predictions) -> Iterator[list[object]]:
    cells = zip(*map(_cells, _identity(part)), strict=True)
    values = np.concatenate([part.true, part.predicted], axis=1).tolist()
    layout = " ".join(["%.6g"] * (2 * len(part.classes)))
    for first, own in zip(cells, values, strict=True):
        yield [*first, *(layout % tuple(own)).split()]


def _identity(part: Predictions) -> tuple[np.ndarray, ...]:
    return part.utterance, part.fold, part.seed, part.setting, part.split


def _cells(column: Shaped[np.ndarray, " N"]) -> Iterator[Any]:
    """Return the cells of a column; equal values are looked at once."""
    values = column.tolist()
    cell_of = {value: to_cell(value) for value in set(values)}
    return map(cell_of.__getitem__, values)


def parse(text: str, classes: Sequence[str], is_numeric: bool = False) -> Predictions:
    """Return the predictions in the text of a predictions.csv.

    Args:
        text: the contents of the file.
        classes: the names of the classes, or of numeric attributes.
        is_numeric: whether they are attributes.

    Raises:
        ValueError: if a line is not as `rows` makes it; `csv.Error` if the text is not CSV.
    """
    expected = _header(classes, is_numeric)
    header, *lines = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [expected]
    if header != expected or any(len(line) != len(expected) for line in lines):
        raise ValueError(f"each line needs {', '.join(expected)}")  # an empty file has no predictions
    columns: list[Sequence[str]] = list(zip(*lines, strict=True)) if lines else [()] * len(expected)
    for column in _TEXTS:
        columns[column] = list(map(from_cell, columns[column]))
    utterance, fold, setting, split = (np.array(columns[column], dtype=str) for column in (0, 1, 3, 4))
    if unknown := {*columns[4]} - {"validation", "test"}:
        raise ValueError(f"there is no class or part {min(unknown)!r}")
    if len(set(zip(*columns[:_IDENTITY], strict=True))) < len(lines):
        raise ValueError("two lines have the same replica, utterance and part")
    read = _values if is_numeric else _classes
    true, predicted, probabilities = read(columns[_IDENTITY:], classes)
    return Predictions(
        classes=tuple(classes),
        utterance=utterance,
        fold=fold,
        seed=np.array(columns[2], dtype=int),
        setting=setting,
        split=split,
        true=true,
        predicted=predicted,
        probabilities=probabilities,
    )


def _classes(
    columns: Sequence[Sequence[str]], classes: Sequence[str]
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"], Float[np.ndarray, "N C"]]:
    """Return true and predicted classes, and probabilities."""
    row_of = {name: row for row, name in enumerate(classes)}
    named = [list(map(from_cell, column)) for column in columns[:2]]
    if unknown := {*named[0], *named[1]} - row_of.keys():
        raise ValueError(f"there is no class or part {min(unknown)!r}")
    true, predicted = (np.array([row_of[name] for name in column], dtype=int) for column in named)
    probabilities = np.array(columns[2:], dtype=np.float64).reshape(len(classes), -1).T
    is_unknown = np.isnan(probabilities).all(axis=1)
    is_valid = (probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) < 1e-3)
    if not (is_unknown | is_valid).all():
        raise ValueError(f"the probabilities of line {np.argmin(is_unknown | is_valid) + 2} do not sum to 1")
    return true, predicted, probabilities


def _values(
    columns: Sequence[Sequence[str]], names: Sequence[str]
) -> tuple[Float[np.ndarray, "N A"], Float[np.ndarray, "N A"], Float[np.ndarray, "N 0"]]:
    """Return true and predicted values of attributes, and no probabilities."""
    values = np.array(columns, dtype=np.float64).reshape(2 * len(names), -1).T
    if not np.isfinite(values).all():
        line = int(np.argmin(np.isfinite(values).all(axis=1))) + 2
        raise ValueError(f"a value of line {line} is not a finite number")
    return values[:, : len(names)], values[:, len(names) :], np.empty((len(values), 0))


def _header(classes: Sequence[str], is_numeric: bool) -> list[str]:
    identity = ["utterance", "fold", "seed", "setting", "split"]
    if is_numeric:
        return [*identity, *(f"{kind}_{name}" for kind in ("true", "predicted") for name in classes)]
    return [*identity, "true", "predicted", *(f"p_{name}" for name in classes)]
