"""A user's own recordings as a network reads them: windows of sound, what is said in them, the recipe's arrays.

The arrays come from the very functions that preparation calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from jaxser.features import text
from jaxser.features.audio import HOP, SAMPLE_RATE, read_audio, split_span
from jaxser.features.recipes import Recipe, doubts, extract, tokens
from jaxser.features.sources import FILES, Source, open_arrays
from jaxser.features.video import Clip, VideoNetwork, open_network
from jaxser.types import InputError, UsageError, Utterance, Word

Transcriber = Callable[[Float[np.ndarray, " samples"]], Sequence[Word]]
"""Hears the words of a sound at 16 kHz, with their times."""

Text = str | Sequence[Word] | Transcriber | None
"""What is said in a recording; None: it stands in the file beside it that ends in `.txt`."""

SUFFIXES = frozenset(
    (
        *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".w64"),
        *(".m4a", ".aac", ".wma", ".amr", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".3gp"),
    )
)
"""What is taken from a folder; a file that is named is always tried."""

_WORDS = {"words", "segments", "segment_lengths"}
_DOUBTS_ABOUT_WORDS = {"no_words", "cut_words", "cut_segments"}


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a recording, or all of it, as a network reads it."""

    path: str
    start: float  # s
    end: float  # s
    utterance: Utterance
    samples: Float[np.ndarray, " samples"]
    arrays: Mapping[str, Shaped[np.ndarray, ...]]
    words: tuple[str, ...]  # as the recipe reads them
    unknown: tuple[str, ...]  # those that no utterance of the run's dataset has
    flags: tuple[str, ...]  # what is doubtful, as in preparation


@dataclass(frozen=True, eq=False)
class Reader:
    """How a run reads recordings.

    `window` and `hop` are in seconds: by default the recipe's maximum, and one window after the other. A window of 0
    is the whole recording, cut at the recipe's maximum as in training.
    """

    recipe: Recipe
    needs: tuple[str, ...]
    vocabulary: text.Vocabulary
    sources: Mapping[str, Source] = field(default_factory=dict)  # of the arrays that are made elsewhere
    window: float | None = None
    hop: float | None = None

    @property
    def reads_words(self) -> bool:
        """Whether a transcript is needed."""
        return bool(_WORDS & set(self.needs))

    def read(self, path: str | Path, said: Text = None) -> list[Window]:
        """The windows of a recording. Raises `InputError` where it cannot be used, or lacks what the run reads."""
        samples, _ = read_audio(path)
        said = _said(path, samples, said) if self.reads_words else ""
        spans = self._spans(path, len(samples), said)
        return [self._window(path, samples, span, said, is_whole=len(spans) == 1) for span in spans]

    def _spans(self, path: str | Path, count: int, said: str | Sequence[Word]) -> list[tuple[int, int]]:
        """Begin and end of each window in samples; the last ends with the recording, and all are of one length."""
        longest = self.recipe.parameters["max_frames"] * HOP
        size = longest if self.window is None else round(self.window * SAMPLE_RATE)
        hop = size if self.hop is None else round(self.hop * SAMPLE_RATE)
        obstacle = self._obstacle(said)
        if size == 0 or count <= size or (obstacle and self.window is None):
            return [(0, count)]
        if obstacle:
            raise InputError(
                f"{path}: {obstacle}, so it cannot be cut into windows; --window=0 takes it whole"
            )
        return [(start, start + size) for start in [*range(0, count - size, hop), count - size]]

    def _obstacle(self, said: str | Sequence[Word]) -> str:
        if self.reads_words and isinstance(said, str):
            return "its transcript has no times (--asr hears some)"
        if not all(isinstance(source, VideoNetwork) for source in self.sources.values()):
            return "its features that were made elsewhere are of all of it"
        return ""

    def _window(
        self,
        path: str | Path,
        samples: np.ndarray,
        span: tuple[int, int],
        said: str | Sequence[Word],
        is_whole: bool,
    ) -> Window:
        file, part = split_span(path)
        start, end = (sample / SAMPLE_RATE for sample in span)
        transcript, words = _heard(said, *((0.0, float("inf")) if is_whole else (start, end)))
        utterance = Utterance(id=file.stem, wav=str(path), label="", transcript=transcript, words=words)
        own, offset = samples[slice(*span)], part[0] if part else 0.0
        clip = Clip(str(file), offset + start, offset + end)
        elsewhere = {
            name: (
                replace(source, clips={file.stem: clip}) if isinstance(source, VideoNetwork) else source
            ).read(file.stem)
            for name, source in self.sources.items()
        }
        read = tokens(self.recipe, utterance) if self.reads_words else ()
        flags = doubts(self.recipe, utterance, own, elsewhere)
        beside = set() if self.reads_words else set(_DOUBTS_ABOUT_WORDS)
        if not is_whole and len(own) <= self.recipe.parameters["max_frames"] * HOP:
            beside.add("cut_audio")  # a last frame past the window's end, which the next window has
        return Window(
            path=str(path),
            start=start,
            end=end,
            utterance=utterance,
            samples=own,
            arrays=extract(self.recipe, utterance, own, self.vocabulary, elsewhere),
            words=read,
            unknown=tuple(word for word in read if word.lower() not in self.vocabulary.index),
            flags=tuple(flag for flag in flags if flag not in beside),
        )


