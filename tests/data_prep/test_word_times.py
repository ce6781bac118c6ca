"""Files of word times of several tools, mended overlaps, and malformed files."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxser.data_prep.corpora import folder
from jaxser.data_prep.corpora.alignments import read_alignment, read_words
from jaxser.data_prep.corpora.word_rows import TimedWords, join_rows
from jaxser.types import Word

FOUND = (Word("give", 0.2, 0.7), Word("it", 0.7, 1.2))
WHISPER_WORDS = [
    {"word": " Give", "start": 0.2, "end": 0.7, "probability": 0.9},
    {"word": " it,", "start": 0.7, "end": 1.2, "probability": 0.9},
]
MFA = {
    "start": 0,
    "end": 1.2,
    "tiers": {
        "phones": {"type": "interval", "entries": [[0.2, 1.2, "G"]]},
        "words": {"type": "interval", "entries": [[0, 0.2, ""], [0.2, 0.7, "give"], [0.7, 1.2, "it"]]},
    },
}
FILES = {
    "mfa.json": json.dumps(MFA),
    "mfa_speaker.json": json.dumps({"tiers": {f"anna - {name}": tier for name, tier in MFA["tiers"].items()}}),
    "mfa.csv": "Begin,End,Label,Type,Speaker\n0.2,0.7,give,words,anna\n0.7,1.2,it,words,anna\n0.2,1.2,G,phones,anna\n",
    "whisper.json": json.dumps({"text": "Give it", "segments": [{"start": 0.2, "words": WHISPER_WORDS}]}),
    "faster.json": json.dumps([{"text": " Give it,", "words": [[0.2, 0.7, " Give", 1], [0.7, 1.2, " it,", 1]]}]),
    "whisperx.json": json.dumps({"word_segments": WHISPER_WORDS}),
    "words.json": json.dumps({"words": WHISPER_WORDS}),
    "pocketsphinx.json": json.dumps(
        {"b": 0.0, "d": 1.2, "t": "give it", "w": [
            {"b": 0.0, "d": 0.2, "t": "<s>"}, {"b": 0.2, "d": 0.5, "t": "give"}, {"b": 0.7, "d": 0.5, "t": "it"}
        ]}
    ),
    "one.ctm": ";; comment\nx 1 0.2 0.5 GIVE 0.9\nx 1 0.7 0.5 it\n",
    "all.ctm": "other 1 0.0 0.5 no\nutt 1 0.7 0.5 it\nutt 1 0.2 0.5 give\n",
    "words.lab": "0 2000000 sil\n2000000 7000000 give -12.5\n7000000 12000000 it\n",
    "all.mlf": '#!MLF!#\n"*/other.lab"\n0 2000000 no\n.\n"*/utt.lab"\n2000000 7000000 GIVE\n7000000 12000000 it\n.\n',
    "maus.par": "LBD:\nSAM: 16000\nORT: 0 give\nORT: 1 it\nKAN: 0 gIv\n"
    "MAU: 0 3199 -1 <p:>\nMAU: 3200 3999 0 g\nMAU: 7200 3999 0 Iv\nMAU: 11200 7999 1 It\n",
    "words.srt": "1\n00:00:00,200 --> 00:00:00,700\nGive\n\n2\r\n00:00:00,700 --> 00:00:01,200\r\nit,\r\n",
    "marked.srt": "1\n00:00:00,000 --> 00:00:00,200\nGive it\n\n2\n00:00:00,200 --> 00:00:00,700\n<u>Give</u> it\n\n"
    "3\n00:00:00,700 --> 00:00:01,200\nGive <u>it</u>\n",
    "words.vtt": "WEBVTT\n\n00:00.200 --> 00:00.700 align:start\nGive\n\n00:00.700 --> 00:01.200\nit\n",
    "stamped.vtt": "WEBVTT\nKind: captions\n\n00:00:00.200 --> 00:00:01.200\nbefore\nGive<00:00:00.700><c> it</c>\n",
}  # fmt: skip


def write(root: Path, content: str, name: str) -> Path:
    (root / name).write_text(content, encoding="utf-8")
    return root / name


@pytest.mark.parametrize("name", FILES)
def test_words_and_times(tmp_path, name):
    words = read_words(write(tmp_path, FILES[name], name), names=("utt",))
    assert [word.text for word in words] == ["give", "it"]
    for word, expected in zip(words, FOUND, strict=True):
        assert (word.start, word.end) == pytest.approx((expected.start, expected.end), abs=1e-9)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("{", "a.json", "not JSON"),
        ('{"text": "give it", "segments": [{"text": "give it"}]}', "a.json", "option for word timestamps"),
        ('{"words": [{"word": "1945"}]}', "a.json", "the word '1945' has no times"),
        ('{"w": [{"b": 0}]}', "a.json", "is not a word with b, d and t"),
        ('{"tiers": {"words": {"entries": [[0, 1]]}}}', "a.json", "is not start, end and text"),
        ('{"tiers": {"phones": {"entries": []}}}', "a.json", "no tier of words among the tiers"),
        ("Begin,End,Label,Type\n0,1\n", "a.csv", "line 2 is not Begin, End, Label, Type"),
        ("utt 1 0.2 0.5\n", "a.ctm", "is not recording, channel, start, duration and word"),
        ("a 1 0 1 x\nb 1 0 1 y\n", "a.ctm", "2 recordings, and utt is not one of them"),
        ("a 1 0 x y\n", "a.ctm", "'x' is not a number of seconds"),
        ("0.2 0.7 give\n", "a.lab", "in units of 100 ns"),
        ('#!MLF!#\n"*/x.lab"\n0 1 a\n.\n', "a.mlf", "utt is not in the master label file"),
        ("SAM: 16000\nORT: 0 a\n", "a.par", "not a Partitur file"),
        ("SAM: 0\nORT: 0 a\nMAU: 0 1 0 a\n", "a.par", "not a Partitur file"),
        ("WEBVTT\n", "a.vtt", "no cues with times"),
        ("1\n00:00:00,200 --> 00:00:00,700\nGive it\n", "a.srt", "a cue of several words"),
        ("x 1 0.5 0.5 it\nx 1 0.9 0.5 now\n", "a.ctm", "0.9 to 1.4 s does not follow 1 s"),
    ],
)
def test_malformed_files(tmp_path, content, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_alignment(write(tmp_path, content, name), names=("utt",))
    assert "\n" not in str(caught.value)


def test_short_overlaps_are_mended_and_counted():
    rows = [("0", "0.505", "a"), ("0.5", "1.02", "b"), ("1.0", "1.5", "c"), ("1.5", "2", "d")]
    words = (Word("a", 0.0, 0.5), Word("b", 0.5, 1.0), Word("c", 1.0, 1.5), Word("d", 1.5, 2.0))
    assert join_rows(rows) == TimedWords(words, mended=2)
    with pytest.raises(ValueError, match=r"0\.4 to 1 s does not follow 0\.5 s"):
        join_rows([("0", "0.5", "a"), ("0.4", "1", "b")])
    with pytest.raises(ValueError, match="does not follow"):  # begins before the word that would be cut
        join_rows([("0.5", "0.51", "a"), ("0.495", "1", "b")])


def test_mended_alignments_of_a_corpus_are_flagged(tmp_path):
    write(tmp_path, "path,label,alignment\na.wav,x,a.ctm\nb.wav,y,b.lab\nc.wav,y,c.srt\n", "metadata.csv")
    write(tmp_path, "x 1 0 0.51 give\nx 1 0.5 0.5 it\n", "a.ctm")
    write(tmp_path, "0 10000000 give\n", "b.lab")
    write(tmp_path, "nothing", "c.srt")
    reading = folder.read(tmp_path)
    assert [one.flags for one in reading.utterances] == [("mended_alignment",), (), ("bad_alignment",)]
    assert reading.facts["mended_overlaps"] == 1
    assert [one.reason for one in reading.ignored] == [
        "alignment c.srt not used: no cues with times (00:00:01.000 --> 00:00:02.000)"
    ]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted({Path(name).suffix for name in FILES})),
    content=st.one_of(
        st.text(alphabet='0123456789.:,->{}[]"<>/uwbdt\n MLFSAORTUn', max_size=60),
        st.sampled_from(list(FILES.values())).flatmap(
            lambda text: st.integers(0, len(text)).map(lambda end: text[:end])
        ),
    ),
)
def test_any_contents_give_words_in_order_or_an_error(tmp_path_factory, name, content):
    path = write(tmp_path_factory.mktemp("words"), content, f"a{name}")
    words: tuple[Word, ...] = ()
    problem = ""
    try:
        words = read_words(path, names=("utt",))
    except ValueError as error:
        problem = str(error)
    assert len(problem) < 500
    assert all(one.end <= other.start + 1e-6 for one, other in pairwise(words))
