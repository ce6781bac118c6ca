"""A run's folder: its files, what stands in them, and how they are written and read.

    config.json       what the run was asked to do
    folds.json        protocol, split seed, and the ids of every fold's parts
    utterances.jsonl  a line an utterance: id, label, speaker, ..., transcript, sha256
    metrics.jsonl     a line an epoch of a replica
    predictions.csv   a line an utterance that a replica was evaluated on
    results.json      every replica's scores, their summary, warnings, environment; it is there once all is done
    model/  checkpoints/  report/

Everything but `metrics.jsonl`, which grows, is written under a temporary name and renamed. Scores are
fractions in [0, 1]; what is not defined (the recall of an absent class, the score of a replica that is not
finite) is null. A replica is named by its fold (a name), seed (a number) and setting (`setting_name`; ""
where nothing is swept).
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat, TextIO

import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxser.data.leaks import FoldIds, Row, class_warnings, leak_warnings
from jaxser.evaluation.summary import Replica, replica_warnings, summarise
from jaxser.types import InputError, Utterance

CONFIG, FOLDS, UTTERANCES = "config.json", "folds.json", "utterances.jsonl"
METRICS, PREDICTIONS, RESULTS = "metrics.jsonl", "predictions.csv", "results.json"
MODEL, CHECKPOINTS, REPORT = "model", "checkpoints", "report"
GO_ON = "the command that began it goes on with it"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Columns of predictions.csv; `true` and `predicted` are rows of `classes`."""

    classes: tuple[str, ...]
    utterance: Shaped[np.ndarray, " N"]
    fold: Shaped[np.ndarray, " N"]
    seed: Int[np.ndarray, " N"]
    setting: Shaped[np.ndarray, " N"]
    split: Shaped[np.ndarray, " N"]  # "validation" or "test"
    true: Int[np.ndarray, " N"]
    predicted: Int[np.ndarray, " N"]
    probabilities: Float[np.ndarray, "N C"]


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run, as its folder has it."""

    folder: Path
    config: Mapping[str, Any]
    protocol: Mapping[str, Any]
    split_seed: int
    folds: tuple[FoldIds, ...]
    utterances: Mapping[str, Row]  # by id
    epochs: tuple[Mapping[str, Any], ...]  # the lines of metrics.jsonl
    predictions: Predictions
    results: Mapping[str, Any]


def read_run(folder: str | Path) -> Run:
    """Everything that a report needs; an `InputError` says what is wrong with the folder."""
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} is no run: it has no {CONFIG}; give the folder that training wrote")
    if not (folder / RESULTS).is_file():
        raise InputError(f"{folder} is not finished: it has no {RESULTS}; {GO_ON}")
    results = read_json(folder / RESULTS)
    protocol, split_seed, folds = read_folds(folder)
    return Run(
        folder=folder,
        config=read_json(folder / CONFIG),
        protocol=protocol,
        split_seed=split_seed,
        folds=folds,
        utterances={row["id"]: row for row in read_utterances(folder)},
        epochs=tuple(read_epochs(folder)),
        predictions=read_predictions(folder, results["classes"]),
        results=results,
    )


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, as `plain` makes it."""
    _write_atomically(path, lambda file: file.write(_dumps(value, indent=2) + "\n"))


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: the run's folder is not whole; train again") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); train again into another folder") from None


def write_folds(folder: Path, protocol: Mapping[str, Any], split_seed: int, folds: Iterable[FoldIds]) -> None:
    parts = [{"name": f.name, "train": f.train, "validation": f.validation, "test": f.test} for f in folds]
    write_json(folder / FOLDS, {"protocol": protocol, "split_seed": split_seed, "folds": parts})


def read_folds(folder: Path) -> tuple[dict[str, Any], int, tuple[FoldIds, ...]]:
    """Protocol, split seed and folds."""
    value = read_json(folder / FOLDS)
    parts = ("train", "validation", "test")
    folds = tuple(FoldIds(fold["name"], *(tuple(fold[part]) for part in parts)) for fold in value["folds"])
    return value["protocol"], value["split_seed"], folds


