"""ESD (Zhou et al. 2022): Mandarin and English, 20 speakers, five emotions.

Recordings are at `0011/Angry/0011_000351.wav`, in older releases at `0011/Angry/train/0011_000351.wav`, and
transcripts in `0011/0011.txt`. The 350 sentences of a speaker are the same for all emotions. The official split follows
from the number: of the 350 recordings of a speaker and emotion, the first 20 are for validation, the next 30 for
testing, and the others for training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from jaxser.types import InputError, Reading, Rejection, Utterance

from .named import NamedCorpus
from .parsing import MAX_TEXT_BYTES, decode, read_file

EMOTIONS = {
    "Angry": "anger",
    "Happy": "happiness",
    "Neutral": "neutral",
    "Sad": "sadness",
    "Surprise": "surprise",
}
_MANDARIN_LABELS = {"生气": "Angry", "快乐": "Happy", "中立": "Neutral", "伤心": "Sad", "惊喜": "Surprise"}
_FEMALE = ("0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019")
_PER_EMOTION, _VALIDATION, _VALIDATION_AND_TEST = 350, 20, 50
_SPEAKERS = {"zh": range(1, 11), "en": range(11, 21)}
_LINE = re.compile(r"\ufeff?\s*([0-9]{4}_[0-9]{6})\s+(.*?)(?:\t\s*(\S+))?\s*")

_NAMES = NamedCorpus(
    title="ESD",
    example="0011/Angry/0011_000351.wav",
    pattern=r"(?P<speaker>00[01][0-9]|0020)/(?P<label>[A-Z][a-z]+)/"
    r"(?:(?:train|test|evaluation)/)?(?P<id>(?P=speaker)_[0-9]{6})",
    labels=EMOTIONS,
    expected={},
    genders={f"{number:04}": "F" if f"{number:04}" in _FEMALE else "M" for number in range(1, 21)},
)


@dataclass(frozen=True)
class ESD:
    """The corpus in one or both of its languages, "zh" and "en"."""

    languages: tuple[str, ...]

    def read(self, root: Path) -> Reading:
        """Read a release.

        Recordings in other languages are counted and skipped. Labels are those of the folders; a text file that names
        another emotion is listed as ignored.

        Raises:
            InputError: if `root` holds no recordings in the languages.
        """
        root = Path(root)
        reading = _NAMES.read(root)
        wanted = {f"{number:04}" for language in self.languages for number in _SPEAKERS[language]}
        chosen = [one for one in reading.utterances if one.speaker in wanted]
        if not chosen:
            raise InputError(f"{root}: no recordings of ESD in {' or '.join(self.languages)} found")
        lines = _read_lines(root)
        ignored = [
            Rejection(one.id, where, f"the line's emotion {label} is not used: the folder says {one.label}")
            for one in chosen
            for where, _, label in [lines.get(one.id, ("", "", ""))]
            if label and EMOTIONS.get(label) != one.label
        ]
        others = len(reading.utterances) - len(chosen)
        return replace(
            reading,
            utterances=tuple(_complete(one, lines.get(one.id, ("", "", ""))[1]) for one in chosen),
            expected=dict.fromkeys(EMOTIONS.values(), _PER_EMOTION * len(wanted)),
            ignored=tuple(ignored),
            facts={"skipped": {"another language": others}} if others else {},
        )


BOTH = ESD(("zh", "en"))
ENGLISH = ESD(("en",))
MANDARIN = ESD(("zh",))


def _complete(utterance: Utterance, text: str) -> Utterance:
    position = (int(utterance.id[-6:]) - 1) % _PER_EMOTION
    split = "train"
    if position < _VALIDATION_AND_TEST:
        split = "validation" if position < _VALIDATION else "test"
    return replace(utterance, transcript=text, split=split)


def _read_lines(root: Path) -> dict[str, tuple[str, str, str]]:
    """Return the file, the text and the emotion of the text files' lines by id; "" is unknown."""
    lines = {}
    for path in sorted(root.rglob("[0-9][0-9][0-9][0-9].txt")):
        where = path.relative_to(root).as_posix()
        for identity, text, label in _parse(_text(path).splitlines()):
            lines[identity] = (where, text, _MANDARIN_LABELS.get(label, label))
    return lines


def _parse(lines: Iterable[str]) -> list[tuple[str, str, str]]:
    matches = [match for line in lines if (match := _LINE.fullmatch(line))]
    return [(match[1], match[2], match[3] or "") for match in matches]


def _text(path: Path) -> str:
    try:
        content = read_file(path, MAX_TEXT_BYTES)
    except ValueError:
        return ""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    return decode(content, "gb18030")
