"""Train every row of a paper's table, and print our scores next to the printed ones.

    python -m jaxser.reproduce --list
    python -m jaxser.reproduce --table=lee2020/table4 --dataset=iemocap                      # the paper's own settings
    python -m jaxser.reproduce --table=lee2020/table4 --dataset=iemocap --protocol=config    # those of configs/can.py
    python -m jaxser.reproduce --table=lee2020/table4 --protocol=quick         # demo corpus: each row runs

Each row is a run in `<runs>/<config>-<variant>-<dataset>`; tables that have a row in common share its run. To resume an
interrupted table, run the same command again. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

from jaxser import cli, files

with cli.importing("jaxser"):
    import jax
    import numpy as np
    from ml_collections import ConfigDict

    from jaxser import experiment, papers, report
    from jaxser.cli import CACHE_DIR, RESUMABLE, enable_compilation_cache, run_command
    from jaxser.config import resolve
    from jaxser.configs import common
    from jaxser.data.dataset import with_corpus
    from jaxser.data.folds import Protocol, make_folds
    from jaxser.evaluation import run_folder
    from jaxser.evaluation.run_folder import Run
    from jaxser.papers import Printed
    from jaxser.report.analysis import Analysis
    from jaxser.report.protocols import compare_protocols
    from jaxser.report.run_tables import best_possible_score
    from jaxser.report.tables import Cell, Score, Table, escape_markdown, markdown
    from jaxser.types import Dataset, UsageError

PROTOCOLS = ("paper", "config", "quick")
"""The paper's own settings (`config.as_published`), those of the configs, or one short fold."""

SHOWN = {"wa": "WA", "ua": "UA", "f1_weighted": "weighted F1"}
"""The scores that papers print."""

Log = Callable[[str], None]


def reproduce(table: str, dataset: str, protocol: str, runs: Path, data_dir: Path, log: Log = print) -> Path:
    """Train the missing rows of a table, and write `<runs>/<table>-<dataset>.md` and `.json`.

    Args:
        table: such as "lee2020/table4".
        dataset: the name of a prepared dataset, or "paper" for the corpus of the paper.
        protocol: one of `PROTOCOLS`.
        runs: the folder of the runs.
        data_dir: the folder of the prepared datasets.
        log: prints a line.

    Returns:
        The path of the Markdown file.

    Raises:
        UsageError: if the table, the dataset or the protocol does not exist.
    """
    rows = papers.tables().get(table)
    if rows is None:
        raise UsageError(f"--table={table} is not one of {', '.join(papers.tables())}")
    configs = {row.id: config_of(row, dataset, protocol, data_dir) for row in rows if row.variant}
    folders = {identity: _folder(runs, config, protocol) for identity, config in configs.items()}
    missing = {
        folders[identity]: config
        for identity, config in configs.items()
        if not (folders[identity] / run_folder.RESULTS).is_file()
    }
    log(f"{table}: {len(missing)} of {len(set(folders.values()))} runs to train")
    _train(missing, _command(table, dataset, protocol), data_dir, log)
    return _write(runs, table, rows, folders, dataset, protocol)


def config_of(row: Printed, dataset: str, protocol: str, data_dir: Path) -> ConfigDict:
    """Return the resolved config of a row, on its paper's corpus if `dataset` is "paper"."""
    assert row.variant is not None
    if protocol not in PROTOCOLS:
        raise UsageError(f"--protocol={protocol} is not one of {', '.join(PROTOCOLS)}")
    if protocol == "quick" and dataset == "demo":
        dataset = "demo_quick"
    module = import_module(f"jaxser.configs.{papers.CONFIGS[row.paper]}")
    config = module.get_config(with_corpus(row.corpus if dataset == "paper" else dataset, data_dir))
    config.variant = row.variant.name
    config.as_published = protocol == "paper"
    config.update(row.variant.changes)
    config.training = "paper"
    config = resolve(config)
    if protocol == "quick":
        common.quick(config)
    return config


class Projection:
    """Projects the training time of runs from the time that earlier ones took.

    A run of a network that was trained before takes as long per frame; one of another network takes as long as the mean
    of all networks.
    """

    def __init__(self) -> None:
        self._seconds_per_frame: dict[str, float] = {}

    def add(self, model: str, frames: float, seconds: float) -> None:
        """Take the training time of a run into account."""
        self._seconds_per_frame[model] = seconds / frames

    def seconds(self, model: str, frames: float) -> float | None:
        """Return the projected time to train a network; None before the first call of `add`."""
        if not self._seconds_per_frame:
            return None
        mean = float(np.mean(list(self._seconds_per_frame.values())))
        return self._seconds_per_frame.get(model, mean) * frames


def training_frames(config: ConfigDict, dataset: Dataset) -> float:
    """Return the frames that a run processes.

    A frame of the validation part counts as a third. Datasets without audio count their utterances.
    """
    folds = make_folds(dataset, Protocol(**config.protocol))
    frames = float(dataset.arrays["audio"].length.mean()) if "audio" in dataset.arrays else 1.0
    copies = 1 if config.copies == "none" else 2
    utterances = sum(copies * len(fold.train) + len(fold.validation) / 3 for fold in folds)
    return config.seeds * config.epochs * utterances * frames


