"""The IEMOCAP reader, on a hand-written release and on malformed files."""

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.corpora import (
    ALIGNMENT,
    EVALUATION,
    IDS,
    LABELS,
    TRANSCRIPT,
    TRANSCRIPTS,
    WAV,
    WDSEG,
    write_iemocap,
)
from jaxser.data_prep.corpora.iemocap import read
from jaxser.types import InputError, Utterance, Word


def reasons(root: Path) -> dict[str, str]:
    reading = read(root)
    return {entry.where: entry.reason for entry in (*reading.rejected, *reading.ignored)}


def test_reads_all_fields_of_an_utterance(tmp_path: Path) -> None:
    reading = read(write_iemocap(tmp_path))
    assert reading.utterances[0] == Utterance(
        id="Ses01F_impro01_F000",
        wav="Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        label="neu",
        transcript="I like cafés.",
        words=(Word("i", 0.52, 0.76), Word("like", 0.76, 0.89), Word("that's", 1.2, 1.4)),
        speaker="Ses01F",
        gender="F",
        session="Ses01",
        dialogue="Ses01F_impro01",
        votes=("neu", "fru", "ang"),  # without the actor's self-evaluation
        attributes={"valence": 2.5, "activation": 2.0, "dominance": 3.5},
    )
    assert reading.rejected == ()
    assert [u.id for u in reading.utterances] == sorted(IDS)
    assert sum(reading.expected.values()) == 7487


def test_speaker_is_independent_of_who_wears_the_markers(tmp_path: Path) -> None:
    other = read(write_iemocap(tmp_path)).utterances[1]
    assert (other.id, other.speaker, other.gender) == ("Ses01F_impro01_M000", "Ses01M", "M")
    assert (other.label, other.votes, other.transcript) == ("xxx", ("sur",), "Note: it's 5 o'clock.")


def test_missing_alignments_and_alignments_without_words(tmp_path: Path) -> None:
    aligned, missing, silent = read(write_iemocap(tmp_path)).utterances
    assert (aligned.flags, missing.flags, silent.flags) == ((), ("no_alignment",), ())
    assert (missing.words, silent.words) == (None, ())


def test_dialogue_names_are_not_matched_by_prefix(tmp_path: Path) -> None:
    files: dict[str, str | bytes | None] = {}
    wav = (write_iemocap(tmp_path) / WAV.format(IDS[0])).read_bytes()
    for dialogue, label, text in (
        ("Ses01F_script01_1", "sad", "One."),
        ("Ses01F_script01_1b", "hap", "Two."),
    ):
        name = f"{dialogue}_F000"
        files[f"Session1/sentences/wav/{dialogue}/{name}.wav"] = wav
        files[f"Session1/dialog/EmoEvaluation/{dialogue}.txt"] = (
            f"[0.0 - 1.0]\t{name}\t{label}\t[1.0, 2.0, 3.0]\n"
        )
        files[f"Session1/dialog/transcriptions/{dialogue}.txt"] = f"{name} [0.0-1.0]: {text}\n"
    found = {u.dialogue: (u.label, u.transcript) for u in read(write_iemocap(tmp_path, files)).utterances}
    assert found["Ses01F_script01_1"] == ("sad", "One.")
    assert found["Ses01F_script01_1b"] == ("hap", "Two.")


def test_contradictory_alignments_are_flagged_and_reported(tmp_path: Path) -> None:
    write_iemocap(tmp_path, {WDSEG.format(IDS[0]): ALIGNMENT.replace("   76    88", "   70    88")})
    utterance = read(tmp_path).utterances[0]
    assert (utterance.words, utterance.flags) == (None, ("bad_alignment",))
    assert "do not follow" in reasons(tmp_path)[WDSEG.format(IDS[0])]


