"""EmoBox's fold files: recordings are matched to utterances, and damaged files are one line."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from helpers import tiny
from jaxser.data.emobox import Entry, match, read_folds
from jaxser.data.folds import EMOBOX_SHARE, Protocol, make_folds
from jaxser.types import UsageError


@pytest.fixture(scope="module")
def data():
    return tiny.dataset(90)


def entry(name):
    return {"key": f"tiny-{name}", "dataset": "tiny", "wav": f"downloads/tiny/wav/{name}.wav", "emo": "x"}


def write(folder, folds, spelling="fold_"):
    """Write folds of the ids of each part as EmoBox does."""
    for number, parts in enumerate(folds, start=1):
        place = folder / f"fold_{number}"
        place.mkdir(parents=True, exist_ok=True)
        for part, ids in parts.items():
            lines = (json.dumps(entry(name)) + "\n" for name in ids)
            (place / f"tiny_{part}_{spelling}{number}.jsonl").write_text("".join(lines))
    return str(folder)


def halves(data):
    ids = data.column("id").tolist()
    return [{"train": ids[30:], "test": ids[:30]}, {"train": ids[:60], "test": ids[60:]}]


def test_published_parts_are_kept_and_a_fifth_of_the_training_part_validates(data, tmp_path):
    file = write(tmp_path, halves(data))
    folds = make_folds(data, Protocol("emobox", file=file))
    assert [fold.name for fold in folds] == ["1", "2"]
    for fold, test in zip(folds, (range(30), range(60, 90)), strict=True):
        assert fold.test.tolist() == list(test)
        assert sorted([*fold.train, *fold.validation]) == sorted(set(range(90)) - set(test))
        assert len(fold.validation) == EMOBOX_SHARE * 60
        assert np.bincount(data.label[fold.validation]).tolist() == [4, 4, 4]
    (half, _) = make_folds(data, Protocol("emobox", file=file, validation_share=0.5))
    assert len(half.validation) == 30
    speakers = data.column("speaker")
    for fold in make_folds(data, Protocol("emobox", file=file, group_by="speaker")):
        assert not set(speakers[fold.train]) & set(speakers[fold.validation])


def test_a_published_validation_part_is_used(data, tmp_path):
    ids = data.column("id").tolist()
    file = write(tmp_path, [{"train": ids[20:], "valid": ids[10:20], "test": ids[:10]}])
    (fold,) = make_folds(data, Protocol("emobox", file=file))
    assert fold.validation.tolist() == list(range(10, 20))
    assert fold.train.tolist() == list(range(20, 90))


def test_of_two_spellings_of_a_file_the_usual_one_is_read(data, tmp_path):
    write(tmp_path, [{"train": ["old"], "test": ["old"]}], spelling="fold")
    write(tmp_path, halves(data)[:1])
    (fold,) = read_folds(tmp_path)
    assert len(fold.train) == 60
    assert fold.train[0].path == "downloads/tiny/wav/utt030.wav"


def test_recordings_on_one_side_only_are_counted(data, tmp_path):
    parts = halves(data)[0]
    file = write(tmp_path, [{"train": [*parts["train"][:-4], "gone"], "test": parts["test"]}])
    expected = (
        r"1 of its 87 recordings are not in tiny with these classes, such as downloads/tiny/wav/gone\.wav; "
        r"4 of the 90 utterances of tiny are not in its folds, such as utt086; they are left out"
    )
    with pytest.warns(UserWarning, match=expected):
        (fold,) = make_folds(data, Protocol("emobox", file=file))
    assert set(range(86, 90)).isdisjoint([*fold.train, *fold.validation, *fold.test])


@pytest.mark.parametrize(
    ("ids", "wavs", "entry", "matched"),
    [
        (
            ("KL_su02", "DC_a01"),
            ("KL/su02.wav", "DC/a01.wav"),
            Entry("savee-KL-su02", "x/savee/KL_su02.wav"),
            0,
        ),
        (
            ("a", "b"),
            ("Wav/03a01Wa.flac", "Wav/03a01Wb.flac"),
            Entry("emodb-?", "d/emodb/wav/03a01Wb.wav"),
            1,
        ),
        (("a", "b"), ("test/dia0_utt0.mp4", "dev/dia0_utt0.mp4"), Entry("m-x", "dl/dev/dia0_utt0.mp4"), 1),
        (
            ("bea_Amused_amused_1-15_0001", "b"),
            ("", ""),
            Entry("e-x", "e/bea_Amused/amused_1-15_0001.wav"),
            0,
        ),
        (
            ("s1", "s2"),
            ("w/239.wav", "v/239.wav"),
            Entry("casia-239-wang", "casia/wang/neutral/239.wav"),
            None,
        ),
    ],
)
def test_recordings_are_matched_by_key_or_path(data, ids, wavs, entry, matched):
    utterances = tuple(
        dataclasses.replace(own, id=i, wav=wav)
        for own, i, wav in zip(data.utterances[:2], ids, wavs, strict=True)
    )
    found = match(dataclasses.replace(data, utterances=utterances), [entry])
    assert found == ({} if matched is None else {entry.path: matched})


def test_a_name_of_two_recordings_matches_nothing(data):
    entries = [Entry("t-x", "a/utt001.wav"), Entry("t-y", "b/utt001.wav"), Entry("t-z", "b/utt002.wav")]
    assert match(data, entries) == {"b/utt002.wav": 2}


def test_folders_and_files_that_cannot_be_used(data, tmp_path):
    with pytest.raises(
        UsageError, match=r"is not a folder with EmoBox's fold_1, fold_2, \.\.\.: such as EmoBox"
    ):
        make_folds(data, Protocol("emobox", file=str(tmp_path / "nowhere")))
    with pytest.raises(UsageError, match=r"protocol emobox needs --config\.protocol\.file=FOLDER"):
        make_folds(data, Protocol("emobox"))
    write(tmp_path / "tiny", halves(data))
    with pytest.raises(UsageError, match="give one of its folders tiny"):
        make_folds(data, Protocol("emobox", file=str(tmp_path)))
    write(tmp_path / "other", [{"train": ["x1"], "test": ["x2"]}])
    with pytest.raises(
        UsageError, match=r"none of its 2 recordings, such as downloads/tiny/wav/x1\.wav, is in"
    ):
        make_folds(data, Protocol("emobox", file=str(tmp_path / "other")))
    place = tmp_path / "tiny" / "fold_2"
    (place / "tiny_test_fold_2.jsonl").write_text(json.dumps(entry("utt000")) + '\n{"wav": 3}\n')
    with pytest.raises(UsageError, match=r"tiny_test_fold_2\.jsonl:2: .*; restore it from a copy"):
        make_folds(data, Protocol("emobox", file=str(tmp_path / "tiny")))
    (place / "tiny_test_fold_2.jsonl").unlink()
    with pytest.raises(UsageError, match=r"fold_2 has no file \*_test_fold_2\.jsonl"):
        make_folds(data, Protocol("emobox", file=str(tmp_path / "tiny")))


@pytest.mark.parametrize(
    ("corpus", "sizes", "speaker", "shared"),
    [
        ("emodb", [(428, 107)] * 5, lambda name: name[:2], 10),
        ("ravdess", [(1200, 240)] * 6, lambda name: name[-2:], 0),
        ("savee", [(360, 120)] * 4, lambda name: name[:2], 0),
        ("cremad", [(5586, 1856)], lambda name: name[:4], 91),
    ],
)
def test_the_published_files(real_data, corpus, sizes, speaker, shared):
    folder = real_data / "emobox" / corpus
    folds = read_folds(folder)
    assert [(len(fold.train), len(fold.test)) for fold in folds] == sizes
    heard = [
        {speaker(Path(one.path).stem) for one in fold.train}
        & {speaker(Path(one.path).stem) for one in fold.test}
        for fold in folds
    ]
    assert {len(one) for one in heard} == {shared}
    names = [Path(one.path).stem for fold in folds for one in (*fold.train, *fold.test)]
    base = tiny.dataset(len(set(names)))
    utterances = tuple(
        dataclasses.replace(own, id=name)
        for own, name in zip(base.utterances, sorted(set(names)), strict=True)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = dataclasses.replace(base, utterances=utterances)
        made = make_folds(dataset, Protocol("emobox", file=str(folder)))
    assert [(len(fold.train) + len(fold.validation), len(fold.test)) for fold in made] == sizes
