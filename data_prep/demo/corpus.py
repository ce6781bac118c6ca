"""The demo corpus: synthetic speech with planted cues, written as a release in IEMOCAP's layout.

    python -m data_prep.demo --out=demo_release --utterances=1000 --seed=0 --mix=tutorial

IEMOCAP needs a licence; this corpus needs only espeak-ng (from the wheel `espeakng-loader`). Its emotions are
probabilities of words and voices, so the best possible accuracy is known exactly (`bayes.json`), and the
truth about every utterance is written down (`truth.jsonl`). It says nothing about how people express
emotions.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxser import cli
from jaxser.cli import exit_status
from jaxser.types import InputError, Reading, UsageError

from ..corpora import iemocap
from .plan import (
    ATTEMPTS,
    BURSTS,
    STREAM_SENTENCE,
    VOICES,
    Settings,
    Turn,
    compose,
    plan,
    truth_of,
)
from .release import (
    Spoken,
    noise_token,
    some_without_alignment,
    wav_path,
    write_dialogue,
)
from .speech import Speaker
from .truth import CLASSES, MIXES, Truth
from .video import FOLDER, MARKER, write_video

FORMAT = 1  # of the corpus: a higher number makes other bytes from the same settings
ORDER_GAP = 1.0  # s, between the two voices of mechanism O


def make(
    root: Path,
    utterances: int = 1000,
    seed: int = 0,
    mix: str = "tutorial",
    *,
    burst: str = "all",
    leak: bool = False,
    gender_gap: bool = False,
    speaker_prior: bool = False,
    duplicates: bool = False,
    processes: int | None = None,
    progress: bool = True,
) -> bool:
    """Make a demo corpus in the folder `root`, all or nothing; False if that very corpus is there already.

    `Settings` says what the arguments mean; `processes` is how many speakers speak at a time (default: one a
    core). Raises `UsageError` for settings that cannot be and for a folder that holds something else,
    `InputError` where the corpus cannot be spoken or written.
    """
    settings = Settings(utterances, seed, mix, burst, leak, gender_gap, speaker_prior, duplicates)
    if processes is not None and processes < 1:
        raise UsageError(f"--processes={processes}: expected 1 or more")
    root = Path(root).absolute()
    temporary = root.parent / f".{root.name}.unfinished-{os.getpid()}"
    try:
        if _is_made(root, settings):
            return False
        _clear_unfinished(root)
        temporary.mkdir(parents=True)
        _write(temporary, settings, processes or os.cpu_count() or 1, progress)
        if _is_made(root, settings):  # by someone else in the meantime
            return False
        os.replace(temporary, root)
    except (OSError, RuntimeError, ImportError) as error:
        raise InputError(f"{root}: the demo corpus cannot be made: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def read(root: Path) -> Reading:
    """Read a demo corpus as the IEMOCAP release that it looks like; `facts` say that it is synthetic.

    `facts["bayes"]` holds the best possible accuracies. Raises `InputError` if `root` holds no demo corpus.
    """
    root = Path(root)
    facts = _load(root / "demo.json")
    facts["bayes"] = _load(root / "bayes.json")
    return replace(iemocap.read(root), expected={}, facts={"synthetic": True, **facts})


def video(root: Path, *, make: bool) -> Path | None:
    """The folder of the corpus's synthetic video features; where there is none it is made, or None."""
    if not make and not (root / FOLDER / MARKER).is_file():
        return None
    try:
        return write_video(root)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{root}: the demo corpus gets no video features: {error}") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: unreadable ({error}), so this is no whole demo corpus; "
            f"make one with `python -m data_prep.demo --out=FOLDER`"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object; make the demo corpus again")
    return found


