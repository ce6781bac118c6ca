"""CREMA-D (Cao et al. 2014): English, 91 actors, twelve sentences, six emotions.

A file's name has the actor, the sentence, the emotion that was to be acted, and its level. What listeners heard is in
`processedResults/tabulatedVotes.csv`, which copies of the audio alone do not have.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jaxser.types import Reading, Rejection

from .named import NamedCorpus
from .parsing import MAX_TEXT_BYTES, decode_text, read_file

VOTES = Path("processedResults") / "tabulatedVotes.csv"
EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
# fmt: off
_FEMALE = (  # of VideoDemographics.csv
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025, 1028,
    1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060, 1061, 1063,
    1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091,
)
# fmt: on
_VOICE_ONLY = "1"  # first digit of a row's number; 2 is the face alone, 3 both
_MAX_VOTES = 1000  # for one emotion of a recording, against damaged tables

CREMAD = NamedCorpus(
    title="CREMA-D",
    example="AudioWAV/1001_DFA_ANG_XX.wav",
    pattern=r"(?P<speaker>10[0-9]{2})_(?P<sentence>[A-Z]{3})_(?P<label>[A-Z]{3})_(?P<intensity>LO|MD|HI|XX|X)",
    labels=EMOTIONS,
    expected={**dict.fromkeys(EMOTIONS.values(), 1271), "neutral": 1087},
    genders={str(actor): "F" if actor in _FEMALE else "M" for actor in range(1001, 1092)},
    transcripts={
        "DFA": "Don't forget a jacket.",
        "IEO": "It's eleven o'clock.",
        "IOM": "I'm on my way to the meeting.",
        "ITH": "I think I have a doctor's appointment.",
        "ITS": "I think I've seen this before.",
        "IWL": "I would like a new alarm clock.",
        "IWW": "I wonder what this is about.",
        "MTI": "Maybe tomorrow it will be cold.",
        "TAI": "The airplane is almost full.",
        "TIE": "That is exactly what happened.",
        "TSI": "The surface is slick.",
        "WSI": "We'll stop in a couple of minutes.",
    },
    attributes={"intensity": {"LO": 1.0, "MD": 2.0, "HI": 3.0}},
)


def read(root: Path) -> Reading:
    """Read a release.

    The label is the emotion that was to be acted. If the table of votes is present, `votes` are the emotions that
    listeners chose for the voice alone, one per listener, and the attribute `perceived_level` is the mean level that
    they gave, from 0 to 100.

    Raises:
        InputError: if `root` holds no recordings of CREMA-D.
    """
    reading = CREMAD.read(root)
    try:
        ratings = _read_votes(Path(root) / VOTES)
    except FileNotFoundError:
        return reading
    except ValueError as error:
        ignored = Rejection("", VOTES.as_posix(), f"votes not used: {error}")
        return replace(reading, ignored=(*reading.ignored, ignored))
    utterances = tuple(
        replace(
            one,
            votes=ratings[one.id].votes,
            attributes={**one.attributes, "perceived_level": ratings[one.id].level},
        )
        if one.id in ratings
        else one
        for one in reading.utterances
    )
    return replace(
        reading, utterances=utterances, facts={**reading.facts, "utterances_with_votes": len(ratings)}
    )


@dataclass(frozen=True)
class _Ratings:
    votes: tuple[str, ...]
    level: float


def _read_votes(table: Path) -> Mapping[str, _Ratings]:
    """Read the ratings of the voice alone by utterance.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if it is malformed.
    """
    if not table.exists():
        raise FileNotFoundError(table)
    rows = csv.DictReader(decode_text(read_file(table, MAX_TEXT_BYTES))[0].splitlines())
    ratings = {}
    try:
        for row in rows:
            if row[""].startswith(_VOICE_ONLY):
                votes = {emotion: int(row[emotion[0].upper()]) for emotion in EMOTIONS.values()}
                if max(votes.values()) > _MAX_VOTES:
                    raise ValueError(f"row {rows.line_num}: more than {_MAX_VOTES} votes")
                ratings[row["fileName"]] = _Ratings(
                    tuple(Counter(votes).elements()), float(row["meanEmoResp"])
                )
    except (KeyError, TypeError, AttributeError, csv.Error) as error:
        raise ValueError(f"row {rows.line_num} is not one of tabulatedVotes.csv ({error})") from None
    return ratings
