"""Paths in the rows of a table that are completed until they lead to recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from .tables import Row

SUFFIXES = frozenset(
    (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".aac", ".aiff", ".webm", ".mkv")
)
"""Usual suffixes of recordings, by which they and the rows of a table are recognised."""

FOLDERS_OF_AUDIO = ("wavs", "wav", "audio", "Audio", "Audios", "clips")
_ROWS_LOOKED_AT = 50
_MAX_LEVELS = 4


def complete_paths(root: Path, rows: Sequence[tuple[str, Row]]) -> tuple[list[tuple[str, Row]], str]:
    """Complete the paths, if as they are none of the first ones exists.

    EmoBox's paths begin with folders of its authors, LJSpeech's are names without a folder and a suffix, and copies of
    a corpus may be compressed. The same rule, by which most of the first paths exist, is used for all rows.

    Args:
        root: the folder of the corpus.
        rows: the place of each row, and the row.

    Returns:
        The rows, and how their paths were completed, "" if they were not.
    """
    paths = [row.cells["path"] for _, row in rows if row.cells.get("path")][:_ROWS_LOOKED_AT]
    if not paths or any(_exists(root, path) for path in paths):
        return list(rows), ""
    levels = range(min(_MAX_LEVELS, max(path.count("/") for path in paths)) + 1)
    rules = [(level, "", "") for level in levels[1:]]
    rules += [
        (level, folder, suffix)
        for level in levels
        for folder in ("", *(f"{name}/" for name in FOLDERS_OF_AUDIO))
        for suffix in ("", ".wav", ".flac", ".mp3")
    ]
    best = max(rules, key=lambda rule: sum(_exists(root, _complete(path, *rule)) for path in paths))
    if not any(_exists(root, _complete(path, *best)) for path in paths):
        return list(rows), ""
    level, folder, suffix = best
    described = (
        (f", without its first {level} folder{'s' * (level > 1)}" if level else "")
        + (f", in {folder}" if folder else "")
        + (f", with {suffix}" if suffix else "")
    )
    completed = [
        (where, replace(row, cells={**row.cells, "path": _complete(row.cells["path"], *best)}))
        if row.cells.get("path")
        else (where, row)
        for where, row in rows
    ]
    return completed, described


def _complete(path: str, level: int, folder: str, suffix: str) -> str:
    parts = path.replace("\\", "/").split("/")
    name = "/".join(parts[level:] or parts[-1:])
    own = PurePath(name).suffix
    if suffix and own.lower() in SUFFIXES:
        name = name.removesuffix(own)
    return folder + name + suffix


def _exists(root: Path, path: str) -> bool:
    try:
        return (root / path.replace("\\", "/")).is_file()
    except (OSError, ValueError):  # such as a name that is too long
        return False
