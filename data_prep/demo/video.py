"""Synthetic video features for the demo corpus, which correlate with the emotion.

There are no videos. Every utterance has a file `video/<id>.npy` in the format of ResNet-101 features: three rows per
second, at most 32, of 2048 numbers of 0 or more. Half of the utterances show their own emotion, the others an emotion
drawn at random. The best possible accuracies in `bayes.json` do not take these features into account.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from jaxser.features.video import MAX_FRAMES, RATE, WIDTH

from .truth import CLASSES

FOLDER = "video"
MARKER = "SYNTHETIC.json"
SHOWN = 0.5  # probability that an utterance shows its own emotion
STRENGTH = 0.3  # of an emotion's pattern, added to noise of standard deviation 1

_STREAM = 0x51DE0  # of the random generator, distinct from those of the corpus


def write_video(root: Path) -> Path:
    """Return the folder of synthetic video features; if it is missing, make it atomically."""
    folder, temporary = root / FOLDER, root / f".{FOLDER}.unfinished-{os.getpid()}"
    if (folder / MARKER).is_file():
        return folder
    seed = json.loads((root / "demo.json").read_text(encoding="utf-8"))["seed"]
    wavs = {path.stem: path for path in root.glob("Session*/sentences/wav/*/*.wav") if path.name[0] != "."}
    temporary.mkdir()
    try:
        with (root / "truth.jsonl").open(encoding="utf-8") as lines:
            for index, line in enumerate(lines):
                turn = json.loads(line)
                seconds = soundfile.info(str(wavs[turn["utterance"]])).duration
                rows = _rows(turn["emotion"], seconds, seed, index).astype(np.float16)
                np.save(temporary / f"{turn['utterance']}.npy", rows, allow_pickle=False)
        marker = {"synthetic": True, "seed": seed, "shows_own_emotion": SHOWN, "strength": STRENGTH}
        (temporary / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _rows(emotion: str, seconds: float, seed: int, index: int) -> Float[np.ndarray, "pictures 2048"]:
    rng = np.random.default_rng([seed, _STREAM, index])
    shown = CLASSES.index(emotion) if rng.random() < SHOWN else int(rng.integers(len(CLASSES)))
    pattern = np.random.default_rng([seed, _STREAM]).standard_normal((len(CLASSES), WIDTH))[shown]
    count = int(np.clip(np.ceil(seconds * RATE), 1, MAX_FRAMES))
    return np.maximum(rng.standard_normal((count, WIDTH)) + STRENGTH * pattern, 0)
