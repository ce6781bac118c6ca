"""What a run's networks attend to in some of the utterances that they are tested on, as pictures for the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from jaxser.report import audio
from jaxser.results import Run
from jaxser.types import UsageError

if TYPE_CHECKING:
    import jaxser

DOTS = 110  # an inch


@dataclass(frozen=True)
class Shown:
    """A picture of an utterance's attention; addresses are data."""

    utterance: str
    true: str
    predicted: str
    transcript: str
    picture: Markup
    player: Markup


def attention(run: Run, root: Path | None, number: int) -> list[Shown]:
    """`number` utterances, evenly over those that the first fold tests, as its replicas (the mean) see them.

    Raises:
        UsageError: there is no folder of recordings to look at.
        InputError: the run's model is not there, or a recording cannot be used.
    """
    if not number:
        return []
    if root is None:
        raise UsageError("--attention needs --audio=ROOT: the recordings of the corpus")
    import jaxser  # JAX's compiled programs, only where a model is asked

    fold = run.folds[0]
    chosen = [fold.test[row] for row in np.linspace(0, len(fold.test) - 1, number).round().astype(int)]
    ensemble = jaxser.load(run.folder, fold=fold.name)
    return [
        Shown(
            utterance=name,
            true=run.utterances[name]["label"],
            predicted=ensemble.predict(path, text=run.utterances[name]["transcript"])[0].label,
            transcript=run.utterances[name]["transcript"],
            picture=_picture(ensemble.attention(path, text=run.utterances[name]["transcript"])[0]),
            player=audio.player(path),
        )
        for name, path in audio.find(root, dict.fromkeys(chosen)).items()
    ]


def _picture(found: jaxser.Attention) -> Markup:
    file = io.BytesIO()
    found.figure().savefig(file, format="png", dpi=DOTS)
    return Markup("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
