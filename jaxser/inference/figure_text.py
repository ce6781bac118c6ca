"""Text in figures: fonts for all scripts, and escapes for characters that no font has."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from jaxser.cli import printable

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import Formatter

_BASIC = "sans-serif"
"""The font family of figures."""

_PLACEHOLDERS = "Last Resort"
"""A font of Matplotlib that has every character as a box."""


def choose_fonts(figure: Figure) -> None:
    """Let every text of a figure use the installed fonts that have its characters."""
    for text in _texts(figure):
        families, _ = _fonts(text.get_text())
        if families:
            text.set_fontfamily([_BASIC, *families])


def escape_missing(figure: Figure) -> bool:
    r"""Escape the characters of a figure that no installed font has; see `warn_of_missing`.

    An escape looks like `\u6012`. Control characters are escaped, too.

    Returns:
        Whether any text has changed.
    """
    texts = _texts(figure)
    missing = _missing(texts)
    escaped = [_escape(text.get_text(), missing) for text in texts]
    if escaped == [text.get_text() for text in texts]:
        return False
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = "".join(label.get_text() for label in axis.get_ticklabels())
            if shown != _escape(shown, missing):
                axis.set_major_formatter(_escaping(axis.get_major_formatter(), missing))
    for text, one in zip(texts, escaped, strict=True):
        text.set_text(one)
    return True


def warn_of_missing(figures: Iterable[Figure]) -> None:
    """Warn once of all characters of some figures that no installed font has."""
    if missing := _missing(text for figure in figures for text in _texts(figure)):
        warnings.warn(
            f"no installed font has the characters {missing}: PNG figures show them as escapes; install a font of "
            "their script, such as Noto Sans",
            stacklevel=2,
        )


@contextlib.contextmanager
def without_layout_warnings() -> Iterator[None]:
    """Hide Matplotlib's warnings about missing characters and long labels.

    This is for SVG, which a browser draws with its own fonts.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph ")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        yield


def _missing(texts: Iterable[Text]) -> str:
    """Return the characters that no installed font has."""
    return "".join(sorted({mark for text in texts for mark in _fonts(text.get_text())[1]}))


def _texts(figure: Figure) -> list[Text]:
    """Return all texts of a figure, with the labels of its ticks."""
    from matplotlib.text import Text

    for axes in figure.axes:
        axes.get_xticklabels()  # Matplotlib writes the labels when they are asked for
        axes.get_yticklabels()
    return [text for text in figure.findobj(Text) if isinstance(text, Text)]


def _escaping(formatter: Formatter, missing: str) -> Formatter:
    """Format the ticks of an axis as another formatter does, with escapes."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, position: _escape(formatter(value, position), missing))


def _escape(text: str, missing: str) -> str:
    return "".join(rf"\u{ord(mark):04x}" if mark in missing else mark for mark in printable(text))


def _fonts(text: str) -> tuple[tuple[str, ...], str]:
    """Return the families of the fonts that a text needs besides the basic one, and the characters that no font has."""
    unusual = "".join(sorted({mark for mark in text if not (mark.isascii() or mark.isspace())}))
    return _search(unusual) if unusual else ((), "")


@functools.cache
def _search(marks: str) -> tuple[tuple[str, ...], str]:
    from matplotlib import font_manager

    basic = font_manager.findfont(font_manager.FontProperties(family=[_BASIC]))
    missing = set(map(ord, marks)) - _characters(basic)
    families = []
    for font in font_manager.fontManager.ttflist:
        is_real = font.style == "normal" and not font.name.startswith(_PLACEHOLDERS)
        if missing and is_real and (found := missing & _characters(font.fname)):
            families.append(font.name)
            missing -= found
    return tuple(families), "".join(map(chr, sorted(missing)))


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """Return the characters of a font; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
