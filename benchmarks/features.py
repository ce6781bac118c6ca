"""MFCC against librosa called signal by signal: equal first, then how much faster (CPU time of one thread).

    python -m benchmarks.features                      # noise of speech-like lengths
    python -m benchmarks.features --audio=RAVDESS      # the recordings of a folder

Prints, for whole utterances and for word segments, the largest difference and the ratio of the times (median, and the
range over the rounds; ours and librosa's take turns).
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import librosa
import numpy as np
from threadpoolctl import threadpool_limits

from jaxser.features import audio, segments

LIBROSA = {
    "sr": audio.SAMPLE_RATE, "n_mfcc": 40, "n_mels": audio.N_MELS, "n_fft": audio.N_FFT,
    "hop_length": audio.HOP, "win_length": audio.WINDOW, "window": "hamming",
}  # fmt: skip
SECONDS_A_WORD = 0.33


def main() -> None:
    arguments = _arguments()
    utterances = _recordings(arguments.audio, arguments.count) if arguments.audio else _noise(arguments.count)
    words = [part for signal in utterances for part in _words(signal)]
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=512 is too large")
        _compare("utterances", [[signal] for signal in utterances], arguments.rounds)
        per_utterance = [_words(signal) for signal in utterances]
        _compare("word segments", per_utterance, arguments.rounds)
    seconds = sum(map(len, utterances)) / audio.SAMPLE_RATE
    print(f"{len(utterances)} utterances, {seconds:.0f} s of sound, {len(words)} words; one thread")


def _compare(name: str, batches: Sequence[Sequence[np.ndarray]], rounds: int) -> None:
    """`batches`: what is given to `audio.mfcc` at a time, as preparation does it: the signals of one utterance."""

    def ours() -> list[np.ndarray]:
        return [cepstra for batch in batches for cepstra in audio.mfcc(batch)]

    def theirs() -> list[np.ndarray]:
        return [librosa.feature.mfcc(y=signal, **LIBROSA).T for batch in batches for signal in batch]

    difference = max(float(np.abs(a - b).max()) for a, b in zip(ours(), theirs(), strict=True))
    if difference > 1e-3:
        raise SystemExit(f"{name}: differs from librosa by {difference:.2g}")
    times = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    ratios = [slow / fast for fast, slow in times]
    fast, slow = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{name}: {statistics.median(ratios):.2f}x librosa ({min(ratios):.2f} to {max(ratios):.2f} over {rounds} "
        f"rounds; {fast:.3f} s and {slow:.3f} s); largest difference {difference:.1e}"
    )


def _seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def _words(signal: np.ndarray) -> list[np.ndarray]:
    count = max(1, round(len(signal) / audio.SAMPLE_RATE / SECONDS_A_WORD))
    return [signal[start:end] for start, end in segments.equal_bounds(count, len(signal))]


def _noise(count: int) -> list[np.ndarray]:
    """Lengths of about IEMOCAP's: 4.5 s on average, from one to some twenty seconds."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(3.7), 0.65, count), 0.6, 30)
    return [
        (0.1 * rng.standard_normal(int(length * audio.SAMPLE_RATE))).astype(np.float32) for length in lengths
    ]


def _recordings(folder: Path, count: int) -> list[np.ndarray]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".wav", ".flac"))
    if not paths:
        raise SystemExit(f"{folder}: no recordings (.wav, .flac) there")
    chosen = paths[:: max(1, len(paths) // count)][:count]
    return [audio.read_audio(path)[0] for path in chosen]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--audio", type=Path, help="a folder of recordings (default: noise)")
    parser.add_argument("--count", type=int, default=100, help="utterances (default: 100)")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    main()
