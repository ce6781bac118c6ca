"""Reports: HTML pages of runs and comparisons, with tables and figures as files."""

from __future__ import annotations

from pathlib import Path


def write(folder: str | Path) -> Path:
    """Write `report/` into the folder of a finished run, and return the path of the page.

    Raises:
        InputError: if the folder is not a run, is not finished, or is damaged.
    """
    from jaxser.report.page import write  # imports matplotlib, which training does not need

    return write(Path(folder))
