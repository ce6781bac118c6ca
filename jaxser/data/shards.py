"""TFRecord shards with the feature specs of TFDS, without TensorFlow.

A record is a `tf.train.Example` with every field of an `Utterance`, and the arrays of a recipe as raw bytes. In a file,
records are framed as in TensorFlow: the length, its CRC, the record, its CRC. Reading checks both CRCs.
`tfds.builder_from_directory` can open a folder of shards.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Shaped
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from jaxser import files
from jaxser.features.recipes import ArraySpec
from jaxser.types import InputError, Utterance, Word

SPLIT = "utterances"  # the only split: folds are made in training, and TFDS reserves the name "all"
MANIFEST = "manifest.json"
TFDS_FILES = ("dataset_info.json", "features.json")

REMEDY = "prepare the dataset again, which rebuilds what is damaged"
"""What to do if a file of a dataset is damaged, for messages."""

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


@dataclass(frozen=True)
class ShardInfo:
    """The size and checksum of a shard.

    Attributes:
        file: the name of the file.
        records: the number of records.
        bytes: the size of the file.
        crc32c: the checksum of the file, in hexadecimal.
        rows: the length of each array, summed over the records.
    """

    file: str
    records: int
    bytes: int
    crc32c: str
    rows: Mapping[str, int]


def shard_name(dataset: str, index: int, count: int) -> str:
    """Return the file name of shard `index` of `count`, as TFDS expects it."""
    return f"{dataset}-{SPLIT}.tfrecord-{index:05d}-of-{count:05d}"


def write_shard(
    path: Path, records: Iterable[tuple[Utterance, Arrays]], specs: Mapping[str, ArraySpec]
) -> ShardInfo:
    """Write a shard, so that the file is either complete or absent."""
    count = size = 0
    checksum = google_crc32c.Checksum()
    rows = dict.fromkeys(specs, 0)
    with files.open_binary(path.parent, path.name) as file:
        for utterance, arrays in records:
            framed = frame(encode(utterance, arrays, specs))
            file.write(framed)
            checksum.update(framed)
            count, size = count + 1, size + len(framed)
            for name in specs:
                rows[name] += len(arrays[name])
    return ShardInfo(path.name, count, size, checksum.hexdigest().decode(), rows)


def read_shard(
    path: Path, specs: Mapping[str, ArraySpec], info: ShardInfo | None = None
) -> Iterator[tuple[Utterance, Arrays]]:
    """Yield the utterances of a shard and their arrays.

    Args:
        path: the file.
        specs: the arrays of a record.
        info: the size and checksum that the file must have.

    Raises:
        InputError: if a record is damaged or belongs to another recipe, with the file and the record, or if the file is
            not the one that was written.
    """
    for number, record in enumerate(read_records(path, info)):
        try:
            utterance, arrays = decode(record, specs)
        except Exception as error:  # foreign bytes can make the parsers raise anything
            raise InputError(
                f"{path}: record {number} does not match this recipe and version ({error!r}); {REMEDY}"
            ) from None
        yield utterance, arrays


def read_records(path: Path, info: ShardInfo | None = None) -> Iterator[bytes]:
    """Yield the records of a TFRecord file after checking their CRCs.

    Arguments and errors are those of `read_shard`.
    """
    content = files.CheckedFolder(path.parent, REMEDY).read(path.name)
    if info and not _is_same(content, info):
        number = sum(1 for _ in _records(path, content))  # reports a damaged record
        if number < info.records:
            raise InputError(f"{path}: record {number} is missing ({info.records} were written); {REMEDY}")
        raise InputError(f"{path} is not the shard that was written (its checksum differs); {REMEDY}")
    yield from _records(path, content)


def _records(path: Path, content: bytes) -> Iterator[bytes]:
    position, number = 0, 0
    while position < len(content):
        head = content[position : position + 12]
        end = position + 16 + struct.unpack("<Q", head[:8])[0] if len(head) == 12 else len(content) + 1
        damage = ""
        if len(head) == 12 and _masked_crc(head[:8]) != head[8:]:
            damage = "damaged (the checksum of its length differs)"
        elif end > len(content):
            damage = "cut short (the file ends within it)"
        elif _masked_crc(content[position + 12 : end - 4]) != content[end - 4 : end]:
            damage = "damaged (its checksum differs)"
        if damage:
            raise InputError(f"{path}: record {number} is {damage}; {REMEDY}")
        yield content[position + 12 : end - 4]
        position, number = end, number + 1


def _is_same(content: bytes, info: ShardInfo) -> bool:
    return len(content) == info.bytes and _hexadecimal(google_crc32c.value(content)) == info.crc32c


def shard_is_whole(directory: Path, shard: ShardInfo) -> bool:
    """Return whether the file exists with the bytes that were written."""
    try:
        content = (directory / shard.file).read_bytes()
    except OSError:
        return False
    return _is_same(content, shard)


def encode(utterance: Utterance, arrays: Arrays, specs: Mapping[str, ArraySpec]) -> bytes:
    """Serialise an utterance and its arrays. Equal content gives equal bytes."""
    features = record_features(specs)
    example: dict[str, Any] = {name: _to_bytes(getattr(utterance, name)) for name in _TEXTS}
    example |= {name: [_to_bytes(text) for text in getattr(utterance, name)] for name in _TEXT_LISTS}
    words = utterance.words or ()
    example |= {
        "duration": np.array(np.nan if utterance.duration is None else utterance.duration, np.float64),
        "aligned": utterance.words is not None,
        "word": [_to_bytes(word.text) for word in words],
        "word_start": np.array([word.start for word in words], np.float64),
        "word_end": np.array([word.end for word in words], np.float64),
        "attribute": [_to_bytes(name) for name in utterance.attributes],
        "attribute_value": np.array(list(utterance.attributes.values()), np.float64),
    }
    example |= {_array_key(name): arrays[name] for name in specs}
    proto = _serializer(_frozen(specs)).get_tf_example(features.encode_example(example))
    return proto.SerializeToString(deterministic=True)


def decode(record: bytes, specs: Mapping[str, ArraySpec]) -> tuple[Utterance, Arrays]:
    """Invert `encode`. The arrays are views of the record."""
    example = record_features(specs).deserialize_example_np(record)
    fields: dict[str, Any] = {name: _to_text(example[name]) for name in _TEXTS}
    fields |= {name: tuple(map(_to_text, example[name])) for name in _TEXT_LISTS}
    starts, ends = example["word_start"].tolist(), example["word_end"].tolist()
    words = tuple(map(Word, map(_to_text, example["word"]), starts, ends)) if example["aligned"] else None
    attributes = dict(
        zip(map(_to_text, example["attribute"]), example["attribute_value"].tolist(), strict=True)
    )
    duration = None if np.isnan(example["duration"]) else float(example["duration"])
    utterance = Utterance(words=words, attributes=attributes, duration=duration, **fields)
    return utterance, {name: example[_array_key(name)] for name in specs}


def frame(record: bytes) -> bytes:
    """Frame a record as TensorFlow does."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _masked_crc(length), record, _masked_crc(record)))


