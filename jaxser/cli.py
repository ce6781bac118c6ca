"""What the commands share: flags explained by their module, and errors as one line with an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from jaxser.types import InputError, UsageError

CACHE_DIR = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path.home() / ".cache" / "jaxser")


def exit_status(
    program: str, work: Callable[[], int], *, output: object = "output", stopped: str = "stopped"
) -> int:
    """What `work` returns; 2 where the usage is wrong, 1 where it failed, with a line that says why.

    `output` is named where an error of the file system names no file.
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


def fail(program: str, error: object, code: int) -> int:
    """Say an error in a line; returns the exit status."""
    print(f"{program}: {' '.join(str(error).splitlines())}", file=sys.stderr)
    return code


def parser(program: str, command: str, doc: str | None) -> argparse.ArgumentParser:
    """Flags with the module's docstring as help; wrong ones are a line that `program` says, and exit status 2."""

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


def keep_programs(folder: str) -> None:
    """Keep compiled programs in a folder; "" keeps none. To be called before the first is compiled."""
    import jax  # takes a second, which `--help` need not wait for

    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
