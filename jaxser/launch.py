"""Run a command as several processes of this machine, which share one training.

    python -m jaxser.launch --processes=4 -- --config=configs/mcsan.py --config.seeds=8

What stands behind `--` are the flags of `jaxser.main`. The first process speaks; when one dies the others are stopped,
and a line says so. The same command then goes on. Exit status: that of the training; 1 where a process died.

On a CPU a process is a device; where there are GPUs, process n takes the n-th (one process with all GPUs does the
same work, and needs no launcher). A cluster's own launcher (srun, mpirun, a Kubernetes job) does not need this one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from jaxser import cli
from jaxser.training.multihost import PROCESS

PATIENCE = 5.0
"""Seconds in which the first process may tell by itself what made another one fail."""


def run(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = cli.parser("jaxser", "python -m jaxser.launch", __doc__)
    parser.usage = "%(prog)s --processes=N -- FLAGS"
    parser.add_argument("--processes", type=int, required=True, help="how many")
    parser.add_argument("flags", nargs="*", help="of jaxser.main")
    told = parser.parse_args(arguments)
    if told.processes < 1:
        parser.error(f"--processes={told.processes} must be at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        errors = [open(f"{folder}/{number}", "w+b") for number in range(told.processes)]  # noqa: SIM115
        children = _start(told.flags, errors)
        try:
            return _watch(children, errors)
        except KeyboardInterrupt:
            return _say("stopped; the same command goes on")
        finally:
            for child in children:
                child.kill()
                child.wait()
            for file in errors:
                file.close()


def _start(flags: Sequence[str], errors: Sequence[IO[bytes]]) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    children = []
    for number, file in enumerate(errors):
        own = {PROCESS: f"{number}/{len(errors)}", "JAX_COORDINATOR_ADDRESS": address}
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", "jaxser.main", *flags],
                env={"JAX_LOCAL_DEVICE_IDS": str(number), **os.environ, **own},
                stdout=None if number == 0 else subprocess.DEVNULL,
                stderr=file,
            )
        )
    return children


def _watch(children: Sequence[subprocess.Popen], errors: Sequence[IO[bytes]]) -> int:
    """Wait for the end of all, or for the first that fails, and say why."""
    told: list[str] = []
    while not any(codes := [child.poll() for child in children]):
        _pass_on(errors[0], told)
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.05)
    killed = [number for number, code in enumerate(codes) if code is not None and code < 0]
    if killed:
        return _say(_death(killed[0], codes[killed[0]], len(children)))
    number = next(number for number, code in enumerate(codes) if code)
    deadline = time.monotonic() + PATIENCE
    while number > 0 and children[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    number = 0 if children[0].returncode else number
    _pass_on(errors[0], told)
    if number == 0 and told and not told[-1].startswith("jaxser: warning:"):  # it said so itself
        return children[0].returncode
    return _say(_death(number, children[number].returncode, len(children)) + _last(errors[number]))


def _pass_on(file: IO[bytes], told: list[str]) -> None:
    """Print the lines of a process's file that are its own, not a library's, and have not been told."""
    file.seek(0)
    lines = [line for line in file.read().decode(errors="replace").splitlines() if line.startswith("jaxser:")]
    for line in lines[len(told) :]:
        print(line, file=sys.stderr, flush=True)
    told[:] = lines


def _last(file: IO[bytes]) -> str:
    """The last line that a process wrote on its standard error."""
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return f" ({lines[-1].strip()})" if lines else ""


def _death(number: int, code: int | None, of: int) -> str:
    code = code or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit status {code}"
    return f"process {number} of {of} {how}; the others were stopped; the same command goes on"


def _say(sentence: str) -> int:
    print(f"jaxser: {sentence}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(run())
