"""A run's report: one self-contained HTML page, and its tables as Markdown and CSV."""

from __future__ import annotations

from pathlib import Path


def write(folder: str | Path) -> Path:
    """Write `report/` into a finished run's folder; returns the page.

    Raises:
        InputError: the folder is no run, is not finished, or is damaged.
    """
    from jaxser.report.page import write  # matplotlib loads here, when training is over

    return write(Path(folder))
