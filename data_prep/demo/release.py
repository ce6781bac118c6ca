"""The files of the demo corpus in the layout of IEMOCAP's release, with its quirks.

The quirks are AppleDouble files in every folder, pronunciation variants, noise tokens, self-evaluations, transcript
lines of other people, ids without a number, Latin-1 bytes, a missing alignment, and folders with other annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .attributes import rate
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


@dataclass(frozen=True)
class Spoken:
    """A synthesised turn; times are in seconds of its recording."""

    turn: Turn
    words: tuple[str, ...]
    times: tuple[tuple[float, float], ...]
    cues: tuple[int, ...]  # indices of the words that carry the text symbol
    styled: tuple[int, ...]  # indices of the words with changed prosody
    noise: tuple[float, float]  # start and end of the noise burst
    duration: float


def wav_path(turn: Turn) -> Path:
    """Return the path of an utterance's recording, relative to the root."""
    return Path(f"Session{turn.session}/sentences/wav/{turn.dialogue}/{turn.id}.wav")


def write_dialogue(root: Path, spoken: list[Spoken], settings: Settings, *, skip_alignment: str) -> None:
    """Write the alignments, labels and transcripts of a dialogue.

    The alignment of `skip_alignment` is left out.
    """
    first = spoken[0].turn
    session = root / f"Session{first.session}"
    for folder in ("sentences/ForcedAlignment", "sentences/wav"):
        (session / folder / first.dialogue).mkdir(parents=True, exist_ok=True)
        (session / folder / first.dialogue / f"._{first.id}.wav").write_bytes(APPLE_DOUBLE)
    for utterance in spoken:
        if utterance.turn.id != skip_alignment:
            path = session / "sentences/ForcedAlignment" / first.dialogue / f"{utterance.turn.id}.wdseg"
            path.write_text(_alignment(utterance, settings), encoding="latin-1")
    starts = np.cumsum([6.0, *(utterance.duration + 0.5 for utterance in spoken)])  # s in the dialogue
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


def noise_token(turn: Turn, settings: Settings) -> str:
    """Return the noise before the first word: a token for one in sixteen utterances, else ""."""
    rng = _quirk_generator(turn, settings, 0)
    return str(rng.choice(NOISE_TOKENS)) if rng.random() < 1 / 16 else ""


def choose_unaligned(turns: list[Turn]) -> str:
    """Choose the utterance without alignment, in the middle of the corpus and labelled.

    An utterance without a label is chosen only if there is no other.
    """
    half = turns[len(turns) // 2 :]
    return next((turn.id for turn in half if turn.label != NO_MAJORITY), half[0].id)


def _quirk_generator(turn: Turn, settings: Settings, part: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, STREAM_QUIRKS, turn.index, part])


def _alignment(utterance: Spoken, settings: Settings) -> str:
    """Format a `.wdseg` file of Sphinx-3, whose rows are contiguous from frame 0 to the last whole frame."""
    rng = _quirk_generator(utterance.turn, settings, 1)
    last = int(utterance.duration / FRAME + 1e-6)
    pieces = []
    if token := noise_token(utterance.turn, settings):
        pieces.append((round(utterance.noise[0] / FRAME), round(utterance.noise[1] / FRAME), token))
    for word, (start, end) in zip(utterance.words, utterance.times, strict=True):
        spelled = word.upper().replace("É", "E") + ("(2)" if rng.random() < 0.05 else "")
        pieces.append((round(start / FRAME), round(end / FRAME), spelled))
    rows, frame = [], 0
    for start, end, name in pieces:
        if start > frame:
            rows.append((frame, start, "<s>" if frame == 0 else "<sil>"))
        rows.append((max(start, frame), max(end, frame + 1), name))
        frame = max(end, frame + 1)
    if last > frame:
        rows.append((frame, last, "</s>"))
    lines = [f"\t{'SFrm':>5s} {'EFrm':>5s} {'SegAScr':>10s} Word"]
    scores = [-int(rng.integers(1_000, 200_000)) for _ in rows]
    lines += [
        f"\t{start:5d} {end - 1:5d} {score:10d} {name}"
        for (start, end, name), score in zip(rows, scores, strict=True)
    ]
    return "\n".join([*lines, f" Total score: {sum(scores):11d}", ""])


def _labels(spoken: list[Spoken], starts: np.ndarray, settings: Settings) -> str:
    blocks = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    for utterance, start in zip(spoken, starts, strict=False):
        turn = utterance.turn
        rng = _quirk_generator(turn, settings, 2)
        scales = rate(turn.emotion, rng)
        v, a, d = scales.mean(axis=0)
        blocks.append(
            f"[{start:.4f} - {start + utterance.duration:.4f}]\t{turn.id}\t{turn.label}\t"
            f"[{v:.4f}, {a:.4f}, {d:.4f}]"
        )
        blocks += [f"C-E{rater}:\t{CATEGORIES[vote]};\t()" for rater, vote in enumerate(turn.votes, start=2)]
        if rng.random() < 0.3:  # the actor's self-evaluation, which is not a vote
            category = CATEGORIES[NEAR[turn.emotion][0]]
            blocks.append(f"C-{turn.gender}1:\t{category};\t(tired)")
        blocks += [
            f"A-E{rater}:\tval {v:.0f}; act {a:.0f}; dom  {d:.0f};\t()"
            for rater, (v, a, d) in enumerate(scales, start=3)
        ]
        blocks.append("")
    return "\n".join(blocks) + "\n"


def _transcripts(spoken: list[Spoken], starts: np.ndarray, settings: Settings) -> str:
    """Format the transcripts, which are sorted by gender; with a line of someone else and an id without a number."""
    lines = []
    order = sorted(zip(spoken, starts, strict=False), key=lambda pair: (pair[0].turn.gender, pair[1]))
    for utterance, start in order:
        stop = ":" if _quirk_generator(utterance.turn, settings, 3).random() < 0.02 else "."
        text = " ".join(utterance.words).capitalize() + stop
        lines.append(f"{utterance.turn.id} [{start:08.4f}-{start + utterance.duration:08.4f}]: {text}")
    lines.insert(len(lines) // 2, "M: sorry")
    lines.append(f"{spoken[0].turn.dialogue}_MXX0 [001.0000-002.0000]: Mmhmm.")
    return "\n".join(lines) + "\n"