def comparison(table: str, rows: Sequence[Printed], runs: Mapping[str, Run]) -> Table:
    """Return the rows in the paper's order: printed scores, ours, and the best possible.

    The best possible scores are known on the demo corpus only. Our standard deviations are of the same kind as the
    printed ones wherever the run has that kind; a column names both kinds.
    """
    names = {name: title for name, title in SHOWN.items() if any(name in row.scores for row in rows)}
    is_demo = any(run.results.best_possible for run in runs.values())
    known = [name for name in names if name in ("wa", "ua")] if is_demo else []
    spreads = {row.id: RowSpread.of(row, runs.get(row.id)) for row in rows}
    has_spread = any(one.printed or one.ours for one in spreads.values())
    header = ["", *(f"{title}, {whose}" for title in names.values() for whose in ("printed", "ours"))]
    header += ["± printed, over", "± ours, over"] if has_spread else []
    header += [f"{names[name]}, best possible" for name in known]
    body = []
    for row in rows:
        cells: list[Cell] = [row.model + (" (cited)" if row.cited else "")]
        run, spread = runs.get(row.id), spreads[row.id]
        for name in names:
            mean = run.results.summary.mean[name] if run else None
            cells += [Score(*row.scores.get(name, (None, None))), Score(mean, spread.std.get(name))]
        cells += [spread.printed or "–", spread.ours or "–"] if has_spread else []
        cells += [best_possible_score(run, name) if run else Score(None) for name in known]
        body.append(tuple(cells))
    caption = f"{table}, printed and ours (%, test)."
    if is_demo:
        caption += " Ours are demo numbers: synthetic speech."
    if any(row.exchanged for row in rows):
        caption += (
            " The paper prints WA and UA under each other's names; here both have their standard names."
        )
    return Table(table.replace("/", "_"), caption, tuple(header), tuple(body))


@dataclass(frozen=True)
class RowSpread:
    """The kinds of standard deviations of a row, such as over folds.

    Attributes:
        printed: what the printed ones are over; "" if none is printed.
        ours: what ours are over, with the number of values; "" if there is none.
        std: ours, by metric.
    """

    printed: str
    ours: str = ""
    std: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Printed, run: Run | None) -> RowSpread:
        """Return the standard deviations of the printed kind, or else of the run's own kind."""
        has_std = any(std is not None for _, std in row.scores.values())
        printed = (row.std_over or "not stated") if has_std else ""
        if run is None:
            return cls(printed)
        found = run.results.summary
        folds, seeds = _counted(found.folds, "fold"), _counted(found.seeds, "seed")
        kinds = {
            "folds": (folds + (f", {seeds} averaged" if found.seeds > 1 else ""), found.std_over_folds),
            "runs": (f"{_counted(found.runs, 'run')} ({folds} × {seeds})", found.std_over_runs),
            "seeds": (seeds + (f", {folds} averaged" if found.folds > 1 else ""), found.std_over_seeds),
        }
        for kind in filter(None, (row.std_over, found.std_over)):
            name, std = kinds[kind]
            if any(value is not None for value in std.values()):
                return cls(printed, name, std)
        return cls(printed)


def differences(rows: Sequence[Printed], runs: Mapping[str, Run]) -> list[str]:
    """Return how our runs differ from the paper's, its caveats, and the runs' warnings.

    Each is a line, which names its rows unless it holds for all that are trained.
    """
    holds: dict[str, list[str]] = {}
    trained = [row for row in rows if row.id in runs]
    for row in trained:
        for line in dict.fromkeys(_row_differences(row, runs[row.id])):
            holds.setdefault(line, []).append(row.model)
    return [line if len(of) == len(trained) else f"{line} ({_listing(of)})" for line, of in holds.items()]


def _row_differences(row: Printed, run: Run) -> Iterator[str]:
    for aspect in compare_protocols(row, Analysis(run)):
        if aspect.differs is not False:
            yield f"{aspect.name}: printed {aspect.paper}; here {aspect.here}"
    yield from (f"Caveat: {caveat}" for caveat in row.caveats)
    if note := run.results.protocol.get("note"):
        yield f"Note: {note}"
    yield from run.results.warnings


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more rows" if len(names) > 4 else ""
    return "; ".join(names[:4]) + more


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = cli.parser("jaxser", "python -m jaxser.reproduce", __doc__)
    parser.add_argument("--list", action="store_true", help="list all tables")
    parser.add_argument("--table", help="such as lee2020/table4")
    parser.add_argument("--dataset", default="demo", help="demo, iemocap, meld, ...; paper: the paper's own")
    parser.add_argument(
        "--protocol",
        default="paper",
        help="paper: its own settings; config: those of its config; quick: one fold, one seed, few epochs",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the prepared datasets")
    parser.add_argument(
        "--cache_dir", default=CACHE_DIR, help="folder for compiled programs; empty: keep none"
    )
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(_listed()))
        return 0
    return run_command("jaxser", lambda: _reproduce(given), output=given.runs, stopped=RESUMABLE)


