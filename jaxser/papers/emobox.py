"""Published scores across corpora: table 5 of EmoBox (Ma et al., Interspeech 2024).

Frames of a frozen encoder are classified by a small network that is trained on one corpus, and tested on a balanced
selection of utterances of another (four classes: angry, happy, neutral, sad). The caption of the table does not say
clearly which of its sides are the training sets; the arrows of the published leaderboard
(emo-box.github.io/leaderboard2.html), "I->M" and so on, decide it here.
"""

from __future__ import annotations

from collections.abc import Mapping

CORPORA = ("iemocap", "meld", "ravdess", "savee")
"""The corpora of the table."""


def _by_pair(*accuracies: float) -> dict[tuple[str, str], float]:
    """Return the accuracies by training and test corpus, from the rows of the table."""
    pairs = [(trained, tested) for trained in CORPORA for tested in CORPORA if trained != tested]
    return {pair: accuracy / 100 for pair, accuracy in zip(pairs, accuracies, strict=True)}


ACCURACIES: Mapping[str, Mapping[tuple[str, str], float]] = {
    "wav2vec 2.0 base": _by_pair(
        29.78, 18.25, 28.84, 22.50, 31.39, 35.24, 27.15, 23.20, 33.77, 31.34, 29.19, 21.36
    ),
    "HuBERT base": _by_pair(
        37.32, 22.63, 35.88, 38.31, 31.60, 32.67, 42.00, 33.43, 43.47, 39.39, 29.03, 38.41
    ),
    "HuBERT large": _by_pair(
        44.60, 15.03, 39.99, 44.69, 38.22, 43.74, 36.18, 25.02, 56.96, 42.81, 31.54, 31.92
    ),
    "WavLM base": _by_pair(
        38.25, 27.80, 39.40, 46.30, 21.38, 35.75, 30.78, 29.58, 43.24, 34.00, 27.40, 27.38
    ),
    "WavLM large": _by_pair(
        48.59, 34.16, 35.53, 39.06, 23.06, 25.74, 44.03, 33.90, 63.35, 43.69, 34.10, 36.69
    ),
    "data2vec base": _by_pair(
        43.86, 40.46, 32.53, 42.57, 24.16, 24.33, 22.28, 20.32, 27.02, 29.41, 31.96, 34.68
    ),
    "data2vec large": _by_pair(
        44.99, 39.03, 36.88, 40.62, 29.10, 31.57, 26.50, 26.73, 32.54, 26.82, 24.05, 16.96
    ),
    "data2vec 2.0 base": _by_pair(
        44.96, 30.52, 31.40, 42.35, 33.32, 30.42, 30.77, 26.80, 37.31, 29.12, 35.29, 19.24
    ),
    "data2vec 2.0 large": _by_pair(
        47.43, 17.80, 29.67, 41.75, 31.80, 29.66, 38.79, 34.21, 35.43, 36.39, 37.79, 23.58
    ),
    "Whisper large v3": _by_pair(
        46.14, 38.24, 46.12, 51.42, 47.00, 36.44, 48.12, 40.68, 66.91, 49.30, 42.18, 49.63
    ),
}
"""The accuracy, as a fraction, by encoder and by training and test corpus."""
