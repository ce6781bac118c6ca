"""Sweeps of 1, 5, 10 and 50 replicas: start-up, compilation with and without its cache, epochs, memory, checkpoints.

    python -m benchmarks.sweeps                                     # MCSAN on 400 utterances of the demo corpus
    python -m benchmarks.sweeps --config=can --replicas=1,10 --dataset=demo

Every line is two processes of their own, the first without compiled programs on disk, the second with those of the
first. The first step is done no later than the first epoch begins and is told by the end of compilation; an epoch is
the median of `--epochs`, and its ratio is to as many epochs of one replica.
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


def main() -> None:
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(_measured(arguments)))
        return
    print(
        f"{'replicas':>8}{'first start, s':>16}{'compiling':>11}{'second start, s':>17}{'compiling':>11}"
        f"{'epoch, s':>10}{'ratio to one':>14}{'peak, MB':>10}{'saving':>9}"
    )
    alone = None
    for number in map(int, arguments.replicas.split(",")):
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (_in_a_process(number, cache, arguments) for _ in range(2))
        epoch = statistics.median(cold["epochs"] + warm["epochs"])
        alone = alone or epoch / number
        print(
            f"{number:8}{cold['start']:16.1f}{cold['compiling']:11.1f}{warm['start']:17.1f}{warm['compiling']:11.1f}"
            f"{epoch:10.2f}{number * alone / epoch:13.2f}x{cold['peak'] / 2**20:10.0f}{cold['saving']:9.1%}",
            flush=True,
        )


def _in_a_process(number: int, cache: str, arguments: argparse.Namespace) -> dict:
    flags = [f"--{name}={value}" for name, value in vars(arguments).items() if name not in ("one", "cache")]
    command = [sys.executable, "-m", "benchmarks.sweeps", *flags, f"--one={number}", f"--cache={cache}"]
    begin = time.time()
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    found = json.loads(told)
    return {**found, "start": found["compiled_at"] - begin}


def _measured(arguments: argparse.Namespace) -> dict:
    """What a process of its own finds: folds x seeds so that there are `--one` replicas, trained as a run is."""
    import jax

    from jaxser import experiment
    from jaxser.cli import keep_programs
    from jaxser.config import resolve
    from jaxser.evaluation.run_folder import read_epochs
    from jaxser.training import loop
    from jaxser.training.checkpoint import Checkpoints

    keep_programs(arguments.cache)
    config = import_module(f"jaxser.configs.{arguments.config}").get_config(arguments.dataset)
    config.epochs = arguments.epochs
    folds = 5 if arguments.one % 5 == 0 else 1
    config.protocol.name, config.seeds = ("session" if folds == 5 else "holdout"), arguments.one // folds
    config = resolve(config)
    data = experiment.load_dataset(config, arguments.data_dir, lambda _: None)
    sweep = experiment.build_sweep(config, data, jax.devices(), "")

    saving = []
    save = Checkpoints.save

    def timed(self, *state) -> None:
        begin = time.perf_counter()
        save(self, *state)
        saving.append(time.perf_counter() - begin)

    Checkpoints.save = timed  # type: ignore[method-assign]
    begin = time.perf_counter()
    sweep.begin()
    sweep.compile_epoch(sweep.rows(len(sweep.replicas)))
    compiling, compiled_at = time.perf_counter() - begin, time.time()
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        loop.train(sweep, Path(folder), lambda _: None)
        whole = time.perf_counter() - begin
        epochs = {record.epoch: record.seconds for record in read_epochs(Path(folder))}
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "compiled_at": compiled_at,
        "compiling": compiling,
        "epochs": [*epochs.values()][1:],
        "peak": peak,
        "saving": sum(saving) / whole,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="mcsan", help="a file of configs/")
    parser.add_argument("--dataset", default="demo_quick")
    parser.add_argument(
        "--replicas", default="1,5,10,50", help="one, or multiples of five: session folds x seeds"
    )
    parser.add_argument("--epochs", type=int, default=4, help="the first does not count")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--cache", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
