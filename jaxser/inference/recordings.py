"""Recordings as a network reads them: windows, transcripts, and the recipe's arrays.

The features are extracted by the same functions as those of a prepared dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from jaxser.encoders.encoder import load
from jaxser.encoders.frames import FrameEncoder, Layers
from jaxser.features import text
from jaxser.features.audio import NO_RECORDING, SAMPLE_RATE, Recording, read_audio, split_span
from jaxser.features.extraction import extract
from jaxser.features.paths import open_regular
from jaxser.features.quality import quality_flags
from jaxser.features.recipes import Recipe, tokens
from jaxser.features.sources import FILES, Source, open_arrays
from jaxser.features.video import Clip, VideoNetwork, open_network
from jaxser.types import InputError, UsageError, Utterance, Word

Transcriber = Callable[[Float[np.ndarray, " samples"]], Sequence[Word]]
"""Transcribes samples at 16 kHz into words with times."""

Text = str | Sequence[Word] | Transcriber | None
"""The transcript of a recording; None: read it from the `.txt` file beside the recording."""

SUFFIXES = frozenset(
    (
        *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".w64"),
        *(".m4a", ".aac", ".wma", ".amr", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".3gp"),
    )
)
"""The files that are picked from a folder; a file given by name is read whatever its suffix."""

_MAX_SECONDS = 4 * 3_600.0
_MAX_TRANSCRIPT_BYTES = 2**20
_WORDS = {"words", "segments", "segment_lengths"}
_WORD_FLAGS = {"no_words", "characters", "cut_words", "cut_segments"}


@dataclass(frozen=True, eq=False)
class Window:
    """A window of a recording, or all of it, as a network reads it.

    Attributes:
        path: the recording.
        start: the start of the window, in seconds.
        end: the end of the window, in seconds.
        utterance: the transcript and the words of the window.
        samples: the window's samples at 16 kHz.
        arrays: the recipe's arrays.
        words: the words as the recipe reads them.
        unknown: those words that are not in the vocabulary of the run's dataset.
        flags: quality flags, as in a prepared dataset.
    """

    path: str
    start: float
    end: float
    utterance: Utterance
    samples: Float[np.ndarray, " samples"]
    arrays: Mapping[str, Shaped[np.ndarray, ...]]
    words: tuple[str, ...]
    unknown: tuple[str, ...]
    flags: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads recordings for one run.

    Attributes:
        recipe: the recipe of the run's dataset.
        needs: the arrays that the network reads.
        vocabulary: the words of the run's dataset.
        sources: where the precomputed arrays come from.
        encoder: the pretrained encoder of recipe `encoder`.
        window: seconds per window; by default, the recipe's maximum. 0 takes the whole recording as one window, which
            the recipe cuts at its maximum, as in training.
        hop: seconds from one window to the next; by default, `window`.
    """

    recipe: Recipe
    needs: tuple[str, ...]
    vocabulary: text.Vocabulary
    sources: Mapping[str, Source] = field(default_factory=dict)
    encoder: FrameEncoder | None = None
    window: float | None = None
    hop: float | None = None

    @property
    def reads_words(self) -> bool:
        """Whether a transcript is needed."""
        return bool(_WORDS & set(self.needs))

    def read(self, path: str | Path, transcript: Text = None) -> list[Window]:
        """Read the windows of a recording.

        A recipe without sound reads the transcript alone, and the recording only to transcribe it.

        Raises:
            InputError: if the recording cannot be used, or lacks something that the network reads.
        """
        is_heard = self.recipe.has_sound or callable(transcript)
        recording = read_audio(path, _MAX_SECONDS) if is_heard else NO_RECORDING
        said = _transcribed(path, recording.samples, transcript) if self.reads_words else ""
        spans = self._spans(path, len(recording.samples), said)
        encoded = self._encoded([recording.samples[start:end] for start, end in spans])
        return [
            self._window(path, recording, span, said, frames, is_whole=len(spans) == 1)
            for span, frames in zip(spans, encoded, strict=True)
        ]

    def _encoded(self, windows: Sequence[np.ndarray]) -> Sequence[np.ndarray | None]:
        """Return the encoder's frames of each window, if the recipe has them."""
        if self.encoder is None:
            return [None] * len(windows)
        longest = self.recipe.max_samples + self.recipe.hop  # one frame more is flagged, and cut
        return self.encoder.encode([window[:longest] for window in windows])

    def _spans(self, path: str | Path, count: int, said: str | Sequence[Word]) -> list[tuple[int, int]]:
        """Start and end of each window, in samples. All have one length, and the last ends with the recording."""
        longest = self.recipe.max_samples
        size = longest if self.window is None else round(self.window * SAMPLE_RATE)
        hop = size if self.hop is None else round(self.hop * SAMPLE_RATE)
        obstacle = self._obstacle(said)
        if size == 0 or count <= size or (obstacle and self.window is None):
            return [(0, count)]
        if obstacle:
            raise InputError(
                f"{path}: {obstacle}, so it cannot be cut into windows; --window=0 reads it as a whole"
            )
        return [(start, start + size) for start in [*range(0, count - size, hop), count - size]]

    def _obstacle(self, said: str | Sequence[Word]) -> str:
        """Return why a recording cannot be cut into windows; empty if it can."""
        if self.reads_words and isinstance(said, str):
            return "its transcript has no word times (--asr finds them)"
        if not all(isinstance(source, VideoNetwork) for source in self.sources.values()):
            return "its precomputed features cover all of it"
        return ""

    def _window(
        self,
        path: str | Path,
        recording: Recording,
        span: tuple[int, int],
        said: str | Sequence[Word],
        frames: np.ndarray | None,
        is_whole: bool,
    ) -> Window:
        file, part = split_span(path)
        start, end = (sample / SAMPLE_RATE for sample in span)
        transcript, words = _words_between(said, *((0.0, float("inf")) if is_whole else (start, end)))
        utterance = Utterance(id=file.stem, wav=str(path), label="", transcript=transcript, words=words)
        own, offset = recording.samples[slice(*span)], part[0] if part else 0.0
        given = self._precomputed(file, offset + start, offset + end)
        if frames is not None:
            given["audio"] = frames
        read = tokens(self.recipe, utterance) if self.reads_words else ()
        flags = (*recording.flags, *quality_flags(self.recipe, utterance, own, given))
        irrelevant = set() if self.reads_words else set(_WORD_FLAGS)
        if not is_whole and len(own) <= self.recipe.max_samples:
            irrelevant.add(
                "cut_audio"
            )  # only the frame centred on the window's end, which the next window has
        return Window(
            path=str(path),
            start=start,
            end=end,
            utterance=utterance,
            samples=own,
            arrays=extract(self.recipe, utterance, own, self.vocabulary, given),
            words=read,
            unknown=tuple(word for word in read if word.lower() not in self.vocabulary.index),
            flags=tuple(flag for flag in flags if flag not in irrelevant),
        )

    def _precomputed(
        self, file: Path, start: float, end: float
    ) -> dict[str, Float[np.ndarray, "rows width"]]:
        """Return the precomputed arrays of a recording, and its video features.

        Video features are those of the frames between two times, in seconds.
        """
        clips = {file.stem: Clip(str(file), start, end)}
        return {
            name: (replace(source, clips=clips) if isinstance(source, VideoNetwork) else source).read(
                file.stem
            )
            for name, source in self.sources.items()
        }


