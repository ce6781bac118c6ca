"""Train every row of a paper's table, and print ours beside the printed numbers.

    python -m jaxser.reproduce --list
    python -m jaxser.reproduce --table=lee2020/table4 --dataset=iemocap
    python -m jaxser.reproduce --table=lee2020/table4 --protocol=quick         # demo corpus: each row runs

Each row is a run of its own in `<runs>/<config>-<variant>-<dataset>`, shared by the tables that have it. Interrupted,
the same command goes on with the rows that are missing. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxser import cli, experiment, papers, report
from jaxser.cli import CACHE_DIR, run_command, enable_compilation_cache
from jaxser.configs import common
from jaxser.data.dataset import with_corpus
from jaxser.data.folds import Protocol, make_folds
from jaxser.evaluation import run_folder
from jaxser.papers import Printed
from jaxser.report.analysis import Analysis
from jaxser.report.protocols import compare_protocols
from jaxser.report.run_tables import best_possible_score
from jaxser.report.tables import Score, Table, escape_markdown, markdown
from jaxser.types import Dataset, UsageError

PROTOCOLS = ("paper", "quick")

MILLISECONDS: Mapping[str, float] = {
    "mcsan": 3,
    "can": 5,
    "text_model": 1,
    "audio_model": 6,
    "lstm_attention": 8,
    "self_cross": 20,
    "mdre": 5,
    "mha": 10,
    "amh": 12,
    "xu": 8,
}
"""Of training on an utterance of 300 frames, on two cores; other networks (2-D convolutions) take `SLOWEST`."""

SLOWEST = 40.0


def reproduce(
    table: str, dataset: str, protocol: str, runs: Path, data_dir: Path, log: Callable[[str], None] = print
) -> Path:
    """Train the table's missing rows and write `<runs>/<table>-<dataset>.md` and `.json`; returns the first.

    Raises:
        UsageError: no such table, dataset or protocol.
    """
    rows = papers.tables().get(table)
    if rows is None:
        raise UsageError(f"--table={table} is not one of {', '.join(papers.tables())}")
    configs = {row.id: config_of(row, dataset, protocol, data_dir) for row in rows if row.variant}
    datasets = _Datasets(data_dir, log)
    folders = {identity: _folder(runs, config, protocol) for identity, config in configs.items()}
    missing = {
        folders[identity]: config
        for identity, config in configs.items()
        if not (folders[identity] / run_folder.RESULTS).is_file()
    }
    expected = {folder: seconds(config, datasets(config)) for folder, config in missing.items()}
    log(
        f"{table}: {len(missing)} of {len(set(folders.values()))} runs to train{_projected(expected.values())}"
    )
    pace = 1.0
    for number, (folder, config) in enumerate(missing.items(), 1):
        left = [pace * expected[other] for other in list(missing)[number - 1 :]]
        log(f"\n{number}/{len(missing)} {folder.name}{_projected(left)}")
        begin = time.monotonic()
        experiment.run_experiment(config, datasets(config), folder, command=_command(table, dataset, protocol), log=log)
        report.write(folder)
        pace = (time.monotonic() - begin) / expected[folder]
        jax.clear_caches()
    return _write(runs, table, rows, folders, dataset, protocol)


def config_of(row: Printed, dataset: str, protocol: str, data_dir: Path) -> ConfigDict:
    """The resolved config that trains a row, on its paper's corpus if `dataset` is "paper"."""
    assert row.variant is not None
    if protocol not in PROTOCOLS:
        raise UsageError(f"--protocol={protocol} is not one of {', '.join(PROTOCOLS)}")
    if protocol == "quick" and dataset == "demo":
        dataset = "demo_quick"
    module = import_module(f"jaxser.configs.{papers.CONFIGS[row.paper]}")
    config = module.get_config(with_corpus(row.corpus if dataset == "paper" else dataset, data_dir))
    config.variant = row.variant.name
    config.update(row.variant.changes)
    config = resolve(config)
    if protocol == "quick":
        common.quick(config)
    return config


def seconds(config: ConfigDict, dataset: Dataset) -> float:
    """The projected time of a run, on two cores; other machines tell after the first row."""
    folds = make_folds(dataset, Protocol(**config.protocol))
    frames = dataset.arrays["audio"].length.mean() if "audio" in dataset.arrays else 300
    copies = 1 if config.copies == "none" else 2
    trained = sum(copies * len(fold.train) + len(fold.validation) / 3 for fold in folds)
    each = MILLISECONDS.get(config.model.name, SLOWEST) / 1000 * frames / 300
    return 40 + config.seeds * config.epochs * trained * each  # begun by some 40 s of compilation


class _Datasets:
    """The last dataset that was loaded is kept: rows of a table mostly share it."""

    def __init__(self, data_dir: Path, log: Callable[[str], None]):
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
    if protocol == "quick" and config.dataset != "demo_quick":
        parts.append(protocol)
    return runs / "-".join(parts)


def _command(table: str, dataset: str, protocol: str) -> str:
    return f"python -m jaxser.reproduce --table={table} --dataset={dataset} --protocol={protocol}"


