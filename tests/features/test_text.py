"""Tokens, vocabularies and word vectors."""

import tracemalloc

import numpy as np
import pytest

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
def test_tokenize(sentence, tokens):
    assert text.tokenize(sentence) == tokens


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


def test_random_vectors_are_standard_normal_and_padding_is_zero():
    table = text.random_embeddings(text.build_vocabulary([[f"w{n}" for n in range(500)]]), seed=3)
    assert table.dtype == np.float32
    assert not table[0].any()
    assert table[1:].std() == pytest.approx(1, abs=0.01)
    assert table[1:].mean() == pytest.approx(0, abs=0.01)
    assert not np.array_equal(
        table, text.random_embeddings(text.build_vocabulary([[f"w{n}" for n in range(500)]]))
    )


def line(token: str, value: float, dimension: int = 300) -> str:
    return " ".join([token, *[f"{value + n / 1000:.5f}" for n in range(dimension)]]) + "\n"


def test_glove_of_both_releases(tmp_path):
    """The 6B release is lower-cased. Tokens of the 840B release may contain spaces and start like other words."""
    path = tmp_path / "glove.txt"
    lines = [
        line(",", 9),
        line("the", 1),
        line("the dog at name@domain.com", 7),
        line("dog", 2),
        line(". . .", 8),
    ]
    path.write_text("".join(lines), encoding="utf-8")
    table, coverage = text.load_glove(path, vocabulary())
    ramp = np.arange(300, dtype=np.float32) / 1000
    np.testing.assert_allclose(table[2], 1 + ramp, atol=1e-6)
    np.testing.assert_allclose(table[3], 2 + ramp, atol=1e-6)
    assert coverage == (2 / 6, 5 / 10)


def test_cased_spelling_is_the_fallback(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(line("NASA", 5) + line("The", 3) + line("the", 1) + line("THE", 4) + line("Zebra", 6))
    table, _ = text.load_glove(path, vocabulary())
    firsts = dict(zip(vocabulary().words, table[:, 0], strict=True))
    assert (firsts["nasa"], firsts["the"], firsts["zebra"]) == (5, 1, 6)


def test_vectors_of_missing_words_are_uniform_and_padding_is_zero(tmp_path):
    words = text.build_vocabulary([[f"w{n}" for n in range(300)]])
    path = tmp_path / "glove.txt"
    path.write_text(line("w7", 5))
    table, coverage = text.load_glove(path, words, seed=1)
    missing = np.delete(table, [0, words.index["w7"]], axis=0)
    assert not table[0].any()
    assert np.abs(missing).max() <= 0.25
    assert missing.std() == pytest.approx(0.5 / np.sqrt(12), rel=0.02)
    assert coverage.types == 1 / 300
    np.testing.assert_array_equal(table, text.load_glove(path, words, seed=1)[0])
    assert not np.array_equal(table, text.load_glove(path, words, seed=2)[0])


def test_word2vec_header_is_skipped(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("1 300\n" + line("the", 1))
    assert text.load_glove(path, vocabulary())[0][2, 0] == 1


@pytest.mark.parametrize(
    "content",
    [
        "PK\x03\x04 a zip file",
        "two words",
        line("the", 1, dimension=50),
        line("a", 1) + line("b", 1) + "the 1 2 3\n",
        line("the", 1).replace("1.00500", "abc"),
        line("the", float("nan")),
    ],
)
def test_other_formats_are_rejected(tmp_path, content):
    path = tmp_path / "glove.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=r"glove\.txt: line \d is not a token and 300 numbers"):
        text.load_glove(path, vocabulary())


def test_missing_and_empty_files_are_rejected(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match="the file is empty"):
        text.load_glove(tmp_path / "empty.txt", vocabulary())
    with pytest.raises(InputError, match="cannot be read"):
        text.load_glove(tmp_path / "nowhere.txt", vocabulary())


def test_glove_is_streamed(tmp_path):
    path = tmp_path / "glove.txt"
    with path.open("w") as file:
        for n in range(3_000):
            file.write(line(f"word{n}", n))
    tracemalloc.start()
    try:
        text.load_glove(path, vocabulary())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 5e6
    assert peak < 0.5e6
