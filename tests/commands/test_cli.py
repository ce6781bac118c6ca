"""What the commands share: one line for an error, and output that survives closed pipes, ASCII and odd names."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from jaxser import cli
from jaxser.types import InputError, UsageError


def python(code, *, stdout=subprocess.PIPE, **environment):
    """Run Python code that has imported `cli`; returns the finished process."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom jaxser import cli\n{code}"],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        check=False,
        timeout=60,
    )


PRINT = "sys.exit(cli.run_command('x', lambda: [cli.log('a\\u4e2d\\udcff\\x1b[1m'), 0][1]))"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("wrong"), 2, "wrong"),
        (InputError("two\nlines"), 1, "two lines"),
        (InputError("\x1b[2J\x9b\u202e\ttab"), 1, "\\x1b[2J\\x9b\\u202e\ttab"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "f"), 1, "f: No space left on device"),
        (OSError(errno.EPIPE, os.strerror(errno.EPIPE)), 1, "out: Broken pipe"),
        (MemoryError(), 1, cli.NO_MEMORY),
        (RuntimeError("can't start new thread"), 1, cli.NO_MEMORY),
        (ImportError("a.so: failed to map segment from shared object"), 1, cli.NO_MEMORY),
        (KeyboardInterrupt(), 1, "ended"),
    ],
)
def test_an_error_is_one_line(capsys, error, status, line):
    def work():
        raise error

    assert cli.run_command("x", work, output="out", stopped="ended") == status
    assert capsys.readouterr().err == f"x: {line}\n"


def test_a_programming_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run_command("x", lambda: 1 // 0)


def test_ascii_output_shows_any_text():
    done = python(PRINT, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\\u4e2d\\udcff\\x1b[1m\n", "")
    done = python(PRINT, PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout) == (0, "a\u4e2d\\udcff\\x1b[1m\n")


def test_a_log_that_cannot_be_written_is_given_up():
    code = "sys.exit(cli.run_command('x', lambda: [[print('line') for _ in range(3)], 0][1]))"
    with open("/dev/full", "w") as full:
        done = python(code, stdout=full)
    assert done.returncode == 0
    assert done.stderr == "x: standard output: No space left on device; continuing without it\n"


def test_a_result_that_cannot_be_written_is_an_error():
    code = "sys.exit(cli.run_command('x', lambda: [print('line'), 0][1], output='out', prints_result=True))"
    with open("/dev/full", "w") as full:
        done = python(code, stdout=full)
    assert (done.returncode, done.stderr) == (1, "x: out: No space left on device\n")


@pytest.mark.parametrize("home", ["~", "/nonexistent"])
def test_a_user_without_a_home_gets_a_temporary_one_and_no_cache(monkeypatch, home):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", home))
    cleanups = []
    monkeypatch.setattr(cli.atexit, "register", lambda *call, **options: cleanups.append((call, options)))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", home)
    assert cli._default_cache_dir() == ""
    seen = []
    cli.run_command("x", lambda: seen.append(os.environ["HOME"]) or 0)
    assert "jaxser-" in seen[0]
    [((remove, folder), options)] = cleanups
    assert folder == seen[0]
    assert os.path.isdir(folder)
    remove(folder, **options)
    assert not os.path.exists(folder)


def test_an_interrupt_during_imports_is_one_line():
    code = (
        "import signal, sys, time\nfrom jaxser import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "with cli.importing('x'):\n    print('ready', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=100)[1] == "x: stopped\n"
        assert process.returncode == 1


def test_importing_the_shared_code_imports_nothing_heavy():
    code = (
        "heavy = {'jax', 'numpy', 'absl', 'matplotlib'} & sys.modules.keys(); sys.exit(', '.join(heavy) or 0)"
    )
    assert python(code).returncode == 0


def test_a_limit_of_memory_that_xla_cannot_report_is_an_error(monkeypatch, capsys):
    limits = {"small": 1_000_000_000, "large": 10_000_000_000, "none": resource.RLIM_INFINITY}
    found = {}
    for name, limit in limits.items():
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        found[name] = cli.run_command("program", lambda: 0)
    assert found == {"small": 1, "large": 0, "none": 0}
    assert capsys.readouterr().err == f"program: {cli.NO_MEMORY}\n"
