"""Merged datasets: rows and words are those of the parts, classes are common, and each corpus is normalised alone."""

import dataclasses
import json

import numpy as np
import pytest

from helpers import tiny
from jaxser import corpora
from jaxser.data import merging
from jaxser.data.across import (
    LEAVE_ONE_OUT,
    make_folds_across,
    rows_by_source,
    with_equal_corpora,
)
from jaxser.data.dataset import with_copies
from jaxser.data.folds import Protocol, make_folds
from jaxser.data.merging import Names, merge
from jaxser.data.normalisation import for_recordings
from jaxser.types import Fold, Normalisation, Ragged, UsageError

WORDS = ("<pad>", "<unk>", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j")


def part(number, seed, vocabulary=WORDS, **fields):
    """A dataset of which `vocabulary` has the word of each id."""
    made = tiny.dataset(number, seed)
    manifest = {
        "corpus": "demo",
        "parameters": {"n_mels": 40},
        "shards": [seed],
        "labels": {"found": {"ang": 1}},
        "embeddings": {"source": "glove"},
    }
    return dataclasses.replace(made, vocabulary=vocabulary, manifest=manifest, **fields)


def merged(**parts):
    return merge(parts, tiny.CLASSES, {name: {} for name in parts})


@pytest.fixture(scope="module")
def three():
    sizes = {"one": (60, 0), "two": (30, 1), "three": (45, 2)}
    return merged(**{name: part(*own) for name, own in sizes.items()})


def test_rows_are_those_of_the_parts_with_prefixed_names():
    one, two = part(30, 0), part(21, 1)
    both = merged(one=one, two=two)
    assert [len(rows) for rows in rows_by_source(both)] == [30, 21]
    for row, own in enumerate(two.utterances):
        found = both.utterances[30 + row]
        assert (found.id, found.speaker) == (f"two/{own.id}", f"two/{own.speaker}")
        assert (found.session, found.dialogue) == (f"two/{own.session}", f"two/{own.dialogue}")
        assert merging.corpus_of(found.id) == "two"
        np.testing.assert_array_equal(both.arrays["audio"][30 + row], two.arrays["audio"][row])
    np.testing.assert_array_equal(both.label, np.concatenate([one.label, two.label]))
    assert len({u.id for u in both.utterances}) == 51
    assert all(not source.arrays for source in both.sources)


def test_classes_of_a_part_in_another_order_are_renumbered():
    one = part(30, 0)
    two = part(30, 1, classes=("sad", "ang", "neu"))  # so label 0, which was ang, is now sad
    both = merged(one=one, two=two)
    names = [both.classes[n] for n in both.label[30:]]
    assert names == [("sad", "ang", "neu")[n] for n in two.label]


def test_words_keep_their_meaning_and_their_vectors():
    one = part(30, 0)
    other = ("<pad>", "<unk>", *(word + "'s" if word in "ace" else word for word in reversed(WORDS[2:])))
    two = part(30, 1, other)
    for word in set(WORDS) & set(other):  # as read from the same file of vectors
        two.embeddings[other.index(word)] = one.embeddings[WORDS.index(word)]
    both = merged(one=one, two=two)
    assert len(set(both.vocabulary)) == len(both.vocabulary) == 15
    for begin, own in ((0, one), (30, two)):
        for row in range(30):
            before, after = own.arrays["words"][row], both.arrays["words"][begin + row]
            assert [both.vocabulary[n] for n in after] == [own.vocabulary[n] for n in before]
            np.testing.assert_array_equal(both.embeddings[after], own.embeddings[before])


def test_random_vectors_of_different_words_differ():
    """Those of each dataset are drawn by the word's place, so that words of two datasets would share a vector."""
    entry = {"source": "random", "seed": 0}
    parts = [
        part(30, 0, tuple(words)) for words in (WORDS, [*WORDS[:2], *(f"{word}{word}" for word in WORDS[2:])])
    ]
    parts = [
        dataclasses.replace(
            one, manifest={**one.manifest, "embeddings": entry}, embeddings=parts[0].embeddings
        )
        for one in parts
    ]
    both = merged(one=parts[0], two=parts[1])
    assert both.embeddings.shape == (22, 5)
    assert len(np.unique(both.embeddings, axis=0)) == 22
    assert not both.embeddings[0].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "can"}, "recipes mcsan 1 and can 1"),
        ({"version": "2"}, "mcsan 1 and mcsan 2"),
        ({"manifest": {"parameters": {"n_mels": 64}}}, "n_mels is 64 and 40"),
        ({"manifest": {"parameters": {"n_mels": 40, "encoder": {}}}}, "different encoders"),
        ({"arrays": {}}, "only one of them has audio, words"),
        ({"embeddings": None}, "word vectors of different kinds"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    two = part(30, 1)
    if message == "different encoders":
        assert "encoder" not in two.manifest["parameters"]
    with pytest.raises(UsageError, match=message):
        merged(one=part(30, 0), two=dataclasses.replace(two, **change))


def test_features_of_another_width_are_refused():
    two = part(30, 1)
    wide = Ragged(np.zeros((len(two.arrays["audio"].values), 7), np.float32), two.arrays["audio"].length)
    two = dataclasses.replace(two, arrays={**two.arrays, "audio": wide})
    with pytest.raises(UsageError, match="audio has other features"):
        merged(one=part(30, 0), two=two)


def test_each_corpus_is_normalised_by_its_own_frames(three):
    """Mean and standard deviation by numpy, over all frames of a dataset; `raw` is of the training datasets."""
    found = merging.normalised_by_corpus(three, ["three"])
    begin = 0
    for source in three.sources:
        rows = range(begin, begin + len(source.label))
        frames = np.concatenate([three.arrays["audio"][row] for row in rows]).astype(np.float64)
        expected = (frames - frames.mean(0)) / frames.std(0)
        got = np.concatenate([found.arrays["audio"][row] for row in rows])
        np.testing.assert_allclose(got, expected, atol=1e-5)
        begin = rows.stop
    trained = np.concatenate([three.arrays["audio"][row] for row in range(90)]).astype(np.float64)
    np.testing.assert_allclose(found.raw["audio"].mean, trained.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.raw["audio"].std, trained.std(0), rtol=1e-5)
    np.testing.assert_array_equal(found.arrays["words"].values, three.arrays["words"].values)


def test_copies_are_normalised_like_their_originals():
    def with_copy(number, seed):
        own = part(number, seed)
        copy = Ragged(own.arrays["audio"].values + 100, own.arrays["audio"].length)
        return dataclasses.replace(own, arrays={**own.arrays, "audio_copy1": copy})

    both = merged(one=with_copy(30, 0), two=with_copy(30, 1))
    found = merging.normalised_by_corpus(both, [])
    frames = both.arrays["audio"].values[: both.arrays["audio"].length[:30].sum()]
    difference = found.arrays["audio_copy1"].values - found.arrays["audio"].values
    np.testing.assert_allclose(
        difference[: len(frames)], np.tile(100 / frames.std(0), (len(frames), 1)), 1e-3
    )


def test_a_recording_is_normalised_as_the_training_corpus_was(three):
    """The statistics of a saved model turn raw frames into what the network was trained on, for one corpus."""
    two = merged(one=part(60, 0), two=part(30, 1))
    by_corpus = merging.normalised_by_corpus(two, ["two"])
    frames = by_corpus.arrays["audio"].values[:500]
    after = Normalisation(frames.mean(0), frames.std(0))
    saved = for_recordings({"audio": after}, by_corpus.raw)["audio"]
    raw = two.arrays["audio"].values[:500]
    np.testing.assert_allclose((raw - saved.mean) / saved.std, (frames - after.mean) / after.std, atol=1e-4)
    assert for_recordings({"audio": after}, {})["audio"] is after


def test_the_test_part_is_exactly_the_other_corpus(three):
    """A single training dataset is split as it would be by itself, also by names of its speakers."""
    both = merged(one=part(60, 0), two=part(30, 1))
    protocol = Protocol("speaker", groups=(("s0F", "s0M"), ("s1F", "s1M"), ("s2F", "s2M")))
    alone = make_folds(part(60, 0), protocol)
    for fold, own in zip(make_folds_across(both, protocol, ["two"]), alone, strict=True):
        assert fold.test.tolist() == list(range(60, 90))
        np.testing.assert_array_equal(fold.train, own.train)
        np.testing.assert_array_equal(fold.validation, own.validation)
    folds = make_folds_across(three, Protocol("random", folds=3, group_by="speaker"), ["three"])
    for fold in folds:
        assert fold.test.tolist() == list(range(90, 135))
        assert max(fold.train.max(), fold.validation.max()) < 90
        speakers = three.column("speaker")
        assert not set(speakers[fold.train]) & set(speakers[fold.validation])


def test_each_corpus_is_left_out_once(three):
    folds = make_folds_across(three, Protocol(LEAVE_ONE_OUT))
    corpus = np.array([merging.corpus_of(u.id) for u in three.utterances])
    speakers = three.column("speaker")
    assert [fold.name for fold in folds] == ["one", "two", "three"]
    for fold in folds:
        np.testing.assert_array_equal(fold.test, np.flatnonzero(corpus == fold.name))
        rows = np.concatenate([fold.train, fold.validation, fold.test])
        assert sorted(rows.tolist()) == list(range(135))
        assert set(corpus[fold.train]) == set(corpus[fold.validation]) == set(corpus) - {fold.name}
        assert not set(speakers[fold.train]) & set(speakers[fold.validation])
        assert set(three.label[fold.validation]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("protocol", "tested", "message"),
    [
        (Protocol("session", select="test"), ["three"], "no test part may select"),
        (Protocol(LEAVE_ONE_OUT), ["three"], "leave out config.test_on"),
        (Protocol(LEAVE_ONE_OUT, twin="speaker"), [], "has no protocol.twin"),
    ],
)
def test_protocols_that_contradict_are_refused(three, protocol, tested, message):
    with pytest.raises(UsageError, match=message):
        make_folds_across(three, protocol, tested)


def test_one_dataset_cannot_be_left_out():
    with pytest.raises(UsageError, match="needs several datasets"):
        make_folds_across(tiny.dataset(30), Protocol(LEAVE_ONE_OUT))


def test_equal_corpora_are_seen_equally_often(three):
    """Each dataset has the size of the largest, and its utterances are repeated as evenly as possible."""
    train = np.arange(0, 135)[np.arange(135) % 9 != 0]
    fold = Fold("a", train, np.arange(0, 135, 9), np.arange(0, 135, 9))
    (found,) = with_equal_corpora(three, [fold], seed=0)
    counts = np.bincount(found.train, minlength=135)
    assert counts[fold.validation].sum() == 0
    sizes = [np.isin(rows, train).sum() for rows in rows_by_source(three)]
    for rows in rows_by_source(three):
        own = counts[np.intersect1d(rows, train)]
        assert own.sum() == max(sizes)
        assert own.max() - own.min() <= 1
    weights = 1 / np.repeat(
        sizes, sizes
    )  # equal sampling: the expectation over corpora, each with the same weight
    drawn = counts[train] / counts.sum()
    np.testing.assert_allclose(drawn, weights / 3, atol=1 / counts.sum())


def test_copies_count_for_their_corpus():
    both = merged(one=part(60, 0), two=part(30, 1))
    noisy = {**both.arrays, "audio_noisy": both.arrays["audio"]}
    fold = Fold("a", np.arange(10, 90), np.arange(10), np.arange(10))
    larger, folds = with_copies(dataclasses.replace(both, arrays=noisy), [fold], in_validation=False)
    (found,) = with_equal_corpora(larger, folds, seed=0)
    counts = np.bincount(found.train % 90, minlength=90)
    assert counts[:60].sum() == counts[60:].sum() == 100
    assert len(larger.label) == 180


COMMON = {
    "one": {"anger": "angry", "joy": "happy", "neutral": "neutral", "calm": "calm"},
    "two": {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"},
}


def test_classes_are_those_that_all_corpora_have():
    assert list(merging.chosen_classes("all", COMMON)) == ["neutral", "happy", "angry"]
    assert list(merging.chosen_classes("four", COMMON)) == ["neutral", "happy", "sad", "angry"]
    listed = merging.chosen_classes("neutral+calm,angry", COMMON)
    assert listed == {"neutral": "neutral", "calm": "neutral", "angry": "angry"}


@pytest.mark.parametrize(
    ("classes", "message"),
    [("seven", "label set of one corpus"), ("angry,bored", "no dataset has the class bored")],
)
def test_classes_that_no_corpus_has_are_refused(classes, message):
    with pytest.raises(UsageError, match=message):
        merging.chosen_classes(classes, COMMON)


def test_corpora_without_common_classes_are_refused():
    with pytest.raises(UsageError, match="fewer than two classes in common"):
        merging.chosen_classes("all", {"one": COMMON["one"], "two": {"x": "sad"}})


@pytest.mark.parametrize(
    ("corpus", "label", "expected"),
    [
        ("emodb", "anger", "angry"),
        ("emodb", "boredom", ""),
        ("ravdess", "fearful", "fear"),
        ("ravdess", "surprised", "surprise"),
        ("iemocap", "exc", "happy"),
        ("iemocap", "fru", ""),
        ("tess", "pleasant surprise", "surprise"),
        ("emovo", "joy", "happy"),
        ("folder", "Happiness", "happy"),
    ],
)
def test_labels_have_common_classes(corpus, label, expected):
    assert corpora.find(corpus).common_class(label) == expected


def test_a_file_overrides_the_common_classes(tmp_path):
    manifest = {"corpus": "ravdess", "labels": {"found": {"calm": 3, "sad": 4, "angry": 5}}}
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"r": {"calm": "neutral", "sad": ""}}))
    own = merging.read_label_map(str(path), {"r": manifest})
    assert merging.common_labels(manifest, own["r"]) == {"calm": "neutral", "angry": "angry"}
    for content, message in (
        ({"x": {}}, "none of the datasets r"),
        ({"r": {"glad": "happy"}}, "no label 'glad'"),
        ([1], "label_map"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(UsageError, match=message):
            merging.read_label_map(str(path), {"r": manifest})


def test_names_of_datasets():
    names = Names.parse("a+b", "c, d")
    assert names == Names(("a", "b"), ("c", "d"))
    assert names.title == "a+b-to-c+d"
    assert Names.parse("a", "").title == "a"
    assert not Names.parse("a", "").is_merged
    for datasets, test_on in (("a+a", ""), ("a", "a"), ("a+", ""), ("a", "b,,c")):
        with pytest.raises(UsageError):
            Names.parse(datasets, test_on)
