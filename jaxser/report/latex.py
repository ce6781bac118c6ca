"""Tables in LaTeX, with booktabs.

pdfLaTeX sets Latin text. Other scripts and emoji are written as they are, for XeLaTeX or LuaLaTeX with a font that has
them; the first lines of the file then say so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from jaxser.cli import printable
from jaxser.report.tables import Cell, Score, Table, text

_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    **{mark: f"{{{mark}}}" for mark in "[]*"},  # they would be arguments of \\ and of \toprule
    "`": r"\textasciigrave{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "−": "$-$",
    "’": "'",
    "“": "``",
    "”": "''",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "…": r"\ldots{}",
}

_LATIN = re.compile("[\u0000-\u017f\u0218-\u021b‘’‚“”„†‡•…‰‹›€™–—]")
"""The characters that pdfLaTeX knows with the fonts of T1."""

WIDE = 7
"""Tables with at least this many columns are scaled to the width of the text."""

MAX_SHOWN = 20
"""Characters that pdfLaTeX lacks, of those that are listed."""


def document(tables: Sequence[Table]) -> str:
    """Return all tables, one after the other, for use with \\input."""
    body = "\n".join(map(table, tables))
    head = ["% \\usepackage{booktabs,graphicx} \\usepackage[T1]{fontenc}"]
    if others := sorted({mark for mark in body if not _LATIN.match(mark)}):
        shown = " ".join(others[:MAX_SHOWN]) + (" ..." if len(others) > MAX_SHOWN else "")
        head += [
            f"% pdfLaTeX lacks {len(others)} of the characters: {shown}",
            "% Use XeLaTeX or LuaLaTeX: \\usepackage{fontspec} \\setmainfont{a font that has them}",
        ]
    return "\n".join([*head, "", body])


def table(made: Table) -> str:
    """Return a `table` environment with a caption and a label.

    Columns of numbers are right-aligned.
    """
    columns = "".join(_alignment([row[n] for row in made.rows]) for n in range(len(made.header)))
    wide = len(made.header) >= WIDE
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(made.caption)}}}",
        rf"\label{{tab:{made.name}}}",
        *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _line(map(escape, made.header)),
        r"\midrule",
        *(_line(map(_cell, row)) for row in made.rows),
        r"\bottomrule",
        r"\end{tabular}" + "}" * wide,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(value: str) -> str:
    """Return a text on one line, with the special characters of LaTeX escaped."""
    line = " ".join(printable(unicodedata.normalize("NFC", value)).split())
    pairs = zip(f" {line}", line, strict=False)
    return "".join("{}-" if before == mark == "-" else _SPECIAL.get(mark, mark) for before, mark in pairs)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _alignment(cells: Sequence[Cell]) -> str:
    return "l" if any(isinstance(cell, str) for cell in cells) else "r"


def _numbers(escaped: str) -> str:
    """Typeset minus signs and powers of ten."""
    powers = re.sub(r"(\d+(?:\.\d+)?)e([+-]\d+)", lambda m: rf"${m[1]}\cdot10^{{{int(m[2])}}}$", escaped)
    return re.sub(r"(?<![\w.{$-])-(?=\d)", "$-$", powers)


def _cell(cell: Cell) -> str:
    if not isinstance(cell, Score):
        return _numbers(escape(text(cell)))
    shown = cell.show(cell.mean)
    if cell.std is not None:
        shown += f" ± {cell.show(cell.std)}"
    shown = escape(shown)
    return (rf"\textbf{{{shown}}}" if cell.best else shown) + escape(cell.mark)
