"""Arrays that are made elsewhere or from a corpus's videos: which a command asks for, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from jaxser.features.audio import split_span
from jaxser.features.recipes import Recipe
from jaxser.features.sources import FILES, Source, open_arrays
from jaxser.features.video import Clip, open_network
from jaxser.types import UsageError, Utterance

_VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm")


def open_sources(
    recipe: Recipe,
    corpus: ModuleType,
    root: Path,
    utterances: Sequence[Utterance],
    files: dict[str, str | Path],
    resnet: str | Path | None = None,
) -> dict[str, Source]:
    """The sources of a recipe's arrays, by the arrays' names.

    `files` are paths by flag (`frames`, `video`, `prosody`), `resnet` an ONNX file that makes `video` of the
    corpus's own videos. Raises `UsageError` for flags that the recipe has no use for.
    """
    wanted = {**{flag: FILES[flag] for flag in files}, **({"resnet": "video"} if resnet else {})}
    for flag, array in wanted.items():
        if array not in recipe.elsewhere:
            raise UsageError(f"--{flag}: recipe {recipe.name} has no {array} that is made elsewhere")
    if resnet and "video" in files:
        raise UsageError(
            "--video and --resnet: choose one, features that are there or a network that makes them"
        )
    identities = [utterance.id for utterance in utterances]
    sources: dict[str, Source] = {
        FILES[flag]: open_arrays(path, identities, flag) for flag, path in files.items()
    }
    if resnet:
        clips = _clips(corpus, root, utterances)
        if not clips:
            raise UsageError(f"--resnet: {root} has no videos of its utterances")
        sources["video"] = open_network(resnet, root, clips)
    return sources


def _clips(corpus: ModuleType, root: Path, utterances: Sequence[Utterance]) -> dict[str, Clip]:
    """Where the utterances are seen: as the corpus's module says, or in the very files where they are heard."""
    if hasattr(corpus, "clips"):
        return corpus.clips(root, utterances)
    clips = {}
    for utterance in utterances:
        file, span = split_span(utterance.wav)
        if file.suffix.lower() in _VIDEOS:
            clips[utterance.id] = Clip(file.as_posix(), *(span or ()))
    return clips
