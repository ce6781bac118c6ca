"""The files of the demo corpus in the layout of the IEMOCAP release, with the oddities that the release has.

AppleDouble files in every folder, pronunciation variants, noise tokens, self-evaluations, other people's
words among the transcripts, ids without a number, latin-1 bytes, one alignment missing, folders that are no
labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .plan import STREAM_QUIRKS, Settings, Turn
from .truth import NEAR, NO_MAJORITY

FRAME = 0.01  # s
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\x02\x00\x00\x00\x09\xff\xfe"
NOISE_TOKENS = ("++LAUGHTER++", "++BREATHING++", "++LIPSMACK++")
CATEGORIES = {
    "ang": "Anger",
    "hap": "Happiness",
    "exc": "Excited",
    "sad": "Sadness",
    "neu": "Neutral",
    "fru": "Frustration",
    "sur": "Surprise",
}
DIMENSIONS = {  # valence, activation, dominance, from 1 to 5: about IEMOCAP's means
    "ang": (1.9, 3.6, 3.9),
    "hap": (3.9, 3.1, 3.0),
    "exc": (4.0, 3.6, 3.4),
    "sad": (2.2, 2.6, 2.9),
    "neu": (2.9, 2.7, 2.9),
    "fru": (2.3, 3.0, 3.3),
    "sur": (3.1, 3.3, 3.0),
}


@dataclass(frozen=True)
class Spoken:
    """What became of a turn: its words, and the times of these, of its noise burst and of all, in s."""

    turn: Turn
    words: tuple[str, ...]
    times: tuple[tuple[float, float], ...]
    cues: tuple[int, ...]  # places of the words that carry the text symbol
    styled: tuple[int, ...]  # places of the words whose prosody differs
    noise: tuple[float, float]
    duration: float


def wav_path(turn: Turn) -> Path:
    """Where the release has an utterance's sound, relative to its root."""
    return Path(f"Session{turn.session}/sentences/wav/{turn.dialogue}/{turn.id}.wav")


def write_dialogue(root: Path, spoken: list[Spoken], settings: Settings, *, skip_alignment: str) -> None:
    """The alignments, labels and transcripts of one dialogue; `skip_alignment` is the id that gets none."""
    first = spoken[0].turn
    session = root / f"Session{first.session}"
    for folder in ("sentences/ForcedAlignment", "sentences/wav"):
        (session / folder / first.dialogue).mkdir(parents=True, exist_ok=True)
        (session / folder / first.dialogue / f"._{first.id}.wav").write_bytes(APPLE_DOUBLE)
    for one in spoken:
        if one.turn.id != skip_alignment:
            path = session / "sentences/ForcedAlignment" / first.dialogue / f"{one.turn.id}.wdseg"
            path.write_text(_alignment(one, settings), encoding="latin-1")
    starts = np.cumsum([6.0, *(one.duration + 0.5 for one in spoken)])  # s, in the dialogue's own time
    for folder, text in (
        ("EmoEvaluation", _labels(spoken, starts, settings)),
        ("transcriptions", _transcripts(spoken, starts, settings)),
    ):
        (session / "dialog" / folder).mkdir(parents=True, exist_ok=True)
        (session / "dialog" / folder / f"{first.dialogue}.txt").write_text(text, encoding="latin-1")
        (session / "dialog" / folder / f"._{first.dialogue}.txt").write_bytes(APPLE_DOUBLE)
    for folder in ("Attribute", "Categorical", "Self-evaluation"):
        (session / "dialog/EmoEvaluation" / folder).mkdir(exist_ok=True)
        path = session / "dialog/EmoEvaluation" / folder / f"{first.dialogue}_e1.txt"
        path.write_text(f"{first.id} :act 3; :dom 3; ()\n", encoding="latin-1")
    (session / f"dialog/EmoEvaluation/{first.dialogue}.anvil").write_text('<?xml version="1.0"?>\n')


def _quirks(turn: Turn, settings: Settings, part: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, STREAM_QUIRKS, turn.index, part])