def _projected(expected: Iterable[float]) -> str:
    total = sum(expected)
    if total == 0:
        return ""
    minutes = max(1, round(total / 60))
    length = f"{minutes} min" if minutes < 120 else f"{total / 3600:.0f} h"
    return f" (projected: about {length} on two cores)"


def _write(
    runs: Path, table: str, rows: Sequence[Printed], folders: Mapping[str, Path], dataset: str, protocol: str
) -> Path:
    """The table in Markdown and JSON, with what the protocols differ by."""
    found = {identity: run_folder.read_run(folder) for identity, folder in folders.items()}
    path = runs / f"{table.replace('/', '-')}-{dataset}{'-quick' if protocol == 'quick' else ''}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = comparison(table, rows, found)
    lines = [f"# {table}: {rows[0].title}\n", f"    {_command(table, dataset, protocol)}\n"]
    lines += [f"- {escape_markdown(line)}" for line in differences(rows, found)]
    path.write_text("\n".join([*lines, "", markdown(shown)]) + "\n", encoding="utf-8")
    run_folder.write_json(
        path.with_suffix(".json"),
        {
            "table": table,
            "dataset": dataset,
            "protocol": protocol,
            "rows": [
                {
                    "id": row.id,
                    "model": row.model,
                    "printed": row.scores,
                    "run": folders[row.id].name if row.id in found else None,
                    "ours": found[row.id].results["summary"] if row.id in found else None,
                }
                for row in rows
            ],
        },
    )
    return path


def comparison(table: str, rows: Sequence[Printed], found: Mapping[str, run_folder.Run]) -> Table:
    """The rows in the paper's order: printed, ours, and on the demo corpus the best possible."""
    names = {"wa": "WA", "ua": "UA", "f1_weighted": "weighted F1"}
    names = {name: shown for name, shown in names.items() if any(name in row.scores for row in rows)}
    best = any(run.results["best_possible"] for run in found.values())
    header = ["", *(f"{shown}, {who}" for shown in names.values() for who in ("printed", "ours"))]
    exact = {name: shown for name, shown in names.items() if name in ("wa", "ua")} if best else {}
    header += [f"{shown}, best possible" for shown in exact.values()]
    body = []
    for row in rows:
        cells: list[Any] = [row.model + (" (cited)" if row.cited else "")]
        run = found.get(row.id)
        for name in names:
            cells += [Score(*row.scores.get(name, (None, None))), _ours(run, name)]
        cells += [best_possible_score(run, name) if run else Score(None) for name in exact]
        body.append(tuple(cells))
    demo = " Ours are demo numbers: synthetic speech." if best else ""
    exchanged = (
        " The paper prints WA and UA under each other's names; here both have their standard names."
        if any(row.exchanged for row in rows)
        else ""
    )
    caption = f"{table}, printed and ours (%; test; ± as each is printed, ours over folds and seeds).{demo}{exchanged}"
    return Table(table.replace("/", "_"), caption, tuple(header), tuple(body))


def _ours(run: run_folder.Run | None, name: str) -> Score:
    if run is None:
        return Score(None)
    summary = run.results["summary"]
    several = len(run.results["replicas"]) > 1
    return Score(summary["mean"][name], summary["std"][name] if several else None)


def differences(rows: Sequence[Printed], found: Mapping[str, run_folder.Run]) -> list[str]:
    """In what our protocol differs from the papers', a line each; rows that differ alike are said once."""
    lines: dict[str, None] = {}
    for row in rows:
        if row.id not in found:
            continue
        run = found[row.id]
        for aspect in compare_protocols(row, Analysis(run)):
            if aspect.differs is not False:
                lines[f"{aspect.name}: printed {aspect.paper}; here {aspect.here}"] = None
        if note := run.results["protocol"].get("note"):
            lines[f"Note: {note}"] = None
        for warning in run.results["warnings"]:
            lines[warning] = None
    return list(lines)


def run(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.parser("jaxser", "python -m jaxser.reproduce", __doc__)
    parser.add_argument("--list", action="store_true", help="name all tables")
    parser.add_argument("--table", help="such as lee2020/table4")
    parser.add_argument("--dataset", default="demo", help="demo, iemocap, meld, ...; paper: the paper's own")
    parser.add_argument("--protocol", default="paper", help="paper, or quick: one fold, one seed, few epochs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs' folders are")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where prepared datasets are")
    parser.add_argument("--cache_dir", default=CACHE_DIR, help="compiled programs; empty: nowhere")
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(_listed()))
        return 0
    stopped = "stopped; the same command goes on"
    return run_command("jaxser", lambda: _reproduce(given), output=given.runs, stopped=stopped)


def _reproduce(given: argparse.Namespace) -> int:
    if not given.table:
        raise UsageError("--table is missing; --list names all tables")
    enable_compilation_cache(given.cache_dir)
    path = reproduce(given.table, given.dataset, given.protocol, given.runs, given.data_dir)
    print(f"\n{path.read_text(encoding='utf-8')}\n{path}")
    return 0


def _listed() -> list[str]:
    lines = []
    for name, rows in papers.tables().items():
        ran = sum(row.variant is not None for row in rows)
        lines.append(f"{name:20} {ran:2} of {len(rows):2} rows are trained   {rows[0].title}")
    return lines


if __name__ == "__main__":
    sys.exit(run())
