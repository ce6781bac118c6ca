"""Training curves as event files of TensorBoard."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxser import files
from jaxser.evaluation.records import EpochRecord
from jaxser.evaluation.run_folder import Run
from jaxser.types import UsageError

EVENTS = "events.out.tfevents.0000000000.jaxser"
"""The name of an event file. TensorBoard finds it by "tfevents"; tensorboardX would add the name of the machine."""


FOLDER = "tensorboard"


def write(run: Run, root: Path) -> Path:
    """Write `tensorboard/` below the root, with one folder per replica.

    It has the replica's loss, learning rate and validation scores. Steps are epochs, counted from 1; wall times are the
    seconds of training so far. Event files of an earlier call are replaced.

    Raises:
        UsageError: if tensorboardX is not installed.
    """
    replicas: dict[tuple[str, int, str], list[EpochRecord]] = defaultdict(list)
    for record in run.epochs:
        replicas[record.replica].append(record)
    for (fold, seed, setting), records in replicas.items():
        name = "_".join(filter(None, (f"fold-{fold}", f"seed-{seed}", setting)))
        name = re.sub(r"[^\w.=-]+", "_", name)
        _write_replica(files.make_folder(root, f"{FOLDER}/{name}"), records)
    return root / FOLDER


def _write_replica(folder: Path, records: Sequence[EpochRecord]) -> None:
    writer = _writer(folder)
    seconds = 0.0
    for record in records:
        seconds += record.seconds or 0.0
        scalars = {
            "train_loss": record.train_loss,
            "learning_rate": record.learning_rate,
            "validation/loss": record.validation_loss,
            **{f"validation/{name}": value for name, value in record.validation.items()},
        }
        for name, value in scalars.items():
            if value is not None:
                writer.add_scalar(name, value, record.epoch + 1, walltime=seconds)
    writer.close()
    for file in folder.glob("events.out.tfevents.*"):
        file.rename(folder / EVENTS)


def _writer(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs tensorboardX, which is not installed: pip install 'jaxser[tensorboard]'"
        ) from None
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    return SummaryWriter(str(folder), write_to_disk=True)
