"""Training speed compared with PyTorch: outputs, then steps and whole epochs.

    pip install torch==2.13.0                                # a CPU wheel; not a dependency of the project
    python -m benchmarks.training                            # MCSAN, CAN, LSTM attention, Self on the demo corpus
    python -m benchmarks.training --models=mcsan --rounds=5

PyTorch runs as its users run it: utterances padded to the longest of the corpus (for CAN, words too), and cuDNN on a
GPU. Both sides train on the same utterances with the same Adam, clipping and dropout rates. Both are warmed up, then
timed in turns; a ratio above 1 means that jaxser is faster. First, the outputs for the same weights are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxser import experiment
from jaxser.config import resolve
from jaxser.data.device import gather, on_host
from jaxser.data.normalisation import fold_normalisations
from jaxser.models.losses import class_weights
from jaxser.training.sweep import Sweep
from jaxser.types import Batch, Dataset

try:
    import torch

    from benchmarks import torch_models
except ModuleNotFoundError:  # without it, --help works
    torch = None

CONFIGS = {
    "mcsan": ("mcsan", "mcsan"),
    "can": ("can", "can"),
    "lstm_attention": ("lstm_attention", "lstm_attention"),
    "self_cross": ("self_cross", "self_ta"),
}
"""Config and variant of each network."""


class Side(NamedTuple):
    """jaxser or PyTorch: an epoch and a step on 300 frames, which block until they are done."""

    epoch: Callable[[], None]
    step: Callable[[], None]


def main() -> None:
    arguments = _arguments()
    if torch is None:
        raise SystemExit("PyTorch is not installed; install it by: pip install torch==2.13.0")
    print(
        f"jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__} on {_device()}, float32"
    )
    print(f"{'':16}{'largest difference':>20}{'step':>22}{'epoch':>22}{'epoch, s':>18}")
    for name in arguments.models.split(","):
        sweep, config = _sweep(name, arguments)
        ours, theirs = _ours(sweep), _theirs(name, sweep, config)
        difference = _difference(name, sweep, config)
        step = _time_in_turns(ours.step, theirs.step, arguments.rounds)
        epoch = _time_in_turns(ours.epoch, theirs.epoch, arguments.rounds)
        print(
            f"{name:16}{difference:20.1e}{_ratio(step):>22}{_ratio(epoch):>22}{_times(epoch):>18}", flush=True
        )


def _sweep(name: str, arguments: argparse.Namespace) -> tuple[Sweep, Any]:
    file, variant = CONFIGS[name]
    config = import_module(f"jaxser.configs.{file}").get_config(arguments.dataset)
    config.variant, config.seeds = variant, 1
    config.protocol.name = "holdout"
    if "train_embeddings" in config.model:
        config.model.train_embeddings = name == "can"  # as published
    if name == "self_cross":
        config.batch_size = 32
    config.buckets = arguments.buckets if name != "self_cross" else 1
    config = resolve(config)
    dataset = experiment.load_dataset(config, arguments.data_dir, log=lambda _: None)
    return experiment.build_sweep(config, dataset, jax.devices()[:1], "map"), config


def _ours(sweep: Sweep) -> Side:
    """Return the epoch and step of a single replica, without the loop over replicas."""
    trainer, state = sweep.trainer, _state(sweep)
    data = jax.device_put(on_host(sweep.dataset, trainer.model.needs))
    rows = sweep.folds[0].train
    batches = sweep.buckets.batches([rows])
    schedule = jax.device_put(sweep.buckets.train_schedule(rows, batches, (0,), 0))
    steps = len(schedule.bucket)
    epoch = jax.jit(lambda state, schedule, data: trainer.train_steps(state, schedule, 0, steps, data))
    batch, step = _long_batch(sweep, 300), jax.jit(trainer.step)

    def run_epoch() -> None:
        jax.block_until_ready(epoch(state, schedule, data))

    def run_step() -> None:
        jax.block_until_ready(step(state, batch, jnp.float32(0)))

    return Side(run_epoch, run_step)


def _state(sweep: Sweep) -> Any:
    dataset, model = sweep.dataset, sweep.trainer.model
    rows = sweep.folds[0].train
    normalisation = fold_normalisations(dataset, [rows], model.needs)[0]
    hyper = {name: jnp.float32(value) for name, value in sweep.hyper.items()}
    weights = class_weights(dataset.label[rows], len(dataset.classes), balanced=False)
    return jax.jit(sweep.trainer.init)(
        jax.random.key(0), hyper, normalisation, weights, on_host(dataset, model.needs)
    )


def _long_batch(sweep: Sweep, frames: int) -> Batch:
    """Return a batch without padding.

    It has utterances of `frames` frames, or for CAN of 10 words with `frames` frames in total.
    """
    model, rng, size = sweep.trainer.model, np.random.default_rng(0), sweep.buckets.batch_size
    fields: dict[str, Any] = {}
    for name in model.needs:
        values = sweep.dataset.arrays[name].values
        steps = model.lengths.get(name, frames if values.ndim == 2 else 10)
        if name == "segment_lengths":
            x = np.full((size, 10), frames // 10, np.int32)
        elif values.ndim == 1:
            x = rng.integers(1, len(sweep.dataset.embeddings), (size, steps)).astype(np.int32)
        else:
            x = rng.normal(size=(size, steps, values.shape[1])).astype(np.float32)
        fields |= {name: jnp.array(x), f"{name}_mask": jnp.ones((size, steps), bool)}
    label = rng.integers(0, len(sweep.dataset.classes), size)
    embeddings = None if sweep.dataset.embeddings is None else jnp.array(sweep.dataset.embeddings)
    return Batch(jnp.array(label.astype(np.int32)), jnp.ones(size), embeddings=embeddings, **fields)


def _network(name: str, sweep: Sweep, config: Any, *, with_dropout: bool = True) -> torch.nn.Module:
    dataset, classes = sweep.dataset, len(sweep.dataset.classes)
    features = dataset.arrays["segments" if name == "can" else "audio"].values.shape[1]
    rate = float(sweep.hyper["dropout_rate"]) if with_dropout else 0.0
    table = None if dataset.embeddings is None else torch.from_numpy(np.array(dataset.embeddings))
    if name == "mcsan":
        net = torch_models.MCSAN(features, table, classes, rate)
    elif name == "can":
        net = torch_models.CAN(features, table, classes, rate)
    elif name == "lstm_attention":
        net = torch_models.LSTMAttention(features, classes, rate)
    else:
        net = torch_models.SelfAttention(
            features, table, classes, rate, config.model.audio_length, config.model.audio_steps
        )
    net.fill(jax.device_get(_state(sweep).params))
    return net.to(_device())


def _inputs(name: str, batch: Batch) -> tuple[torch.Tensor, ...]:
    """Return the arguments of the PyTorch network, from a batch without padding."""
    tensor = lambda x: torch.from_numpy(np.array(x)).to(_device())  # noqa: E731
    if name == "can":
        length = int(batch.segment_lengths[0, 0])
        return tensor(batch.segments).unflatten(1, (-1, length)), tensor(batch.words).long()
    if batch.words is None:
        return (tensor(batch.audio),)
    return tensor(batch.audio), tensor(batch.words).long()


def _difference(name: str, sweep: Sweep, config: Any) -> float:
    """Return the largest difference between log-probabilities for the same weights, without dropout."""
    batch, state = _long_batch(sweep, 270), _state(sweep)
    ours = jax.jit(
        lambda s: sweep.trainer.apply(s.params, s.batch_stats, batch, s.hyper, train=False)[0].log_probs
    )
    with torch.no_grad():
        theirs = _network(name, sweep, config, with_dropout=False).eval()(*_inputs(name, batch))
    if name == "can":  # eq. 15
        theirs = (theirs["fused"] + 0.1 * (theirs["text"] + theirs["audio"])).log_softmax(1)
    difference = float(np.abs(np.asarray(ours(state)) - theirs.cpu().numpy()).max())
    if difference > 1e-3:
        raise SystemExit(f"{name}: PyTorch's output differs by {difference:.2g}")
    return difference


def _theirs(name: str, sweep: Sweep, config: Any) -> Side:
    net = _network(name, sweep, config).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    inputs, label = _padded(name, sweep), torch.from_numpy(sweep.dataset.label.astype(np.int64)).to(_device())
    rows, size = sweep.folds[0].train, sweep.buckets.batch_size

    def step(batch: tuple[torch.Tensor, ...], target: torch.Tensor) -> None:
        optimizer.zero_grad()
        output = net(*batch)
        if name == "can":
            cross_entropy = torch.nn.functional.cross_entropy
            loss = cross_entropy(output["fused"], target)
            loss = loss + 0.1 * sum(cross_entropy(output[m], target) for m in ("text", "audio"))
        else:
            loss = torch.nn.functional.nll_loss(output, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    def epoch() -> None:
        order = np.random.default_rng(0).permutation(rows)
        for begin in range(0, len(order), size):
            own = torch.from_numpy(order[begin : begin + size])
            step(tuple(x[own].to(_device()) for x in inputs), label[own])
        _synchronize()

    long = _inputs(name, _long_batch(sweep, 300))
    target = torch.zeros(size, dtype=torch.long, device=_device())

    def one_step() -> None:
        step(long, target)
        _synchronize()

    return Side(epoch, one_step)


def _padded(name: str, sweep: Sweep) -> tuple[torch.Tensor, ...]:
    """Return the corpus with every utterance padded to the longest, or to the length that the network requires."""
    dataset: Dataset = sweep.dataset
    model = sweep.trainer.model
    longest = {n: int(dataset.arrays[n].length.max()) for n in model.needs} | dict(model.lengths)
    data = on_host(dataset, model.needs)
    rows = np.arange(len(dataset.label))
    normalisation = fold_normalisations(dataset, [sweep.folds[0].train], model.needs)[0]
    batch = jax.device_get(gather(data, rows, np.ones(len(rows), np.float32), longest, normalisation))
    words = torch.from_numpy(np.array(batch.words)).long() if batch.words is not None else None
    if name == "can":
        return _pad_words(np.asarray(batch.segments), np.asarray(batch.segment_lengths)), words
    audio = torch.from_numpy(np.array(batch.audio))
    return (audio,) if words is None else (audio, words)


def _pad_words(frames: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
    """Frame as utterances x words x frames, padded to the longest word."""
    padded = np.zeros((*lengths.shape, lengths.max(), frames.shape[2]), np.float32)
    for n, own in enumerate(lengths):
        begin = 0
        for w, length in enumerate(own):
            padded[n, w, :length] = frames[n, begin : begin + length]
            begin += length
    return torch.from_numpy(padded)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _time_in_turns(
    ours: Callable[[], None], theirs: Callable[[], None], rounds: int
) -> list[tuple[float, float]]:
    for warm_up in (ours, theirs):
        warm_up()
    return [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]


def _seconds(function: Callable[[], None]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _ratio(times: list[tuple[float, float]]) -> str:
    ratios = [theirs / ours for ours, theirs in times]
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def _times(times: list[tuple[float, float]]) -> str:
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return f"{ours:.2f}, {theirs:.2f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(CONFIGS))
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--buckets", type=int, default=8)
    return parser.parse_args()


if __name__ == "__main__":
    main()
