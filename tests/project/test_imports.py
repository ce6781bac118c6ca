"""Imports flow one way, heavy libraries stay where they belong, and nothing is unpickled."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MAY_IMPORT = {
    "types": set(),
    "metrics": {"types"},
    "features": {"types", "features"},
    "data": {"types", "leaks", "features", "data"},
    "layers": {"types", "layers"},
    "losses": {"types"},
    "models": {"types", "layers", "losses", "models"},
    "optim": {"types"},
    "train": {"types", "metrics", "data", "models", "optim"},
    "leaks": {"types"},
    "summary": {"types", "metrics"},
    "results": {"types", "metrics", "leaks", "summary"},
    "significance": set(),
    "statistics": {"types", "metrics", "results", "significance"},
    "papers": set(),
    "commands": {"types"},
    "false_alarms": {"types", "results", "significance", "statistics", "commands"},
    "report": {
        "types",
        "metrics",
        "leaks",
        "data",
        "summary",
        "results",
        "significance",
        "statistics",
        "papers",
        "commands",
        "report",
    },
    "processes": {"types"},
    "checkpoint": {"types", "processes"},
    "progress": {"metrics", "train"},
    "mesh": set(),
    "memory": {"mesh"},
    "waves": {"types", "mesh", "memory", "processes"},
    "sweep": {"types", "data", "results", "mesh", "train"},
    "stream": {"types", "data", "memory", "mesh", "sweep", "train"},
    "training": {
        "types",
        "metrics",
        "data",
        "results",
        "processes",
        "checkpoint",
        "progress",
        "mesh",
        "train",
        "sweep",
        "waves",
    },
}
"""What the parts of `jaxser` may import of one another; what is not named here may import all of them."""


def imported(path: Path) -> set[str]:
    """The modules that a file imports, at its top or within."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def files(part: str) -> list[Path]:
    path = ROOT / "jaxser" / part
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_comes_before_it(part):
    for path in files(part):
        own = {name.split(".")[1] for name in imported(path) if name.startswith("jaxser.")}
        assert own <= MAY_IMPORT[part] | {part}, path
        assert not any(name.split(".")[0] in ("data_prep", "configs") for name in imported(path)), path


def test_preparation_knows_no_networks():
    allowed = {"types", "features", "data", "commands"}
    for path in (ROOT / "data_prep").glob("*.py"):
        assert {name.split(".")[1] for name in imported(path) if name.startswith("jaxser.")} <= allowed, path


def test_tensorflow_is_never_imported():
    for path in ROOT.glob("*/**/*.py"):
        if not set(path.parts) & {".venv", "build", "benchmarks"}:
            assert not {n for n in imported(path) if n.split(".")[0] in ("tensorflow", "torch", "pickle")}, (
                path
            )
    code = "import sys, jaxser.experiment, data_prep.prepare; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
