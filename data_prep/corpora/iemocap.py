"""IEMOCAP (`IEMOCAP_full_release/`): utterances, alignments, labels and transcripts.

All utterances are kept, including labels outside the usual seven (`xxx`, `oth`, ...). Unusable items are rejected with
a reason. Malformed releases raise nothing but `InputError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxser.features.audio import audio_duration
from jaxser.features.video import Clip
from jaxser.types import InputError, Reading, Rejection, Utterance, Word

from .parsing import MAX_TEXT_BYTES, decode, is_apple_double, parse_wdseg, printable, read_file, same_bytes

EXPECTED = {"ang": 1103, "exc": 1041, "hap": 595, "sad": 1084, "fru": 1849, "sur": 107, "neu": 1708}
"""Utterances per label in the release, for the usual seven labels."""

CATEGORIES = {
    "anger": "ang",
    "happiness": "hap",
    "excited": "exc",
    "sadness": "sad",
    "neutral": "neu",
    "neutral state": "neu",
    "frustration": "fru",
    "surprise": "sur",
    "fear": "fea",
    "disgust": "dis",
    "other": "oth",
}
"""Labels by the raters' categories in lower case."""

UTTERANCE = re.compile(r"(?P<dialogue>(?P<session>Ses[0-9]{2})[FM]_\w+)_(?P<gender>[FM])[0-9]+", re.ASCII)
ANONYMOUS = re.compile(r"Ses[0-9]{2}[FM]_\w*XX\w*", re.ASCII)  # neither of the two actors; never labelled
NUMBER = r"\s*([+-]?[0-9]{1,6}(?:\.[0-9]{0,12})?)\s*"
LABEL = re.compile(rf"\[{NUMBER}-{NUMBER}\]\s+(\S+)\s+(\w+)\s+\[{NUMBER},{NUMBER},{NUMBER}\]\s*", re.ASCII)
VOTE = re.compile(r"C-E[0-9]+:\s*([^\t(]*)", re.ASCII)
TRANSCRIPT = re.compile(r"(Ses\S+)\s+\[[^\]]*\]:(.*)", re.ASCII)


def read(root: Path) -> Reading:
    """Read a release.

    Words are lower-cased, without silences and noises; their times are relative to the utterance's own recording.
    `votes` are all categories that the raters named, in order. Flags: `no_alignment` (no `.wdseg` file),
    `bad_alignment` (rows overlap, are missing or exceed the recording; words are None), `no_transcript`.

    Raises:
        InputError: if `root` is not an IEMOCAP release.
    """
    root = Path(root)
    sessions = _sessions(root)
    release = _Release(root)
    for session in sessions:
        release.read_session(session)
    utterances = release.utterances()
    if not utterances and not release.rejected:
        raise InputError(
            f"{root}: the Session folders contain no utterances; expected "
            f"Session1/sentences/wav/DIALOGUE/UTTERANCE.wav and Session1/dialog/EmoEvaluation/DIALOGUE.txt"
        )
    used = {utterance.id for utterance in utterances}
    return Reading(
        tuple(utterances),
        tuple(entry for entry in release.rejected if entry.id not in used),
        EXPECTED,
        ignored=tuple(entry for entry in release.rejected if entry.id in used),
        copies=release.copies,
    )


def clips(root: Path, utterances: Sequence[Utterance]) -> dict[str, Clip]:
    """Return the video clip of each utterance.

    A clip is the dialogue's avi, the utterance's times, and the speaker's half of the image. The actor who wears the
    motion-capture markers, whose letter ends the dialogue's session name (`Ses01F`), sits on the left.
    """
    root = Path(root)
    times: dict[str, tuple[float, float]] = {}
    for path in sorted(root.glob("Session*/dialog/EmoEvaluation/Ses*.txt")):
        for line in _text(path).splitlines():
            if match := LABEL.fullmatch(line):
                times.setdefault(match[3], (float(match[1]), float(match[2])))
    found = {}
    for utterance in utterances:
        video = f"Session{int(utterance.session[3:])}/dialog/avi/DivX/{utterance.dialogue}.avi"
        if utterance.id in times and (root / video).is_file():
            half = "left" if utterance.dialogue[5] == utterance.gender else "right"
            found[utterance.id] = Clip(video, *times[utterance.id], half)
    return found


