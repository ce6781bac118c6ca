"""Docstrings: summary lines are sentences of bounded length, and those of functions are imperative."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("jaxser", "data_prep", "configs", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
LENGTH = 88

Definition = ast.Module | ast.ClassDef | ast.FunctionDef

_NOT_IMPERATIVE = re.compile(r"(The|An?|Whether|Each|Every|All|What|Why|One|Returns|Computes|Reads|Writes)\b")


def definitions(node: ast.AST, public: bool = True) -> Iterator[tuple[Definition, bool]]:
    """Every module, class and function with a docstring, and whether it is public."""
    if isinstance(node, Definition):
        name = getattr(node, "name", "")
        public = public and (not name.startswith("_") or name.endswith("__"))
        if ast.get_docstring(node):
            yield node, public
    inside = public and not isinstance(node, ast.FunctionDef)
    for child in ast.iter_child_nodes(node):
        yield from definitions(child, inside)


def is_property(node: Definition) -> bool:
    return any("property" in ast.unparse(one) for one in getattr(node, "decorator_list", []))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_summary_lines(path):
    for node, public in definitions(ast.parse(path.read_text(encoding="utf-8"))):
        summary, *rest = ast.get_docstring(node).splitlines()
        assert not rest or not rest[0], f"{summary}: no blank line after the summary"
        assert summary.endswith((".", ":")), summary
        assert len(summary) <= LENGTH or not public, f"{summary}: {len(summary)} characters"
        if isinstance(node, ast.FunctionDef) and not is_property(node):
            assert not _NOT_IMPERATIVE.match(summary), summary
