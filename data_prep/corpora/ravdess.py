"""RAVDESS (Livingstone & Russo 2018): English, 24 actors, two sentences, eight emotions.

Songs are left out. A file's name holds all annotations: `Actor_01/03-01-06-01-02-01-12.wav` is modality, channel,
emotion, intensity, statement, repetition and actor (odd numbers are male). Recordings may be `.wav` (as released) or
`.flac` under the same names.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from jaxser.types import InputError, Reading, Rejection, Utterance

from .parsing import find_audio

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")
EXPECTED = {name: 96 if name == "neutral" else 192 for name in EMOTIONS}
"""Utterances per label in the release."""

_AUDIO_ONLY, _SPEECH = "03", "01"
_NAME = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")


def read(root: Path) -> Reading:
    """Read a release.

    Songs and recordings with video, which some releases include, are counted and skipped.

    Raises:
        InputError: if `root` holds no recordings of RAVDESS.
    """
    utterances, rejected = [], []
    skipped: Counter[str] = Counter()
    for path in find_audio(Path(root)):
        where = path.relative_to(root).as_posix()
        parts = _NAME.fullmatch(path.stem)
        if parts is None:
            rejected.append(Rejection(path.stem, where, "the file name is not RAVDESS's seven numbers"))
        elif parts[2] != _SPEECH:
            skipped["song"] += 1
        elif parts[1] != _AUDIO_ONLY:
            skipped["with video"] += 1
        else:
            utterances.append(_utterance(where, parts))
    if not utterances:
        raise InputError(f"{root}: no recordings of RAVDESS found (Actor_01/03-01-01-01-01-01-01.wav, ...)")
    facts = {"skipped": dict(skipped)} if skipped else {}
    return Reading(tuple(utterances), tuple(rejected), EXPECTED, facts)


def _utterance(where: str, parts: re.Match[str]) -> Utterance:
    _, _, emotion, intensity, statement, _, actor = parts.groups()
    return Utterance(
        id=parts[0],
        wav=where,
        label=EMOTIONS[int(emotion) - 1],
        transcript=STATEMENTS[int(statement) - 1],
        speaker=f"actor{actor}",
        gender="M" if int(actor) % 2 else "F",
        attributes={"intensity": float(intensity)},
    )
