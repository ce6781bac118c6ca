"""Forced alignment of English transcripts with pocketsphinx (Huggins-Daines et al. 2006).

The acoustic model and the pronunciation dictionary are those of its wheel (US English, extra `align`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxser.features.audio import SAMPLE_RATE
from jaxser.types import UsageError, Word

FRAME_RATES = (100, 200, 300)
"""Frames per second, in the order in which they are tried.

The first is the model's own. A phone lasts three frames or more, so fast speech may only fit more frames.
"""

_VARIANT = re.compile(r"\([0-9]+\)$", re.ASCII)


def version() -> str:
    """Return the name and version of the aligner.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        return f"pocketsphinx {metadata.version('pocketsphinx')}"
    except metadata.PackageNotFoundError:
        raise UsageError("--align=pocketsphinx needs pocketsphinx: pip install 'jaxser[align]'") from None


class Aligner:
    """An aligner, which keeps its model; the result of a recording does not depend on others."""

    def __init__(self) -> None:
        version()
        self._decoders: dict[int, Any] = {}

    def align(self, samples: Float[np.ndarray, " T"], tokens: Sequence[str]) -> tuple[Word, ...]:
        """Return the times of the words of a recording.

        Args:
            samples: the recording at `SAMPLE_RATE`, in [-1, 1].
            tokens: its words in lower case.

        Raises:
            ValueError: if a word is not in the dictionary, or the words do not fit the recording.
        """
        if unknown := [token for token in tokens if not self._decoder(FRAME_RATES[0]).lookup_word(token)]:
            shown = ", ".join(dict.fromkeys(unknown))
            raise ValueError(f"not in the pronunciation dictionary: {shown[:80]}")
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        for rate in FRAME_RATES:
            words = self._spoken(pcm, tokens, rate)
            if [word.text for word in words] == list(tokens):
                end = len(samples) / SAMPLE_RATE
                return tuple(replace(word, end=min(word.end, end)) for word in words)
        raise ValueError("the words do not fit the recording")

    def _spoken(self, pcm: bytes, tokens: Sequence[str], rate: int) -> list[Word]:
        """Return the words without silences; some are missing if the recording ends before them."""
        decoder = self._decoder(rate)
        decoder.set_align_text(" ".join(tokens))
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
        return [
            Word(_VARIANT.sub("", one.word), one.start_frame / rate, (one.end_frame + 1) / rate)
            for one in decoder.seg() or ()
            if not one.word.startswith(("<", "[", "+"))
        ]

    def _decoder(self, rate: int) -> Any:
        if rate not in self._decoders:
            from pocketsphinx import Decoder

            self._decoders[rate] = Decoder(
                lm=None,
                samprate=SAMPLE_RATE,
                frate=rate,
                bestpath=False,  # a second search, which need not contain all of the words
                loglevel="FATAL",
            )
        return self._decoders[rate]
