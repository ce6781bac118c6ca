"""Speed of the encoders relative to `transformers`, after comparing their numbers.

    python -m benchmarks.encoders                                # each family at base size, random weights
    python -m benchmarks.encoders --families=whisper,wavlm --batch=4 --seconds=2,4
    python -m benchmarks.encoders --folder=FOLDER                # a pretrained encoder

Both sides compute all hidden states of the same batch in float32 from waveforms: noise, with lengths drawn between the
two of --seconds. `padded` is one padded batch on both sides. `real lengths` is each recording at its own length on
their side, and one padded batch on ours; Whisper's window is cut to the recording on ours, while theirs accepts only
30 s. Prints valid frames a second (the median over the rounds, which alternate between the two sides) and the ratios
of the times.
Needs PyTorch and transformers: pip install 'jaxser[parity]'. Runs on a GPU if both sides find one.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxser import encoders
from jaxser.features.audio import SAMPLE_RATE

FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "whisper")
"""At the default size of their configs in `transformers`: base, and tiny for Whisper."""

TOLERANCE = 1e-3  # of a layer's range; tests/encoders/test_parity.py has the strict one


class Side(NamedTuple):
    """One implementation: hidden states of a padded batch, and of each recording by itself."""

    padded: Callable[[], Sequence[Any]]
    real_lengths: Callable[[], Any]


def main() -> None:
    arguments = _arguments()
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    shortest, longest = (float(part) * SAMPLE_RATE for part in arguments.seconds.split(","))
    rng = np.random.default_rng(0)
    lengths = [*sorted(int(n) for n in rng.uniform(shortest, longest, arguments.batch - 1)), int(longest)]
    waveforms = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in lengths]
    print(
        f"{jax.default_backend()}; {len(lengths)} recordings of {shortest / SAMPLE_RATE:g} to "
        f"{longest / SAMPLE_RATE:g} s; frames a second; the median of {arguments.rounds} rounds"
    )
    for name in [str(arguments.folder)] if arguments.folder else arguments.families.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.folder or _random_folder(name, Path(temporary))
            _compare(name, folder, waveforms, arguments.rounds)


def _random_folder(family: str, folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    extractor = (
        transformers.WhisperFeatureExtractor()
        if family == "whisper"
        else transformers.Wav2Vec2FeatureExtractor(return_attention_mask=family == "data2vec-audio")
    )
    extractor.save_pretrained(folder)
    return folder


def _compare(name: str, folder: Path, waveforms: list[np.ndarray], rounds: int) -> None:
    exact = encoders.load(folder, padding="exact")
    published = encoders.load(folder, padding="as_published")
    frames = sum(int(exact.num_frames(len(wave))) for wave in waveforms)
    ours, theirs = _ours(published, exact, waveforms), _theirs(folder, waveforms)
    for our_state, their_state in zip(ours.padded(), theirs.padded(), strict=True):
        valid = len(waveforms[-1]) // exact.hop - 1  # the last recording is the longest
        a, b = (np.asarray(state)[-1, :valid] for state in (our_state, their_state))
        if (difference := float(np.abs(a - b).max() / np.ptp(b))) > TOLERANCE:
            raise SystemExit(f"{name}: differs from transformers by {difference:.2g} of the range of a layer")
    for kind in Side._fields:
        pairs = [getattr(ours, kind), getattr(theirs, kind)]
        for function in pairs:
            function()  # compiles
        measured = [[_seconds(function) for function in pairs] for _ in range(rounds)]
        rates = [frames / statistics.median(row[side].wall for row in measured) for side in (0, 1)]
        print(
            f"{name}, {kind.replace('_', ' ')}: jaxser {rates[0]:.0f}, transformers {rates[1]:.0f}; "
            f"ratio {_ratios([theirs.wall / ours.wall for ours, theirs in measured])}; "
            f"of processor times {_ratios([theirs.processor / ours.processor for ours, theirs in measured])}",
            flush=True,
        )


class Seconds(NamedTuple):
    """Time of a call; that of the processors depends little on what else the machine does."""

    wall: float
    processor: float


def _seconds(function: Callable[[], object]) -> Seconds:
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def _ratios(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _ours(published: encoders.Encoder, exact: encoders.Encoder, waveforms: list[np.ndarray]) -> Side:
    lengths = np.array([len(wave) for wave in waveforms], np.int32)
    batch = np.zeros((len(waveforms), lengths.max()), np.float32)
    for row, wave in zip(batch, waveforms, strict=True):
        row[: len(wave)] = wave
    return Side(
        lambda: jax.block_until_ready(published(batch, lengths).states),
        lambda: jax.block_until_ready(exact(batch, lengths).states),
    )


def _theirs(folder: Path, waveforms: list[np.ndarray]) -> Side:
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    config = transformers.AutoConfig.from_pretrained(folder)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    if config.model_type == "whisper":
        model = (
            transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
            .get_encoder()
            .to(device)
            .eval()
        )
    else:
        model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()

    def run(recordings: list[np.ndarray]) -> list[Any]:
        padding = {} if config.model_type == "whisper" else {"padding": True}
        batch = extractor(recordings, sampling_rate=SAMPLE_RATE, return_tensors="pt", **padding)
        with torch.inference_mode():
            output = model(**{k: v.to(device) for k, v in batch.items()}, output_hidden_states=True)
        states = [*output.hidden_states[:-1], output.last_hidden_state]
        return [state.cpu().numpy() for state in states]

    return Side(lambda: run(waveforms), lambda: [run([wave]) for wave in waveforms])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--families", default=",".join(FAMILIES), help="families, separated by commas (default: all)"
    )
    parser.add_argument("--folder", type=Path, help="a pretrained encoder, instead of random weights")
    parser.add_argument("--batch", type=int, default=8, help="number of recordings (default: 8)")
    parser.add_argument("--seconds", default="2,6", help="shortest and longest recording (default: 2,6)")
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements (default: 5)")
    parser.add_argument("--threads", type=int, help="PyTorch's threads (default: its own choice)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
