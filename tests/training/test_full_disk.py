"""A disk that is full: one line that says what was not written, whatever the libraries raise."""

import errno
import os
import sys
from types import SimpleNamespace

import pytest

from jaxser.training import checkpoint
from jaxser.training.checkpoint import Checkpoints, _reporting
from jaxser.types import InputError

TENSORSTORE = ValueError(
    "RESOURCE_EXHAUSTED: Error writing local file: No space left [os_error_code='28']\nmore"
)
FULL = (
    "a checkpoint cannot be written (No space left on device); the run can be resumed from the one before it"
)


@pytest.mark.parametrize("error", [TENSORSTORE, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_errors_of_writing_a_checkpoint_are_one_line(tmp_path, error):
    with pytest.raises(InputError) as found, _reporting(tmp_path):
        raise error
    assert str(found.value) == f"{tmp_path}: {FULL}"


class FullManager:
    """A manager whose background save has failed."""

    def wait_until_finished(self):
        raise TENSORSTORE

    def close(self):
        raise AssertionError("not reached")


def test_a_failed_background_save_is_reported_but_hides_no_earlier_error(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints._manager.close()
    checkpoints._manager = FullManager()
    with pytest.raises(InputError, match="No space left on device"), checkpoints:
        pass
    with pytest.raises(OSError, match="first"), checkpoints:
        raise OSError("first")


def test_writes_that_end_after_a_failure_print_no_traceback(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    checkpoint._ignore_late_callbacks.__wrapped__()
    late, other = (
        SimpleNamespace(exc_value=RuntimeError(text)) for text in ("Event loop is closed", "another")
    )
    sys.unraisablehook(late)
    sys.unraisablehook(other)
    assert reported == [other]
