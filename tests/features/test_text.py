"""Tokens and vocabularies."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxser.features import text
from jaxser.types import InputError


@pytest.mark.parametrize(
    ("sentence", "tokens"),
    [
        ("Kids are talking by the door", ("Kids", "are", "talking", "by", "the", "door")),
        ("Don't you -- really?!", ("Don't", "you", "-", "-", "really", "?", "!")),
        ("it’s 9:30, o'clock's", ("it's", "9", ":", "30", ",", "o'clock's")),
        ("'quoted' rock 'n' roll", ("'", "quoted", "'", "rock", "'", "n", "'", "roll")),
        ("Schön & größer_als", ("Schön", "&", "größer", "_", "als")),
        ("<b>&amp;</b>", ("<", "b", ">", "&", "amp", ";", "<", "/", "b", ">")),
        ("", ()),
        (" \t\n", ()),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_tokenize(sentence, tokens, version):
    assert text.tokenize(sentence, version) == tokens


@given(
    st.text(st.characters(max_codepoint=0x24F, exclude_categories=["Cf", "Cc"]) | st.sampled_from("’…–“ 👍"))
)
def test_texts_in_latin_letters_are_divided_as_by_the_first_version(sentence):
    assert text.tokenize(sentence) == text.tokenize(sentence, 1)


@pytest.mark.parametrize(
    ("sentence", "tokens"),
    [
        ("मुझे नहीं पता।", ("मुझे", "नहीं", "पता", "।")),
        ("السَّلامُ عَلَيْكُمْ، كيف؟", ("السَّلامُ", "عَلَيْكُمْ", "،", "كيف", "؟")),
        (unicodedata.normalize("NFD", "Ich möchte, größer!"), ("Ich", "möchte", ",", "größer", "!")),
        ("x\N{COMBINING CARON}y", ("x\N{COMBINING CARON}y",)),  # has no composed form
        ("می\u200cخواهم", ("می\u200cخواهم",)),
        ("Всё хорошо, мам!", ("Всё", "хорошо", ",", "мам", "!")),
        ("한국어 문장입니다.", ("한국어", "문장입니다", ".")),
        ("我喜欢你。OK吗？", ("我", "喜", "欢", "你", "。", "OK", "吗", "？")),
        ("コーヒーが", ("コ", "ー", "ヒ", "ー", "が")),
        ("เธอรู้", ("เ", "ธ", "อ", "รู้")),
        ("ខ្ញុំស្រឡាញ់", ("ខ្ញុំ", "ស្រ", "ឡា", "ញ់")),
        ("don't你", ("don't", "你")),
        ("\ufeffHello\u200e", ("Hello",)),
        ("soft\u00adhyphen", ("softhyphen",)),
    ],
)
def test_words_of_other_scripts(sentence, tokens):
    assert text.tokenize(sentence) == tokens


def test_combining_marks_stay_with_their_letters():
    """In words of every script with spaces, and with characters of scripts without."""
    marks = [mark for mark in map(chr, range(0x11_0000)) if unicodedata.category(mark) in ("Mn", "Mc", "Me")]
    assert len(marks) > 2_000
    for mark in marks:
        assert len(text.tokenize(f"ก{mark}")) == 1
        if not text.has_no_spaces(mark):
            for word in (f"क{mark}क", f"x{mark}y", f"д{mark}д"):
                assert text.tokenize(word) == (unicodedata.normalize("NFC", word),)


@given(st.text())
def test_tokens_are_not_empty_and_have_no_spaces(sentence):
    for token in (*text.tokenize(sentence), *text.tokenize(sentence, segmenter="spaces")):
        assert token
        assert not any(map(str.isspace, token))


@pytest.mark.parametrize(
    ("sentence", "tokens"),
    [
        ("我 喜欢 你。", ("我", "喜欢", "你", "。")),
        ("เธอ รู้ ไหม", ("เธอ", "รู้", "ไหม")),
        ("Don't you", ("Don't", "you")),
    ],
)
def test_words_that_a_segmenter_has_divided_by_spaces(sentence, tokens):
    assert text.tokenize(sentence, segmenter="spaces") == tokens


def test_which_texts_have_no_spaces():
    for sentence, expected in {
        "我喜欢": True,
        "น้ำ": True,
        "नहीं": False,
        "größer": False,
        "한국어": False,
    }.items():
        assert text.has_no_spaces(sentence) is expected


def test_an_unknown_version_of_the_tokenizer_is_rejected():
    with pytest.raises(InputError, match="version 3 of the tokenizer is not known"):
        text.tokenize("a", 3)


@pytest.mark.parametrize(
    ("word", "bare"), [("नहीं,", "नहीं"), ("“Hello!”", "Hello"), ("'tis", "tis"), ("...", ""), ("a_", "a_")]
)
def test_punctuation_around_a_word(word, bare):
    assert text.without_punctuation(word) == bare


def vocabulary() -> text.Vocabulary:
    return text.build_vocabulary(
        [("The", "dog"), ("the", "cat", "THE"), ("a", "Zebra", "dog"), ("NASA", "nasa")]
    )


def test_vocabulary_is_ordered_by_frequency_then_alphabet():
    assert vocabulary().words == ("<pad>", "<unk>", "the", "dog", "nasa", "a", "cat", "zebra")
    assert vocabulary().counts == (0, 0, 3, 2, 2, 1, 1, 1)
    assert vocabulary().cased == {"the": ("THE", "The"), "nasa": ("NASA",), "zebra": ("Zebra",)}


def test_vocabulary_does_not_depend_on_the_order_of_texts():
    texts = [("b", "B", "a"), ("c",), ("A", "b")]
    assert text.build_vocabulary(texts) == text.build_vocabulary(texts[::-1])


def test_ids_ignore_case_and_unknown_words_have_id_one():
    ids = vocabulary().ids(["THE", "Dog", "unheard", "cat"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 3, 1, 6]
    assert vocabulary().ids([]).shape == (0,)


def test_the_id_of_an_unknown_word():
    assert text.build_vocabulary([["yes", "no"]]).ids(["perhaps"]).tolist() == [text.UNKNOWN_ID]
