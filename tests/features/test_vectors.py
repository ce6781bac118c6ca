"""Word vectors: random ones and those of files."""

import bz2
import gzip
import io
import lzma
import tracemalloc
import unicodedata
import zipfile

import numpy as np
import pytest

from jaxser.features import text, vectors
from jaxser.types import InputError


def vocabulary() -> text.Vocabulary:
    return text.build_vocabulary(
        [("The", "dog"), ("the", "cat", "THE"), ("a", "Zebra", "dog"), ("NASA", "nasa")]
    )


def test_random_vectors_are_standard_normal_and_padding_is_zero():
    table = vectors.random_embeddings(text.build_vocabulary([[f"w{n}" for n in range(500)]]), seed=3)
    assert table.dtype == np.float32
    assert not table[0].any()
    assert table[1:].std() == pytest.approx(1, abs=0.01)
    assert table[1:].mean() == pytest.approx(0, abs=0.01)
    assert not np.array_equal(
        table, vectors.random_embeddings(text.build_vocabulary([[f"w{n}" for n in range(500)]]))
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
    table, coverage = vectors.load_vectors(path, vocabulary())
    ramp = np.arange(300, dtype=np.float32) / 1000
    np.testing.assert_allclose(table[2], 1 + ramp, atol=1e-6)
    np.testing.assert_allclose(table[3], 2 + ramp, atol=1e-6)
    assert coverage == (2 / 6, 5 / 10, 0)


def test_cased_spelling_is_the_fallback(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(line("NASA", 5) + line("The", 3) + line("the", 1) + line("THE", 4) + line("Zebra", 6))
    table, _ = vectors.load_vectors(path, vocabulary())
    firsts = dict(zip(vocabulary().words, table[:, 0], strict=True))
    assert (firsts["nasa"], firsts["the"], firsts["zebra"]) == (5, 1, 6)


def test_vectors_of_missing_words_are_uniform_and_padding_is_zero(tmp_path):
    words = text.build_vocabulary([[f"w{n}" for n in range(300)]])
    path = tmp_path / "glove.txt"
    path.write_text(line("w7", 5))
    table, coverage = vectors.load_vectors(path, words, seed=1)
    missing = np.delete(table, [0, words.index["w7"]], axis=0)
    assert not table[0].any()
    assert np.abs(missing).max() <= 0.25
    assert missing.std() == pytest.approx(0.5 / np.sqrt(12), rel=0.02)
    assert coverage.types == 1 / 300
    np.testing.assert_array_equal(table, vectors.load_vectors(path, words, seed=1)[0])
    assert not np.array_equal(table, vectors.load_vectors(path, words, seed=2)[0])


@pytest.mark.parametrize("width", [25, 50, 100, 200, 300, 1024])
@pytest.mark.parametrize("has_header", [False, True])
def test_any_width_with_or_without_a_header(tmp_path, width, has_header):
    path = tmp_path / "vectors.txt"
    path.write_text((f"2 {width}\n" if has_header else "") + line("the", 1, width) + line("dog", 2, width))
    table, _ = vectors.load_vectors(path, vocabulary())
    assert vectors.vector_width(path) == width
    assert table.shape == (8, width)
    np.testing.assert_allclose(table[2], 1 + np.arange(width) / 1000, atol=1e-5)
    np.testing.assert_allclose(table[3], 2 + np.arange(width) / 1000, atol=1e-5)


def test_lines_that_end_in_a_space_and_columns_divided_by_tabs(tmp_path):
    """fastText ends its lines in a space."""
    path = tmp_path / "vectors.vec"
    whole = "2 50\n" + line("the", 1, 50) + line("dog", 2, 50)
    for content in (whole.replace("\n", " \n"), whole.replace(" ", "\t"), whole.replace("\n", "\r\n") + "\n"):
        path.write_text(content)
        assert vectors.load_vectors(path, vocabulary())[0][2:4, 0].tolist() == [1, 2]


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("glove.50d.txt", content)
    return file.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zipped])
def test_packed_files(tmp_path, pack):
    content = "".join(line(f"w{n}", n, 50) for n in range(300)) + line("the", 1, 50)
    path = tmp_path / "vectors"
    path.write_bytes(pack(content.encode()))
    assert vectors.vector_width(path) == 50
    assert vectors.load_vectors(path, vocabulary())[0][2, 0] == 1
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"vectors: (cannot be unpacked|line \d+ is not)") as caught:
        vectors.load_vectors(path, vocabulary())
    assert "\n" not in str(caught.value)


