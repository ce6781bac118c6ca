"""Synthesis of the demo corpus: turns to recordings and word times."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from .plan import ATTEMPTS, STREAM_SENTENCE, VOICES, Settings, Turn, compose
from .release import Spoken, noise_token, wav_path
from .speech import Speaker

ORDER_GAP = 1.0  # s between the two voices of mechanism O


def speak_all(
    root: Path, turns: list[Turn], settings: Settings, processes: int, advance: Callable[[], None]
) -> dict[str, Spoken]:
    """Synthesise all turns, by id.

    Each speaker's turns are synthesised in order in one process, and then the copies.
    """
    speakers: dict[tuple[int, str], list[Turn]] = {}
    for turn in turns:
        if not turn.copy_of:
            speakers.setdefault((turn.session, turn.gender), []).append(turn)
    stop = threading.Event()
    spoken: dict[str, Spoken] = {}
    with ThreadPoolExecutor(processes) as pool:
        running = [
            pool.submit(_speak_speaker, root, members, settings, stop, advance)
            for members in speakers.values()
        ]
        try:
            for future in running:
                spoken.update({utterance.turn.id: utterance for utterance in future.result()})
        finally:
            stop.set()
    for turn in turns:
        if turn.copy_of:
            source = spoken[turn.copy_of]
            shutil.copyfile(root / wav_path(source.turn), root / wav_path(turn))
            spoken[turn.id] = replace(source, turn=turn)
            advance()
    return spoken


def speak_turn(root: Path, turn: Turn, settings: Settings, speaker: Speaker) -> Spoken:
    """Draw sentences until espeak-ng reports exactly their words.

    It merges some pairs of words into one.
    """
    rng = np.random.default_rng([settings.seed, STREAM_SENTENCE, turn.index])
    noisy = noise_token(turn, settings) != ""
    padding = {
        "lead": round(float(rng.uniform(0.05, 0.2)), 3),
        "noise": round(float(rng.uniform(0.2, 0.35)), 3) if noisy else 0.0,
        "tail": round(float(rng.uniform(0.05, 0.2)), 3),
        "seed": int(rng.integers(2**31)),
    }
    for attempt in range(ATTEMPTS):
        sentence = compose(turn, settings, attempt)
        ssml, spans = sentence.ssml()
        answer = speaker.say(ssml=ssml, spans=spans, path=str(root / wav_path(turn)), **padding)
        times = answer["words"]
        if times is None or (turn.mechanism == "O" and _too_close(sentence.styles, times)):
            continue
        return Spoken(
            turn=turn,
            words=sentence.words,
            times=tuple((start, end) for start, end in times),
            cues=sentence.cues,
            styled=tuple(index for first, end, _ in sentence.styles for index in range(first, end)),
            noise=tuple(answer["noise"]),
            duration=answer["duration"],
        )
    raise RuntimeError(f"espeak-ng merged words in each of {ATTEMPTS} sentences for {turn.id}")


def _speak_speaker(
    root: Path, turns: list[Turn], settings: Settings, stop: threading.Event, advance: Callable[[], None]
) -> list[Spoken]:
    voice = f"en-us+{VOICES[turns[0].gender][turns[0].session - 1]}"
    spoken = []
    with Speaker(voice) as speaker:
        for turn in turns:
            if stop.is_set():
                break
            spoken.append(speak_turn(root, turn, settings, speaker))
            advance()
    return spoken


def _too_close(styles: tuple[tuple[int, int, str], ...], times: list[list[float]]) -> bool:
    return len(styles) == 2 and times[styles[1][0]][0] - times[styles[0][1] - 1][1] < ORDER_GAP
