"""The folder of a run: its files, and how they are written and read.

    config.json       what the run was asked to do
    folds.json        the protocol, its split seed, and the utterance ids of each fold's parts
    utterances.jsonl  one line per utterance: id, label, speaker, ..., transcript, sha256
    metrics.jsonl     one line per epoch and replica
    predictions.csv   one line per replica and utterance that it was evaluated on
    results.json      scores of all replicas, summary, warnings, environment; written last
    digests.json      the SHA-256 digests of these files and of the files in model/, compared at every read
    model/  checkpoints/  report/

All files except `metrics.jsonl`, which grows, are written under a temporary name and then renamed. Scores are
fractions in [0, 1]; an undefined score (the recall of an absent class, the scores of a replica whose loss was not
finite) is null. A replica is identified by its fold (a name), seed (a number) and setting (see `setting_name`).

A run of an earlier version has no digests; it is read without them.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import numpy as np

from jaxser import files
from jaxser.data.leaks import FoldIds
from jaxser.evaluation.predictions import Predictions as Predictions
from jaxser.evaluation.predictions import parse, rows
from jaxser.evaluation.records import (
    EpochRecord,
    RunConfig,
    typed,
    utterance_from_json,
    utterance_to_json,
)
from jaxser.evaluation.results import ReplicaResult, RunResults
from jaxser.evaluation.scores import Scores
from jaxser.evaluation.targets import CLASSES, Target
from jaxser.types import InputError, Utterance

CONFIG, FOLDS, UTTERANCES = "config.json", "folds.json", "utterances.jsonl"
METRICS, PREDICTIONS, RESULTS = "metrics.jsonl", "predictions.csv", "results.json"
DIGESTS, MODEL, CHECKPOINTS, REPORT = "digests.json", "model", "checkpoints", "report"

RESUME = "run the command that started it again to resume"
"""How to finish an unfinished run, for messages."""

REMEDY = "restore it from a copy, or train again into another folder"
"""What to do if a file of a run is damaged, for messages."""

ADVICE = (
    "wait until it has ended, or name another folder, such as --workdir=runs/mine; tasks of a SLURM array job need one "
    "each: --workdir=runs/mine/$SLURM_ARRAY_TASK_ID"
)
"""What to do if another process writes to the folder of a run, for messages."""

Record = TypeVar("Record")


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
        """The test predictions of the reported setting.

        Replicas that have no score are left out.
        """
        return self.scored("test")

    def scored(self, split: str) -> Predictions:
        """Return the predictions of the reported setting on a part, as of `test_predictions`."""
        p, setting = self.predictions, self.results.setting
        scored = {(one.fold, one.seed) for one in self.results.reported if one.test is not None}
        has_score = [replica in scored for replica in zip(p.fold.tolist(), p.seed.tolist(), strict=True)]
        return p.select((p.split == split) & (p.setting == setting) & np.array(has_score, dtype=bool))


def read_run(folder: str | Path, utterances: Iterable[Utterance] | None = None) -> Run:
    """Read everything that a report needs.

    Args:
        folder: the folder of the run.
        utterances: the run's utterances, if the caller has just written them and they need not be read again.

    Raises:
        InputError: if the folder is not a finished run, or one of its files is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a run: there is no such folder; give the folder that training wrote"
        )
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} is not a run: it has no {CONFIG}; give the folder that training wrote")
    if not (folder / RESULTS).is_file():
        raise InputError(f"{folder} is not finished: it has no {RESULTS}; {RESUME}")
    results = read_results(folder)
    protocol, split_seed, folds = read_folds(folder)
    run = Run(
        folder=folder,
        config=read_config(folder),
        protocol=protocol,
        split_seed=split_seed,
        folds=folds,
        utterances={one.id: one for one in (read_utterances(folder) if utterances is None else utterances)},
        epochs=tuple(read_epochs(folder)),
        predictions=read_predictions(folder, results.target),
        results=results,
    )
    _check_consistency(run)
    return run


def write_config(folder: Path, config: RunConfig) -> None:
    """Write config.json, which begins a run.

    The results of an earlier run in the folder are removed.
    """
    for name in (RESULTS, DIGESTS):
        files.remove(folder, name)
    files.write_json(folder, CONFIG, plain(config.to_json()))


def read_config(folder: Path) -> RunConfig:
    """Read config.json."""
    return _read_record(folder, CONFIG, RunConfig.from_json)


def write_results(folder: Path, results: RunResults) -> None:
    """Write results.json, which marks the run as finished, and all digests: call it last."""
    content = (_dumps(results.to_json(), indent=2) + "\n").encode()
    write_digests(folder, {RESULTS: files.sha256(content)})
    files.write(folder, RESULTS, content)