def noise_token(turn: Turn, settings: Settings) -> str:
    """The noise before the words of one utterance in sixteen; empty for the others."""
    rng = _quirks(turn, settings, 0)
    return str(rng.choice(NOISE_TOKENS)) if rng.random() < 1 / 16 else ""


def _alignment(one: Spoken, settings: Settings) -> str:
    """Sphinx-3's rows, one after the other from frame 0 to the last whole frame."""
    rng = _quirks(one.turn, settings, 1)
    last = int(one.duration / FRAME + 1e-6)
    token = noise_token(one.turn, settings)
    pieces = [(round(one.noise[0] / FRAME), round(one.noise[1] / FRAME), token)] if token else []
    for word, (start, end) in zip(one.words, one.times, strict=True):
        spelled = word.upper().replace("É", "E") + ("(2)" if rng.random() < 0.05 else "")
        pieces.append((round(start / FRAME), round(end / FRAME), spelled))
    rows, at = [], 0
    for start, end, name in pieces:
        if start > at:
            rows.append((at, start, "<s>" if at == 0 else "<sil>"))
        rows.append((max(start, at), max(end, at + 1), name))
        at = max(end, at + 1)
    if last > at:
        rows.append((at, last, "</s>"))
    lines = [f"\t{'SFrm':>5s} {'EFrm':>5s} {'SegAScr':>10s} Word"]
    scores = [-int(rng.integers(1_000, 200_000)) for _ in rows]
    lines += [
        f"\t{start:5d} {end - 1:5d} {score:10d} {name}"
        for (start, end, name), score in zip(rows, scores, strict=True)
    ]
    return "\n".join([*lines, f" Total score: {sum(scores):11d}", ""])


def _labels(spoken: list[Spoken], starts: np.ndarray, settings: Settings) -> str:
    blocks = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    for one, start in zip(spoken, starts, strict=False):
        rng = _quirks(one.turn, settings, 2)
        centre = DIMENSIONS[one.turn.emotion]
        scales = np.clip(np.rint(centre + rng.normal(0, 0.6, (2, 3))), 1, 5)
        v, a, d = scales.mean(axis=0)
        blocks.append(
            f"[{start:.4f} - {start + one.duration:.4f}]\t{one.turn.id}\t{one.turn.label}\t"
            f"[{v:.4f}, {a:.4f}, {d:.4f}]"
        )
        blocks += [
            f"C-E{rater}:\t{CATEGORIES[vote]};\t()" for rater, vote in enumerate(one.turn.votes, start=2)
        ]
        if rng.random() < 0.3:  # the actor's own opinion is no rater's
            itself = NEAR[one.turn.emotion][0]
            blocks.append(f"C-{one.turn.gender}1:\t{CATEGORIES[itself]};\t(tired)")
        blocks += [
            f"A-E{rater}:\tval {v:.0f}; act {a:.0f}; dom  {d:.0f};\t()"
            for rater, (v, a, d) in enumerate(scales, start=3)
        ]
        blocks.append("")
    return "\n".join(blocks) + "\n"


def _transcripts(spoken: list[Spoken], starts: np.ndarray, settings: Settings) -> str:
    """Grouped by gender, so not in the order of time; a line of someone else, and an id without a number."""
    lines = []
    order = sorted(zip(spoken, starts, strict=False), key=lambda pair: (pair[0].turn.gender, pair[1]))
    for one, start in order:
        stop = ":" if _quirks(one.turn, settings, 3).random() < 0.02 else "."
        text = " ".join(one.words).capitalize() + stop
        lines.append(f"{one.turn.id} [{start:08.4f}-{start + one.duration:08.4f}]: {text}")
    lines.insert(len(lines) // 2, "M: sorry")
    lines.append(f"{spoken[0].turn.dialogue}_MXX0 [001.0000-002.0000]: Mmhmm.")
    return "\n".join(lines) + "\n"


def some_without_alignment(turns: list[Turn]) -> str:
    """The utterance that has no alignment: one of the middle, with a label if there is one."""
    half = turns[len(turns) // 2 :]
    return next((turn.id for turn in half if turn.label != NO_MAJORITY), half[0].id)
