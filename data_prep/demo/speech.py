"""Speech synthesis by espeak-ng in a subprocess: sentences to 16 kHz wavs and word times.

espeak-ng keeps state between sentences, so the bytes of a wav depend on all sentences before it in the same process.
Every `Speaker` is therefore a new process: the same sentences in the same order give the same bytes. This file is run
as that process; it imports nothing else of the project, so that the process starts quickly.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

SAMPLE_RATE = 16_000  # Hz
VOLUME = 45  # `x-loud` clips at 100
WORDS_PER_MINUTE = 290
DITHER = 2.0  # standard deviation in 16-bit steps; as in a recording, silence is not digital zero
SILENCE = 4  # 16-bit steps; the residue of a removed echo is below this
SYNCHRONOUS, POSITION_CHARACTER, UTF8_SSML = 2, 1, 0x11
RATE, LOUDNESS = 1, 2  # espeak_PARAMETER
LIST_END, WORD, CLAUSE_END = 0, 1, 5  # espeak_EVENT_TYPE


class Speaker:
    """A voice of espeak-ng, running in a subprocess; a context manager."""

    def __init__(self, voice: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).resolve()), voice],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Speaker:
        return self

    def say(self, **sentence: Any) -> dict[str, Any]:
        """Synthesise a sentence.

        Args:
            sentence: `ssml`, the text; `spans`, the position (counted from 1) and the length of every word in it, in
                characters; `path` of the wav to write; the durations in seconds of silence before (`lead`) and after
                (`tail`) the speech, and of a burst of noise after the lead (`noise`); the `seed` of the noise.

        Returns:
            `words`, the start and end of every word; `noise`, those of the burst; and the `duration` of the wav, all
            in seconds. If espeak-ng reports words other than `spans`, `words` is None and no wav is written.

        Raises:
            RuntimeError: if the subprocess fails.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(sentence) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            raise RuntimeError(f"speech synthesis failed: {lines[-1] if lines else 'the subprocess ended'}")
        return json.loads(answer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("message", ctypes.c_uint),
        ("position", ctypes.c_int),  # of the word in the text, in characters, counted from 1
        ("length", ctypes.c_int),  # characters
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Engine:
    """The C library, called through ctypes."""

    def __init__(self, voice: str) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = Path(espeakng_loader.get_data_path()).parent
        self.sample_rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, str(data).encode(), 0)
        if self.sample_rate <= 0:
            raise RuntimeError(f"espeak-ng found no data in {data}")
        # Breathy voices use random numbers, by default seeded by the clock.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._callback = _Callback(self._receive)  # kept, so that it is not garbage-collected
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = voice.encode()
        self._echo = _echo(data / "espeak-ng-data/voices/!v" / voice.partition("+")[2], self.sample_rate)
        self._samples: list[np.ndarray] = []
        self._events: list[tuple[int, int, int, int]] = []

    def synthesize(self, ssml: str) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
        """Return samples (in 16-bit steps, without echo) and events (type, position, length, sample)."""
        self._samples, self._events = [], []
        if self._library.espeak_SetVoiceByName(self._voice):
            raise RuntimeError(f"espeak-ng has no voice {self._voice.decode()}")
        self._library.espeak_SetParameter(RATE, WORDS_PER_MINUTE, 0)
        self._library.espeak_SetParameter(LOUDNESS, VOLUME, 0)
        text = ssml.encode()
        failed = self._library.espeak_Synth(
            text, len(text) + 1, 0, POSITION_CHARACTER, 0, UTF8_SSML, None, None
        )
        if failed or not self._samples:
            raise RuntimeError(f"espeak-ng produced no speech for {ssml!r}")
        samples = np.concatenate(self._samples).astype(np.float32)
        delay, gain = self._echo
        if gain:  # undo exactly: espeak-ng adds `gain` times its own output `delay` samples earlier
            samples[delay:] -= gain * np.concatenate(self._samples)[:-delay]
        return samples, self._events

    def _receive(self, wav: Any, count: int, events: Any) -> int:
        if wav and count > 0:
            self._samples.append(np.ctypeslib.as_array(wav, (count,)).copy())
        index = 0
        while events[index].type != LIST_END:
            event = events[index]
            self._events.append((event.type, event.position, event.length, event.sample))
            index += 1
        return 0


def _echo(variant: Path, sample_rate: int) -> tuple[int, float]:
    """Return the delay in samples and the gain of a voice's echo, which would blur the ends of words."""
    if not variant.is_file():  # espeak-ng would silently use its default voice
        raise RuntimeError(f"espeak-ng has no voice {variant}")
    for line in variant.read_text(encoding="utf-8", errors="replace").splitlines():
        name, *values = line.split() or [""]
        if name == "echo":
            return int(values[0]) * sample_rate // 1000, int(values[1]) / 256
    return 0, 0.0


def _word_times(samples: np.ndarray, events: list[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
    """Return the start and end of every word in samples.

    A word ends where the next one begins, or before a pause where the sound ends.
    """
    marks = [(kind, sample) for kind, _, _, sample in events if kind in (WORD, CLAUSE_END)]
    marks.append((CLAUSE_END, len(samples)))
    times = []
    for (kind, start), (following, end) in itertools.pairwise(marks):
        if kind != WORD:
            continue
        if following == CLAUSE_END:
            audible = np.flatnonzero(np.abs(samples[start:end]) > SILENCE)
            end = start + int(audible[-1]) + 1 if len(audible) else end
        times.append((start, max(end, start + 1)))
    return times


def _answer(engine: _Engine, request: dict[str, Any]) -> dict[str, Any]:
    import soundfile
    import soxr

    samples, events = engine.synthesize(request["ssml"])
    spans = [[position, length] for kind, position, length, _ in events if kind == WORD]
    if spans != [list(span) for span in request["spans"]]:
        return {"words": None}
    times = _word_times(samples, events)
    speech = soxr.resample(samples[: times[-1][1]], engine.sample_rate, SAMPLE_RATE)
    rng = np.random.default_rng(request["seed"])
    lead, burst, tail = (round(request[key] * SAMPLE_RATE) for key in ("lead", "noise", "tail"))
    noise = 400 * np.hanning(burst) * rng.standard_normal(burst)
    noise *= 1 + np.sin(2 * np.pi * 5 * np.arange(burst) / SAMPLE_RATE)  # five puffs per second
    wav = np.concatenate([np.zeros(lead), noise, speech, np.zeros(tail)])
    wav += DITHER * rng.standard_normal(len(wav))
    wav = np.clip(np.rint(wav), -32768, 32767).astype(np.int16)
    soundfile.write(request["path"], wav, SAMPLE_RATE, subtype="PCM_16")
    start = (lead + burst) / SAMPLE_RATE
    return {
        "words": [[start + a / engine.sample_rate, start + b / engine.sample_rate] for a, b in times],
        "noise": [lead / SAMPLE_RATE, start],
        "duration": len(wav) / SAMPLE_RATE,
    }


def main() -> None:
    """Read one request per line of stdin, and print one answer per line."""
    engine = _Engine(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(_answer(engine, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