def read_results(folder: Path) -> RunResults:
    """Read results.json."""
    return _read_record(folder, RESULTS, RunResults.from_json)


def write_digests(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Write digests.json anew.

    Args:
        folder: the folder of the run.
        known: digests by name; those of all other files are computed.
    """
    names = [CONFIG, FOLDS, UTTERANCES, METRICS, PREDICTIONS, RESULTS]
    names += sorted(f"{MODEL}/{path.name}" for path in (folder / MODEL).glob("*.[jn][sp]*"))
    found = {name: files.sha256(folder / name) for name in names if (folder / name).is_file()}
    files.write_json(folder, DIGESTS, files.sealed({"sha256": {**found, **(known or {})}}))


def checked(folder: Path) -> files.CheckedFolder:
    """Return the folder of a run for reading its files.

    They are compared with their digests if there are any.
    """
    return files.CheckedFolder(folder, REMEDY, files.digests_in(folder))


def write_folds(folder: Path, protocol: Mapping[str, Any], split_seed: int, folds: Iterable[FoldIds]) -> None:
    """Write folds.json."""
    parts = [{"name": f.name, "train": f.train, "validation": f.validation, "test": f.test} for f in folds]
    files.write_json(folder, FOLDS, plain({"protocol": protocol, "split_seed": split_seed, "folds": parts}))


def read_folds(folder: Path) -> tuple[dict[str, Any], int, tuple[FoldIds, ...]]:
    """Read the protocol, the split seed and the folds."""

    def read(value: Any) -> tuple[dict[str, Any], int, tuple[FoldIds, ...]]:
        folds = typed(value, "folds", tuple[FoldIds, ...])
        if not folds or len({fold.name for fold in folds}) < len(folds):
            raise ValueError("its folds are not different names")
        return typed(value, "protocol", dict[str, Any]), typed(value, "split_seed", int), folds

    return _read_record(folder, FOLDS, read)


def write_utterances(folder: Path, utterances: Iterable[Utterance]) -> None:
    """Write utterances.jsonl.

    Args:
        folder: the folder of the run.
        utterances: the utterances, labelled with classes of the run (not with the corpus's own labels).
    """
    with files.open_text(folder, UTTERANCES) as file:
        encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
        file.writelines(encode(utterance_to_json(utterance)) + "\n" for utterance in utterances)


def read_utterances(folder: Path) -> list[Utterance]:
    """Read utterances.jsonl; `wav` of the utterances is empty."""
    return list(_read_lines(folder, UTTERANCES, utterance_from_json))


def append_epochs(folder: Path, records: Iterable[EpochRecord]) -> None:
    """Append an epoch's records, one per replica, to metrics.jsonl.

    Call it before the epoch's checkpoint is saved.
    """
    with files.open_appending(folder, METRICS) as file:
        file.write("".join(map(_epoch_line, records)).encode())


def truncate_epochs(folder: Path, keeps: Callable[[EpochRecord], bool]) -> None:
    """Drop the lines of metrics.jsonl whose epochs are trained (again) after an interruption.

    Args:
        folder: the folder of the run.
        keeps: whether a line is kept.
    """
    kept = [record for record in read_epochs(folder) if keeps(record)]
    with files.open_text(folder, METRICS) as file:
        file.writelines(map(_epoch_line, kept))


def read_epochs(folder: Path) -> list[EpochRecord]:
    """Read metrics.jsonl, without a last line that was cut short.

    The list is empty if the file is missing.
    """
    source = checked(folder)
    if not source.has(METRICS) and METRICS not in source.digests:
        return []
    return list(_read_lines(folder, METRICS, _epoch_from_line, cut_short=True))


def _epoch_line(record: EpochRecord) -> str:
    """Return a line of metrics.jsonl, whose last value is its checksum.

    The file is read before the run has digests.
    """
    value = record.to_json()
    return _dumps({**value, "crc32c": _checksum(value)}) + "\n"


def _epoch_from_line(value: Any) -> EpochRecord:
    checksum = typed(value, "crc32c", str, None)
    if checksum not in (None, _checksum({key: one for key, one in value.items() if key != "crc32c"})):
        raise ValueError("its checksum differs")
    return EpochRecord.from_json(value)


def _checksum(value: Any) -> str:
    return f"{google_crc32c.value(_dumps(value).encode()):08x}"


def write_predictions(folder: Path, parts: Iterable[Predictions]) -> None:
    """Write predictions.csv from parts, such as one per replica, that have the same classes."""

    with files.open_text(folder, PREDICTIONS) as file:
        csv.writer(file, lineterminator="\n").writerows(rows(parts))


def read_predictions(folder: Path, target: Target) -> Predictions:
    """Read predictions.csv.

    Raises:
        InputError: if the file is missing or damaged, or is of another target.
    """
    source = checked(folder)
    content = source.read(PREDICTIONS)
    try:
        return parse(content.decode("utf-8", "surrogateescape"), target.names, target.kind != CLASSES)
    except (ValueError, csv.Error) as error:
        raise source.damaged(PREDICTIONS, str(error)) from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, as `plain` makes it."""
    files.write_json(path.parent, path.name, plain(value))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: if the file is missing or damaged.
    """
    return files.CheckedFolder(path.parent, REMEDY).read_json(path.name, object)


def plain(value: Any) -> Any:
    """Return the same value in JSON's types.

    There are no NumPy arrays and no tuples, and NaN and infinity are None.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.generic) or hasattr(value, "__array_namespace__"):
        return plain(np.asarray(value).tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _dumps(value: Any, indent: int | None = None) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _read_record(folder: Path, name: str, read: Callable[[Any], Record]) -> Record:
    """Return the record that a JSON file holds."""
    source = checked(folder)
    value = source.read_json(name, object)
    try:
        return read(value)
    except (KeyError, TypeError, ValueError) as error:
        raise source.damaged(name, _reason(error)) from None


def _read_lines(
    folder: Path, name: str, read: Callable[[Any], Record], cut_short: bool = False
) -> Iterator[Record]:
    """Return the records of a JSON lines file; with `cut_short`, a last line without a line feed is skipped."""
    source = checked(folder)
    *lines, rest = source.read(name).decode("utf-8", "surrogateescape").split("\n")
    for number, line in enumerate(lines if cut_short or not rest else [*lines, rest], start=1):
        try:
            yield read(source.decode(f"{name}:{number}", line, object))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise source.damaged(f"{name}:{number}", _reason(error)) from None


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _check_consistency(run: Run) -> None:
    """Check that the files of a run are of one run."""
    p, results, source = run.predictions, run.results, files.CheckedFolder(run.folder, REMEDY)
    labels = {utterance.label for utterance in run.utterances.values()}
    labels -= set() if results.target.kind == CLASSES else {""}
    if labels - set(results.classes):
        raise source.damaged(UTTERANCES, f"there is no class {min(labels - set(results.classes))!r}")
    tested = {
        identity
        for fold in run.folds
        for part in (fold.train, fold.validation, fold.test)
        for identity in part
    }
    for name, used in ((FOLDS, tested), (PREDICTIONS, set(p.utterance.tolist()))):
        if unknown := used - run.utterances.keys():
            raise source.damaged(name, f"{UTTERANCES} has no utterance {min(unknown)!r}")
    folds = {fold.name for fold in run.folds}
    replicas = {(one.fold, one.seed, one.setting) for one in results.replicas}
    if unknown := {fold for fold, _, _ in replicas} - folds:
        raise source.damaged(RESULTS, f"{FOLDS} has no fold {min(unknown)!r}")
    if set(zip(p.fold.tolist(), p.seed.tolist(), p.setting.tolist(), strict=True)) - replicas:
        raise source.damaged(PREDICTIONS, f"{RESULTS} does not have all of its replicas")
    for fold in run.folds:
        for split, part in (("validation", fold.validation), ("test", fold.test)):
            predicted = p.utterance[(p.fold == fold.name) & (p.split == split)]
            if set(predicted.tolist()) - set(part):
                raise source.damaged(FOLDS, f"{PREDICTIONS} has other {split} utterances of fold {fold.name}")
    keys = zip(*(column.tolist() for column in (p.fold, p.seed, p.setting, p.split)), strict=True)
    rows_of: dict[tuple[str, int, str, str], list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows_of[key].append(row)
    for one, split, scores in _all_scores(results):
        own = np.array(rows_of[one.fold, one.seed, one.setting, split], dtype=int)
        found = results.target.statistics(p.true[own], p.predicted[own], np.ones(len(own)))
        tolerance = results.target.rounding * max(len(own), 1)
        if not np.allclose(found, scores.statistics, rtol=0, atol=tolerance):
            raise source.damaged(PREDICTIONS, f"the {split} scores of {one.name} in {RESULTS} differ")
        computed = Scores.of_statistics(scores.statistics, results.target)
        if any(not _is_close(computed[name], scores[name]) for name in results.target.compared):
            raise source.damaged(
                RESULTS, f"the {split} scores of {one.name} do not follow from its statistics"
            )


def _all_scores(results: RunResults) -> Iterator[tuple[ReplicaResult, str, Scores]]:
    for one in results.replicas:
        for split, scores in (("validation", one.validation), ("test", one.test)):
            if scores is not None:
                yield one, split, scores


def _is_close(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else math.isclose(a, b, abs_tol=1e-6)
