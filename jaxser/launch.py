"""Train with several processes on this machine.

    python -m jaxser.launch --processes=4 -- --config=configs/mcsan.py --config.seeds=8

The flags of `jaxser.main` follow `--`. Process 0 prints and writes the run folder. If a process dies, the others are
stopped with a one-line message; run the same command to resume. The exit status is that of the training, or 1 if a
process died.

On a CPU, each process is one device. On GPUs, process n uses GPU n; a single process with all GPUs does the same work
and needs no launcher. Clusters have launchers of their own, such as srun, mpirun or a Kubernetes job.
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

with cli.importing("jaxser"):
    from jaxser.training.multihost import PROCESS

GRACE_PERIOD = 5.0
"""Seconds in which process 0 may report why another process failed."""

HOW_TO_RESUME = "run the same command to resume"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = cli.parser("jaxser", "python -m jaxser.launch", __doc__)
    parser.usage = "%(prog)s --processes=N -- FLAGS"
    parser.add_argument("--processes", type=int, required=True, help="number of processes")
    parser.add_argument("flags", nargs="*", help="flags of jaxser.main")
    flags = parser.parse_args(arguments)
    if flags.processes < 1:
        parser.error(f"--processes={flags.processes} must be at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        errors = [open(f"{folder}/{number}", "w+b") for number in range(flags.processes)]  # noqa: SIM115
        children = _start(flags.flags, errors)
        try:
            return _watch(children, errors)
        except KeyboardInterrupt:
            return _fail(f"stopped; {HOW_TO_RESUME}")
        finally:
            for child in children:
                child.kill()
                child.wait()
            for file in errors:
                file.close()


def _start(flags: Sequence[str], errors: Sequence[IO[bytes]]) -> list[subprocess.Popen[bytes]]:
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


def _watch(children: Sequence[subprocess.Popen[bytes]], errors: Sequence[IO[bytes]]) -> int:
    """Wait until all processes have succeeded or one has failed; reports the failure and returns the exit status."""
    printed: list[str] = []
    while not any(codes := [child.poll() for child in children]):
        _forward(errors[0], printed)
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.05)
    killed = [number for number, code in enumerate(codes) if code is not None and code < 0]
    if killed:
        return _fail(_describe_death(killed[0], codes[killed[0]], len(children)))
    number = next(number for number, code in enumerate(codes) if code)
    deadline = time.monotonic() + GRACE_PERIOD
    while number > 0 and children[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    number = 0 if children[0].returncode else number
    _forward(errors[0], printed)
    if (
        number == 0 and printed and not printed[-1].startswith("jaxser: warning:")
    ):  # it reported the error itself
        return children[0].returncode
    description = _describe_death(number, children[number].returncode, len(children))
    return _fail(description + _last_line(errors[number]))


def _forward(file: IO[bytes], printed: list[str]) -> None:
    """Print new lines of a process's standard error that come from jaxser rather than a library."""
    file.seek(0)
    lines = [line for line in file.read().decode(errors="replace").splitlines() if line.startswith("jaxser:")]
    for line in lines[len(printed) :]:
        print(line, file=sys.stderr, flush=True)
    printed[:] = lines


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return f" ({lines[-1].strip()})" if lines else ""


def _describe_death(number: int, code: int | None, total: int) -> str:
    code = code or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit status {code}"
    return f"process {number} of {total} {how}; the others were stopped; {HOW_TO_RESUME}"


def _fail(message: str) -> int:
    print(f"jaxser: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
