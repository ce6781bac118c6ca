"""Write the report of a finished run again.

    python -m jaxser.report runs/mcsan-mcsan-demo

Exit status: 0 done, 1 the folder is no finished run, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jaxser import report
from jaxser.types import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jaxser.report", description="Write a run's report again."
    )
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    try:
        print(report.write(parser.parse_args().run))
    except InputError as error:
        print(f"jaxser.report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
