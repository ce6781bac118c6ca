"""Helpers of the corpus readers."""

from pathlib import Path

import pytest

from helpers.corpora import ALIGNMENT, HEADER
from jaxser.data_prep.corpora.parsing import decode, find_audio, find_file, parse_wdseg, printable


def test_finds_audio_without_apple_double_files(tmp_path: Path) -> None:
    for name in ("b/2.FLAC", "a/1.wav", "a/._1.wav", "a/1.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_audio(tmp_path) == [tmp_path / "a/1.wav", tmp_path / "b/2.FLAC"]


@pytest.mark.parametrize("content", ["é".encode(), "\ufeffé".encode(), "é".encode("latin-1")])
def test_decodes_utf8_or_the_fallback(content: bytes) -> None:
    assert decode(content) == "é"


def test_printable_escapes_surrogates() -> None:
    assert printable("a\udcff") == "a\\udcff"
    assert printable("é") == "é"


def test_paths_that_cannot_exist_are_returned_unchanged(tmp_path: Path) -> None:
    for path in ("ä/missing.wav", "ä" * 5_000, "ä\0.wav"):
        assert find_file(tmp_path, path) == path


def rows(*frames: tuple[int, int, str]) -> list[str]:
    return [HEADER] + [f"\t{first:5d} {last:5d} {-1:10d} {word}" for first, last, word in frames]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (ALIGNMENT.split("\n"), ["i", "like", "that's"]),
        (rows((0, 9, "A"), (20, 29, "B")), ["a", "b"]),  # a gap is silence
        ([*rows((0, 9, "A")), "something else", *rows((10, 19, "B"))], ["a", "b"]),  # no frame is missing
        (rows((0, 9, "++GARBAGE++(2)"), (10, 19, "<breath>"), (20, 29, "[noise]")), []),
        (rows((0, 9, "O'CLOCK(12)"), (10, 19, "(LAUGHS)")), ["o'clock", "(laughs)"]),
    ],
)
def test_parses_the_words_of_an_alignment(lines: list[str], words: list[str]) -> None:
    assert [word.text for word in parse_wdseg(lines)] == words


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (rows((0, 9, "A"), (9, 19, "B")), "frames 9 to 19 do not follow frame 9"),
        (rows((0, 9, "A"), (15, 12, "B")), "frames 15 to 12 do not follow"),
        (rows((-5, 9, "A")), "frames -5 to 9 do not follow"),
        (rows((0, 9, "A"), (10, 200, "B")), "ends at 2.01 s, but the recording at 1.00 s"),
        ([*rows((0, 9, "A")), "\t10 x9 -1 B", *rows((20, 29, "C"))], "frames 10 to 19 are missing"),
        ([*rows((0, 9, "A")), "\t10 99 B"], "ends at 0.10 s, and row '10 99 B' is malformed"),
        ([], "no rows"),
        ([HEADER], "no rows"),
    ],
)
def test_contradictory_alignments_raise(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_wdseg(lines, duration=1.0)
