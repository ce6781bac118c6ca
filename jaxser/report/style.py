"""How figures are drawn, and how they are saved or embedded in a page.

Figures are drawn in the light colours of the page. In the page, each colour becomes its CSS variable (`inline_svg`), so
that one drawing suits the light and the dark theme; saved files (`save`) keep the light colours. Widths suit a phone;
a laptop shows two figures side by side.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from jaxser import files
from jaxser.cli import printable
from jaxser.inference import figure_text

COLOURS = {
    "ink": "#1c2126",
    "muted": "#5d6670",
    "line": "#e2dfd8",
    "accent": "#1d6a86",
    "second": "#a85a26",
    "cell": "#0f4a60",
    "on-cell": "#ffffff",
    "series-1": "#1b6b87",
    "series-2": "#b4541a",
    "series-3": "#5b7f1e",
    "series-4": "#8a3f8f",
    "series-5": "#a07a08",
    "series-6": "#b3335a",
    "series-7": "#3d5bb8",
    "series-8": "#2f7d6d",
}
"""The light colours by the names of their CSS variables; no two are the same."""

INK, MUTED, LINE, ACCENT, SECOND, CELL, ON_CELL, *SERIES = COLOURS.values()

MAX_NAME = 40
"""Characters of a name in a figure."""

WIDTH = 5.2  # inches: 374 units of the SVG, about a phone's width in pixels

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxser",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure and its description, which screen readers read out."""

    description: str
    figure: Figure

    @cached_property
    def svg(self) -> str:
        """The contents of an SVG file. The layout is computed once and kept."""
        file = io.StringIO()
        with matplotlib.rc_context(STYLE), figure_text.without_layout_warnings():
            figure_text.choose_fonts(self.figure)
            FigureCanvasSVG(self.figure).print_svg(file, metadata={"Date": None})
        self.figure.set_layout_engine("none")
        return printable(file.getvalue())

    @cached_property
    def png(self) -> bytes:
        """The contents of a PNG file.

        Characters that no font has are written as escapes.
        """
        file = io.BytesIO()
        assert self.svg  # its layout is kept, unless the text becomes longer
        with matplotlib.rc_context(STYLE):
            if figure_text.escape_missing(self.figure):
                self.figure.set_layout_engine("constrained")
            FigureCanvasAgg(self.figure).print_png(file, metadata={"Software": None})
        return file.getvalue()


def inline_svg(drawing: Drawing, name: str) -> Markup:
    """Return SVG to embed in HTML.

    It uses the page's colours and font, and ids that begin with `name`.
    """
    svg = drawing.svg[drawing.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r'font: ([\d.]+)px [^;"]*', r"font-size: \1px", svg)
    svg = re.sub(r"font: (\w+) ([\d.]+)px [^;\"]*", r"font-weight: \1; font-size: \2px", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    view = re.search(r'viewBox="[^"]*"', svg)
    begin = svg.index(">") + 1
    label = escape(drawing.description)
    return Markup(f'<svg role="img" aria-label="{label}" {view[0] if view else ""}>{svg[begin:]}')


def save(drawings: Mapping[str, Drawing], root: Path, name: str) -> None:
    """Write each drawing as PNG and SVG under its name, into a folder below the root.

    One warning names the characters that the PNG files show as escapes.
    """
    figure_text.warn_of_missing(drawing.figure for drawing in drawings.values())
    for one, drawing in drawings.items():
        files.write(root, f"{name}/{one}.svg", drawing.svg)
        files.write(root, f"{name}/{one}.png", drawing.png)


def new_figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Return a transparent figure with one pair of axes; sizes are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, axes


def strokes(number: int) -> Iterator[dict[str, Any]]:
    """Return colour and line style of `number` curves; the ninth and later ones are dashed."""
    dashes = ("solid", (0, (4, 1.5)), (0, (1, 1.5)))
    drawn = [{"color": colour, "linestyle": style} for style in dashes for colour in SERIES]
    return cycle(drawn if number > 1 else [{"color": ACCENT, "linestyle": "solid"}])


def named_below(figure: Figure, axes: Axes) -> None:
    """Put the legend of several curves below the axes, and make the figure taller for it."""
    lines, names = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, names)) <= 26 else 1
    figure.set_figheight(figure.get_figheight() + 0.15 + 0.19 * -(-len(names) // columns))
    figure.legend(lines, names, loc="outside lower left", ncols=columns, borderaxespad=1)


def percent_axis(axes: Axes, label: str) -> None:
    """Make the x axis run from 0 to 100 %."""
    axes.set(xlim=(-0.02, 1.02), xlabel=label)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "20", "40", "60", "80", "100"])
    axes.grid(axis="x")
    axes.spines[:].set_visible(False)


def shortened(names: Sequence[str]) -> list[str]:
    """Return names that leave room for the axes."""
    return [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name in names]


def named_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of the y axis from top to bottom."""
    axes.set_yticks(range(len(names)), shortened(names))
    axes.set_ylim(len(names) - 0.4, -0.6 if len(names) > 1 else -1)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