def test_an_archive_of_several_files_is_rejected(tmp_path):
    with zipfile.ZipFile(tmp_path / "glove.6B.zip", "w") as archive:
        for width in (50, 100):
            archive.writestr(f"glove.6B.{width}d.txt", line("the", 1, width))
    with pytest.raises(InputError, match=r"2 files \(glove.6B.50d.txt, glove.6B.100d.txt\): unpack it"):
        vectors.vector_width(tmp_path / "glove.6B.zip")


def test_the_first_of_several_vectors_of_a_token_is_used_and_counted(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(line("the", 1) + line("dog", 2) + line("the", 3))
    table, coverage = vectors.load_vectors(path, vocabulary())
    assert table[2, 0] == 1
    assert coverage.duplicates == 1


def test_decomposed_spellings_are_found(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(line(unicodedata.normalize("NFD", "möchte"), 3), encoding="utf-8")
    assert vectors.load_vectors(path, text.build_vocabulary([("möchte",)]))[0][2, 0] == 3


@pytest.mark.parametrize("found", ["", line(",", 2)])
def test_a_file_with_none_of_the_words_is_an_error(tmp_path, found):
    """Only punctuation in common: the file is of another language."""
    path = tmp_path / "glove.txt"
    path.write_text(line("Hund", 1) + found)
    words = text.build_vocabulary([("the", "dog", ",")])
    with pytest.raises(InputError, match=r"has none of the 2 words of the corpus \(dog, the\)"):
        vectors.load_vectors(path, words)
    with pytest.raises(InputError, match="the corpus has no words that could have vectors"):
        vectors.load_vectors(path, text.build_vocabulary([("<none>",)]))


def test_fewer_vectors_than_the_first_line_announces_are_an_error(tmp_path):
    path = tmp_path / "vectors.vec"
    path.write_text("1000 50\n" + line("the", 1, 50) + line("dog", 1, 50))
    with pytest.raises(InputError, match="line 1 announces 1,000 vectors, but there are 2"):
        vectors.load_vectors(path, vocabulary())


@pytest.mark.parametrize(
    "content", ["PK\x03\x04 a zip file", "two words", "", "a\n", "9 100000\n", "x" * 200_000]
)
def test_other_formats_are_rejected(tmp_path, content):
    path = tmp_path / "glove.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=r"glove\.txt: (line 1 is|the file is empty|cannot be unpacked)"):
        vectors.load_vectors(path, vocabulary())


@pytest.mark.parametrize("width", [50, 300])
@pytest.mark.parametrize(
    "damaged",
    [
        lambda width: "other 1 2 3\n",
        lambda width: "the 1 2 3\n",
        lambda width: line("other", 1, width + 1),
        lambda width: line("other", 1, 2 * width),
        lambda width: line("the", 1, width).replace("1.00500", "abc"),
        lambda width: line("the", float("nan"), width),
        lambda width: line("the", 1e39, width),
        lambda width: "other\n",
    ],
)
def test_lines_of_another_width_or_without_numbers_are_named(tmp_path, width, damaged):
    path = tmp_path / "glove.txt"
    lines = [line(f"w{n}", n, width) for n in range(300)]
    path.write_text("".join([*lines[:200], damaged(width), *lines[200:]]))
    with pytest.raises(InputError, match=rf"glove\.txt: line 201 is not a token and {width} numbers"):
        vectors.load_vectors(path, vocabulary())


def test_missing_and_empty_files_are_rejected(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match="the file is empty"):
        vectors.load_vectors(tmp_path / "empty.txt", vocabulary())
    with pytest.raises(InputError, match="cannot be read"):
        vectors.load_vectors(tmp_path / "nowhere.txt", vocabulary())


def test_glove_is_streamed(tmp_path):
    path = tmp_path / "glove.txt"
    with path.open("w") as file:
        for n in range(3_000):
            file.write(line("the" if n == 7 else f"word{n}", n))
    tracemalloc.start()
    try:
        vectors.load_vectors(path, vocabulary())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 5e6
    assert peak < 0.5e6
