"""The demo corpus: synthetic speech with planted cues, laid out as IEMOCAP's release.

    python -m jaxser.data_prep.demo --out=demo_release --utterances=1000 --seed=0 --mix=tutorial

IEMOCAP requires a licence; the demo corpus requires only espeak-ng (from the wheel `espeakng-loader`). An emotion is a
probability distribution over words and voices, so the best possible accuracies are known exactly (`bayes.json`), and
the ground truth of every utterance is recorded (`truth.jsonl`). The corpus says nothing about how people express
emotions.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxser import cli
from jaxser.cli import run_command
from jaxser.types import InputError, Reading, UsageError

from ..corpora import iemocap
from .plan import BURSTS, Settings, plan_turns, truth_of
from .release import Spoken, choose_unaligned, wav_path, write_dialogue
from .synthesis import speak_all
from .truth import CLASSES, MIXES, Truth
from .video import FOLDER, MARKER, write_video

FORMAT = 3  # increase it when the same settings give different bytes


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
    """Make a demo corpus in the folder `root`, atomically.

    The other arguments are explained in `Settings`.

    Args:
        root: the folder to make.
        processes: the number of speakers that are synthesised at the same time; by default one per core.
        progress: show a progress bar.

    Returns:
        False if `root` already holds this corpus, else True.

    Raises:
        UsageError: if a setting is out of range, or `root` holds something else.
        InputError: if the corpus cannot be synthesised or written.
    """
    settings = Settings(utterances, seed, mix, burst, leak, gender_gap, speaker_prior, duplicates)
    if processes is not None and processes < 1:
        raise UsageError(f"--processes={processes}: must be 1 or more")
    root = Path(root).absolute()
    temporary = root.parent / f".{root.name}.unfinished-{os.getpid()}"
    try:
        if _is_made(root, settings):
            return False
        _clear_unfinished(root)
        temporary.mkdir(parents=True)
        _write(temporary, settings, processes or os.cpu_count() or 1, progress)
        if _is_made(root, settings):  # by another process in the meantime
            return False
        os.replace(temporary, root)
    except (OSError, RuntimeError, ImportError) as error:
        raise InputError(f"{root}: the demo corpus cannot be made: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def read(root: Path) -> Reading:
    """Read a demo corpus with the IEMOCAP reader.

    The facts contain the settings, `synthetic`, and under `bayes` the best possible accuracies.

    Raises:
        InputError: if `root` is not a demo corpus.
    """
    root = Path(root)
    facts = _read_json(root / "demo.json")
    facts["bayes"] = _read_json(root / "bayes.json")
    return replace(iemocap.read(root), expected={}, facts={"synthetic": True, **facts})


def video(root: Path, *, make: bool) -> Path | None:
    """Return the folder of synthetic video features; if it is missing, make it or return None."""
    if not make and not (root / FOLDER / MARKER).is_file():
        return None
    try:
        return write_video(root)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{root}: cannot make video features for the demo corpus: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: unreadable ({error}), so this is not a complete demo corpus; "
            f"make one with `python -m jaxser.data_prep.demo --out=FOLDER`"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a JSON object; make the demo corpus again")
    return content


def _is_made(root: Path, settings: Settings) -> bool:
    """Return whether `root` holds this corpus; raise `UsageError` if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / "demo.json").is_file():
        raise UsageError(f"{root}: exists and is not a demo corpus; choose another --out")
    found = _read_json(root / "demo.json")
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
    """Remove the temporary folders next to `root` whose process no longer exists."""
    for folder in root.parent.glob(f".{glob.escape(root.name)}.unfinished-*"):
        process = folder.name.rpartition("-")[2]
        try:
            os.kill(int(process), 0)
        except (ProcessLookupError, ValueError, OverflowError):
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue


def _write(root: Path, settings: Settings, processes: int, progress: bool) -> None:
    turns = plan_turns(settings)
    for turn in turns:
        (root / wav_path(turn)).parent.mkdir(parents=True, exist_ok=True)
    display = Progress(
        TextColumn("synthesising the demo corpus"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    with display:
        task = display.add_task("", total=len(turns))
        spoken = speak_all(root, turns, settings, processes, lambda: display.advance(task))
    dialogues: dict[str, list[Spoken]] = {}
    for turn in turns:
        dialogues.setdefault(turn.dialogue, []).append(spoken[turn.id])
    unaligned = choose_unaligned(turns)
    for members in dialogues.values():
        write_dialogue(root, members, settings, skip_alignment=unaligned)
    _write_truth(root, [spoken[turn.id] for turn in turns], truth_of(turns, settings), settings)


def _write_truth(root: Path, spoken: list[Spoken], truth: Truth, settings: Settings) -> None:
    posteriors: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    with open(root / "truth.jsonl", "w", encoding="utf-8") as file:
        for utterance in spoken:
            turn = utterance.turn
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
                "words": [_timed(utterance, index) for index in range(len(utterance.words))],
                "cues": [_timed(utterance, index) for index in utterance.cues],
                "styled": [_timed(utterance, index) for index in utterance.styled],
                "posterior": posteriors[key],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    _write_json(root / "bayes.json", {"classes": list(CLASSES), **truth.best()})
    _write_json(root / "demo.json", {"synthetic": True, **_description(settings)})


def _timed(utterance: Spoken, index: int) -> dict[str, Any]:
    start, end = utterance.times[index]
    return {
        "place": index,
        "word": utterance.words[index],
        "start": round(start, 4),
        "end": round(end, 4),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = vars(_parser().parse_args(arguments))
    root, with_video = Path(options.pop("out")), options.pop("video")
    stopped = "interrupted; unfinished files were removed"
    return run_command("demo", lambda: _make(root, with_video, options), output=root, stopped=stopped)


def _make(root: Path, with_video: bool, options: dict[str, Any]) -> int:
    made = make(root, **options)
    if with_video:
        video(root, make=True)
    best = _read_json(root / "bayes.json")["joint"]
    print(
        f"{root}: {options['utterances']} synthetic utterances, mix {options['mix']}, seed {options['seed']}"
        f"{'' if made else ' (already made; nothing to do)'}; "
        f"best possible WA {best['wa']:.1%}, UA {best['ua']:.1%}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = {field.name: field.default for field in fields(Settings)}
    parser = cli.parser("demo", "python -m jaxser.data_prep.demo", __doc__)
    parser.add_argument("--out", required=True, help="the folder to make")
    parser.add_argument("--utterances", type=int, default=defaults["utterances"])
    parser.add_argument("--seed", type=int, default=defaults["seed"])
    parser.add_argument(
        "--mix", default=defaults["mix"], help=f"{', '.join(MIXES)}, or shares such as R=.5,B=.3,N=.2"
    )
    parser.add_argument(
        "--burst",
        choices=BURSTS,
        default=defaults["burst"],
        help="number of words that carry a redundant voice cue",
    )
    parser.add_argument("--leak", action="store_true", help="add sentences that reveal the label")
    parser.add_argument("--gender_gap", action="store_true", help="remove half of the male speakers' cues")
    parser.add_argument("--speaker_prior", action="store_true", help="give each speaker preferred emotions")
    parser.add_argument("--duplicates", action="store_true", help="add byte-identical copies across sessions")
    parser.add_argument("--video", action="store_true", help="add synthetic video features")
    parser.add_argument(
        "--processes", type=int, default=None, help="speakers at the same time (default: all cores)"
    )
    return parser
