"""Shared code of the commands: argument parsers, one-line error messages, and the cache of compiled programs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from jaxser.types import InputError, UsageError

CACHE_DIR = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path.home() / ".cache" / "jaxser")
"""The default of `--cache_dir`."""

RESUMABLE = "stopped; run the same command to resume"
"""What a command says if it is interrupted and can be resumed."""


def run_command(
    program: str, work: Callable[[], int], *, output: object = "output", stopped: str = "stopped"
) -> int:
    """Run a command and report an error in one line.

    Args:
        program: the name that begins an error message.
        work: does the work and returns the exit status.
        output: named in errors of the file system that name no file.
        stopped: the message if the user interrupts the command.

    Returns:
        The exit status: 0 if done, 1 if failed, 2 for wrong usage.
    """
    try:
        return work()
    except UsageError as error:
        return fail(program, error, 2)
    except InputError as error:
        return fail(program, error, 1)
    except OSError as error:  # a full disk, a folder that cannot be written
        return fail(program, f"{error.filename or output}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return fail(program, stopped, 1)


def fail(program: str, error: object, status: int) -> int:
    """Print an error in one line, and return the exit status."""
    print(f"{program}: {' '.join(str(error).splitlines())}", file=sys.stderr)
    return status


def parser(program: str, command: str, doc: str | None) -> argparse.ArgumentParser:
    """Create a parser that shows a module's docstring as help and reports wrong flags in one line.

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
