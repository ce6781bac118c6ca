"""Write the report of a finished run, or compare several runs.

Results of other frameworks can be compared as well.

    python -m jaxser.report runs/mcsan-mcsan-demo
    python -m jaxser.report runs/can runs/mcsan --out=runs/comparison
    python -m jaxser.report runs/mcsan --import theirs.csv --utterances speakers.csv
    python -m jaxser.report runs/mcsan runs/mcsan-twin --twin    # what speakers shared between the parts are worth

Exit status: 0 on success, 1 if a folder is not a finished run or a file cannot be used, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jaxser import cli
from jaxser.cli import run_command

with cli.importing("jaxser.report"):
    from jaxser.types import UsageError


def main() -> int:
    """Run the command line, and return its exit status."""
    parser = _parser()
    arguments = parser.parse_args()
    if not arguments.runs and not arguments.files:
        parser.error("give the folder of a finished run, or --import FILE.csv")

    def work() -> int:
        cli.log(_compare_twins(arguments) if arguments.twin else str(_write(arguments)))
        return 0

    return run_command("jaxser.report", work)


def _compare_twins(arguments: argparse.Namespace) -> str:
    from jaxser.evaluation import fold_twins

    if len(arguments.runs) != 2 or arguments.files:
        raise UsageError(
            "--twin: give the folders of two runs, the second on the speaker-disjoint twin of the folds"
        )
    return str(fold_twins.read_worth(*arguments.runs))


def _write(arguments: argparse.Namespace) -> Path:
    from jaxser.evaluation import run_folder  # after parsing: importing JAX and matplotlib takes seconds
    from jaxser.report import comparison_page, imports, page

    comparison_page.check_metric(arguments.metric)
    stems = [path.stem for path in arguments.files]
    if twice := [stem for stem in stems if stems.count(stem) > 1]:
        raise UsageError(
            f"--import: two files are called {twice[0]}; rename one, since runs are named after them"
        )
    if arguments.encoder and not arguments.attention:
        raise UsageError(f"--encoder={arguments.encoder}: only for --attention")
    options = page.Options(arguments.audio, arguments.attention, arguments.tensorboard, arguments.encoder)
    like = [run_folder.read_run(folder) for folder in arguments.runs]
    imported = [
        imports.import_csv(
            path, arguments.imported_to / path.stem, utterances=arguments.utterances, like=like
        )
        for path in arguments.files
    ]
    if len(like) + len(imported) == 1:
        return page.write_run((like or imported)[0], options)
    if arguments.tensorboard:
        from jaxser.report import tensorboard

        for run in like:
            tensorboard.write(run, run.folder)
    return comparison_page.write([*like, *imported], arguments.out, options, arguments.metric)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("jaxser.report", "python -m jaxser.report", __doc__)
    add = parser.add_argument
    add("runs", type=Path, nargs="*", metavar="RUN", help="folder of a finished run")
    add("--out", type=Path, default=Path("runs/comparison"), help="folder of the comparison (%(default)s)")
    add(
        "--metric",
        default="ua",
        help="main metric of the comparison: wa, ua, f1_weighted (%(default)s); of attributes ccc, pearson, rmse; "
        "of votes js, f1_threshold, entropy_error, wa, ua",
    )
    add(
        "--twin",
        action="store_true",
        help="print what shared speakers are worth: RUN on published folds, RUN on their speaker-disjoint twin",
    )
    add(
        "--audio",
        type=Path,
        metavar="ROOT",
        help="folder of the corpus; adds players to the most confident mistakes",
    )
    add(
        "--attention",
        type=int,
        default=0,
        metavar="N",
        help="show the attention of N test utterances (needs --audio)",
    )
    add(
        "--encoder",
        type=Path,
        metavar="FOLDER",
        help="folder of the pretrained encoder, for --attention of a run that reads its frames",
    )
    add("--tensorboard", action="store_true", help="also write event files for TensorBoard")
    add(
        "--import",
        dest="files",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.csv",
        help="predictions of another framework: utterance, fold, seed, true, predicted, and optionally p_CLASS",
    )
    add(
        "--utterances",
        type=Path,
        metavar="FILE.csv",
        help="speaker, gender, ... of the imported utterances",
    )
    add(
        "--imported_to", type=Path, default=Path("runs"), help="where imported runs are written (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
