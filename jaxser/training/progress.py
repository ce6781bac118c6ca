"""Progress on the terminal: live where there is one, a line an epoch where the output goes into a file."""

from __future__ import annotations

import time
from datetime import timedelta

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from jaxser.evaluation import metrics
from jaxser.training.replica import EpochResult

LINES = 40
"""Replicas that a live table shows; of more, the spread is shown alone."""


class EpochProgress:
    """Shows the epochs of a sweep as they end; used in a `with` block."""

    def __init__(self, names: list[str], epochs: int, console: Console | None = None, *, speaks: bool = True):
        self._console = console or Console(quiet=not speaks)
        self._names, self._epochs = names, epochs
        self._started, self._trained = time.monotonic(), 0
        self._best = np.full(len(names), np.nan)
        self._live = (
            Live(console=self._console, auto_refresh=False) if self._console.is_terminal and speaks else None
        )

    def __enter__(self) -> EpochProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()

    def seen(self, place: int, ua: float) -> None:
        """What the replica at a place reached before an interruption."""
        self._best[place] = np.fmax(self._best[place], ua)

    def show(self, epoch: int, told: EpochResult, running: int, waiting: int = 0) -> None:
        """`epoch` is the number of finished epochs; `told` what it told of all replicas, NaN for those at rest.

        `running` of them go on, and `waiting` have not begun.
        """
        self._trained += int(np.isfinite(told.learning_rate).sum())
        left = running * (self._epochs - epoch) + waiting * self._epochs
        train_loss, validation_loss = np.asarray(told.train_loss), np.asarray(told.validation_loss)
        ua = np.array([metrics.scores(confusion)["ua"] for confusion in told.confusion])
        self._best = np.fmax(self._best, ua)
        line = (
            f"epoch {epoch}/{self._epochs}  loss {_median(train_loss, '.3f')}  "
            f"validation loss {_median(validation_loss, '.3f')}  UA {_spread(ua)}  best {_spread(self._best)}  "
            f"{running} running  {f'{waiting} waiting  ' if waiting else ''}{self._time_of(left)} left"
        )
        if self._live:
            self._live.update(self._table(line, train_loss, validation_loss, ua), refresh=True)
        else:
            self._console.print(line, highlight=False, soft_wrap=True)

    def _time_of(self, replica_epochs: int) -> timedelta:
        each = (time.monotonic() - self._started) / max(self._trained, 1)
        return timedelta(seconds=round(each * replica_epochs))

    def _table(self, line, train_loss, validation_loss, ua) -> Table:
        columns = ("replica", "loss", "validation loss", "UA %", "best UA %")
        table = Table(*columns, caption=line, caption_justify="left", box=None, pad_edge=False)
        if len(self._names) <= LINES:
            for name, *values in zip(self._names, train_loss, validation_loss, ua, self._best, strict=True):
                loss, held, now, best = values
                table.add_row(name, f"{loss:.3f}", f"{held:.3f}", f"{100 * now:.1f}", f"{100 * best:.1f}")
        return table


def _median(values: np.ndarray, form: str) -> str:
    finite = values[np.isfinite(values)]
    return format(np.median(finite), form) if len(finite) else "-"


def _spread(values: np.ndarray) -> str:
    finite = 100 * values[np.isfinite(values)]
    if not len(finite):
        return "-"
    return f"{np.median(finite):.1f} % ({finite.min():.1f} to {finite.max():.1f})"
