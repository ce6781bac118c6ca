"""Running `jaxser.main` in a process of its own, on a small demo corpus."""

import subprocess
import sys
import time
from pathlib import Path

from jaxser.data_prep.prepare import prepare
from jaxser.evaluation import run_folder

REPLICAS = 5
"""The replicas of a run: five speaker folds and one seed."""

SMALL = (
    "--config.seeds=1",
    "--config.epochs=3",
    "--config.buckets=1",
    "--config.batch_size=16",
    "--config.model.hidden_size=8",
    "--config.model.num_heads=2",
    "--config.model.feed_forward_size=8",
    "--config.variant=text_only",
)


def prepare_demo(folder: Path) -> Path:
    """Prepare a demo corpus of 70 utterances; returns the folder."""
    prepare("demo", out=folder, demo={"utterances": 70}, workers=1, quiet=True)
    return folder


def command(data_dir: Path, workdir: Path, *flags: str) -> list[str]:
    """`python -m jaxser.main` with a small network; of repeated flags, the last one counts."""
    flags = (f"--data_dir={data_dir}", f"--workdir={workdir}", "--cache_dir=", *SMALL, *flags)
    return [sys.executable, "-m", "jaxser.main", "--config=configs/mcsan.py", *flags]


def run(argv: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its output."""
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)


def wait_for_epochs(folder: Path, number: int, process: subprocess.Popen) -> None:
    """Wait until a process has logged a number of epochs, or has ended."""
    path = folder / run_folder.METRICS
    for _ in range(20_000):
        if process.poll() is not None:
            return
        if path.exists() and path.read_text().count("\n") >= REPLICAS * number:
            return
        time.sleep(0.01)
