"""How figures are drawn: their colours and style, and how they become SVG inside the page, or files.

Figures are drawn in the page's light colours. In the page each becomes its CSS variable (`inline_svg`), so that one
drawing is right in light and dark; files (`save`) keep the light ones. Widths are chosen for a phone; a laptop
shows two side by side.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

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
"""The page's colours in light by the names of its CSS variables; no two are the same."""

INK, MUTED, LINE, ACCENT, SECOND, CELL, ON_CELL, *SERIES = COLOURS.values()

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


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """SVG to be put into HTML: the page's colours and font, ids of its own, nothing fetched."""
    svg = svg_text(figure)
    svg = svg[svg.index("<svg") :]
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
    return f'<svg role="img" aria-label="{description}" {view[0] if view else ""}>{svg[begin:]}'


@lru_cache(maxsize=64)
def svg_text(figure: Figure) -> str:
    """A figure as an SVG file; from then on its layout is kept."""
    file = io.StringIO()
    with matplotlib.rc_context(STYLE):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    figure.set_layout_engine("none")
    return file.getvalue()


def save(figures: Mapping[str, tuple[str, Figure]], folder: Path) -> None:
    """Write each figure as PNG and SVG, named as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, figure) in figures.items():
        (folder / f"{name}.svg").write_text(svg_text(figure), encoding="utf-8")
        with matplotlib.rc_context(STYLE):
            FigureCanvasAgg(figure).print_png(folder / f"{name}.png", metadata={"Software": None})


def new_figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, axes


def strokes(number: int) -> Iterator[dict[str, Any]]:
    """Colour and dashes of each of so many curves: one has the page's own colour, more than eight have dashes."""
    dashes = ("solid", (0, (4, 1.5)), (0, (1, 1.5)))
    drawn = [{"color": colour, "linestyle": style} for style in dashes for colour in SERIES]
    return cycle(drawn if number > 1 else [{"color": ACCENT, "linestyle": "solid"}])


def named_below(figure: Figure, axes: Axes) -> None:
    """The names of several curves below the axes, where they hide none; the figure grows by them."""
    lines, names = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, names)) <= 26 else 1
    figure.set_figheight(figure.get_figheight() + 0.15 + 0.19 * -(-len(names) // columns))
    figure.legend(lines, names, loc="outside lower left", ncols=columns, borderaxespad=1)


def percent_axis(axes: Axes, label: str) -> None:
    axes.set(xlim=(-0.02, 1.02), xlabel=label)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "20", "40", "60", "80", "100"])
    axes.grid(axis="x")
    axes.spines[:].set_visible(False)


def named_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6 if len(names) > 1 else -1)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
