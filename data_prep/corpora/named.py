"""Corpora whose file names contain all annotations: a pattern and maps instead of code.

`records.py` has the corpora themselves; each is a `NamedCorpus`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jaxser.types import InputError, Reading, Rejection, Utterance

from .parsing import find_audio, printable

_GENDERS = {"f": "F", "m": "M"}


@dataclass(frozen=True)
class NamedCorpus:
    """A corpus whose recordings are annotated by their names alone.

    Attributes:
        title: the name of the corpus, for messages.
        example: the path of a recording, for messages.
        pattern: a regular expression that a recording's path must end with, from the beginning of a folder's or file's
            name and without the suffix. Its groups are `speaker` and `label`, and optionally `id`, `gender` (a text
            that begins with f or m), `sentence`, and the keys of `attributes`.
        labels: the emotion by the text of the group `label`.
        expected: the number of utterances per emotion in the release.
        genders: F or M by speaker, if the names do not tell.
        transcripts: the text by the group `sentence`, or a function of a recording's path and its groups.
        attributes: numbers by the text of a group, such as {"intensity": {"LO": 1.0}}. A text that is not a key has no
            number.
    """

    title: str
    example: str
    pattern: str
    labels: Mapping[str, str]
    expected: Mapping[str, int]
    genders: Mapping[str, str] = field(default_factory=dict)
    transcripts: Mapping[str, str] | Callable[[Path, Mapping[str, str]], str] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def read(self, root: Path) -> Reading:
        """Read a release.

        An utterance's id is the group `id`, or else all that the pattern describes, with `_` for `/`.

        Raises:
            InputError: if `root` holds no recordings of the corpus.
        """
        root = Path(root)
        utterances, rejected = [], []
        for path in find_audio(root):
            where = path.relative_to(root).as_posix()
            try:
                utterances.append(self._utterance(path, where))
            except ValueError as error:
                rejected.append(Rejection(printable(path.stem), printable(where), str(error)))
        if not utterances:
            raise InputError(f"{root}: no recordings of {self.title} found ({self.example}, ...)")
        return Reading(tuple(utterances), tuple(rejected), self.expected)

    @cached_property
    def _path(self) -> re.Pattern[str]:
        return re.compile(rf"(?:.*/)?(?P<name>{self.pattern})", re.ASCII | re.DOTALL)

    def _utterance(self, path: Path, where: str) -> Utterance:
        match = self._path.fullmatch(where[: len(where) - len(path.suffix)])
        if match is None:
            raise ValueError(f"the file name is not one of {self.title}, such as {self.example}")
        parts = {name: text or "" for name, text in match.groupdict().items()}
        if parts["label"] not in self.labels:
            raise ValueError(
                f"{parts['label']!r} is not an emotion of {self.title}: {', '.join(self.labels)}"
            )
        speaker = parts["speaker"]
        texts = self.transcripts
        return Utterance(
            id=parts.get("id") or parts["name"].replace("/", "_"),
            wav=where,
            label=self.labels[parts["label"]],
            transcript=texts(path, parts) if callable(texts) else texts.get(parts.get("sentence", ""), ""),
            speaker=speaker,
            gender=self.genders.get(speaker) or _GENDERS.get(parts.get("gender", "")[:1].lower(), ""),
            attributes={
                name: values[parts[name]] for name, values in self.attributes.items() if parts[name] in values
            },
        )