def find(paths: Iterable[str | Path]) -> list[Path]:
    """The files that are named, and the recordings in the folders that are.

    Raises:
        UsageError: a folder without recordings.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        )
        if not inside:
            raise UsageError(f"{path}: no recordings in it ({', '.join(sorted(SUFFIXES))})")
        found += inside
    return found


def open_elsewhere(
    recipe: Recipe,
    widths: Mapping[str, int],
    made: Mapping[str, Mapping],
    identities: Iterable[str],
    files: Mapping[str, str | Path],
    resnet: str | Path | None,
) -> dict[str, Source]:
    """Where the arrays come from that a run reads and that are made elsewhere.

    `widths` are of the arrays that the run reads, `made` says how its dataset's were made, `files` are folders or HDF5
    files by flag (`frames`, `video`, `prosody`), and `resnet` is an ONNX network that makes video features.

    Raises:
        UsageError: an array is missing, of another width or another network's, or the run does not read it.
    """
    wanted = [name for name in widths if name in recipe.elsewhere]
    given = {FILES[flag]: flag for flag in files} | ({"video": "resnet"} if resnet else {})
    if unread := [flag for name, flag in given.items() if name not in wanted]:
        raise UsageError(f"--{unread[0]}: this run reads none of it")
    flag_of = {name: flag for flag, name in FILES.items()}
    for name in wanted:
        if name not in given:
            network = " or --resnet=FILE, the network that made it" if _network(made, name) else ""
            raise UsageError(
                f"this run reads {name} that is made elsewhere: give --{flag_of[name]}=FOLDER of <recording>.npy "
                f"files{network}"
            )
    identities = list(identities)
    sources: dict[str, Source] = {FILES[f]: open_arrays(path, identities, f) for f, path in files.items()}
    if resnet:
        opened = open_network(resnet, Path(), {})
        if opened.sha256 != _network(made, "video"):
            raise UsageError(f"--resnet={resnet}: not the network that made the video features of this run")
        sources["video"] = opened
    for name, source in sources.items():
        if source.width != widths[name]:
            raise UsageError(
                f"--{given[name]}: {name} of {source.width} numbers a row, this run was trained on {widths[name]}"
            )
    return sources


def faster_whisper(folder: str | Path) -> Transcriber:
    """Hears words by a Whisper model of a folder, which runs here; nothing is downloaded.

    Raises:
        UsageError: the folder holds no such model, or faster-whisper is not installed.
    """
    for name in ("model.bin", "tokenizer.json"):  # without the second one it would be fetched
        if not (Path(folder) / name).is_file():
            raise UsageError(
                f"{folder}: no {name} in it; nothing is downloaded, so give the folder of a Whisper model for "
                "faster-whisper (docs/predict.md)"
            )
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise UsageError('--asr=faster-whisper needs: pip install "jaxser[asr]"') from None
    try:
        model = WhisperModel(str(folder), local_files_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{folder}: no Whisper model that can be read ({error})") from None

    def hear(samples: np.ndarray) -> tuple[Word, ...]:
        segments, _ = model.transcribe(samples, word_timestamps=True)
        return tuple(
            Word(word.word.strip(), float(word.start), float(word.end))
            for segment in segments
            for word in segment.words or ()
        )

    return hear


def _network(made: Mapping[str, Mapping], name: str) -> str:
    """The digest of the network that made an array of the run's dataset; empty where none did."""
    return made.get(name, {}).get("network", "")


def _said(path: str | Path, samples: np.ndarray, said: Text) -> str | Sequence[Word]:
    if callable(said):
        return said(samples)
    if said is not None:
        return said
    sidecar = split_span(path)[0].with_suffix(".txt")
    try:
        return sidecar.read_text("utf-8-sig").strip()
    except FileNotFoundError:
        raise InputError(
            f"{path}: this run reads words: give --text=..., write them into {sidecar.name} beside it, "
            "or use --asr=faster-whisper --asr_model=FOLDER"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{sidecar}: cannot be read as UTF-8 ({error})") from None


def _heard(said: str | Sequence[Word], start: float, end: float) -> tuple[str, tuple[Word, ...] | None]:
    """The transcript of a window, and its words, which have no marks, by their times in it."""
    if isinstance(said, str):
        return said, None
    inside = [word for word in said if start <= (word.start + word.end) / 2 < end]
    bare = [(re.sub(r"^\W+|\W+$", "", word.text), word) for word in inside]
    words = [
        Word(name, max(word.start - start, 0.0), min(word.end, end) - start) for name, word in bare if name
    ]
    return " ".join(word.text for word in inside), tuple(words)