def record_features(specs: Mapping[str, ArraySpec]) -> tfds.features.FeaturesDict:
    """Return the TFDS description of a record."""
    return _record_features(_frozen(specs))


def write_metadata(
    directory: Path, version: str, specs: Mapping[str, ArraySpec], shards: list[ShardInfo]
) -> None:
    """Write `dataset_info.json` and `features.json`, which TFDS needs to open the folder."""
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=[shard.records for shard in shards],
        num_bytes=sum(shard.bytes for shard in shards),
    )
    with tempfile.TemporaryDirectory() as made:
        for shard in shards:
            (Path(made) / shard.file).touch()  # TFDS wants to see files of these names
        tfds.folder_dataset.write_metadata(
            data_dir=made,
            features=record_features(specs),
            split_infos=[split],
            version=version,
            check_data=False,  # checking would import TensorFlow
            description="Utterances of a speech emotion corpus and their features, made by jaxser.",
        )
        for name in TFDS_FILES:
            files.write(directory, name, (Path(made) / name).read_bytes())


def write_json(root: Path, name: files.Name, content: Any) -> None:
    """Write a JSON file of a dataset."""
    files.write(root, name, json.dumps(content, indent=1) + "\n")


def shard_info(content: Mapping[str, Any]) -> ShardInfo:
    """Restore a `ShardInfo` from JSON."""
    return ShardInfo(**{name: content[name] for name in ShardInfo.__dataclass_fields__})


def shard_json(shard: ShardInfo) -> dict[str, Any]:
    """Convert a `ShardInfo` to JSON."""
    return asdict(shard)


_TEXTS = ("id", "wav", "label", "transcript", "speaker", "gender", "session", "dialogue", "split", "sha256")
_TEXT_LISTS = ("votes", "flags")


def _array_key(name: str) -> str:
    return f"array_{name}"  # cannot clash with a field of the utterance


def _frozen(specs: Mapping[str, ArraySpec]) -> tuple[tuple[str, ArraySpec], ...]:
    return tuple((name, ArraySpec(*spec)) for name, spec in specs.items())


@cache
def _record_features(specs: tuple[tuple[str, ArraySpec], ...]) -> tfds.features.FeaturesDict:
    text, texts = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
    times = _raw((None,), np.float64)
    fields = dict.fromkeys(_TEXTS, text) | dict.fromkeys(_TEXT_LISTS, texts)
    fields |= {
        "duration": _raw((), np.float64),
        "aligned": tfds.features.Scalar(np.bool_),
        "word": texts,
        "word_start": times,
        "word_end": times,
    }
    fields |= {"attribute": texts, "attribute_value": times}
    fields |= {_array_key(name): _raw(spec.shape, np.dtype(spec.dtype)) for name, spec in specs}
    return tfds.features.FeaturesDict(fields)


@cache
def _serializer(specs: tuple[tuple[str, ArraySpec], ...]) -> ExampleSerializer:
    return ExampleSerializer(_record_features(specs).get_serialized_info())


def _raw(shape: tuple[int | None, ...], dtype: Any) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=tfds.features.Encoding.BYTES)


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # file names need not be UTF-8


def _to_text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _masked_crc(content: bytes) -> bytes:
    """Return the masked CRC of the TFRecord format.

    It is masked because the CRC of data containing CRCs is problematic.
    """
    crc = google_crc32c.value(content)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _hexadecimal(crc: int) -> str:
    return f"{crc:08x}"