def utterance_rows(utterances: Sequence[Utterance], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Lines of utterances.jsonl: `labels` are classes of the run's own label set."""
    fields = ("speaker", "gender", "session", "dialogue", "split", "transcript", "flags", "sha256")
    rows = []
    for utterance, label in zip(utterances, labels, strict=True):
        seconds = None if utterance.duration is None else round(utterance.duration, 3)
        row = {"id": utterance.id, "label": str(label), "duration": seconds}
        rows.append(row | {name: getattr(utterance, name) for name in fields})
    return rows


def write_utterances(folder: Path, rows: Iterable[Row]) -> None:
    _write_atomically(folder / UTTERANCES, lambda file: file.writelines(_dumps(row) + "\n" for row in rows))


def read_utterances(folder: Path) -> list[dict[str, Any]]:
    return list(_read_lines(folder / UTTERANCES))


def append_epochs(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add an epoch's lines, one a replica, to metrics.jsonl; call it before the epoch's checkpoint is saved.

    A row has `epoch` (from 0), `fold`, `seed`, `setting`, `train_loss`, `validation` (`loss`, `wa`, `ua`,
    `f1_weighted`), `learning_rate`, `status`, `wave` (a number that its replicas share), `seconds` (of the wave's
    epoch), and `real_share`: of the frames that were computed, those that were not padding.
    """
    text = "".join(_dumps(row) + "\n" for row in rows)
    with (folder / METRICS).open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def truncate_epochs(folder: Path, keeps: Callable[[Mapping[str, Any]], bool]) -> None:
    """Keep the lines that `keeps` says: those of epochs that are not to be trained (again) after an interruption."""
    kept = [row for row in read_epochs(folder) if keeps(row)]
    _write_atomically(folder / METRICS, lambda file: file.writelines(_dumps(row) + "\n" for row in kept))


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; one that a kill cut short is left out, and no file is no lines."""
    path = folder / METRICS
    return list(_read_lines(path, cut_short=True)) if path.exists() else []


def write_predictions(folder: Path, parts: Iterable[Predictions]) -> None:
    """Write `parts` (a replica each, say), all of the same classes, one after the other."""

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
    path = folder / PREDICTIONS
    if not path.is_file():
        raise InputError(f"{path} is missing: the run's folder is not whole; train again")
    with path.open(encoding="utf-8", newline="") as file:
        expected = _header(classes)
        header, *rows = list(csv.reader(file)) or [expected]  # no replica came to predictions: no line at all
    if header != expected or any(len(row) != len(expected) for row in rows):
        raise InputError(f"{path} is damaged or of other classes: each line needs {', '.join(expected)}")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(expected)
    utterance, fold, setting, split = (np.array(columns[place], dtype=str) for place in (0, 1, 3, 4))
    row_of = {name: row for row, name in enumerate(classes)}
    true, predicted = (np.array([row_of[name] for name in columns[place]], dtype=int) for place in (5, 6))
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


def setting_name(scalars: Mapping[str, SupportsFloat]) -> str:
    """The name of a point of swept scalars, such as "dropout_rate=0.3 learning_rate=0.001"."""
    return " ".join(f"{name}={float(value):.6g}" for name, value in sorted(scalars.items()))


def results(
    *,
    model: str,
    variant: str,
    dataset: str,
    protocol: Mapping[str, Any],
    classes: Sequence[str],
    epochs: int,
    replicas: Sequence[Replica],
    folds: Sequence[FoldIds],
    utterances: Sequence[Row],
    environment: Mapping[str, Any],
    synthetic: bool = False,
    best_possible: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, SupportsFloat]] | None = None,
    reads: Sequence[str] = (),
) -> dict[str, Any]:
    """The value of results.json, which `write_json(folder / RESULTS, ...)` writes last of all.

    `protocol` has at least `name`; the report also prints `select` ("validation" or "test"), `metric` (which
    selects the epoch) and `note`. `settings` are the swept scalars by setting name; the summary is that of
    the setting whose mean of that metric on validation is best: `summary.setting`, chosen by
    `summary.chosen_by`. `best_possible` is {"joint": {"wa": ..., "ua": ...}, ...} by what a model may use; `reads` are
    the arrays that it reads.
    """
    names = list(dict.fromkeys(replica["setting"] for replica in replicas))
    summaries = {name: summarise([r for r in replicas if r["setting"] == name]) for name in names}
    metric = str(protocol.get("metric", "ua"))
    chosen = max(names, key=lambda name: _rank(summaries[name], metric))
    value = {
        "model": model,
        "variant": variant,
        "dataset": dataset,
        "synthetic": synthetic,
        "protocol": protocol,
        "classes": classes,
        "epochs": epochs,
        "settings": settings or {},
        "summary": {"setting": chosen, "chosen_by": f"validation {metric}", **summaries[chosen]},
        "summaries": summaries if len(names) > 1 else {},
        "warnings": [
            *_protocol_warnings(protocol),
            *_too_good(summaries[chosen], folds, best_possible),
            *warnings(folds, utterances, replicas),
        ],
        "reads": reads,
        "best_possible": best_possible,
        "environment": environment,
        "replicas": replicas,
    }
    return plain(value)