@pytest.mark.parametrize(
    ("files", "where", "reason"),
    [
        ({WAV.format(IDS[0]): None}, f"{EVALUATION}:3", "no wav"),
        (
            {EVALUATION: LABELS.replace("Ses01F_impro01_M001", "Ses01F_impro01_M009")},
            WAV.format(IDS[2]),
            "no label",
        ),
        ({EVALUATION: LABELS.replace("\tang\t[1.5", "\tang\t[one")}, f"{EVALUATION}:12", "not a label line"),
        ({EVALUATION: LABELS.replace("_M001\tang", "_F000\tang")}, f"{EVALUATION}:12", "already labelled"),
        (
            {EVALUATION: LABELS.replace("Ses01F_impro01_M001", "Ses1")},
            f"{EVALUATION}:12",
            "not an utterance id",
        ),
        ({TRANSCRIPT: TRANSCRIPTS.replace("]: No!", " No!")}, f"{TRANSCRIPT}:5", "not a transcript line"),
        ({TRANSCRIPT: TRANSCRIPTS + TRANSCRIPTS}, f"{TRANSCRIPT}:6", "already transcribed"),
        ({TRANSCRIPT: TRANSCRIPTS.replace("_M001", "_M009")}, f"{TRANSCRIPT}:5", "neither wav nor label"),
        (
            {WDSEG.format("Ses01F_impro01_M009"): ALIGNMENT},
            WDSEG.format("Ses01F_impro01_M009"),
            "neither wav nor",
        ),
        ({WAV.format("take two"): b""}, WAV.format("take two"), "not an utterance id"),
        ({f"Session1/sentences/wav/x/{IDS[0]}.wav": b""}, f"wav/x/{IDS[0]}.wav", "the same id as"),
        ({WDSEG.format(IDS[1]) + "/x": b""}, WDSEG.format(IDS[1]), "not a file"),
    ],
)
def test_unusable_items_are_rejected_with_a_reason(
    tmp_path: Path, files: dict[str, str | bytes | None], where: str, reason: str
) -> None:
    found = reasons(write_iemocap(tmp_path, files))
    assert any(reason in text for item, text in found.items() if item.endswith(where)), found


def test_text_may_be_utf8_with_windows_line_ends(tmp_path: Path) -> None:
    utf8 = ("\ufeff" + TRANSCRIPTS.replace("\n", "\r\n")).encode()
    texts = [u.transcript for u in read(write_iemocap(tmp_path, {TRANSCRIPT: utf8})).utterances]
    assert texts == ["I like cafés.", "Note: it's 5 o'clock.", "No!"]


def test_missing_transcripts_are_flagged(tmp_path: Path) -> None:
    utterance = read(write_iemocap(tmp_path, {TRANSCRIPT: None})).utterances[0]
    assert (utterance.transcript, utterance.flags) == ("", ("no_transcript",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "absent", "no such folder"),
        (lambda root: write_iemocap(root) / TRANSCRIPT, "no such folder"),
        (lambda root: root, "not an IEMOCAP release"),
        (
            lambda root: write_iemocap(root / "IEMOCAP_full_release").parent,
            "did you mean .*IEMOCAP_full_release",
        ),
        (lambda root: (root / "Session1").mkdir() or root, "contain no utterances"),
    ],
)
def test_rejects_folders_that_are_not_a_release(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(make(tmp_path))
    assert "\n" not in str(caught.value)


FILES = (WAV.format(IDS[0]), WDSEG.format(IDS[0]), EVALUATION, TRANSCRIPT)


@pytest.fixture(scope="module")
def release() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield write_iemocap(Path(folder))


def check_all_accounted_for(root: Path) -> None:
    """Check that every wav is either an utterance or rejected, with a reason that can be encoded as UTF-8."""
    reading = read(root)
    seen = {u.id for u in reading.utterances} | {r.id for r in reading.rejected}
    assert set(IDS) <= seen
    for rejection in reading.rejected:
        assert rejection.reason
        f"{rejection.id}{rejection.where}{rejection.reason}".encode()
    for utterance in reading.utterances:
        times = [t for word in utterance.words or () for t in (word.start, word.end)]
        assert times == sorted(times)
        assert (utterance.words is None) == (
            "no_alignment" in utterance.flags or "bad_alignment" in utterance.flags
        )


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(FILES), content=st.binary(max_size=200))
def test_arbitrary_bytes_never_crash_the_reader(release: Path, name: str, content: bytes) -> None:
    original = (release / name).read_bytes()
    try:
        (release / name).write_bytes(content)
        check_all_accounted_for(release)
    finally:
        (release / name).write_bytes(original)


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(FILES[1:]), seed=st.integers(0, 2**32), cuts=st.integers(1, 8))
def test_damaged_text_never_crashes_the_reader(release: Path, name: str, seed: int, cuts: int) -> None:
    original = (release / name).read_bytes()
    draw, content = random.Random(seed), bytearray(original)
    for _ in range(cuts):
        position = draw.randrange(len(content) + 1)
        kind = draw.randrange(4)
        if kind == 0:
            del content[position : position + draw.randrange(12)]
        elif kind == 1:
            content[position:position] = bytes(
                draw.choices(b"\t\n []:;().-+<>_0123456789\xb2\xff\x00\x85SesMXX", k=4)
            )
        elif kind == 2:
            content[position:position] = content[draw.randrange(len(content) + 1) :][:40]
        else:
            content = content[:position] or bytearray(b"\n")
    try:
        (release / name).write_bytes(bytes(content))
        check_all_accounted_for(release)
    finally:
        (release / name).write_bytes(original)
