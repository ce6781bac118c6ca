"""Predictions of the replicas of a run, and the lines of predictions.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxser.evaluation.csv_cells import from_cell, to_cells


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
        """Return only some of the rows."""
        columns = {one.name: getattr(self, one.name)[rows] for one in fields(self) if one.name != "classes"}
        return Predictions(classes=self.classes, **columns)


_TEXTS = (0, 1, 3, 5, 6)
"""The columns of names: utterance, fold, setting, true and predicted class."""


def rows(parts: Iterable[Predictions]) -> Iterator[list[object]]:
    """Yield the rows of predictions.csv, the header first.

    The parts must have the same classes.
    """
    for number, part in enumerate(parts):
        if number == 0:
            yield [*_header(part.classes)]
        names = np.array(part.classes, dtype=object)
        named = (names[part.true], names[part.predicted])
        columns = (part.utterance, part.fold, part.seed, part.setting, part.split, *named)
        layout = " ".join(["%.6g"] * len(names))
        probabilities = ((layout % tuple(row)).split() for row in part.probabilities.tolist())
        cells = zip(*(column.tolist() for column in columns), strict=True)
        yield from ([*to_cells(first), *last] for first, last in zip(cells, probabilities, strict=True))


def parse(text: str, classes: Sequence[str]) -> Predictions:
    """Return the predictions in the text of a predictions.csv.

    Raises:
        ValueError: if a line is not as `rows` makes it; `csv.Error` if the text is not CSV.
    """
    expected = _header(classes)
    header, *lines = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [expected]
    if header != expected or any(len(line) != len(expected) for line in lines):
        raise ValueError(f"each line needs {', '.join(expected)}")  # an empty file has no predictions
    columns: list[Sequence[str]] = list(zip(*lines, strict=True)) if lines else [()] * len(expected)
    for column in _TEXTS:
        columns[column] = list(map(from_cell, columns[column]))
    utterance, fold, setting, split = (np.array(columns[column], dtype=str) for column in (0, 1, 3, 4))
    row_of = {name: row for row, name in enumerate(classes)}
    if unknown := {*columns[5], *columns[6]} - row_of.keys() or {*columns[4]} - {"validation", "test"}:
        raise ValueError(f"there is no class or part {min(unknown)!r}")
    if len(set(zip(*columns[:5], strict=True))) < len(lines):
        raise ValueError("two lines have the same replica, utterance and part")
    true, predicted = (np.array([row_of[name] for name in columns[column]], dtype=int) for column in (5, 6))
    probabilities = np.array(columns[7:], dtype=np.float64).reshape(len(classes), -1).T
    is_unknown = np.isnan(probabilities).all(axis=1)
    is_valid = (probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) < 1e-3)
    if not (is_unknown | is_valid).all():
        raise ValueError(f"the probabilities of line {np.argmin(is_unknown | is_valid) + 2} do not sum to 1")
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


def _header(classes: Sequence[str]) -> list[str]:
    names = (f"p_{name}" for name in classes)
    return ["utterance", "fold", "seed", "setting", "split", "true", "predicted", *names]
