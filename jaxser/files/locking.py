"""A lock on a folder, for processes of several hosts that share a file system."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import psutil

from jaxser.files.checking import CheckedFolder
from jaxser.files.writing import create_exclusively, naming, remove, write
from jaxser.types import InputError

LOCK = "jaxser.lock"
"""The file that marks a folder as being written."""


_ATTEMPTS = 50


@dataclass(frozen=True)
class Holder:
    """The process that holds the lock of a folder.

    Attributes:
        host: the name of its host.
        machine: the boot of the host and the process namespace, within which a process id is unique.
        pid: its process id.
        started: when it started, which tells it from a later process of the same id; "" if unknown.
        user: the name of its user.
        time: when it took the lock.
        job: its SLURM job, and how often that was restarted; "" outside of SLURM.
        token: differs for every lock.
    """

    host: str = "an unknown host"
    machine: str = ""
    pid: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    started: str = ""
    user: str = "an unknown user"
    time: str = "an unknown time"
    job: str = ""
    token: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]*$")] = ""

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, since {self.time}"


@contextmanager
def lock(root: Path, advice: str) -> Iterator[None]:
    """Lock a folder against other processes.

    They may be on this host, or on another one that shares the file system. A lock that was left by a killed process of
    this host, or by an earlier start of the same SLURM job, is taken over.

    Args:
        root: a folder; created if it is missing.
        advice: what to do if another process holds the lock, such as how to name another folder.

    Raises:
        InputError: if another process holds the lock.
    """
    own = _this_process()
    for _ in range(_ATTEMPTS):
        holder = _take(root, own)
        if holder == own:
            break
        if holder is not None and not _is_gone(holder, own):
            raise InputError(f"{root} is being written by {holder}; {advice}{_if_gone(root, holder, own)}")
        if holder is not None and not _free(root, holder):
            time.sleep(0.1)  # another process is taking it over
    else:
        raise InputError(f"{root} cannot be locked; if no process writes to it, remove {root / LOCK}*")
    try:
        yield
    finally:
        if _holder(root) == own:
            remove(root, LOCK)


def _take(root: Path, own: Holder) -> Holder | None:
    """Create the lock, and return its holder; None if it was released in between."""
    temporary = f"{LOCK}.{own.token}.tmp"
    content = json.dumps(asdict(own)).encode()
    with naming(root, str(root / temporary)):
        write(root, temporary, content)
    try:
        os.link(root / temporary, root / LOCK, follow_symlinks=False)  # with its contents at once
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        with suppress(FileExistsError):
            create_exclusively(root / LOCK, content)
    finally:
        remove(root, temporary)
    return _holder(root)


def _free(root: Path, gone: Holder) -> bool:
    """Remove the lock of a process that has ended, unless another process is about to do it."""
    claim = f"{LOCK}.{gone.token}"
    try:
        create_exclusively(root / claim, b"")
    except FileExistsError:
        return False
    try:
        if _holder(root) == gone:
            remove(root, LOCK)
    finally:
        remove(root, claim)
    return True


def _holder(root: Path) -> Holder | None:
    """Return the holder of the lock; None if there is no lock."""
    folder = CheckedFolder(root, "")
    try:
        return folder.read_json(LOCK, Holder)
    except InputError:
        return Holder() if folder.has(LOCK) else None


def _is_gone(holder: Holder, own: Holder) -> bool:
    """Return whether the holder has certainly ended."""
    if holder.job and holder.job.partition(" ")[0] == own.job.partition(" ")[0] and holder.job != own.job:
        return True
    is_here = holder.host == own.host and holder.machine == own.machine
    return is_here and holder.pid > 0 and _start_of(holder.pid) not in (holder.started, "unknown")


def _if_gone(root: Path, holder: Holder, own: Holder) -> str:
    if holder.host == own.host and holder.machine == own.machine:
        return ""
    return f" (if that process has ended, remove {root / LOCK})"


def _this_process() -> Holder:
    job = os.environ.get("SLURM_JOB_ID", "")
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no entry in the password file
        user = f"user {os.getuid()}"
    return Holder(
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=_start_of(os.getpid()),
        user=user,
        time=datetime.now().astimezone().isoformat(" ", "seconds"),
        job=f"{job} {os.environ.get('SLURM_RESTART_COUNT', '0')}" if job else "",
        token=secrets.token_hex(8),
    )


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return sys.platform


def _start_of(pid: int) -> str:
    """Return when a process started.

    It is "" if the process has ended, and "unknown" if that cannot be found out.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:  # it exists, and belongs to another user
        pass
    with suppress(OSError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = text.rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]  # in ticks since boot, which no change of the clock alters
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return "unknown"
