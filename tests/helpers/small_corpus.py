"""Small corpora of noise, for tests of preparation."""

from itertools import product
from pathlib import Path

import numpy as np
import soundfile

from jaxser.features.recipes import RECIPES
from jaxser.types import Reading, Utterance, Word

RATE = 16_000

EXTRACTED_RECIPES = tuple(
    name for name, recipe in RECIPES.items() if recipe.arrays.keys() & {"audio", "segments"}
)
"""The recipes whose frames are computed from the recording, and are neither precomputed nor samples."""


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def sine(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_ravdess(root: Path, count: int, seconds: float = 0.3) -> list[Path]:
    """Write `count` short recordings with file names of RAVDESS."""
    names = ("-".join(parts) for parts in product(["03"], ["01"], _codes(8), _codes(2), _codes(2), _codes(2)))
    paths = []
    for index, (name, actor) in enumerate(product(names, _codes(24))):
        if index == count:
            break
        paths.append(root / f"Actor_{actor}" / f"{name}-{actor}.wav")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(paths[-1], noise(seconds + 0.01 * (index % 7), seed=index), RATE, subtype="PCM_16")
    return paths


def talk(index: int, label: str, dialogue: str = "") -> Utterance:
    """Return an utterance with all fields set."""
    return Utterance(
        id=f"talk_{index:04d}",
        wav=f"{index:04d}.wav",
        label=label,
        transcript="Don't talk, please!",
        words=(Word("don't", 0.02, 0.1), Word("talk", 0.1, 0.22), Word("please", 0.25, 0.28)),
        speaker=f"s{index % 3}",
        gender="FM"[index % 2],
        session="Session1",
        dialogue=dialogue,
        split="train",
        votes=("ang", "neu"),
        attributes={"valence": 2.5, "activation": float(index)},
        flags=("no_alignment",) if index % 5 == 0 else (),
    )


def write_talks(root: Path, labels: list[str], dialogues: list[str] | None = None) -> Reading:
    root.mkdir(parents=True, exist_ok=True)
    dialogues = dialogues or [""] * len(labels)
    utterances = tuple(map(talk, range(len(labels)), labels, dialogues))
    for index, utterance in enumerate(utterances):
        soundfile.write(root / utterance.wav, noise(0.3, seed=index), RATE)
    return Reading(utterances, expected={"ang": 1103})


def _codes(number: int) -> list[str]:
    return [f"{code:02d}" for code in range(1, number + 1)]