def _is_made(root: Path, settings: Settings) -> bool:
    """Whether `root` holds this corpus; raises `UsageError` if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / "demo.json").is_file():
        raise UsageError(f"{root}: exists and is no demo corpus; choose another --out")
    found = _load(root / "demo.json")
    wanted = _description(settings)
    differing = [
        f"{key} is {found.get(key)}, not {wanted[key]}" for key in wanted if found.get(key) != wanted[key]
    ]
    if differing:
        raise UsageError(
            f"{root}: holds a demo corpus made with other settings ({'; '.join(differing)}); "
            f"delete that folder or choose another --out"
        )
    return True


def _description(settings: Settings) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(settings)}


def _clear_unfinished(root: Path) -> None:
    """Remove what killed runs left beside `root`, if their process is gone."""
    for left in root.parent.glob(f".{glob.escape(root.name)}.unfinished-*"):
        process = left.name.rpartition("-")[2]
        try:
            os.kill(int(process), 0)
        except (ProcessLookupError, ValueError, OverflowError):
            shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue


def _write(root: Path, settings: Settings, processes: int, progress: bool) -> None:
    turns = plan(settings)
    for turn in turns:
        (root / wav_path(turn)).parent.mkdir(parents=True, exist_ok=True)
    display = Progress(
        TextColumn("speaking the demo corpus"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    with display:
        task = display.add_task("", total=len(turns))
        spoken = _speak(root, turns, settings, processes, lambda: display.advance(task))
    dialogues: dict[str, list[Spoken]] = {}
    for turn in turns:
        dialogues.setdefault(turn.dialogue, []).append(spoken[turn.id])
    without = some_without_alignment(turns)
    for members in dialogues.values():
        write_dialogue(root, members, settings, skip_alignment=without)
    _write_truth(root, [spoken[turn.id] for turn in turns], truth_of(turns, settings), settings)


def _speak(
    root: Path, turns: list[Turn], settings: Settings, processes: int, advance: Callable[[], None]
) -> dict[str, Spoken]:
    """Every turn spoken, by id: each speaker in a process of its own, in order; then the copies."""
    speakers: dict[tuple[int, str], list[Turn]] = {}
    for turn in turns:
        if not turn.copy_of:
            speakers.setdefault((turn.session, turn.gender), []).append(turn)
    stop = threading.Event()
    spoken: dict[str, Spoken] = {}
    with ThreadPoolExecutor(processes) as pool:
        running = [
            pool.submit(_speak_speaker, root, members, settings, stop, advance)
            for members in speakers.values()
        ]
        try:
            for future in running:
                spoken.update({one.turn.id: one for one in future.result()})
        finally:
            stop.set()
    for turn in turns:
        if turn.copy_of:
            source = spoken[turn.copy_of]
            shutil.copyfile(root / wav_path(source.turn), root / wav_path(turn))
            spoken[turn.id] = replace(source, turn=turn)
            advance()
    return spoken


def _speak_speaker(
    root: Path, turns: list[Turn], settings: Settings, stop: threading.Event, advance: Callable[[], None]
) -> list[Spoken]:
    voice = f"en-us+{VOICES[turns[0].gender][turns[0].session - 1]}"
    found = []
    with Speaker(voice) as speaker:
        for turn in turns:
            if stop.is_set():
                break
            found.append(_speak_turn(root, turn, settings, speaker))
            advance()
    return found


def _speak_turn(root: Path, turn: Turn, settings: Settings, speaker: Speaker) -> Spoken:
    """Draw sentences until espeak-ng reports exactly their words (it merges some pairs of words into one)."""
    rng = np.random.default_rng([settings.seed, STREAM_SENTENCE, turn.index])
    noisy = noise_token(turn, settings) != ""
    around = {
        "lead": round(float(rng.uniform(0.05, 0.2)), 3),
        "noise": round(float(rng.uniform(0.2, 0.35)), 3) if noisy else 0.0,
        "tail": round(float(rng.uniform(0.05, 0.2)), 3),
        "seed": int(rng.integers(2**31)),
    }
    for attempt in range(ATTEMPTS):
        sentence = compose(turn, settings, attempt)
        ssml, spans = sentence.ssml()
        answer = speaker.say(ssml=ssml, spans=spans, path=str(root / wav_path(turn)), **around)
        times = answer["words"]
        if times is None or (turn.mechanism == "O" and _too_close(sentence.styles, times)):
            continue
        return Spoken(
            turn,
            sentence.words,
            tuple((start, end) for start, end in times),
            sentence.cues,
            tuple(place for first, end, _ in sentence.styles for place in range(first, end)),
            tuple(answer["noise"]),
            answer["duration"],
        )
    raise RuntimeError(f"espeak-ng merged words in each of {ATTEMPTS} sentences for {turn.id}")


def _too_close(styles: tuple[tuple[int, int, str], ...], times: list[list[float]]) -> bool:
    return len(styles) == 2 and times[styles[1][0]][0] - times[styles[0][1] - 1][1] < ORDER_GAP


def _write_truth(root: Path, spoken: list[Spoken], truth: Truth, settings: Settings) -> None:
    posteriors: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    with open(root / "truth.jsonl", "w", encoding="utf-8") as file:
        for one in spoken:
            turn = one.turn
            key = (turn.words, turn.voice, turn.gender)
            if key not in posteriors:
                posteriors[key] = truth.posterior(*key)
            line = {
                "utterance": turn.id,
                "mechanism": turn.mechanism,
                "emotion": turn.emotion,
                "text": turn.words,
                "audio": turn.voice,
                "copy_of": turn.copy_of,
                "words": [_timed(one, place) for place in range(len(one.words))],
                "cues": [_timed(one, place) for place in one.cues],
                "styled": [_timed(one, place) for place in one.styled],
                "posterior": posteriors[key],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    _save(root / "bayes.json", {"classes": list(CLASSES), **truth.best()})
    _save(root / "demo.json", {"synthetic": True, **_description(settings)})


def _timed(one: Spoken, place: int) -> dict[str, Any]:
    start, end = one.times[place]
    return {"place": place, "word": one.words[place], "start": round(start, 4), "end": round(end, 4)}


def _save(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def run(arguments: Sequence[str] | None = None) -> int:
    """The command line's exit status; errors are one line."""
    options = vars(_parser().parse_args(arguments))
    root, with_video = Path(options.pop("out")), options.pop("video")
    stopped = "interrupted; nothing is left behind"
    return exit_status("demo", lambda: _make(root, with_video, options), output=root, stopped=stopped)


