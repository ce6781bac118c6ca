"""Recordings that are flagged or refused, and words as earlier versions divided them."""

import os
import struct
from dataclasses import replace

import pytest
import soundfile

from helpers.small_corpus import RATE, noise
from jaxser.features.recipes import RECIPES
from jaxser.features.text import Vocabulary
from jaxser.inference.recordings import Reader
from jaxser.types import InputError, Word

WORDS = ("<pad>", "<unk>", "leave", "नहीं")


def reader(recipe=RECIPES["mcsan"], needs=("audio", "words")) -> Reader:
    return Reader(recipe, needs, Vocabulary(WORDS))


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(1.0), RATE)
    return path


def test_a_recording_with_a_wrong_size_is_flagged(clip):
    content = bytearray(clip.read_bytes())
    struct.pack_into("<I", content, 40, 0x7FFFF000)
    clip.write_bytes(content)
    [window] = reader().read(clip, "leave")
    assert window.flags == ("header_size",)


def test_words_are_divided_as_in_the_dataset_of_the_run(clip):
    """The datasets of earlier versions have no version of the tokenizer in their parameters."""
    recipe = RECIPES["mcsan"]
    kept = {key: value for key, value in recipe.parameters.items() if key not in ("tokenizer", "segmenter")}
    [old] = reader(replace(recipe, parameters=kept)).read(clip, "नहीं leave")
    [new] = reader().read(clip, "नहीं leave")
    assert old.words == ("नह", "ी", "ं", "leave")
    assert new.words == ("नहीं", "leave")
    assert new.arrays["words"].tolist() == [3, 2]


def test_words_in_a_script_without_spaces_are_flagged_if_they_are_read(clip):
    [window] = reader().read(clip, "我喜欢")
    assert (window.words, window.flags) == (("我", "喜", "欢"), ("characters",))
    [window] = reader(needs=("audio",)).read(clip, "我喜欢")
    assert window.flags == ()


def test_combining_marks_of_recognised_words_are_kept(clip):
    [window] = reader(RECIPES["can"], ("segments", "words")).read(clip, (Word("नहीं,", 0.1, 0.5),))
    assert window.words == ("नहीं",)


def test_transcripts_beside_a_recording_are_regular_files(clip):
    os.mkfifo(clip.with_suffix(".txt"))
    with pytest.raises(InputError, match=r"clip\.txt: cannot be read \(not a regular file\)"):
        reader().read(clip)
    clip.with_suffix(".txt").unlink()
    clip.with_suffix(".txt").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"clip\.txt: cannot be read \(not a regular file\)"):
        reader().read(clip)