def _text(path: Path) -> str:
    """Return the content of a file of labels, or nothing if it cannot be read, which `read` reports."""
    try:
        return read_file(path, MAX_TEXT_BYTES).decode("latin-1")
    except ValueError:
        return ""


def _sessions(root: Path) -> list[Path]:
    try:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; expected the release, IEMOCAP_full_release")
        found = sorted(p for p in root.iterdir() if re.fullmatch(r"Session[0-9]+", p.name) and p.is_dir())
        inner = [p for p in sorted(root.iterdir()) if (p / "Session1").is_dir()]
    except OSError as error:
        raise InputError(f"{root}: cannot be read ({error.strerror or error})") from error
    if not found:
        hint = f"; did you mean {inner[0]}?" if inner else ""
        raise InputError(f"{root}: not an IEMOCAP release: it has no folders Session1 ... Session5{hint}")
    return found


@dataclass
class _Label:
    label: str
    attributes: dict[str, float]
    votes: list[str] = field(default_factory=list)


@dataclass
class _Release:
    """Files and annotations read so far, by utterance id; `label_lines` and `transcript_lines` are `file:line`."""

    root: Path
    wavs: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, _Label] = field(default_factory=dict)
    label_lines: dict[str, str] = field(default_factory=dict)
    transcripts: dict[str, str] = field(default_factory=dict)
    transcript_lines: dict[str, str] = field(default_factory=dict)
    alignments: dict[str, Path] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    copies: int = 0

    def read_session(self, session: Path) -> None:
        """Collect the recordings, alignments, labels and transcripts of a session."""
        for path in self._files(session / "sentences/wav", "*/*", ".wav"):
            self._add_file(path, self.wavs)
        for path in self._files(session / "sentences/ForcedAlignment", "*/*", ".wdseg"):
            self._add_file(path, self.alignments)
        for path in self._files(session / "dialog/EmoEvaluation", "*", ".txt"):
            self._read_labels(path)
        for path in self._files(session / "dialog/transcriptions", "*", ".txt"):
            self._read_transcripts(path)

    def utterances(self) -> list[Utterance]:
        """Return all utterances with a recording and a label, sorted by id; the others are rejected."""
        known = self.labels.keys() | self.wavs.keys()
        for identity in sorted(self.wavs.keys() - self.labels.keys()):
            self._reject(identity, self._relative(self.wavs[identity]), "no label in dialog/EmoEvaluation")
        for identity in sorted(self.labels.keys() - self.wavs.keys()):
            self._reject(identity, self.label_lines[identity], "a label, but no wav in sentences/wav")
        for identity in sorted(self.transcripts.keys() - known):
            where = self.transcript_lines[identity]
            self._reject(identity, where, "a transcript, but neither wav nor label")
        for identity in sorted(self.alignments.keys() - known - self.transcripts.keys()):
            where = self._relative(self.alignments[identity])
            self._reject(identity, where, "an alignment, but neither wav nor label")
        return [self._utterance(identity) for identity in sorted(self.labels.keys() & self.wavs.keys())]

    def _utterance(self, identity: str) -> Utterance:
        match = UTTERANCE.fullmatch(identity)
        assert match is not None  # only such ids are collected
        words, flags = self._words(identity)
        if identity not in self.transcripts:
            flags += ("no_transcript",)
        return Utterance(
            id=identity,
            wav=self.wavs[identity].relative_to(self.root).as_posix(),
            label=self.labels[identity].label,
            transcript=self.transcripts.get(identity, ""),
            words=words,
            speaker=match["session"] + match["gender"],
            gender=match["gender"],
            session=match["session"],
            dialogue=match["dialogue"],
            votes=tuple(self.labels[identity].votes),
            attributes=self.labels[identity].attributes,
            flags=flags,
        )

    def _words(self, identity: str) -> tuple[tuple[Word, ...] | None, tuple[str, ...]]:
        if identity not in self.alignments:
            return None, ("no_alignment",)
        path = self.alignments[identity]
        lines = self._lines(path)
        if lines is None:
            return None, ("bad_alignment",)
        try:
            return parse_wdseg(lines, audio_duration(self.wavs[identity])), ()
        except ValueError as error:
            self._reject(identity, self._relative(path), f"alignment not used: {error}")
            return None, ("bad_alignment",)

    def _add_file(self, path: Path, found: dict[str, Path]) -> None:
        identity = path.stem
        if not UTTERANCE.fullmatch(identity):
            if not ANONYMOUS.fullmatch(identity):
                reason = "the file name is not an utterance id such as Ses01F_impro01_M003"
                self._reject(identity, self._relative(path), reason)
        elif identity in found and same_bytes(found[identity], path):
            self.copies += path.suffix.lower() == ".wav"
        elif identity in found:
            self._reject(identity, self._relative(path), f"the same id as {self._relative(found[identity])}")
        else:
            found[identity] = path

    def _read_labels(self, path: Path) -> None:
        current: _Label | None = None
        for number, line in enumerate(self._lines(path) or (), start=1):
            if line.startswith("["):
                current = self._read_label(line, f"{self._relative(path)}:{number}")
            elif current is not None and (vote := VOTE.match(line)):
                named = [name.strip().lower() for name in vote[1].split(";")]
                current.votes += [CATEGORIES.get(name, name) for name in named if name]

    def _read_label(self, line: str, where: str) -> _Label | None:
        match = LABEL.fullmatch(line)
        if match is None:
            self._reject("", where, "not a label line such as [0.0 - 1.0]\\tID\\tneu\\t[2.5, 2.5, 2.5]")
            return None
        identity, label = match[3], match[4].lower()
        if not UTTERANCE.fullmatch(identity):
            if not ANONYMOUS.fullmatch(identity):
                self._reject(identity, where, "not an utterance id such as Ses01F_impro01_M003")
            return None
        if identity in self.labels:
            self._reject(identity, where, f"already labelled in {self.label_lines[identity]}")
            return None
        names = ("valence", "activation", "dominance")
        self.labels[identity] = _Label(label, dict(zip(names, map(float, match.groups()[4:]), strict=True)))
        self.label_lines[identity] = where
        return self.labels[identity]

    def _read_transcripts(self, path: Path) -> None:
        for number, line in enumerate(self._lines(path) or (), start=1):
            where = f"{self._relative(path)}:{number}"
            if not line.lstrip().startswith("Ses"):
                continue  # a line without an id: `M: sorry`
            match = TRANSCRIPT.fullmatch(line.lstrip())
            identity = line.split()[0]
            if ANONYMOUS.fullmatch(identity):
                continue
            if match is None or not UTTERANCE.fullmatch(identity):
                self._reject(identity, where, "not a transcript line such as ID [0.0-1.0]: Hello.")
            elif identity in self.transcripts:
                self._reject(identity, where, f"already transcribed in {self.transcript_lines[identity]}")
            else:
                self.transcripts[identity] = match[2].strip()
                self.transcript_lines[identity] = where

    def _lines(self, path: Path) -> list[str] | None:
        """Read the lines of a text file; None if it cannot be read, which is reported."""
        try:
            content = read_file(path, MAX_TEXT_BYTES)
        except ValueError as error:
            self._reject(path.stem, self._relative(path), str(error))
            return None
        return re.split(r"\r\n|\r|\n", decode(content))

    def _files(self, folder: Path, pattern: str, suffix: str) -> Iterator[Path]:
        try:
            found = sorted(path for path in folder.glob(pattern) if path.suffix.lower() == suffix)
        except OSError as error:
            self._reject("", self._relative(folder), f"cannot be read ({error.strerror or error})")
            return
        for path in found:
            if is_apple_double(path):
                continue
            if path.is_file():
                yield path
            else:
                self._reject(path.stem, self._relative(path), "not a file")

    def _relative(self, path: Path) -> str:
        return printable(path.relative_to(self.root).as_posix())

    def _reject(self, identity: str, where: str, reason: str) -> None:
        self.rejected.append(Rejection(printable(identity), where, reason))
