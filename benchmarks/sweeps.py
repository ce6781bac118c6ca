"""Sweeps of 1, 5, 10 and 50 replicas: start-up, compilation, epochs and memory.

    python -m benchmarks.sweeps                                     # MCSAN on 400 utterances of the demo corpus
    python -m benchmarks.sweeps --config=can --replicas=1,10 --dataset=demo

Each line is measured in two processes: the first without compiled programs on disk, the second with those of the first.
The time to start lasts until compilation has finished, when the first step can run. The time of an epoch is the median
over `--epochs`; its ratio compares it with training the same number of replicas one at a time.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxser.training.sweep import Sweep


def main() -> None:
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(_measure(arguments)))
        return
    print(
        f"{'replicas':>8}{'first start, s':>16}{'compiling':>11}{'second start, s':>17}{'compiling':>11}"
        f"{'epoch, s':>10}{'ratio to one':>14}{'peak, MB':>10}{'saving':>9}"
    )
    alone = None
    for number in map(int, arguments.replicas.split(",")):
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (_measure_in_process(number, cache, arguments) for _ in range(2))
        epoch = statistics.median(cold["epochs"] + warm["epochs"])
        alone = alone or epoch / number
        print(
            f"{number:8}{cold['start']:16.1f}{cold['compiling']:11.1f}{warm['start']:17.1f}{warm['compiling']:11.1f}"
            f"{epoch:10.2f}{number * alone / epoch:13.2f}x{cold['peak'] / 2**20:10.0f}{cold['saving']:9.1%}",
            flush=True,
        )


def _measure_in_process(number: int, cache: str, arguments: argparse.Namespace) -> dict:
    flags = [f"--{name}={value}" for name, value in vars(arguments).items() if name not in ("one", "cache")]
    command = [sys.executable, "-m", "benchmarks.sweeps", *flags, f"--one={number}", f"--cache={cache}"]
    begin = time.time()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured = json.loads(output.splitlines()[-1])
    return {**measured, "start": measured["compiled_at"] - begin}


def _measure(arguments: argparse.Namespace) -> dict:
    """Measure in this process: train folds x seeds that make `--one` replicas, as in a run."""
    import jax

    from jaxser.cli import enable_compilation_cache
    from jaxser.evaluation.run_folder import read_epochs
    from jaxser.training import loop

    enable_compilation_cache(arguments.cache)
    sweep = _sweep(arguments)
    saving = _time_saving()
    begin = time.perf_counter()
    sweep.initial_state()
    sweep.compile_epoch(sweep.rows(len(sweep.replicas)))
    compiling, compiled_at = time.perf_counter() - begin, time.time()
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        loop.train_sweep(sweep, Path(folder), lambda _: None)
        total = time.perf_counter() - begin
        epochs = {record.epoch: record.seconds for record in read_epochs(Path(folder))}
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "compiled_at": compiled_at,
        "compiling": compiling,
        "epochs": [*epochs.values()][1:],
        "peak": peak,
        "saving": sum(saving) / total,
    }


def _sweep(arguments: argparse.Namespace) -> Sweep:
    import jax

    from jaxser import experiment
    from jaxser.config import resolve

    config = import_module(f"jaxser.configs.{arguments.config}").get_config(arguments.dataset)
    config.epochs = arguments.epochs
    folds = 5 if arguments.one % 5 == 0 else 1
    config.protocol.name, config.seeds = ("session" if folds == 5 else "holdout"), arguments.one // folds
    config = resolve(config)
    data = experiment.load_dataset(config, arguments.data_dir, lambda _: None)
    return experiment.build_sweep(config, data, jax.devices())


def _time_saving() -> list[float]:
    """Time every checkpoint from now on, and return the list that receives the seconds."""
    from jaxser.training.checkpoint import Checkpoints

    seconds: list[float] = []
    save = Checkpoints.save

    def timed(self, *state) -> bool:
        begin = time.perf_counter()
        saved = save(self, *state)
        seconds.append(time.perf_counter() - begin)
        return saved

    Checkpoints.save = timed  # type: ignore[method-assign]
    return seconds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="mcsan", help="a config, such as mcsan")
    parser.add_argument("--dataset", default="demo_quick")
    parser.add_argument(
        "--replicas",
        default="1,5,10,50",
        help="numbers of replicas: 1, or multiples of 5 (session folds x seeds)",
    )
    parser.add_argument("--epochs", type=int, default=4, help="epochs to train; the first is not timed")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--cache", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
