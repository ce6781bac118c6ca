"""Alignments: TextGrids of several tools, the choice of the tier, and malformed files."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.corpora import textgrid
from jaxser.data_prep.corpora import folder
from jaxser.data_prep.corpora.alignments import parse_textgrid, read_words
from jaxser.types import Word

WORDS = [(0, 0.2, ""), (0.2, 0.7, "Give"), (0.7, 1.2, "it")]
PHONES = [(0, 0.2, "<p:>"), (0.2, 0.7, "g"), (0.7, 1.2, "I")]
SILENT = [(0, 1.2, "")]
FOUND = (Word("give", 0.2, 0.7), Word("it", 0.7, 1.2))


def write(root: Path, content: str | bytes, name: str = "a.TextGrid") -> Path:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root / name


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_forms_and_encodings_of_textgrids(tmp_path, short, encoding, line_end):
    content = textgrid(("phones", PHONES), ("words", [(0, 0.5, "möchte"), (0.5, 1, 'a"b')]), short=short)
    path = write(tmp_path, content.replace("\n", line_end).encode(encoding))
    assert read_words(path) == (Word("möchte", 0.0, 0.5), Word('a"b', 0.5, 1.0))


@pytest.mark.parametrize(
    "tiers",
    [
        [("words", WORDS), ("phones", PHONES)],  # Montreal Forced Aligner
        [("phone", PHONES), ("word", WORDS)],  # P2FA
        [("ORT-MAU", WORDS), ("KAN-MAU", PHONES), ("MAU", PHONES)],  # WebMAUS
        [("MAU", PHONES), ("Words", WORDS)],
        [("anna - words", WORDS), ("anna - phones", PHONES), ("ben - words", SILENT)],
        [("ben - words", SILENT), ("ben - phones", SILENT), ("anna - words", WORDS)],
        [("words", SILENT), ("ORT-MAU", WORDS)],
    ],
)
def test_tier_of_words_is_chosen_by_name_and_content(tmp_path, tiers):
    assert read_words(write(tmp_path, textgrid(*tiers))) == FOUND


@pytest.mark.parametrize(
    ("tiers", "tier", "speaker"),
    [
        ([("tokens", WORDS), ("phones", PHONES)], "tokens", ""),
        ([("tokens", WORDS), ("words", PHONES)], "Tokens", ""),
        ([("anna - words", WORDS), ("ben - words", PHONES)], "", "Anna"),
        ([("anna - words", WORDS), ("ben - words", PHONES)], "anna - words", ""),
        ([("Jo\u0308rg - words", WORDS), ("ben - words", PHONES)], "", "J\u00f6rg"),
        ([("J\u00f6rg - words", WORDS), ("ben - words", PHONES)], "jo\u0308rg - words", ""),
    ],
)
def test_tier_can_be_named_directly_or_by_its_speaker(tmp_path, tiers, tier, speaker):
    assert read_words(write(tmp_path, textgrid(*tiers)), tier, speaker) == FOUND


@pytest.mark.parametrize(
    ("tiers", "tier", "reason"),
    [
        ([("MAU", PHONES)], "", r"no tier of words among the tiers \(MAU\); choose one by --words_tier"),
        ([("KAN-MAU", PHONES), ("MAU", PHONES)], "", "no tier of words"),
        ([("phones", PHONES)], "", "no tier of words"),
        ([("words", WORDS)], "tokens", r"no tier tokens among the tiers \(words\)"),
        (
            [("a - words", WORDS), ("b - words", WORDS)],
            "",
            r"several tiers of words \(a - words, b - words\)",
        ),
        ([("words", [(0, 1, "give it back")])], "", "an interval of several words"),
        ([("words", [(0, 1, "give"), (0.5, 2, "it")])], "", "0.5 to 2 s does not follow 1 s"),
    ],
)
def test_other_tiers_are_never_used(tmp_path, tiers, tier, reason):
    with pytest.raises(ValueError, match=reason):
        read_words(write(tmp_path, textgrid(*tiers)), tier)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "cut short"),
        (textgrid(("words", WORDS))[:-40], "cut short"),
        ("ooBinaryFile\x08TextGrid", "cut short|not a TextGrid"),
        ('"ooTextFile" "Sound"', "not a TextGrid in text form"),
        ('"ooTextFile" "TextGrid" 0 1 <exists> 1 "OtherTier" "a" 0 1 0', "unknown class 'OtherTier'"),
        ('"ooTextFile" "TextGrid" 0 1 <exists> 1e999', "the number 1e999"),
        ('"ooTextFile" "TextGrid" 0 "x" <exists> 1', "a number expected"),
        (textgrid(("words", WORDS)).replace("intervals: size = ", "intervals: size = -"), "the number -"),
        (textgrid(("words", WORDS)).replace("intervals: size = ", "intervals: size = 0."), "the number 0."),
        (
            textgrid(("words", WORDS)).replace(f"intervals: size = {len(WORDS)}", "intervals: size = 1"),
            "than it states",
        ),
        ("version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
    ],
)
def test_malformed_textgrids_are_refused(tmp_path, content, reason):
    with pytest.raises(ValueError, match=reason):
        read_words(write(tmp_path, content))


def test_points_and_comments_are_skipped():
    text = (
        '"ooTextFile" "TextGrid" 0 1 <exists> 2 ! a comment "with quotes"\n'
        '"TextTier" "bell" 0 1 1 0.5 "ding" "IntervalTier" "words" 0 1 1 0 1 "give"'
    )
    [tier] = parse_textgrid(text)
    assert (tier.name, tier.intervals) == ("words", (("0", "1", "give"),))
    assert parse_textgrid('"ooTextFile" "TextGrid" 0 1 <absent>') == []


def test_tier_without_words_keeps_the_transcript(tmp_path):
    write(tmp_path, textgrid(("words", SILENT), ("phones", PHONES)))
    write(tmp_path, "path,label,text,alignment\na.wav,calm,Give it.,a.TextGrid\n", "metadata.csv")
    reading = folder.read(tmp_path)
    [utterance], [ignored] = reading.utterances, reading.ignored
    assert (utterance.words, utterance.transcript) == (None, "Give it.")
    assert utterance.flags == ("no_alignment",)
    assert ignored.reason == "alignment a.TextGrid not used: it has no words, so the text is used"


def test_words_tier_option_is_used_for_every_row(tmp_path):
    write(tmp_path, textgrid(("tokens", WORDS), ("words", SILENT)))
    write(tmp_path, "path,label,alignment\na.wav,calm,a.TextGrid\n", "metadata.csv")
    [utterance] = folder.read(tmp_path, words_tier="tokens").utterances
    assert utterance.words == FOUND


@pytest.mark.parametrize(
    "table",
    [
        "0,2;0,7;Give\n0,7;1,2;it\n",
        "word;start;end\nGive;0,2;0,7\nit;0,7;1,2\n",
        "0.2\t0.7\tGive\r\n0.7\t1.2\tit\r\n",
        '\ufeffstart,end,word\n0.2,0.7,"Give"\n\n0.7,1.2,it',
    ],
)
def test_tables_of_words(tmp_path, table):
    assert read_words(write(tmp_path, table, "a.csv")) == FOUND


@pytest.mark.parametrize("name", ["a.TextGrid", "a.wdseg", "a.csv"])
def test_folder_or_pipe_instead_of_an_alignment_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="not a regular file"):
        read_words(tmp_path / name)


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 600), change=st.binary(max_size=6), short=st.booleans())
def test_damaged_textgrids_raise_no_other_error(tmp_path_factory, cut, change, short):
    content = bytearray(textgrid(("words", WORDS), ("phones", PHONES), short=short).encode())
    content[cut : cut + len(change)] = change
    path = write(tmp_path_factory.mktemp("grid"), bytes(content))
    try:
        words = read_words(path)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all(0 <= word.start <= word.end for word in words)


@pytest.mark.parametrize("name", ["a.TextGrid", "a.csv", "a.wdseg"])
def test_a_nul_byte_is_no_word(tmp_path, name):
    (tmp_path / name).write_bytes(b"0,0.5,a\0b\n")
    with pytest.raises(ValueError, match="contains a NUL byte"):
        read_words(tmp_path / name)
