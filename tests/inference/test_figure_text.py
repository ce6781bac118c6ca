"""Labels in figures: fonts with the characters of other scripts, or else escapes with a warning."""

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxser.inference import figure_text

MARK = "\U0002f81a"  # a rare Chinese character, which no usual font has


@pytest.fixture
def figure():
    """A figure with the character in a tick label and in a title."""
    drawn = Figure()
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    axes.set_xticks([0, 1], [f"{MARK}怒", "sad"])
    axes.set_title(f"{MARK} and -1 \x1b[31m")
    return drawn


@pytest.fixture(autouse=True)
def _only_basic_fonts(monkeypatch):
    kept = ("DejaVu", "Last Resort")
    entries = [one for one in font_manager.fontManager.ttflist if one.name.startswith(kept)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    figure_text._search.cache_clear()
    yield
    figure_text._search.cache_clear()


def labels(figure):
    return [label.get_text() for label in figure.axes[0].get_xticklabels()], figure.axes[0].get_title()


def test_characters_that_no_font_has_are_escaped(figure):
    assert figure_text.escape_missing(figure)
    expected = [r"\u2f81a\u6012", "sad"], r"\u2f81a and -1 \x1b[31m"
    assert labels(figure) == expected
    figure.canvas.draw()  # pytest turns Matplotlib's warning about a missing glyph into an error
    assert labels(figure) == expected


def test_one_warning_names_the_characters_of_all_figures(figure):
    other = Figure()
    other.suptitle("怒り")
    with pytest.warns(UserWarning, match=f"no installed font has the characters り怒{MARK}: PNG") as found:
        figure_text.warn_of_missing([figure, other])
    assert len(found) == 1


def test_arabic_letters_are_joined():
    drawn = Figure()
    FigureCanvasAgg(drawn)
    widths = [drawn.text(0, 0, text).get_window_extent().width for text in ("غاضب", "\u200c".join("غاضب"))]
    assert widths[0] < widths[1]  # zero-width non-joiners keep the letters apart


def test_an_installed_font_with_the_characters_is_used(figure, tmp_path):
    square = TTGlyphPen(None)
    for step, point in enumerate([(0, 0), (500, 0), (500, 500), (0, 500)]):
        (square.lineTo if step else square.moveTo)(point)
    square.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "mark"])
    builder.setupCharacterMap({ord(MARK): "mark", ord("怒"): "mark"})
    glyph = square.glyph()
    builder.setupGlyf({".notdef": glyph, "mark": glyph})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "mark": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    font_manager.fontManager.addfont(tmp_path / "squares.ttf")
    figure.axes[0].set_title(MARK)
    figure_text.choose_fonts(figure)
    assert not figure_text.escape_missing(figure)
    assert labels(figure)[0] == [f"{MARK}怒", "sad"]
    assert figure.axes[0].get_xticklabels()[0].get_fontfamily() == ["sans-serif", "Squares"]
    assert figure.axes[0].get_xticklabels()[1].get_fontfamily() == ["sans-serif"]
    figure.canvas.draw()


def test_figures_of_latin_text_stay_as_they_are(figure):
    figure.axes[0].set_xticks([0], ["Überraschung ± –"])
    figure.axes[0].set_title("α")
    assert not figure_text.escape_missing(figure)
    assert labels(figure) == (["Überraschung ± –"], "α")