def find_recordings(paths: Iterable[str | Path]) -> list[Path]:
    """List the files in `paths` and the recordings in its folders.

    Raises:
        UsageError: if a folder has no recordings.
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
            raise UsageError(f"{path}: no recordings found ({', '.join(sorted(SUFFIXES))})")
        found += inside
    return found


def open_precomputed(
    recipe: Recipe,
    widths: Mapping[str, int],
    made: Mapping[str, Mapping[str, Any]],
    identities: Iterable[str],
    files: Mapping[str, str | Path],
    resnet: str | Path | None,
) -> dict[str, Source]:
    """Open the sources of the precomputed arrays that a run reads.

    Args:
        recipe: the recipe of the run's dataset.
        widths: features per row of each array that the run reads.
        made: how the precomputed arrays of the run's dataset were made, from its manifest.
        identities: the ids of the recordings.
        files: folders or HDF5 files by flag (`frames`, `video`, `prosody`).
        resnet: an ONNX network that extracts video features.

    Raises:
        UsageError: if an array is missing, has another width, comes from another network, or is not read by the run.
    """
    encoded = {"audio"} if "encoder" in recipe.parameters else set()
    wanted = [name for name in widths if name in recipe.precomputed.keys() - encoded]
    flags = {FILES[flag]: flag for flag in files} | ({"video": "resnet"} if resnet else {})
    _check_flags(flags, wanted, made)
    identities = list(identities)
    sources: dict[str, Source] = {
        FILES[f]: open_arrays(path, identities, f, recipe.precomputed[FILES[f]], allow_outside_root=True)
        for f, path in files.items()
    }
    if resnet:
        opened = open_network(resnet, Path(), {}, allow_outside_root=True)
        if opened.sha256 != _network_digest(made, "video"):
            raise UsageError(
                f"--resnet={resnet}: not the network that extracted the video features of this run"
            )
        sources["video"] = opened
    for name, source in sources.items():
        if source.width != widths[name]:
            raise UsageError(
                f"--{flags[name]}: {name} has {source.width} features, but this run was trained on {widths[name]}"
            )
    return sources


def open_encoder(recipe: Recipe, folder: str | Path | None) -> FrameEncoder | None:
    """Load the encoder whose frames a run reads; None if its recipe has no encoder.

    Raises:
        InputError: if the folder cannot be used.
        UsageError: if the folder is missing, not needed, or not that of the run's encoder.
    """
    described = recipe.parameters.get("encoder")
    if described is None:
        if folder is not None:
            raise UsageError(f"--encoder={folder}: this run does not read the frames of an encoder")
        return None
    if folder is None:
        raise UsageError(
            f"this run reads the frames of a pretrained encoder ({described['family']}): give --encoder=FOLDER"
        )
    encoder = load(folder, padding=described["padding"])
    if encoder.digest != described["digest"]:
        raise UsageError(f"--encoder={folder}: not the weights that computed the frames of this run")
    return FrameEncoder(encoder, Layers(tuple(described["layers"]), described["layers_mean"]))


def _check_flags(
    flags: Mapping[str, str], wanted: Sequence[str], made: Mapping[str, Mapping[str, Any]]
) -> None:
    """Check that the precomputed arrays given by flags are those that the run reads."""
    if unread := [flag for name, flag in flags.items() if name not in wanted]:
        raise UsageError(f"--{unread[0]}: this run does not read it")
    flag_of = {name: flag for flag, name in FILES.items()}
    for name in wanted:
        if name not in flags:
            network = (
                " or --resnet=FILE, the network that extracted it" if _network_digest(made, name) else ""
            )
            raise UsageError(
                f"this run reads precomputed {name}: give --{flag_of[name]}=FOLDER of <recording>.npy files{network}"
            )


def faster_whisper(folder: str | Path) -> Transcriber:
    """Load a Whisper model that transcribes recordings on this machine; nothing is downloaded.

    Args:
        folder: a model converted for faster-whisper.

    Raises:
        UsageError: if the folder holds no such model, or faster-whisper is not installed.
    """
    for name in ("model.bin", "tokenizer.json"):  # faster-whisper would download a missing tokenizer
        if not (Path(folder) / name).is_file():
            raise UsageError(
                f"{folder} has no {name}; nothing is downloaded, so give the folder of a Whisper model converted for "
                "faster-whisper (docs/how-to/predict.md)"
            )
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise UsageError('--asr=faster-whisper needs: pip install "jaxser[asr]"') from None
    try:
        model = WhisperModel(str(folder), local_files_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{folder}: the Whisper model cannot be loaded ({error})") from None

    def transcribe(samples: np.ndarray) -> tuple[Word, ...]:
        segments, _ = model.transcribe(samples, word_timestamps=True)
        return tuple(
            Word(word.word.strip(), float(word.start), float(word.end))
            for segment in segments
            for word in segment.words or ()
        )

    return transcribe


def _network_digest(made: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Return the SHA-256 of the network that extracted an array of the run's dataset.

    It is empty if no network did.
    """
    return made.get(name, {}).get("network", "")


