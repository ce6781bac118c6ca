"""Columns of a user's own table: their usual names, and `--columns`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxser.types import InputError, UsageError

REQUIRED = ("path", "label")
ATTRIBUTES = ("valence", "arousal", "activation", "dominance")
"""The columns of numbers, of which one makes a label unnecessary."""

VOTES = "votes"
"""The column of raters' votes, which makes a label unnecessary too."""

COLUMNS = (
    *REQUIRED,
    *ATTRIBUTES,
    VOTES,
    "id",
    "text",
    "speaker",
    "gender",
    "session",
    "dialogue",
    "split",
    "start",
    "end",
    "alignment",
)
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "test1"), "test"),
    **dict.fromkeys(("", "test2", "test3"), ""),  # further test sets, such as MSP-Podcast's, are in no part
}
"""The part of an utterance by its cell in lower case."""

OTHER_NAMES = {
    "path": ("file_name", "filename", "file", "wav", "audio_file", "audio_filepath"),
    "label": ("emotion", "emo", "emoclass"),
    "id": ("key", "utt_id", "utterance_id"),
    "text": ("transcription", "transcript", "raw_text"),
    "speaker": ("speaker_id", "spk", "spkrid", "client_id"),
    "gender": ("sex",),
    "split": ("split_set",),
    "valence": ("emoval",),
    "activation": ("emoact",),
    "dominance": ("emodom",),
}
"""Usual names of a column in other layouts, in lower case. They count if no column has the name that is used here."""


@dataclass(frozen=True)
class Columns:
    """How the columns of a table are named.

    Attributes:
        given: the name in the table by column, as in `--columns`.
        required: the columns that a table must have.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    required: Sequence[str] = REQUIRED

    @property
    def are_numbers(self) -> bool:
        """Whether columns are given by their numbers, so that the table has no header."""
        return bool(self.given) and all(name.isdecimal() for name in self.given.values())

    @property
    def known(self) -> set[str]:
        """The names in lower case by which the header, and hence the separator, is recognised."""
        others = (name for column in self.required for name in OTHER_NAMES.get(column, ()))
        return {*self.required, *others, *(name.lower() for name in self.given.values())}

    def resolve(self, table: Path, header: Sequence[str]) -> dict[str, str]:
        """Return the column of `COLUMNS` by its name in the table, in lower case.

        Raises:
            InputError: if a column is missing or ambiguous.
        """
        names = [name.lower() for name in header]
        if repeated := sorted({name for name in names if name and names.count(name) > 1}):
            raise InputError(f"{table}: two columns are called {', '.join(repeated)}")
        if absent := [name for name in self.given.values() if name.lower() not in names]:
            raise InputError(
                f"{table}: no column {' and no column '.join(absent)} (--columns); found {_shown(names)}"
            )
        found = {name.lower(): column for column, name in self.given.items()}
        for column in COLUMNS:
            if column in self.given:
                continue
            candidates = [name for name in (column, *OTHER_NAMES.get(column, ())) if name in names]
            candidates = [name for name in candidates if name not in found]
            if column in candidates:
                candidates = [column]
            if len(candidates) > 1:
                raise InputError(
                    f"{table}: {' and '.join(candidates)} may both be the {column}; choose one by "
                    f"--columns={column}={candidates[0]}"
                )
            found |= dict.fromkeys(candidates, column)
        resolved = set(found.values())
        unnecessary = {"label"} if resolved & {*ATTRIBUTES, VOTES} else set()
        if missing := [column for column in self.required if column not in resolved | unnecessary]:
            raise InputError(
                f"{table}: no column {' and no column '.join(missing)}; found {_shown(names)}; "
                f"known columns are {', '.join(COLUMNS)}; name others by --columns={missing[0]}=NAME"
            )
        return found


def read_columns(value: str) -> dict[str, str]:
    """Read the value of `--columns`: `path=FileName,label=EmoClass`.

    Raises:
        UsageError: if it is malformed, or names a column that is not one of `COLUMNS`.
    """
    given: dict[str, str] = {}
    for entry in value.split(","):
        column, _, name = (part.strip() for part in entry.partition("="))
        if column not in COLUMNS:
            raise UsageError(f"--columns={value}: {column or entry!r} must be one of {', '.join(COLUMNS)}")
        if not name or column in given or name.lower() in (other.lower() for other in given.values()):
            raise UsageError(
                f"--columns={value}: write each column once, with its name in the table: {column}=NAME"
            )
        given[column] = name
    if len({name.isdecimal() for name in given.values()}) > 1:
        raise UsageError(f"--columns={value}: give either names or, for a table without a header, numbers")
    return given


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names)[:200] or "none"
