"""Run folders with made-up numbers, made without training, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxser.data.leaks import FoldIds
from jaxser.evaluation import metrics, run_folder
from jaxser.evaluation.environment import environment
from jaxser.evaluation.records import EpochRecord, RunConfig
from jaxser.evaluation.results import ReplicaResult, RunResults
from jaxser.evaluation.scores import Scores
from jaxser.evaluation.summary import with_summaries
from jaxser.types import Status, Utterance

CLASSES = ("ang", "exc", "fru", "hap", "neu", "sad", "sur")
SHARES = (0.15, 0.14, 0.25, 0.08, 0.22, 0.13, 0.03)
BEST = {
    "prior": {"wa": 0.25, "ua": 1 / 7},
    "text": {"wa": 0.71, "ua": 0.62},
    "audio": {"wa": 0.55, "ua": 0.51},
    "late_fusion": {"wa": 0.80, "ua": 0.74},
    "joint": {"wa": 0.80, "ua": 0.74},
}


def make_utterances(number: int = 350, sessions: int = 5, seed: int = 0) -> list[Utterance]:
    """Make utterances with two speakers per session, and every class in every session."""
    rng = np.random.default_rng(seed)
    labels = np.resize(np.repeat(np.arange(len(CLASSES)), 2), number)
    labels[sessions * 14 :] = rng.choice(len(CLASSES), max(0, number - sessions * 14), p=SHARES)
    made = []
    for row in range(number):
        session, gender = row // 14 % sessions + 1, "FM"[row % 2]
        made.append(
            Utterance(
                id=f"Ses{session:02}{gender}_impro01_{gender}{row:03}",
                wav=f"{row}.wav",
                label=CLASSES[labels[row]],
                transcript=f"this is sentence number {row} of the corpus",
                speaker=f"Ses{session:02}{gender}",
                gender=gender,
                session=str(session),
                dialogue=f"Ses{session:02}{gender}_impro01",
                flags=("no_alignment",) if row % 50 == 7 else (),
                sha256=f"{row:064x}",
                duration=2.5,
            )
        )
    return made


def session_folds(utterances: Sequence[Utterance]) -> list[FoldIds]:
    sessions = sorted({utterance.session for utterance in utterances})
    folds = []
    for index, test in enumerate(sessions):
        validation = sessions[(index + 1) % len(sessions)]
        parts = [[s for s in sessions if s not in (test, validation)], [validation], [test]]
        folds.append(FoldIds(test, *(tuple(u.id for u in utterances if u.session in part) for part in parts)))
    return folds


def write_fake_run(
    folder: Path,
    *,
    utterances: Sequence[Utterance] | None = None,
    folds: Sequence[FoldIds] | None = None,
    seeds: int = 2,
    epochs: int = 12,
    not_finite: Sequence[tuple[str, int]] = (),
    quality: float = 2.4,
    draw: int = 1,
    **changes: Any,
) -> dict[str, Any]:
    """Write the folder of a finished run, and return the contents of its results.json.

    Args:
        folder: the folder of the run; created if it is missing.
        utterances: as of `make_utterances`.
        folds: as of `session_folds`.
        seeds: the number of seeds.
        epochs: the number of epochs in the learning curves.
        not_finite: fold and seed of the replicas without a score.
        quality: how far apart the scores hold the classes.
        draw: the seed of the random numbers.
        **changes: fields of `RunResults` with other values.
    """
    utterances = make_utterances() if utterances is None else utterances
    folds = session_folds(utterances) if folds is None else folds
    classes = changes.get("classes", CLASSES)
    label = {u.id: classes.index(u.label) for u in utterances}
    rng = np.random.default_rng(draw)
    replicas, parts = [], []
    for fold in folds:
        for seed in range(seeds):
            lost = (fold.name, seed) in not_finite
            run_folder.append_epochs(_made(folder), _curve(fold.name, seed, 1 if lost else epochs, rng, lost))
            predictions = [
                _predict(fold, seed, split, label, classes, rng, quality) for split in ("validation", "test")
            ]
            parts += [] if lost else predictions
            replicas.append(_replica(fold.name, seed, predictions, classes, epochs, lost))
    protocol = {
        "name": "session",
        "folds": 0,
        "split_seed": 0,
        "select": "validation",
        "metric": "ua",
        "note": "",
    }
    config = {
        "paper": "sun2021_mcsan",
        "dataset": changes.get("dataset", "demo"),
        "variant": changes.get("variant", "mcsan"),
        "subset": "all",
        "model": {"name": "mcsan", "modalities": ["audio", "text"]},
        "hyper": {"learning_rate": 0.002},
    }
    run_folder.write_config(
        folder, RunConfig(config, "00000000", "python -m jaxser.main --config=configs/mcsan.py")
    )
    run_folder.write_folds(folder, protocol, 0, folds)
    run_folder.write_utterances(folder, utterances)
    run_folder.write_predictions(folder, parts)
    results = RunResults(
        model="mcsan",
        variant="mcsan",
        dataset="demo",
        protocol=protocol,
        classes=classes,
        epochs=epochs,
        replicas=tuple(replicas),
        synthetic=True,
        reads=("audio", "words"),
        best_possible=BEST,
        environment=environment(),
    )
    results = with_summaries(replace(results, **changes), folds, utterances)
    run_folder.write_results(folder, results)
    return results.to_json()


def with_fields(utterances: Sequence[Utterance], row: int, **fields: Any) -> list[Utterance]:
    """The same utterances, with fields of the one in a row changed."""
    return [replace(u, **fields) if n == row else u for n, u in enumerate(utterances)]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _curve(fold: str, seed: int, epochs: int, rng: np.random.Generator, lost: bool) -> list[EpochRecord]:
    records = []
    for epoch in range(epochs):
        ua = 0.15 + 0.5 * (1 - np.exp(-epoch / 3)) + 0.02 * rng.standard_normal()
        records.append(
            EpochRecord(
                epoch=epoch,
                fold=fold,
                seed=seed,
                setting="",
                train_loss=float("nan") if lost else 1.9 * np.exp(-epoch / 5) + 0.05 * rng.random(),
                validation_loss=1.9 - ua,
                validation={"wa": ua + 0.03, "ua": ua, "f1_weighted": ua + 0.02},
                learning_rate=0.002,
                status="not finite" if lost else "complete",
                seconds=1.5,
                valid_frame_fraction=0.93,
            )
        )
    return records


def _predict(
    fold: FoldIds,
    seed: int,
    split: str,
    label: Mapping[str, int],
    classes: Sequence[str],
    rng: np.random.Generator,
    quality: float,
) -> run_folder.Predictions:
    ids = np.array(getattr(fold, split))
    true = np.array([label[i] for i in ids], dtype=int)
    scores = rng.normal(0, 1, (len(ids), len(classes))) + quality * np.eye(len(classes))[true]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return run_folder.Predictions(
        classes=tuple(classes),
        utterance=ids,
        fold=np.full(len(ids), fold.name),
        seed=np.full(len(ids), seed),
        setting=np.full(len(ids), ""),
        split=np.full(len(ids), split),
        true=true,
        predicted=probabilities.argmax(axis=1),
        probabilities=probabilities,
    )


def _replica(
    fold: str,
    seed: int,
    predictions: Sequence[run_folder.Predictions],
    classes: Sequence[str],
    epochs: int,
    lost: bool,
) -> ReplicaResult:
    validation, test = (
        Scores.of(metrics.confusion(p.true, p.predicted, np.ones(len(p.true)), len(classes)), classes)
        for p in predictions
    )
    return ReplicaResult(
        fold=fold,
        seed=seed,
        status=(Status.NOT_FINITE if lost else Status.RUNNING).final_label,
        best_epoch=None if lost else max(epochs - 1 - seed, 0),
        validation=None if lost else validation,
        test=None if lost else test,
    )