def _transcribed(path: str | Path, samples: np.ndarray, transcript: Text) -> str | Sequence[Word]:
    if callable(transcript):
        return transcript(samples)
    if transcript is not None:
        return transcript
    sidecar = split_span(path)[0].with_suffix(".txt")
    if not sidecar.exists():
        raise InputError(
            f"{path}: this run reads words: give --text=..., put a transcript in {sidecar.name} beside it, "
            "or use --asr=faster-whisper --asr_model=FOLDER"
        )
    try:
        with open_regular(sidecar, _MAX_TRANSCRIPT_BYTES) as file:
            return file.read().decode("utf-8-sig").strip()
    except InputError as error:
        raise InputError(f"{sidecar}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{sidecar}: cannot be read as UTF-8 ({error})") from None


def _words_between(
    said: str | Sequence[Word], start: float, end: float
) -> tuple[str, tuple[Word, ...] | None]:
    """Return the transcript of a window, and its words without punctuation, with times relative to the window."""
    if isinstance(said, str):
        return said, None
    inside = [word for word in said if start <= (word.start + word.end) / 2 < end]
    bare = [(text.without_punctuation(word.text), word) for word in inside]
    words = [
        Word(name, max(word.start - start, 0.0), min(word.end, end) - start) for name, word in bare if name
    ]
    return " ".join(word.text for word in inside), tuple(words)