def _make(root: Path, with_video: bool, options: dict[str, Any]) -> int:
    made = make(root, **options)
    if with_video:
        video(root, make=True)
    best = _load(root / "bayes.json")["joint"]
    print(
        f"{root}: {options['utterances']} synthetic utterances, mix {options['mix']}, seed {options['seed']}"
        f"{'' if made else ' (made before; nothing to do)'}; "
        f"best possible WA {best['wa']:.1%}, UA {best['ua']:.1%}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = {field.name: field.default for field in fields(Settings)}
    parser = cli.parser("demo", "python -m data_prep.demo", __doc__)
    parser.add_argument("--out", required=True, help="the folder to make")
    parser.add_argument("--utterances", type=int, default=defaults["utterances"])
    parser.add_argument("--seed", type=int, default=defaults["seed"])
    parser.add_argument(
        "--mix", default=defaults["mix"], help=f"{', '.join(MIXES)}, or shares such as R=.5,B=.3,N=.2"
    )
    parser.add_argument(
        "--burst", choices=BURSTS, default=defaults["burst"], help="words that carry a redundant voice cue"
    )
    parser.add_argument("--leak", action="store_true", help="sentences that give the label away")
    parser.add_argument("--gender_gap", action="store_true", help="half of the men's cues are missing")
    parser.add_argument("--speaker_prior", action="store_true", help="speakers with emotions of their own")
    parser.add_argument("--duplicates", action="store_true", help="byte-identical copies across sessions")
    parser.add_argument("--video", action="store_true", help="synthetic video features beside the speech")
    parser.add_argument("--processes", type=int, default=None, help="speakers at a time (default: all cores)")
    return parser


if __name__ == "__main__":
    sys.exit(run())
