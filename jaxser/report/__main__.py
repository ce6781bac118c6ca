"""Write the report of a finished run again, or compare several; results of other frameworks are let in as CSV.

    python -m jaxser.report runs/mcsan-mcsan-demo
    python -m jaxser.report runs/can runs/mcsan --out=runs/comparison
    python -m jaxser.report runs/mcsan --import theirs.csv --utterances speakers.csv

Exit status: 0 done, 1 a folder is no finished run or a file is not as it should be, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jaxser import cli
from jaxser.cli import exit_status


def main() -> int:
    """Reports of what the command line names."""
    parser = _parser()
    arguments = parser.parse_args()
    if not arguments.runs and not arguments.files:
        parser.error("give the folder of a finished run, or --import FILE.csv")

    def work() -> int:
        print(_write(arguments))
        return 0

    return exit_status("jaxser.report", work)


def _write(arguments: argparse.Namespace) -> Path:
    from jaxser.evaluation import run_folder  # after the arguments: matplotlib and JAX take seconds to import
    from jaxser.report import comparison_page, imports, page

    comparison_page.check_metric(arguments.metric)
    options = page.Options(arguments.audio, arguments.attention, arguments.tensorboard)
    like = [run_folder.read_run(folder) for folder in arguments.runs]
    imported = [
        imports.import_csv(
            path, arguments.imported_to / path.stem, utterances=arguments.utterances, like=like
        )
        for path in arguments.files
    ]
    if len(like) + len(imported) == 1:
        return page.write((like or imported)[0].folder, options)
    if arguments.tensorboard:
        from jaxser.report import tensorboard

        for run in like:
            tensorboard.write(run, run.folder / "tensorboard")
    return comparison_page.write([*like, *imported], arguments.out, options, arguments.metric)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("jaxser.report", "python -m jaxser.report", __doc__)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/comparison"), help="the folder of a comparison (%(default)s)"
    )
    parser.add_argument("--metric", default="ua", help="what the page is about: wa, ua or f1_weighted")
    parser.add_argument(
        "--audio", type=Path, metavar="ROOT", help="a corpus's folder: players for the mistakes"
    )
    parser.add_argument(
        "--attention",
        type=int,
        default=0,
        metavar="N",
        help="show N test utterances' attention (needs --audio)",
    )
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard's event files too")
    parser.add_argument(
        "--import",
        dest="files",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.csv",
        help="predictions of another framework: utterance, fold, seed, true, predicted, and p_CLASS where known",
    )
    parser.add_argument(
        "--utterances", type=Path, metavar="FILE.csv", help="speaker, gender, ... of the imported utterances"
    )
    parser.add_argument(
        "--imported_to", type=Path, default=Path("runs"), help="where imported runs are put (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
