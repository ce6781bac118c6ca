"""IEMOCAP (`IEMOCAP_full_release/`): utterances, word alignments, labels, raters' votes and transcripts.

Everything that the release has is kept, labels outside the usual seven included (`xxx`, `oth`, ...); what
cannot be used gets a line that says why. No input raises anything but `InputError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from jaxser.features.video import Clip
from jaxser.types import InputError, Reading, Rejection, Utterance, Word

EXPECTED = {"ang": 1103, "exc": 1041, "hap": 595, "sad": 1084, "fru": 1849, "sur": 107, "neu": 1708}
FRAMES = 100  # a second, of the alignments
TOLERANCE = 0.05  # s, by which an alignment may exceed its wav
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
UTTERANCE = re.compile(r"(?P<dialogue>(?P<session>Ses[0-9]{2})[FM]_\w+)_(?P<gender>[FM])[0-9]+", re.ASCII)
ANONYMOUS = re.compile(r"Ses[0-9]{2}[FM]_\w*XX\w*", re.ASCII)  # someone beside the two actors: never labelled
NUMBER = r"\s*([+-]?[0-9]{1,6}(?:\.[0-9]{0,12})?)\s*"
LABEL = re.compile(rf"\[{NUMBER}-{NUMBER}\]\s+(\S+)\s+(\w+)\s+\[{NUMBER},{NUMBER},{NUMBER}\]\s*", re.ASCII)
VOTE = re.compile(r"C-E[0-9]+:\s*([^\t(]*)", re.ASCII)
TRANSCRIPT = re.compile(r"(Ses\S+)\s+\[[^\]]*\]:(.*)", re.ASCII)
FRAME_NUMBER = re.compile(r"-?[0-9]{1,9}", re.ASCII)
VARIANT = re.compile(r"\([0-9]+\)$", re.ASCII)
NOT_A_WORD = re.compile(r"<.*>|\+\+.*\+\+|\[.*\]")


def read(root: Path) -> Reading:
    """Read a release; raises `InputError` if `root` holds none.

    Times are in seconds of the utterance's own wav; words are lower-cased, without silences and noises.
    `flags`: `no_alignment` (no `.wdseg`), `bad_alignment` (rows that overlap, are missing or exceed the wav:
    words are None), `no_transcript`. `votes` are every category that a rater named, in order.
    """
    root = Path(root)
    sessions = _sessions(root)
    release = _Release(root)
    for session in sessions:
        release.read_session(session)
    utterances = release.utterances()
    if not utterances and not release.rejected:
        raise InputError(
            f"{root}: its Session folders hold no utterances; expected "
            f"Session1/sentences/wav/DIALOGUE/UTTERANCE.wav and Session1/dialog/EmoEvaluation/DIALOGUE.txt"
        )
    return Reading(tuple(utterances), tuple(release.rejected), EXPECTED)


def clips(root: Path, utterances: Sequence[Utterance]) -> dict[str, Clip]:
    """Where the utterances are seen: their time in their dialogue's avi, and their speaker's half of it.

    The wearer of the markers, whose letter ends the dialogue's session name (`Ses01F`), sits on the left.
    """
    root = Path(root)
    times: dict[str, tuple[float, float]] = {}
    for path in sorted(root.glob("Session*/dialog/EmoEvaluation/Ses*.txt")):
        for line in path.read_text(encoding="latin-1").splitlines():
            if match := LABEL.fullmatch(line):
                times.setdefault(match[3], (float(match[1]), float(match[2])))
    found = {}
    for utterance in utterances:
        video = f"Session{int(utterance.session[3:])}/dialog/avi/DivX/{utterance.dialogue}.avi"
        if utterance.id in times and (root / video).is_file():
            half = "left" if utterance.dialogue[5] == utterance.gender else "right"
            found[utterance.id] = Clip(video, *times[utterance.id], half)
    return found


def _sessions(root: Path) -> list[Path]:
    try:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; expected that of the release, IEMOCAP_full_release")
        found = sorted(p for p in root.iterdir() if re.fullmatch(r"Session[0-9]+", p.name) and p.is_dir())
        inner = [p for p in sorted(root.iterdir()) if (p / "Session1").is_dir()]
    except OSError as error:
        raise InputError(f"{root}: cannot be read ({error.strerror or error})") from error
    if not found:
        hint = f"; did you mean {inner[0]}?" if inner else ""
        raise InputError(f"{root}: no IEMOCAP release, for it has no folders Session1 ... Session5{hint}")
    return found


@dataclass
class _Label:
    label: str
    attributes: dict[str, float]
    votes: list[str] = field(default_factory=list)


@dataclass
class _Release:
    """What has been found so far, by utterance id."""

    root: Path
    wavs: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, _Label] = field(default_factory=dict)
    label_places: dict[str, str] = field(default_factory=dict)
    transcripts: dict[str, str] = field(default_factory=dict)
    transcript_places: dict[str, str] = field(default_factory=dict)
    alignments: dict[str, Path] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)

    def read_session(self, session: Path) -> None:
        for path in self._files(session / "sentences/wav", "*/*", ".wav"):
            self._add_file(path, self.wavs)
        for path in self._files(session / "sentences/ForcedAlignment", "*/*", ".wdseg"):
            self._add_file(path, self.alignments)
        for path in self._files(session / "dialog/EmoEvaluation", "*", ".txt"):
            self._read_labels(path)
        for path in self._files(session / "dialog/transcriptions", "*", ".txt"):
            self._read_transcripts(path)

    def utterances(self) -> list[Utterance]:
        """Every utterance that has sound and a label, by id; the others are rejected."""
        for identity in sorted(self.wavs.keys() - self.labels.keys()):
            self._reject(identity, self._place(self.wavs[identity]), "no label in dialog/EmoEvaluation")
        for identity in sorted(self.labels.keys() - self.wavs.keys()):
            self._reject(identity, self.label_places[identity], "a label, but no wav in sentences/wav")
        for identity in sorted(self.transcripts.keys() - self.labels.keys() - self.wavs.keys()):
            self._reject(
                identity, self.transcript_places[identity], "a transcript, but neither wav nor label"
            )
        for identity in sorted(self.alignments.keys() - self.labels.keys() - self.wavs.keys()):
            self._reject(
                identity, self._place(self.alignments[identity]), "an alignment, but neither wav nor label"
            )
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
            return parse_alignment(lines, _duration(self.wavs[identity])), ()
        except ValueError as error:
            self._reject(identity, self._place(path), f"alignment not used: {error}")
            return None, ("bad_alignment",)

    def _add_file(self, path: Path, found: dict[str, Path]) -> None:
        identity = path.stem
        if not UTTERANCE.fullmatch(identity):
            if not ANONYMOUS.fullmatch(identity):
                self._reject(
                    identity, self._place(path), "its name is no utterance id such as Ses01F_impro01_M003"
                )
        elif identity in found:
            self._reject(identity, self._place(path), f"the same id as {self._place(found[identity])}")
        else:
            found[identity] = path

    def _read_labels(self, path: Path) -> None:
        current: _Label | None = None
        for number, line in enumerate(self._lines(path) or (), start=1):
            if line.startswith("["):
                current = self._read_label(line, f"{self._place(path)}:{number}")
            elif current is not None and (vote := VOTE.match(line)):
                named = [name.strip().lower() for name in vote[1].split(";")]
                current.votes += [CATEGORIES.get(name, name) for name in named if name]

    def _read_label(self, line: str, where: str) -> _Label | None:
        match = LABEL.fullmatch(line)
        if match is None:
            self._reject("", where, "no label line such as [0.0 - 1.0]\\tID\\tneu\\t[2.5, 2.5, 2.5]")
            return None
        identity, label = match[3], match[4].lower()
        if not UTTERANCE.fullmatch(identity):
            if not ANONYMOUS.fullmatch(identity):
                self._reject(_printable(identity), where, "no utterance id such as Ses01F_impro01_M003")
            return None
        if identity in self.labels:
            self._reject(identity, where, f"labelled before in {self.label_places[identity]}")
            return None
        names = ("valence", "activation", "dominance")
        self.labels[identity] = _Label(label, dict(zip(names, map(float, match.groups()[4:]), strict=True)))
        self.label_places[identity] = where
        return self.labels[identity]

    def _read_transcripts(self, path: Path) -> None:
        for number, line in enumerate(self._lines(path) or (), start=1):
            where = f"{self._place(path)}:{number}"
            if not line.lstrip().startswith("Ses"):
                continue  # someone else's words: `M: sorry`
            match = TRANSCRIPT.fullmatch(line.lstrip())
            identity = line.split()[0]
            if ANONYMOUS.fullmatch(identity):
                continue
            if match is None or not UTTERANCE.fullmatch(identity):
                self._reject(_printable(identity), where, "no transcript line such as ID [0.0-1.0]: Hello.")
            elif identity in self.transcripts:
                self._reject(identity, where, f"transcribed before in {self.transcript_places[identity]}")
            else:
                self.transcripts[identity] = match[2].strip()
                self.transcript_places[identity] = where

    def _lines(self, path: Path) -> list[str] | None:
        """The lines of a text, UTF-8 if it is that and latin-1 if not; None if it cannot be read."""
        try:
            content = path.read_bytes()
        except OSError as error:
            self._reject(path.stem, self._place(path), f"cannot be read ({error.strerror or error})")
            return None
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        return re.split(r"\r\n|\r|\n", text)

    def _files(self, folder: Path, pattern: str, suffix: str) -> Iterator[Path]:
        try:
            found = sorted(path for path in folder.glob(pattern) if path.suffix.lower() == suffix)
        except OSError as error:
            self._reject("", self._place(folder), f"cannot be read ({error.strerror or error})")
            return
        for path in found:
            if path.name.startswith("._"):
                continue  # AppleDouble: in every folder of the release
            if path.is_file():
                yield path
            else:
                self._reject(path.stem, self._place(path), "no file")

    def _place(self, path: Path) -> str:
        return _printable(path.relative_to(self.root).as_posix())

    def _reject(self, identity: str, where: str, reason: str) -> None:
        self.rejected.append(Rejection(_printable(identity), where, reason))


def parse_alignment(lines: list[str], duration: float | None = None) -> tuple[Word, ...]:
    """The words of a `.wdseg` and their times; raises `ValueError` where the rows contradict each other.

    `duration` of the wav in s, where it is known: no row may end later.
    """
    words, at, rows, strange = [], 0, 0, ""
    for line in lines:
        cells = line.split()
        if len(cells) != 4 or not FRAME_NUMBER.fullmatch(cells[0]) or not FRAME_NUMBER.fullmatch(cells[1]):
            if cells and cells[0] != "SFrm" and cells[:2] != ["Total", "score:"]:
                strange = strange or line.strip()
            continue
        first, last, rows = int(cells[0]), int(cells[1]), rows + 1
        if first < at or last < first:
            raise ValueError(f"frames {first} to {last} do not follow frame {at - 1}")
        if first > at and strange:
            raise ValueError(
                f"frames {at} to {first - 1} are missing, beside a malformed row {strange[:60]!r}"
            )
        at = last + 1
        text = VARIANT.sub("", cells[3]).lower()
        if text and not NOT_A_WORD.fullmatch(text):
            words.append(Word(text, first / FRAMES, at / FRAMES))
    if strange and duration is not None and at / FRAMES < duration - TOLERANCE:
        raise ValueError(f"it ends at {at / FRAMES:.2f} s, beside a malformed row {strange[:60]!r}")
    if not rows:
        raise ValueError("no rows of first frame, last frame, score and word")
    if duration is not None and at / FRAMES > duration + TOLERANCE:
        raise ValueError(f"it ends at {at / FRAMES:.2f} s, the wav at {duration:.2f} s")
    return tuple(words)


def _duration(wav: Path) -> float | None:
    """Seconds; None where the file is no readable wav, which preparation will say."""
    try:
        return float(soundfile.info(str(wav)).duration)
    except (soundfile.LibsndfileError, OSError, RuntimeError, UnicodeError, ZeroDivisionError):
        return None


def _printable(text: str) -> str:
    """Text that can be written as UTF-8, whatever bytes a file name has."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
