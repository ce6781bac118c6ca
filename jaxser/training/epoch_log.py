"""The log of a sweep's epochs: metrics.jsonl, with one line per epoch and replica."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from jaxser.data.batch_schedule import BatchSchedule
from jaxser.evaluation import run_folder
from jaxser.evaluation.records import EpochRecord
from jaxser.evaluation.results import setting_name
from jaxser.training.multihost import is_primary
from jaxser.training.replica import EpochResult
from jaxser.training.sweep import Sweep
from jaxser.training.waves import Wave
from jaxser.types import Status


class Epoch(NamedTuple):
    """A finished epoch of a wave.

    Attributes:
        wave: the number of the wave.
        number: the number of the epoch, from 0.
        indices: the replicas' indices in the grid, one for each of the first rows.
        result: the stacked results of all rows, on the host.
        status: the status of all rows after the epoch.
        schedules: the training schedule of each row.
        seconds: the time it took.
    """

    wave: int
    number: int
    indices: Sequence[int]
    result: EpochResult
    status: Int[np.ndarray, " rows"]
    schedules: Sequence[BatchSchedule]
    seconds: float


class EpochLog:
    """Writes the log of a sweep in a run folder. Only the primary process writes."""

    def __init__(self, sweep: Sweep, folder: Path):
        self._sweep, self._folder = sweep, folder
        self._keys = [
            (sweep.folds[replica.fold].name, replica.seed, setting_name(replica.setting))
            for replica in sweep.replicas
        ]

    def append(self, epoch: Epoch) -> None:
        """Add a line for each replica that trained."""
        if is_primary():
            run_folder.append_epochs(self._folder, self._records(epoch))

    def truncate(self, waves: Iterable[Wave]) -> None:
        """Remove the lines of epochs that the waves are going to train, after an interruption."""
        if not is_primary():
            return
        finished = {self._keys[index]: wave.epoch for wave in waves for index in wave.indices}
        run_folder.truncate_epochs(
            self._folder, lambda record: record.epoch < finished.get(record.replica, np.inf)
        )

    def validation_scores(self) -> list[tuple[int, float]]:
        """Return the index of the replica and the validation score of every line that has one.

        It is the headline score, such as UA.
        """
        index_of = {key: index for index, key in enumerate(self._keys)}
        scores = []
        for record in run_folder.read_epochs(self._folder):
            score = record.validation.get(self._sweep.trainer.target.headline)
            if record.replica in index_of and score is not None:
                scores.append((index_of[record.replica], score))
        return scores

    def _records(self, epoch: Epoch) -> list[EpochRecord]:
        buckets, target, records = self._sweep.buckets, self._sweep.trainer.target, []
        for row, index in enumerate(epoch.indices):
            result = jax.tree.map(lambda x, row=row: x[row], epoch.result)
            if not np.isfinite(result.learning_rate):
                continue  # the replica had stopped before
            fold, seed, setting = self._keys[index]
            scores, trained = map(target.scores, (result.statistics, result.train_statistics))
            valid = buckets.valid_frame_fraction(epoch.schedules[row], buckets.main)
            record = EpochRecord(
                epoch=epoch.number,
                fold=fold,
                seed=seed,
                setting=setting,
                train_loss=float(result.train_loss),
                validation_loss=float(result.validation_loss),
                validation={name: float(scores[name]) for name in target.compared},
                learning_rate=float(result.learning_rate),
                status=Status(epoch.status[row]).label,
                wave=epoch.wave,
                seconds=round(epoch.seconds, 3),
                valid_frame_fraction=round(valid, 4),
                headline=target.headline,
                train_score=float(trained[target.headline]),
            )
            records.append(record)
        return records