def observer(reads: Sequence[str]) -> str:
    """Whose best possible accuracy a model that reads these arrays is held against; "" where none is known."""
    hears, has_words = bool({"audio", "segments"} & set(reads)), "words" in reads
    if "video" in reads or not (hears or has_words):
        return ""
    return "joint" if hears and has_words else "audio" if hears else "text"


def warnings(folds: Sequence[FoldIds], utterances: Iterable[Row], replicas: Sequence[Replica]) -> list[str]:
    """What a reader must know before the scores, a sentence each: leaks, absent classes, failed replicas."""
    rows = {row["id"]: row for row in utterances}
    return [*leak_warnings(folds, rows), *class_warnings(folds, rows), *replica_warnings(replicas)]


def environment(devices: Sequence[Any] = ()) -> dict[str, Any]:
    """Versions, platform and devices (`jax.devices()`); nothing that names the machine, a user or a folder."""
    kinds = Counter(str(device.device_kind) for device in devices)
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("jaxser", "jax", "jaxlib", "flax", "optax", "numpy")},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "devices": [{"kind": kind, "number": number} for kind, number in sorted(kinds.items())],
    }


def command_line(arguments: Sequence[str]) -> str:
    """A command that can be printed: of an absolute path, which may name a user, the last part is kept."""
    return shlex.join(re.sub(r"(^|[=:])~?/(?:.*/)?", r"\1", argument) for argument in arguments)


def plain(value: Any) -> Any:
    """The same value of what JSON knows: no numpy, no tuples, null for NaN and infinity."""
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


def _read_lines(path: Path, cut_short: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file; with `cut_short`, a last line without its line feed is left out."""
    if not path.is_file():
        raise InputError(f"{path} is missing: the run's folder is not whole; train again")
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines if cut_short or not rest else [*lines, rest], start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise InputError(
                f"{path}:{number} is damaged ({error}); train again into another folder"
            ) from None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _rank(summary: Mapping[str, Any], metric: str) -> tuple[int, float]:
    """Settings in order: one that lost replicas comes after one that lost fewer, then by the score on validation."""
    return -summary["left_out"], validation_score(summary, metric) or 0.0


def validation_score(summary: Mapping[str, Any], metric: str) -> float | None:
    """What selects epochs and settings, as it came out on validation; None where nothing was scored."""
    scores = [summary["validation"].get(name) for name in metric.split("_plus_")]
    return None if None in scores else sum(scores)


def _protocol_warnings(protocol: Mapping[str, Any]) -> list[str]:
    if protocol.get("select") == "test":
        return ["The epoch was selected on the test part, as published: these scores are optimistic."]
    return []


def _too_good(
    summary: Mapping[str, Any], folds: Sequence[FoldIds], best_possible: Mapping[str, Any] | None
) -> list[str]:
    """An alarm where the pooled WA is more than three standard errors above what is possible at all."""
    if not best_possible or "joint" not in best_possible or not summary["pooled"]:
        return []
    best, found = best_possible["joint"]["wa"], summary["pooled"]["wa"]
    tested = len({i for fold in folds for i in fold.test})
    if found <= best + 3 * math.sqrt(best * (1 - best) / tested):
        return []
    return [
        f"WA {100 * found:.1f} % is more than three standard errors above the best possible {100 * best:.1f} %: "
        "something leaks the labels."
    ]
