"""The reader of the features by Yoon et al., on small files in their layout."""

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
    audio_frames, video_frames = rng.integers(3, 12, count), rng.integers(1, 5, count)
    return {
        "label": rng.permutation(np.arange(count) % 7),
        "audio_mfcc": rng.standard_normal((count, 12, 120)),
        "audio_prosody": rng.standard_normal((count, 35)),
        "audio_seqN": audio_frames,
        "nlp_trans": np.where(
            np.arange(16) < rng.integers(1, 17, count)[:, None], rng.integers(1, WORDS, (count, 16)), 0
        ),
        "video": rng.standard_normal((count, 4, 2048)).astype(np.float32),
        "video_seqN": video_frames,
    }


def write_release(root: Path, arrays: dict[str, np.ndarray], folds: int = 3) -> Path:
    """Write folds whose test part is every item with number k modulo `folds`; the next k is for validation."""
    number = np.arange(len(arrays["label"])) % folds
    for fold in range(folds):
        folder = root / "seven_category_120" / "folds" / f"fold{fold + 1:02d}"
        folder.mkdir(parents=True)
        is_validation = number == (fold + 1) % folds
        parts = {
            "test": number == fold,
            "dev": is_validation & (number != fold),
            "train": (number != fold) & ~is_validation,
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


def test_items_are_identified_across_folds(tmp_path):
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


def test_arrays_are_unchanged_except_for_padding(tmp_path):
    arrays = items()
    data = dataset.load_prepared(
        prepare(write_release(tmp_path / "in", arrays), tmp_path), "self_cross", corpus="yoon"
    )
    order = {np.float32(row[0]): index for index, row in enumerate(arrays["audio_prosody"])}
    assert len(data.utterances) == ITEMS
    for row in range(ITEMS):
        source = order[data.arrays["prosody"][row][0, 0]]
        audio_frames, video_frames = arrays["audio_seqN"][source], arrays["video_seqN"][source]
        words = arrays["nlp_trans"][source]
        assert np.array_equal(
            data.arrays["audio"][row], arrays["audio_mfcc"][source, :audio_frames].astype(np.float32)
        )
        assert np.array_equal(data.arrays["video"][row], arrays["video"][source, :video_frames])
        assert data.arrays["words"][row].tolist() == words[words != 0].tolist()
        assert data.utterances[row].label == list(yoon.EXPECTED)[arrays["label"][source]]
    vectors = np.load(tmp_path / "in/seven_category_120/W_embedding.npy")
    assert np.array_equal(data.embeddings[1:], vectors[1:].astype(np.float32))
    assert not data.embeddings[0].any()
    assert len(data.vocabulary) == WORDS
    assert data.manifest["embeddings"]["source"] == "corpus"
    assert data.manifest["parameters"]["made_by"] == "yoon"


def test_folds_of_the_release_are_usable_as_a_protocol(tmp_path):
    folder = prepare(write_release(tmp_path / "in", items()), tmp_path)
    data = dataset.load_prepared(folder)
    folds = make_folds(data, Protocol("file", file=str(folder / "folds.json")))
    assert [fold.name for fold in folds] == ["fold01", "fold02", "fold03"]
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(ITEMS))


def test_labels_are_identified_by_their_counts():
    counts = dict(enumerate(reversed(yoon.EXPECTED.values())))
    names, named_by = yoon._label_names(counts)
    assert names == dict(enumerate(reversed(yoon.EXPECTED)))
    assert named_by == "their counts"
    names, named_by = yoon._label_names({0: 5, 6: 4, 9: 1})
    assert names == {0: "ang", 6: "neu", 9: "label9"}
    assert named_by == "the order of the authors' table"


def test_labels_may_be_one_hot(tmp_path):
    arrays = items()
    plain = yoon.read(write_release(tmp_path / "plain", arrays))
    arrays["label"] = np.eye(7)[arrays["label"]]
    hot = yoon.read(write_release(tmp_path / "hot", arrays))
    assert [u.label for u in hot.utterances] == [u.label for u in plain.utterances]


