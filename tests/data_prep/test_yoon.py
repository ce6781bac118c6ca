"""The npy folds of Yoon et al.: small files of that layout."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxser.data import dataset
from jaxser.data.folds import Protocol, make_folds
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep.corpora import yoon
from jaxser.types import InputError, UsageError

ITEMS, WORDS = 20, 50


def items(count: int = ITEMS, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames, pictures = rng.integers(3, 12, count), rng.integers(1, 5, count)
    return {
        "label": rng.permutation(np.arange(count) % 7),
        "audio_mfcc": rng.standard_normal((count, 12, 120)),
        "audio_prosody": rng.standard_normal((count, 35)),
        "audio_seqN": frames,
        "nlp_trans": np.where(
            np.arange(16) < rng.integers(1, 17, count)[:, None], rng.integers(1, WORDS, (count, 16)), 0
        ),
        "video": rng.standard_normal((count, 4, 2048)).astype(np.float32),
        "video_seqN": pictures,
    }


def write_release(root: Path, arrays: dict[str, np.ndarray], folds: int = 3) -> Path:
    """Fold k tests every item whose number is k modulo the folds; the next validates."""
    number = np.arange(len(arrays["label"])) % folds
    for fold in range(folds):
        folder = root / "seven_category_120" / "folds" / f"fold{fold + 1:02d}"
        folder.mkdir(parents=True)
        validates = number == (fold + 1) % folds
        parts = {
            "test": number == fold,
            "dev": validates & (number != fold),
            "train": (number != fold) & ~validates,
        }
        for part, chosen in parts.items():
            for kind, array in arrays.items():
                np.save(folder / f"{part}_{kind}.npy", array[chosen])
    vectors = np.random.default_rng(1).standard_normal((WORDS, 300))
    np.save(root / "seven_category_120" / "W_embedding.npy", vectors)
    return root


def prepare(root: Path, out: Path, recipe: str = "self_cross", **options) -> Path:
    return preparation.prepare("yoon", root, recipe, out, **{"workers": 1, "quiet": True, **options})


def file_of(root: Path, kind: str, fold: str = "fold01", part: str = "train") -> Path:
    return root / "seven_category_120" / "folds" / fold / f"{part}_{kind}.npy"


def test_items_are_found_again_in_every_fold(tmp_path):
    reading = yoon.read(write_release(tmp_path, items()))
    assert len(reading.utterances) == ITEMS
    assert reading.facts["folds"] == 3
    assert reading.facts["same_items_in_all_folds"]
    assert reading.utterances[0].id == "fold01_train_00000"
    every = {utterance.id for utterance in reading.utterances}
    tested: set[str] = set()
    for fold in reading.folds:
        parts = [set(fold[part]) for part in ("train", "validation", "test")]
        assert set.union(*parts) == every
        assert sum(map(len, parts)) == ITEMS
        assert not tested & parts[2]
        tested |= parts[2]
    assert tested == every


def test_arrays_arrive_as_they_were_without_their_padding(tmp_path):
    arrays = items()
    data = dataset.load(
        prepare(write_release(tmp_path / "in", arrays), tmp_path), "self_cross", corpus="yoon"
    )
    order = {np.float32(row[0]): place for place, row in enumerate(arrays["audio_prosody"])}
    assert len(data.utterances) == ITEMS
    for row in range(ITEMS):
        source = order[data.arrays["prosody"][row][0, 0]]
        frames, pictures = arrays["audio_seqN"][source], arrays["video_seqN"][source]
        words = arrays["nlp_trans"][source]
        assert np.array_equal(
            data.arrays["audio"][row], arrays["audio_mfcc"][source, :frames].astype(np.float32)
        )
        assert np.array_equal(data.arrays["video"][row], arrays["video"][source, :pictures])
        assert data.arrays["words"][row].tolist() == words[words != 0].tolist()
        assert data.utterances[row].label == list(yoon.EXPECTED)[arrays["label"][source]]
    vectors = np.load(tmp_path / "in/seven_category_120/W_embedding.npy")
    assert np.array_equal(data.embeddings[1:], vectors[1:].astype(np.float32))
    assert not data.embeddings[0].any()
    assert len(data.vocabulary) == WORDS
    assert data.manifest["embeddings"]["source"] == "corpus"
    assert data.manifest["parameters"]["made_by"] == "yoon"


def test_its_folds_are_a_protocol(tmp_path):
    folder = prepare(write_release(tmp_path / "in", items()), tmp_path)
    data = dataset.load(folder)
    folds = make_folds(data, Protocol("file", file=str(folder / "folds.json")))
    assert [fold.name for fold in folds] == ["fold01", "fold02", "fold03"]
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(ITEMS))


def test_labels_are_told_by_their_counts_where_these_are_the_corpus_s():
    counts = dict(enumerate(reversed(yoon.EXPECTED.values())))
    names, told = yoon._label_names(counts)
    assert names == dict(enumerate(reversed(yoon.EXPECTED)))
    assert told == "their counts"
    names, told = yoon._label_names({0: 5, 6: 4, 9: 1})
    assert names == {0: "ang", 6: "neu", 9: "label9"}
    assert told == "the order of the authors' table"


def test_one_hot_labels(tmp_path):
    arrays = items()
    plain = yoon.read(write_release(tmp_path / "plain", arrays))
    arrays["label"] = np.eye(7)[arrays["label"]]
    hot = yoon.read(write_release(tmp_path / "hot", arrays))
    assert [u.label for u in hot.utterances] == [u.label for u in plain.utterances]


def test_items_that_are_doubtful_are_flagged_and_bad_ones_rejected(tmp_path):
    arrays = items()
    arrays["video_seqN"][0] = 0
    arrays["nlp_trans"][1] = 0
    arrays["nlp_trans"][2, 0] = WORDS
    arrays["audio_seqN"][3] = 0
    arrays["audio_mfcc"][4, 0, 0] = np.nan
    folder = prepare(write_release(tmp_path / "in", arrays), tmp_path, max_rejected=0.2)
    data = dataset.load(folder)
    assert data.manifest["flags"] == {"no_words": 1}
    reasons = [json.loads(line)["reason"] for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert sorted(reasons) == [
        "NaN or infinite features",
        "no frames of sound (audio_seqN is 0)",
        "no frames of video (video_seqN is 0)",
        "word ids outside W_embedding.npy",
    ]
    assert len(make_folds(data, Protocol("file", file=str(folder / "folds.json")))) == 3


def test_items_without_video_are_in_no_part_of_any_fold(tmp_path):
    """As the published code of Rajan et al. drops them, and the first of a part too, which that code forgets."""
    arrays = items(40)
    arrays["video_seqN"][[0, 7]] = 0
    root = write_release(tmp_path / "in", arrays)
    assert np.load(file_of(root, "video_seqN", part="test"))[0] == 0
    folder = prepare(root, tmp_path)
    data = dataset.load(folder)
    kept = {utterance.id for utterance in data.utterances}
    assert (len(kept), data.manifest["rejected"]) == (38, 2)
    for fold in json.loads((folder / "folds.json").read_text())["folds"]:
        parts = [fold[part] for part in ("train", "validation", "test")]
        assert sum(map(len, parts)) == 38
        assert set().union(*parts) == kept


def test_copies_within_a_fold_stay_apart(tmp_path):
    arrays = {kind: np.concatenate([array, array[:3]]) for kind, array in items().items()}
    reading = yoon.read(write_release(tmp_path, arrays))
    assert len(reading.utterances) == ITEMS + 3
    assert reading.facts["same_items_in_all_folds"]


def test_second_run_does_nothing_and_a_changed_file_is_noticed(tmp_path):
    root = write_release(tmp_path / "in", items())
    folder = prepare(root, tmp_path)
    before = (folder / "manifest.json").stat().st_mtime_ns
    prepare(root, tmp_path)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    video = np.load(file_of(root, "video"))
    np.save(file_of(root, "video"), np.concatenate([video[:, :, :-1], video[:, :, :1] * 0], axis=2))
    prepare(root, tmp_path)
    first = [utterance.id for utterance in dataset.load(folder).utterances].index("fold01_train_00000")
    assert not dataset.load(folder).arrays["video"][first][:, -1].any()


def test_several_processes_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxser.data_prep.jobs.UTTERANCES_PER_SHARD", 5)
    root = write_release(tmp_path / "in", items())
    one, two = (prepare(root, tmp_path / str(workers), workers=workers) for workers in (1, 2))
    shards = sorted(path.name for path in one.glob("*.tfrecord-*"))
    assert len(shards) == 4
    for name in shards:
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: file_of(root, "video").unlink(), r"train_video\.npy: no such file"),
        (lambda root: file_of(root, "video").write_bytes(b""), r"train_video\.npy: not an array"),
        (
            lambda root: np.save(file_of(root, "video"), np.array([{}], dtype=object)),
            r"train_video\.npy: not an array .*Python objects",
        ),
        (
            lambda root: np.save(file_of(root, "audio_prosody"), np.zeros((3, 34))),
            r"\[\d, 35\] were expected",
        ),
        (lambda root: np.save(file_of(root, "nlp_trans"), np.zeros((6, 16))), "whole numbers"),
        (lambda root: np.save(file_of(root, "label"), np.zeros(6)), "numbers of classes"),
        (lambda root: (root / "seven_category_120/W_embedding.npy").unlink(), r"no W_embedding\.npy"),
        (lambda root: np.save(root / "W_embedding.npy", np.eye(9)), r"have different W_embedding\.npy"),
    ],
)
def test_files_that_are_missing_or_other_ones(tmp_path, spoil, message):
    root = write_release(tmp_path / "in", items())
    spoil(root)
    with pytest.raises(InputError, match=message) as caught:
        prepare(root, tmp_path)
    assert "\n" not in str(caught.value)


def test_wrong_usage(tmp_path):
    root = write_release(tmp_path / "in", items())
    with pytest.raises(
        UsageError, match="--recipe=mcsan: this corpus brings features of recipe self_cross alone"
    ):
        prepare(root, tmp_path, "mcsan")
    with pytest.raises(UsageError, match="this corpus brings its own word vectors"):
        prepare(root, tmp_path, glove=__file__)
    with pytest.raises(InputError, match=r"no folds of Yoon et al\. there"):
        yoon.read(tmp_path / "out")


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=300),
    kind=st.sampled_from(["label", "video", "nlp_trans"]),
    head=st.integers(0, 200),
)
def test_no_bytes_make_a_traceback(tmp_path_factory, content, kind, head):
    root = write_release(tmp_path_factory.mktemp("yoon"), items(6))
    path = file_of(root, kind)
    path.write_bytes(path.read_bytes()[:head] + content)
    try:
        reading = yoon.read(root)
    except InputError as error:
        reading, message = None, str(error)
    assert reading or "\n" not in message