def _reproduce(given: argparse.Namespace) -> int:
    if not given.table:
        raise UsageError("--table is missing; --list lists all tables")
    enable_compilation_cache(given.cache_dir)
    path = reproduce(given.table, given.dataset, given.protocol, given.runs, given.data_dir)
    print(f"\n{path.read_text(encoding='utf-8')}\n{path}")
    return 0


def _train(configs: Mapping[Path, ConfigDict], command: str, data_dir: Path, log: Log) -> None:
    """Train a run for each config, and project the time that is left from the runs before."""
    datasets, projection = _Datasets(data_dir, log), Projection()
    frames = {folder: training_frames(config, datasets(config)) for folder, config in configs.items()}
    for number, (folder, config) in enumerate(configs.items(), 1):
        left = [
            projection.seconds(configs[other].model.name, frames[other])
            for other in list(configs)[number - 1 :]
        ]
        log(f"\n{number}/{len(configs)} {folder.name}{_time_left(left)}")
        is_resumed = (folder / run_folder.CONFIG).is_file()
        begin = time.monotonic()
        experiment.run_experiment(config, datasets(config), folder, command=command, log=log)
        report.write(folder)
        if not is_resumed:
            projection.add(config.model.name, frames[folder], time.monotonic() - begin)
        jax.clear_caches()


class _Datasets:
    """Loads datasets and keeps the last one, which the rows of a table mostly share."""

    def __init__(self, data_dir: Path, log: Log):
        self.data_dir, self.log = data_dir, log
        self.kept: tuple[Any, Dataset] | None = None

    def __call__(self, config: ConfigDict) -> Dataset:
        key = (config.dataset, config.recipe, config.classes, config.subset)
        if self.kept is None or self.kept[0] != key:
            self.kept = (key, experiment.load_dataset(config, self.data_dir, self.log))
        return self.kept[1]


def _folder(runs: Path, config: ConfigDict, protocol: str) -> Path:
    parts = [papers.CONFIGS[config.paper], config.variant]
    if config.subset != "all":
        parts.append(config.subset)
    parts.append(config.dataset)
    if protocol == "paper" or (protocol == "quick" and config.dataset != "demo_quick"):
        parts.append(protocol)
    return runs / "-".join(parts)


def _command(table: str, dataset: str, protocol: str) -> str:
    return f"python -m jaxser.reproduce --table={table} --dataset={dataset} --protocol={protocol}"


def _time_left(seconds: Sequence[float | None]) -> str:
    """Return the projected time in words; "" if a part of it is unknown."""
    known = [one for one in seconds if one is not None]
    if len(known) < len(seconds):
        return ""
    minutes = max(1, round(sum(known) / 60))
    return f" (about {f'{minutes} min' if minutes < 120 else f'{sum(known) / 3600:.0f} h'} left)"


def _write(
    runs: Path, table: str, rows: Sequence[Printed], folders: Mapping[str, Path], dataset: str, protocol: str
) -> Path:
    """Write the table as Markdown and JSON, with how the protocols differ."""
    trained = {identity: run_folder.read_run(folder) for identity, folder in folders.items()}
    path = runs / f"{table.replace('/', '-')}-{dataset}{'' if protocol == 'config' else f'-{protocol}'}.md"
    lines = [f"# {table}: {rows[0].title}\n", f"    {_command(table, dataset, protocol)}\n"]
    lines += [f"- {escape_markdown(line)}" for line in differences(rows, trained)]
    lines += ["", markdown(comparison(table, rows, trained))]
    files.write(path.parent, path.name, "\n".join(lines) + "\n")
    content = {
        "table": table,
        "dataset": dataset,
        "protocol": protocol,
        "rows": [_row_json(row, trained.get(row.id)) for row in rows],
    }
    run_folder.write_json(path.with_suffix(".json"), content)
    return path


def _row_json(row: Printed, run: Run | None) -> dict[str, Any]:
    spread = RowSpread.of(row, run)
    return {
        "id": row.id,
        "model": row.model,
        "printed": {name: [_decimal(one) for one in pair] for name, pair in row.scores.items()},
        "std_over": {"printed": spread.printed or None, "ours": spread.ours or None},
        "run": run.folder.name if run else None,
        "ours": run.results.to_json()["summary"] if run else None,
    }


def _decimal(value: Decimal | None) -> str | None:
    """Return a printed score as text, which keeps all of its decimals."""
    return None if value is None else f"{value:f}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed() -> list[str]:
    lines = []
    for name, rows in papers.tables().items():
        trained = sum(row.variant is not None for row in rows)
        lines.append(f"{name:20} {trained:2} of {len(rows):2} rows are trained   {rows[0].title}")
    return lines


if __name__ == "__main__":
    sys.exit(run())
