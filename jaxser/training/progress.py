"""Progress of a sweep: a live table on a terminal, or one line per epoch in a file."""

from __future__ import annotations

import time
from datetime import timedelta

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jaxser.cli import printable
from jaxser.evaluation import metrics
from jaxser.evaluation.targets import ANY_CLASSES, Target
from jaxser.training.replica import EpochResult

MAX_ROWS = 40
"""Largest number of replicas that the table lists. Of larger sweeps, only the summary line is shown."""


class EpochProgress:
    """Shows each epoch of a sweep; use it in a `with` block.

    The score is the target's headline, such as UA. The gap is how much better that of the training steps is,
    with dropout and augmentation, than that of the validation part.

    Args:
        names: the names of the replicas.
        epochs: the number of epochs to train.
        console: where to print; by default standard output.
        target: what is predicted.
        enabled: whether to print at all.
    """

    def __init__(
        self,
        names: list[str],
        epochs: int,
        console: Console | None = None,
        *,
        target: Target = ANY_CLASSES,
        enabled: bool = True,
    ):
        self._console = console or Console(quiet=not enabled)
        self._names, self._epochs, self._target = names, epochs, target
        self._metric = metrics.describe(target.headline)
        self._better_of = np.fmin if self._metric.lower_is_better else np.fmax
        self._started, self._trained = time.monotonic(), 0
        self._best = np.full(len(names), np.nan)
        is_live = self._console.is_terminal and enabled
        self._live = Live(console=self._console, auto_refresh=False) if is_live else None

    def __enter__(self) -> EpochProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()

    def restore_best(self, index: int, score: float) -> None:
        """Take into account a score that a replica reached before the run was interrupted."""
        self._best[index] = self._better_of(self._best[index], score)

    def show(self, epoch: int, result: EpochResult, running: int, waiting: int = 0) -> None:
        """Show an epoch.

        Args:
            epoch: the number of finished epochs.
            result: the stacked results of all replicas; NaN for those that did not train.
            running: the number of replicas that continue.
            waiting: the number of replicas that have not started.
        """
        self._trained += int(np.isfinite(result.learning_rate).sum())
        left = running * (self._epochs - epoch) + waiting * self._epochs
        train_loss, validation_loss = np.asarray(result.train_loss), np.asarray(result.validation_loss)
        score = self._scores(result.statistics)
        gap = self._metric.gain(self._scores(result.train_statistics)) - self._metric.gain(score)
        self._best = self._better_of(self._best, score)
        line = (
            f"epoch {epoch}/{self._epochs}  loss {_median(train_loss, '.3f')}  "
            f"validation loss {_median(validation_loss, '.3f')}  {self._metric.title} {self._spread(score)}  "
            f"gap {self._median_gap(gap)}  best {self._spread(self._best)}  "
            f"{running} running  {f'{waiting} waiting  ' if waiting else ''}{self._time_for(left)} left"
        )
        if self._live:
            self._live.update(self._table(line, train_loss, validation_loss, score, gap), refresh=True)
        else:
            self._console.print(line, highlight=False, soft_wrap=True)

    def _time_for(self, replica_epochs: int) -> timedelta:
        each = (time.monotonic() - self._started) / max(self._trained, 1)
        return timedelta(seconds=round(each * replica_epochs))

    def _scores(self, statistics) -> np.ndarray:
        return np.array([self._target.scores(own)[self._target.headline] for own in statistics])

    def _median_gap(self, gap: np.ndarray) -> str:
        finite = gap[np.isfinite(gap)]
        return self._metric.show(float(np.median(finite)), "+") if len(finite) else "-"

    def _spread(self, scores: np.ndarray) -> str:
        finite = scores[np.isfinite(scores)]
        if not len(finite):
            return "-"
        middle, low, high = map(self._metric.show, (float(np.median(finite)), finite.min(), finite.max()))
        return f"{middle}{self._metric.unit} ({low} to {high})"

    def _table(self, line, train_loss, validation_loss, score, gap) -> Table:
        name = f"{self._metric.title}{self._metric.unit}"
        columns = ("replica", "loss", "validation loss", name, "gap", f"best {name}")
        table = Table(*columns, caption=line, caption_justify="left", box=None, pad_edge=False)
        if len(self._names) <= MAX_ROWS:
            for row in zip(self._names, train_loss, validation_loss, score, gap, self._best, strict=True):
                name, loss, held_out, *scores = row
                cells = (f"{loss:.3f}", f"{held_out:.3f}", *map(self._metric.show, scores))
                table.add_row(Text(printable(name)), *cells)
        return table


def _median(values: np.ndarray, form: str) -> str:
    finite = values[np.isfinite(values)]
    return format(np.median(finite), form) if len(finite) else "-"
