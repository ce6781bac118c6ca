"""Imports point from higher layers to lower ones, heavy libraries stay where they belong, and nothing is unpickled."""

import ast
import functools
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = (
    {"types"},
    {"corpora", "papers", "cli", "files"},
    {"layers", "features"},
    {"encoders"},
    {"models", "data"},
    {"evaluation", "data_prep"},
    {"configs", "training"},
    {"config", "inference"},
    {"experiment", "predict", "export"},
    {"report", "benchmarks"},
    {"main", "reproduce", "launch", "doctor"},
)
"""The parts of the project, from the lowest layer to the highest. A part imports itself and parts of lower layers."""

LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

PREPARATION_IMPORTS = {"types", "corpora", "cli", "files", "features", "encoders", "data", "data_prep"}
"""Data preparation knows no networks but pretrained encoders."""


def test_the_diagram_of_the_architecture_shows_the_layers():
    _, diagram, _ = re.split(
        r"```(?:mermaid)?\n", (ROOT / "docs" / "architecture.md").read_text(), maxsplit=2
    )
    boxes = re.findall(r"</b><br>(.*)\"]", diagram)
    assert [set(re.findall(r"\w+", box)) for box in reversed(boxes)] == list(LAYERS)


def sources() -> list[Path]:
    return sorted(
        path
        for part in ("jaxser", "configs", "data_prep", "benchmarks")
        for path in (ROOT / part).rglob("*.py")
    )


def module_name(path: Path) -> str:
    """The name by which a file is imported, such as `jaxser.data_prep.build`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] in ("configs", "data_prep"):
        parts = ("jaxser", *parts)
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sources()}


def part_of(module: str) -> str:
    """The package of `jaxser` that a module belongs to, or its name if it is directly in `jaxser`."""
    return module.removeprefix("jaxser.").split(".")[0]


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str) -> list[str]:
    """Every name that a module imports, at its top or within a function, as `package.module.name`."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            found += [f"{source}.{alias.name}" for alias in node.names]
    return found


def imported_modules(module: str) -> set[str]:
    """The modules of the project that a module imports."""
    return {n if n in MODULES else n.rpartition(".")[0] for n in imports(module)} & MODULES.keys() - {
        module,
        "jaxser",
    }


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_lower_layers(module):
    part = part_of(module)
    if part == "jaxser":
        return  # the public API: its imports are lazy
    for other in map(part_of, imported_modules(module)):
        assert other == part or LEVEL[other] < LEVEL[part], f"{module} imports {other}"
        assert part != "data_prep" or other in PREPARATION_IMPORTS, f"{module} imports {other}"


def test_modules_have_no_import_cycles():
    graph = {module: imported_modules(module) for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_private_names_stay_in_their_package():
    for module in MODULES:
        aliases = {}
        for name in imports(module):
            source, _, last = name.rpartition(".")
            if name in MODULES:
                aliases[last] = name
            elif source in MODULES and last.startswith("_"):
                assert part_of(source) == part_of(module), f"{module} imports {name}"
        for node in ast.walk(tree(module)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in aliases
            ):
                is_private = node.attr.startswith("_") and not node.attr.startswith("__")
                same = part_of(aliases[node.value.id]) == part_of(module)
                assert same or not is_private, f"{module} uses {aliases[node.value.id]}.{node.attr}"


def test_jaxser_has_at_most_twelve_modules_of_its_own():
    assert len(list((ROOT / "jaxser").glob("*.py"))) <= 12


def test_preparation_and_configs_have_no_top_level_name():
    for module in MODULES:
        tops = {name.split(".")[0] for name in imports(module)}
        assert not tops & {"configs", "data_prep"}, module


def test_tensorflow_and_pickle_are_never_imported():
    for module in MODULES:
        if not module.startswith("benchmarks"):
            tops = {name.split(".")[0] for name in imports(module)}
            converts = module == "jaxser.encoders.convert"  # weights_only: no code of the file runs
            assert not tops & ({"tensorflow", "torch", "pickle"} - ({"torch"} if converts else set())), module
    code = "import sys, jaxser.experiment, jaxser.data_prep.prepare; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_jaxser_imports_neither_jax_nor_matplotlib():
    code = "import sys, jaxser; sys.exit(bool({'jax', 'matplotlib', 'librosa'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
