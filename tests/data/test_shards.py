"""Shards: records are read back unchanged, damage is reported, and TFDS can read them."""

import struct
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.small_corpus import talk
from jaxser.data import shards
from jaxser.features.recipes import RECIPES, ArraySpec
from jaxser.types import InputError, Utterance, Word

SPECS = RECIPES["mcsan"].arrays


def arrays(frames: int = 7, words: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "audio": rng.standard_normal((frames, 40)).astype(np.float32),
        "words": rng.integers(0, 99, words).astype(np.int32),
    }


def records(number: int) -> list:
    return [(talk(n, "ang"), arrays(frames=n + 1, words=n, seed=n)) for n in range(number)]


def assert_same(ours, theirs) -> None:
    assert ours[0] == theirs[0]
    assert ours[1].keys() == theirs[1].keys()
    for name in theirs[1]:
        np.testing.assert_array_equal(ours[1][name], theirs[1][name])
        assert ours[1][name].dtype == theirs[1][name].dtype


def test_records_are_read_back_unchanged(tmp_path):
    info = shards.write_shard(tmp_path / "x", records(5), SPECS)
    assert (info.records, info.rows) == (5, {"audio": 15, "words": 10})
    assert info.bytes == (tmp_path / "x").stat().st_size
    for ours, theirs in zip(shards.read_shard(tmp_path / "x", SPECS), records(5), strict=True):
        assert_same(ours, theirs)


def test_every_field_of_an_utterance_is_kept():
    """`talk` sets all fields that a reader sets, so this test fails if a new field is not stored."""
    whole = replace(talk(5, "ang", dialogue="Ses01F_impro01"), sha256="0" * 64, duration=2.5)
    empty = Utterance(id="", wav="", label="")
    unset = {
        field.name for field in fields(Utterance) if getattr(whole, field.name) == getattr(empty, field.name)
    }
    assert not unset
    assert shards.decode(shards.encode(whole, arrays(), SPECS), SPECS)[0] == whole


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.floats(allow_nan=False)
plain = ["id", "wav", "label", "transcript", "speaker", "gender", "session", "dialogue", "split", "sha256"]
contents = st.fixed_dictionaries({
    **dict.fromkeys(plain, texts),
    "words": st.none() | st.lists(st.tuples(texts, times, times), max_size=3),
    "duration": st.none() | times,
    "votes": st.lists(texts, max_size=3).map(tuple),
    "flags": st.lists(texts, max_size=3).map(tuple),
    "attributes": st.dictionaries(texts, times, max_size=3),
})  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(contents, st.integers(0, 4), st.integers(0, 4))
def test_any_utterance_is_read_back(content, frames, words):
    spoken = content.pop("words")
    timed = None if spoken is None else tuple(Word(*word) for word in spoken)
    utterance = Utterance(words=timed, **content)
    given_arrays = arrays(frames, words)
    ours = shards.decode(shards.encode(utterance, given_arrays, SPECS), SPECS)
    assert_same(ours, (utterance, given_arrays))


def test_file_names_that_are_not_utf8_are_kept():
    utterance = Utterance(id="x", wav=b"caf\xe9.wav".decode("utf-8", "surrogateescape"), label="ang")
    assert shards.decode(shards.encode(utterance, arrays(), SPECS), SPECS)[0] == utterance


def test_same_content_gives_the_same_bytes(tmp_path):
    infos = [shards.write_shard(tmp_path / name, records(9), SPECS) for name in ("x", "y")]
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert infos[0].crc32c == infos[1].crc32c


def test_framing_is_tensorflows(tmp_path):
    """Checked against a bitwise CRC-32C, which is checked against the value in its definition."""
    assert crc32c(b"123456789") == 0xE3069283
    shards.write_shard(tmp_path / "x", records(1), SPECS)
    content = (tmp_path / "x").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    assert len(content) == length + 16
    assert struct.unpack("<I", content[8:12])[0] == masked(crc32c(content[:8]))
    assert struct.unpack("<I", content[-4:])[0] == masked(crc32c(content[12:-4]))


def crc32c(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_every_flipped_byte_is_reported_with_file_and_record(tmp_path):
    path = tmp_path / "x"
    shards.write_shard(path, [(talk(n, "ang"), arrays(1, 1)) for n in range(3)], SPECS)
    whole = path.read_bytes()
    first = 16 + struct.unpack("<Q", whole[:8])[0]
    for position in range(0, len(whole), 11):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{path}: record [012] is (damaged|cut short)") as caught:
            list(shards.read_shard(path, SPECS))
        if position < first:
            assert "record 0" in str(caught.value)


def test_every_truncation_within_a_record_is_detected(tmp_path):
    path = tmp_path / "x"
    info = shards.write_shard(path, [(talk(n, "ang"), arrays(1, 1)) for n in range(2)], SPECS)
    whole = path.read_bytes()
    border = 16 + struct.unpack("<Q", whole[:8])[0]
    for length in (1, 7, 12, 100, border - 1, border + 1, border + 12, len(whole) - 1):
        path.write_bytes(whole[:length])
        record = int(length > border)
        with pytest.raises(InputError, match=f"record {record} is cut short"):
            list(shards.read_shard(path, SPECS))
    path.write_bytes(whole[:border])
    assert len(list(shards.read_shard(path, SPECS))) == 1
    assert not shards.shard_is_whole(tmp_path, info)


def test_records_of_another_recipe_are_rejected(tmp_path):
    shards.write_shard(tmp_path / "x", records(2), SPECS)
    others = {"spectrum": ArraySpec("float32", (None, 7))}
    with pytest.raises(
        InputError, match=r"record 0 does not match this recipe and version .*; prepare the dataset again"
    ):
        list(shards.read_shard(tmp_path / "x", others))


def test_interrupted_writing_leaves_no_file(tmp_path):
    def interrupted():
        yield from records(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.write_shard(tmp_path / "x", interrupted(), SPECS)
    assert list(tmp_path.iterdir()) == []


def test_tfds_opens_the_folder_and_reads_the_records(tmp_path):
    folder = tmp_path / "talks" / "mcsan" / "1.0.0"
    folder.mkdir(parents=True)
    sizes = [4, 0, 3]  # a shard is empty if all its utterances are rejected
    infos = [
        shards.write_shard(folder / shards.shard_name("talks", n, 3), records(size), SPECS)
        for n, size in enumerate(sizes)
    ]
    shards.write_metadata(folder, "1.0.0", SPECS, infos)
    builder = tfds.builder_from_directory(folder)
    split = builder.info.splits[shards.SPLIT]
    assert (builder.name, str(builder.version)) == ("talks", "1.0.0")
    assert (split.num_examples, split.shard_lengths) == (7, sizes)
    assert split.num_bytes == sum(info.bytes for info in infos)
    assert [path.name for path in split.filepaths] == [info.file for info in infos]
    example = builder.info.features.deserialize_example_np(next(shards.read_records(folder / infos[0].file)))
    np.testing.assert_array_equal(example["array_audio"], records(1)[0][1]["audio"])
    assert example["id"] == b"talk_0000"
    assert "tensorflow" not in sys.modules


def test_file_is_renamed_when_it_is_complete(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"previous content")

    def watched():
        for record in records(2):
            assert path.read_bytes() == b"previous content"
            yield record

    shards.write_shard(path, watched(), SPECS)
    assert len(list(shards.read_records(path))) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
