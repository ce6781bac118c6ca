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
from jaxser.training.replica import EpochResult

MAX_ROWS = 40
"""Largest number of replicas that the table lists. Of larger sweeps, only the summary line is shown."""


class EpochProgress:
    """Shows each epoch of a sweep; use it in a `with` block.

    The gap is UA of the training steps, with dropout and augmentation, minus validation UA, in points.

    Args:
        names: the names of the replicas.
        epochs: the number of epochs to train.
        console: where to print; by default standard output.
        enabled: whether to print at all.
    """

    def __init__(
        self, names: list[str], epochs: int, console: Console | None = None, *, enabled: bool = True
    ):
        self._console = console or Console(quiet=not enabled)
        self._names, self._epochs = names, epochs
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

    def restore_best(self, index: int, ua: float) -> None:
        """Take into account a score that a replica reached before the run was interrupted."""
        self._best[index] = np.fmax(self._best[index], ua)

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
        ua = np.array([metrics.scores(confusion)["ua"] for confusion in result.confusion])
        gap = np.array([metrics.scores(confusion)["ua"] for confusion in result.train_confusion]) - ua
        self._best = np.fmax(self._best, ua)
        line = (
            f"epoch {epoch}/{self._epochs}  loss {_median(train_loss, '.3f')}  "
            f"validation loss {_median(validation_loss, '.3f')}  UA {_spread(ua)}  "
            f"gap {_median(100 * gap, '+.1f')}  best {_spread(self._best)}  "
            f"{running} running  {f'{waiting} waiting  ' if waiting else ''}{self._time_for(left)} left"
        )
        if self._live:
            self._live.update(self._table(line, train_loss, validation_loss, ua, gap), refresh=True)
        else:
            self._console.print(line, highlight=False, soft_wrap=True)

    def _time_for(self, replica_epochs: int) -> timedelta:
        each = (time.monotonic() - self._started) / max(self._trained, 1)
        return timedelta(seconds=round(each * replica_epochs))

    def _table(self, line, train_loss, validation_loss, ua, gap) -> Table:
        columns = ("replica", "loss", "validation loss", "UA %", "gap", "best UA %")
        table = Table(*columns, caption=line, caption_justify="left", box=None, pad_edge=False)
        if len(self._names) <= MAX_ROWS:
            for row in zip(self._names, train_loss, validation_loss, ua, gap, self._best, strict=True):
                name, loss, held_out, *scores = row
                cells = (f"{loss:.3f}", f"{held_out:.3f}", *(f"{100 * score:.1f}" for score in scores))
                table.add_row(Text(printable(name)), *cells)
        return table


def _median(values: np.ndarray, form: str) -> str:
    finite = values[np.isfinite(values)]
    return format(np.median(finite), form) if len(finite) else "-"


def _spread(values: np.ndarray) -> str:
    finite = 100 * values[np.isfinite(values)]
    if not len(finite):
        return "-"
    return f"{np.median(finite):.1f} % ({finite.min():.1f} to {finite.max():.1f})"
