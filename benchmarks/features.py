"""Speed of batched MFCC relative to librosa, after comparing their numbers.

    python -m benchmarks.features                      # noise with the lengths of speech
    python -m benchmarks.features --audio=RAVDESS      # recordings from a folder

Prints, for whole utterances and for word segments, the ratio of CPU times on one thread (the median, and the range over
the rounds, which alternate between the two implementations) and the largest difference.
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

from jaxser.features import audio, segments, spectra

LIBROSA = {
    "sr": audio.SAMPLE_RATE, "n_mfcc": 40, "n_mels": spectra.N_MELS, "n_fft": spectra.N_FFT,
    "hop_length": audio.HOP, "win_length": audio.WINDOW, "window": "hamming",
}  # fmt: skip
SECONDS_PER_WORD = 0.33
TOLERANCE = 1.5e-6  # of the largest coefficient


def main() -> None:
    arguments = _arguments()
    utterances = _recordings(arguments.audio, arguments.count) if arguments.audio else _noise(arguments.count)
    words = [_words(signal) for signal in utterances]
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=512 is too large")
        _compare("utterances", [[signal] for signal in utterances], arguments.rounds)
        _compare("word segments", words, arguments.rounds)
    seconds = sum(map(len, utterances)) / audio.SAMPLE_RATE
    print(f"{len(utterances)} utterances, {seconds:.0f} s of audio, {sum(map(len, words))} words; one thread")


def _compare(name: str, batches: Sequence[Sequence[np.ndarray]], rounds: int) -> None:
    """Compare times and results.

    Each batch holds the signals of one utterance, as in preparation.
    """

    def ours() -> list[np.ndarray]:
        return [cepstra for batch in batches for cepstra in spectra.mfcc(batch)]

    def theirs() -> list[np.ndarray]:
        return [librosa.feature.mfcc(y=signal, **LIBROSA).T for batch in batches for signal in batch]

    pairs = list(zip(ours(), theirs(), strict=True))
    difference = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    if difference > TOLERANCE:
        raise SystemExit(f"{name}: differs from librosa by {difference:.2g} of the largest coefficient")
    times = [(_cpu_seconds(ours), _cpu_seconds(theirs)) for _ in range(rounds)]
    ratios = [slow / fast for fast, slow in times]
    fast, slow = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{name}: {statistics.median(ratios):.2f} times as fast as librosa ({min(ratios):.2f} to {max(ratios):.2f} "
        f"in {rounds} rounds; {fast:.3f} s and {slow:.3f} s); largest relative difference {difference:.1e}"
    )


def _cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def _words(signal: np.ndarray) -> list[np.ndarray]:
    count = max(1, round(len(signal) / audio.SAMPLE_RATE / SECONDS_PER_WORD))
    return [signal[start:end] for start, end in segments.equal_bounds(count, len(signal))]


def _noise(count: int) -> list[np.ndarray]:
    """Return noise with lengths similar to IEMOCAP's: 4.5 s on average, from 0.6 to 30 s."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(3.7), 0.65, count), 0.6, 30)
    return [
        (0.1 * rng.standard_normal(int(length * audio.SAMPLE_RATE))).astype(np.float32) for length in lengths
    ]


def _recordings(folder: Path, count: int) -> list[np.ndarray]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".wav", ".flac"))
    if not paths:
        raise SystemExit(f"{folder}: no recordings (.wav, .flac) found")
    chosen = paths[:: max(1, len(paths) // count)][:count]
    return [audio.read_audio(path).samples for path in chosen]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--audio", type=Path, help="a folder of recordings (default: noise)")
    parser.add_argument("--count", type=int, default=100, help="number of utterances (default: 100)")
    parser.add_argument("--rounds", type=int, default=7, help="number of measurements (default: 7)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
