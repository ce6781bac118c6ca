"""MSP-IMPROV (Busso et al. 2017): English, twelve actors in six dyadic sessions.

Recordings are at `session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav`: sentence and emotion of the scenario, speaker, kind
of speech (P natural interaction, R read, S target improvised, T other improvised), and turn. `Evaluation.txt` has the
perceived emotion, activation, valence, dominance and naturalness of each turn, and each rater's choice below.
Transcripts are in `All_human_transcriptions/`, if they are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxser.types import InputError, Reading, Rejection, Utterance

from .parsing import MAX_TEXT_BYTES, decode, find_audio, is_apple_double, printable, read_file

EMOTIONS = {
    "A": "anger",
    "H": "happiness",
    "S": "sadness",
    "N": "neutral",
    "O": "other",
    "X": "no agreement",
}
EXPECTED = {"anger": 792, "happiness": 2644, "sadness": 885, "neutral": 3477}
"""Turns of the four usual classes in the release, 7,798 of 8,438."""

_NAME = re.compile(r"MSP-IMPROV-(S[0-9]{2}[AHNS])-([FM])(0[1-6])-([PRST])-[FM]{2}[0-9]{2}", re.ASCII)
_VALUE = r"\s*(?:[0-9.]+|NaN)\s*"
_TURN = re.compile(
    rf"UTD-(IMPROV-[A-Z0-9-]+)\.avi;\s*([A-Z]);\s*A:({_VALUE});\s*V:({_VALUE});\s*D:({_VALUE});\s*N:({_VALUE});\s*"
)
_RATER = re.compile(r"([\w-]+);\s*([A-Za-z ]+);.*")
_DIMENSIONS = ("activation", "valence", "dominance", "naturalness")


def read(root: Path) -> Reading:
    """Read a release.

    Raises:
        InputError: if `root` holds no recordings of MSP-IMPROV, or no `Evaluation.txt`.
    """
    root = Path(root)
    tables = sorted(path for path in root.rglob("Evaluation.txt") if not is_apple_double(path))
    if not tables:
        raise InputError(f"{root}: no Evaluation.txt of MSP-IMPROV found")
    try:
        lines = decode(read_file(tables[0], MAX_TEXT_BYTES)).splitlines()
    except ValueError as error:
        raise InputError(f"{tables[0]}: {error}") from None
    where = tables[0].relative_to(root).as_posix()
    turns, ignored = _read_turns(lines, where)
    texts = {path.stem: path for path in sorted(root.rglob("All_human_transcriptions/**/*.txt"))}
    utterances, rejected = [], []
    for path in find_audio(root):
        wav = path.relative_to(root).as_posix()
        try:
            utterances.append(_utterance(wav, path.stem, turns, texts))
        except ValueError as error:
            rejected.append(Rejection(printable(path.stem), printable(wav), str(error)))
    if not utterances:
        raise InputError(
            f"{root}: no recordings of MSP-IMPROV found (session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav, ...)"
        )
    found = {one.id for one in utterances}
    rejected += [
        Rejection(name, f"{where}:{turn.line}", "no recording of this turn")
        for name, turn in turns.items()
        if name not in found
    ]
    return Reading(tuple(utterances), tuple(rejected), EXPECTED, ignored=tuple(ignored))


@dataclass
class _Turn:
    line: int
    label: str
    attributes: Mapping[str, float]
    votes: list[str] = field(default_factory=list)


def _read_turns(lines: Iterable[str], where: str) -> tuple[dict[str, _Turn], list[Rejection]]:
    """Return the turns by id, and the lines that are not used."""
    turns: dict[str, _Turn] = {}
    ignored: list[Rejection] = []
    turn = None
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if match := _TURN.fullmatch(text):
            turn = _Turn(number, match[2], _numbers(match.groups()[2:]))
            if turns.setdefault(f"MSP-{match[1]}", turn) is not turn:
                ignored.append(
                    Rejection(f"MSP-{match[1]}", f"{where}:{number}", "a second line of this turn")
                )
        elif text.startswith("UTD-"):
            turn = None
            ignored.append(Rejection("", f"{where}:{number}", "not name; label; A: V: D: N: of a turn"))
        elif turn and (rater := _RATER.fullmatch(text)):
            turn.votes.append(rater[2].strip())
        elif text:
            ignored.append(Rejection("", f"{where}:{number}", "neither a turn nor a rater's choice"))
    return turns, ignored


def _numbers(texts: Iterable[str]) -> dict[str, float]:
    values = {}
    for name, text in zip(_DIMENSIONS, texts, strict=True):
        try:
            value = float(text)
        except ValueError:
            continue
        if value == value:  # not NaN
            values[name] = value
    return values


def _utterance(wav: str, name: str, turns: Mapping[str, _Turn], texts: Mapping[str, Path]) -> Utterance:
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise ValueError("the file name is not one of MSP-IMPROV, such as MSP-IMPROV-S01A-F01-P-FM01")
    if name not in turns:
        raise ValueError("Evaluation.txt has no line for this turn")
    turn = turns[name]
    if turn.label not in EMOTIONS:
        raise ValueError(
            f"line {turn.line} of Evaluation.txt: {turn.label!r} is none of {', '.join(EMOTIONS)}"
        )
    scenario, gender, session, kind = parts.groups()
    return Utterance(
        id=name,
        wav=wav,
        label=EMOTIONS[turn.label],
        transcript=_text(texts[name]) if name in texts else "",
        speaker=f"{gender}{session}",
        gender=gender,
        session=f"session{int(session)}",
        dialogue=f"session{int(session)}_{scenario}_{kind}",
        votes=tuple(turn.votes),
        attributes=turn.attributes,
    )


def _text(path: Path) -> str:
    try:
        return " ".join(decode(read_file(path, MAX_TEXT_BYTES)).split())
    except ValueError:
        return ""
