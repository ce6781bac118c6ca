"""Ways to damage a file, for tests of what reads it."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

OTHER_VALUES: tuple[Any, ...] = (None, "x", -1, 1.5, True, [], [None], {}, {"x": 1}, 10**30)
"""Values of all types of JSON."""


def damages(path: Path, flips: int, seed: int = 0) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the name of each kind of damage, and a function that damages the file that way."""
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    for position in np.unique(rng.integers(0, max(len(whole), 1), flips)).tolist():
        flipped = bytearray(whole)
        flipped[position : position + 1] = [flipped[position] ^ (1 << int(rng.integers(8)))] if whole else b""
        yield f"byte {position}", lambda flipped=bytes(flipped): path.write_bytes(flipped)
    for length in {0, len(whole) // 3, len(whole) - 1}:
        yield f"cut to {length}", lambda length=length: path.write_bytes(whole[:length])
    yield "doubled", lambda: path.write_bytes(whole * 2)
    yield "removed", path.unlink
    yield "a folder", lambda: [path.unlink(), path.mkdir()]
    yield "a pipe", lambda: [path.unlink(), os.mkfifo(path)]
    yield "a link to nothing", lambda: [path.unlink(), path.symlink_to("nothing")]
    yield "endless", lambda: [path.unlink(), path.symlink_to("/dev/zero")]


def other_values(path: Path, number: int, seed: int = 0) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield changes of single values of a JSON file, or of the first line of a JSON lines file, to other types."""
    first, *rest = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    value = json.loads(first)
    places = list(_places(value))
    rng = np.random.default_rng(seed)
    if len(places) > number:
        places = [places[n] for n in sorted(rng.choice(len(places), number, replace=False))]
    for place in places:
        for other in (*OTHER_VALUES, _MISSING):
            changed = copy.deepcopy(value)
            inside = changed
            for key in place[:-1]:
                inside = inside[key]
            if other is _MISSING:
                del inside[place[-1]]
            else:
                inside[place[-1]] = other
            text = "\n".join([json.dumps(changed), *rest])
            named = "missing" if other is _MISSING else repr(other)
            yield f"{'.'.join(map(str, place))} {named}", lambda text=text: path.write_text(text)


_MISSING = object()


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values within a JSON value; of a long list, to those in its first elements."""
    if place:
        yield place
    items = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    )
    for key, one in items:
        yield from _places(one, (*place, key))


def restored(path: Path, whole: bytes) -> None:
    """Put a file back after it was damaged."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()
    path.write_bytes(whole)
