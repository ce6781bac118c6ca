"""Shared code of the commands: parsers, one-line errors, the cache of compiled programs.

It imports nothing heavy, so that a command can report an interrupt of its own imports (`importing`).
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

RESUMABLE = "stopped; run the same command to resume"
"""What a command says if it is interrupted and can be resumed."""

NO_MEMORY = "there is not enough memory, or a limit such as ulimit -v is too low"
"""What a command says if memory or threads cannot be allocated."""

MIN_ADDRESS_SPACE = 2_000_000_000
"""The smallest limit of `ulimit -v` in bytes; below it, XLA ends the process without a message."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, directional overrides and surrogates: what changes a terminal or cannot be encoded."""


def _has_home() -> bool:
    """Return whether the user has a home that can be written."""
    return os.access(os.path.expanduser("~"), os.W_OK | os.X_OK)  # "~" itself for a user without one


def _default_cache_dir() -> str:
    in_home = os.path.expanduser(os.path.join("~", ".cache", "jaxser")) if _has_home() else ""
    return os.environ.get("JAX_COMPILATION_CACHE_DIR") or in_home


CACHE_DIR = _default_cache_dir()
"""The default of `--cache_dir`; empty if the user has no home that can be written."""


@contextlib.contextmanager
def importing(program: str) -> Iterator[None]:
    """Import heavy modules in a `with` block.

    An interrupt or lack of memory then ends the program with one line.
    """

    def stop(*_: Any) -> NoReturn:
        os.write(2, f"{program}: stopped\n".encode())
        os._exit(1)

    replaceable = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if replaceable:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        sys.exit(fail(program, NO_MEMORY, 1))
    finally:
        if replaceable:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def run_command(
    program: str,
    work: Callable[[], int],
    *,
    output: object = "output",
    stopped: str = "stopped",
    prints_result: bool = False,
) -> int:
    """Run a command and report an error in one line.

    Args:
        program: the name that begins an error message.
        work: does the work and returns the exit status.
        output: named in errors of the file system that name no file.
        stopped: the message if the user interrupts the command.
        prints_result: whether standard output is the result of the command; otherwise it is a log, and the command
            continues if nobody reads it.

    Returns:
        The exit status: 0 if done, 1 if failed, 2 for wrong usage.
    """
    warnings.formatwarning = lambda message, *_: f"{program}: warning: {printable(_one_line(message))}\n"
    if not _has_home():
        _provide_home()
    try:
        _open_streams(program, prints_result)
        _check_address_space()
        status = work()
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return fail(program, stopped, 1)
    except Exception as error:
        message, code = _describe(error, output)
        if not code:
            raise
        return fail(program, message, code)
    finally:
        _discard_unwritten()


def fail(program: str, error: object, status: int) -> int:
    """Print an error in one line, and return the exit status."""
    note(f"{program}: {_one_line(error)}")
    return status


def note(line: str) -> None:
    """Print a line on standard error, which may be closed or full."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(line), file=sys.stderr, flush=True)


def log(line: str) -> None:
    """Print a line on standard output."""
    print(printable(line), flush=True)


def printable(text: str) -> str:
    r"""Escape control characters, directional overrides and surrogates, such as `\x1b`."""
    return _UNPRINTABLE.sub(_escape, text)


def parser(program: str, command: str, doc: str | None) -> argparse.ArgumentParser:
    """Create a parser that shows a module's docstring as help.

    It reports wrong flags in one line.

    Args:
        program: the name that begins an error message.
        command: the command as a user types it.
        doc: the docstring of the command's module.
    """

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            sys.exit(fail(program, f"{message} (--help shows all flags)", 2))

    description, _, rest = (doc or "").partition("\n\n")
    return Parser(
        prog=command,
        description=description,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def enable_compilation_cache(folder: str) -> None:
    """Keep compiled programs in a folder; "" keeps none. Call it before anything is compiled."""
    import jax  # takes a second, which `--help` does not need

    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _describe(error: Exception, output: object) -> tuple[str, int]:
    """Return the message and the exit status of an error; status 0 for one that is not expected."""
    if _is_out_of_memory(error):
        return NO_MEMORY, 1
    from jaxser.types import InputError, UsageError  # imports JAX

    if isinstance(error, UsageError | InputError):
        return str(error), 2 if isinstance(error, UsageError) else 1
    if isinstance(error, OSError):  # a full disk, a folder that cannot be written, a closed pipe
        return f"{error.filename or output}: {error.strerror or error}", 1
    return "", 0


def _is_out_of_memory(error: Exception) -> bool:
    signs = (
        "failed to map segment",
        "Cannot allocate memory",
        "can't start new thread",
        "Resource temporarily",
    )
    is_of_system = isinstance(error, ImportError | RuntimeError | OSError)
    return isinstance(error, MemoryError) or (is_of_system and any(sign in str(error) for sign in signs))


def _one_line(message: object) -> str:
    return " ".join(str(message).splitlines())


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class _Log(io.FileIO):
    """Standard output that can lose its reader: the rest is then discarded, after one message on standard error."""

    def __init__(self, program: str):
        super().__init__(1, "w", closefd=False)
        self._program, self._is_lost = program, False

    def write(self, data: Any, /) -> int:
        """Write bytes, or discard them."""
        if not self._is_lost:
            try:
                return super().write(data)
            except OSError as error:
                self._is_lost = True
                note(f"{self._program}: standard output: {error.strerror}; continuing without it")
        return len(data)


def _check_address_space() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        raise MemoryError


def _provide_home() -> None:
    """Set a temporary home, without which some libraries cannot be imported."""
    with contextlib.suppress(OSError):
        os.environ["HOME"] = tempfile.mkdtemp(prefix="jaxser-")
        atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)


def _open_streams(program: str, prints_result: bool) -> None:
    """Make standard output print any text and, if it is a log, outlive its reader."""
    if sys.stdout is None and prints_result:
        raise OSError("it is closed")
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # a file that is opened later must not take its place
            os.open(os.devnull, os.O_RDWR)
    stdout = sys.stdout
    if stdout is not sys.__stdout__ or not isinstance(stdout, io.TextIOWrapper):
        return  # closed, or redirected within Python
    if prints_result:
        stdout.reconfigure(errors="backslashreplace")
    else:
        buffer = io.BufferedWriter(_Log(program))
        sys.stdout = io.TextIOWrapper(buffer, stdout.encoding, "backslashreplace", line_buffering=True)


def _discard_unwritten() -> None:
    """Discard what cannot be written, which Python would report when it exits."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except ValueError:  # closed
        pass