def test_items_without_words_are_flagged_and_unusable_ones_rejected(tmp_path):
    arrays = items()
    arrays["video_seqN"][0] = 0
    arrays["nlp_trans"][1] = 0
    arrays["nlp_trans"][2, 0] = WORDS
    arrays["audio_seqN"][3] = 0
    arrays["audio_mfcc"][4, 0, 0] = np.nan
    folder = prepare(write_release(tmp_path / "in", arrays), tmp_path, max_rejected=0.2)
    data = dataset.load_prepared(folder)
    assert data.manifest["flags"] == {"no_words": 1}
    reasons = [json.loads(line)["reason"] for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert sorted(reasons) == [
        "NaN or infinite features",
        "no frames of audio (audio_seqN is 0)",
        "no frames of video (video_seqN is 0)",
        "word ids outside W_embedding.npy",
    ]
    assert len(make_folds(data, Protocol("file", file=str(folder / "folds.json")))) == 3


def test_items_without_video_are_dropped_from_all_folds(tmp_path):
    """As in the published code of Rajan et al., except that the first item of a part is dropped too."""
    arrays = items(40)
    arrays["video_seqN"][[0, 7]] = 0
    root = write_release(tmp_path / "in", arrays)
    assert np.load(file_of(root, "video_seqN", part="test"))[0] == 0
    folder = prepare(root, tmp_path)
    data = dataset.load_prepared(folder)
    kept = {utterance.id for utterance in data.utterances}
    assert (len(kept), data.manifest["rejected"]) == (38, 2)
    for fold in json.loads((folder / "folds.json").read_text())["folds"]:
        parts = [fold[part] for part in ("train", "validation", "test")]
        assert sum(map(len, parts)) == 38
        assert set().union(*parts) == kept


def test_identical_items_of_a_fold_are_kept_apart(tmp_path):
    arrays = {kind: np.concatenate([array, array[:3]]) for kind, array in items().items()}
    reading = yoon.read(write_release(tmp_path, arrays))
    assert len(reading.utterances) == ITEMS + 3
    assert reading.facts["same_items_in_all_folds"]


def test_second_run_updates_only_after_a_file_changed(tmp_path):
    root = write_release(tmp_path / "in", items())
    folder = prepare(root, tmp_path)
    before = (folder / "manifest.json").stat().st_mtime_ns
    prepare(root, tmp_path)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    video = np.load(file_of(root, "video"))
    np.save(file_of(root, "video"), np.concatenate([video[:, :, :-1], video[:, :, :1] * 0], axis=2))
    prepare(root, tmp_path)
    first = [utterance.id for utterance in dataset.load_prepared(folder).utterances].index(
        "fold01_train_00000"
    )
    assert not dataset.load_prepared(folder).arrays["video"][first][:, -1].any()


def test_number_of_workers_does_not_change_the_shards(tmp_path, monkeypatch):
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
        (lambda root: file_of(root, "video").write_bytes(b""), r"train_video\.npy: not a readable array"),
        (
            lambda root: np.save(file_of(root, "video"), np.array([{}], dtype=object)),
            r"train_video\.npy: not a readable array .*Python objects",
        ),
        (
            lambda root: np.save(file_of(root, "audio_prosody"), np.zeros((3, 34))),
            r"expected floats \[\d, 35\]",
        ),
        (lambda root: np.save(file_of(root, "nlp_trans"), np.zeros((6, 16))), "expected integers"),
        (lambda root: np.save(file_of(root, "label"), np.zeros(6)), "expected class numbers"),
        (
            lambda root: (root / "seven_category_120/W_embedding.npy").unlink(),
            r"contains no W_embedding\.npy",
        ),
        (lambda root: np.save(root / "W_embedding.npy", np.eye(9)), r"have different W_embedding\.npy"),
    ],
)
def test_missing_or_malformed_files_are_errors(tmp_path, spoil, message):
    root = write_release(tmp_path / "in", items())
    spoil(root)
    with pytest.raises(InputError, match=message) as caught:
        prepare(root, tmp_path)
    assert "\n" not in str(caught.value)


def test_usage_errors(tmp_path):
    root = write_release(tmp_path / "in", items())
    with pytest.raises(
        UsageError, match="--recipe=mcsan: this corpus only has features of recipe self_cross"
    ):
        prepare(root, tmp_path, "mcsan")
    with pytest.raises(UsageError, match="this corpus has its own word vectors"):
        prepare(root, tmp_path, glove=__file__)
    with pytest.raises(InputError, match=r"no folds of Yoon et al\. found"):
        yoon.read(tmp_path / "out")


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=300),
    kind=st.sampled_from(["label", "video", "nlp_trans"]),
    head=st.integers(0, 200),
)
def test_arbitrary_bytes_never_crash_the_reader(tmp_path_factory, content, kind, head):
    root = write_release(tmp_path_factory.mktemp("yoon"), items(6))
    path = file_of(root, kind)
    path.write_bytes(path.read_bytes()[:head] + content)
    try:
        reading = yoon.read(root)
    except InputError as error:
        reading, message = None, str(error)
    assert reading or "\n" not in message
