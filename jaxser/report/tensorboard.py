"""Training curves as TensorBoard's event files, written without TensorBoard.

An event file is TFRecord framing around `Event` messages (tensorflow/core/util/event.proto), of which a scalar
needs four fields; they are encoded here by hand, since no installed package brings the message.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxser.data.shards import frame
from jaxser.evaluation.run_folder import Run

SCALARS = ("train_loss", "learning_rate")


def write(run: Run, folder: Path) -> Path:
    """A folder with an event file for every replica; steps are epochs from 1, times are seconds of training."""
    replicas: dict[tuple[str, int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for line in run.epochs:
        replicas[line["fold"], line["seed"], line["setting"]].append(line)
    for (fold, seed, setting), lines in replicas.items():
        name = "_".join(filter(None, (f"fold-{fold}", f"seed-{seed}", setting)))
        there = folder / re.sub(r"[^\w.=-]+", "_", name)
        there.mkdir(parents=True, exist_ok=True)
        events = b"".join(map(frame, _events(lines)))
        (there / "events.out.tfevents.0000000000.jaxser").write_bytes(events)
    return folder


def _events(lines: list[Mapping[str, Any]]) -> Iterator[bytes]:
    """`Event`: wall_time (1, double), step (2, int64), file_version (3, string), summary (5)."""
    yield _double(1, 0.0) + _bytes(3, b"brain.Event:2")
    seconds = 0.0
    for line in lines:
        seconds += line["seconds"] or 0.0
        scalars = {name: line.get(name) for name in SCALARS}
        scalars |= {f"validation/{name}": value for name, value in (line["validation"] or {}).items()}
        values = b"".join(_bytes(1, _value(name, v)) for name, v in scalars.items() if v is not None)
        yield _double(1, seconds) + _number(2, line["epoch"] + 1) + _bytes(5, values)


def _value(tag: str, value: float) -> bytes:
    """`Summary.Value`: tag (1, string), simple_value (2, float)."""
    return _bytes(1, tag.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", value)


def _double(field: int, value: float) -> bytes:
    return bytes([field << 3 | 1]) + struct.pack("<d", value)


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low]) if not rest else bytes([low | 0x80]) + _varint(rest)
