"""Sources of arrays not computed from sound or text: precomputed files, and videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jaxser.features.audio import split_span
from jaxser.features.paths import OUTSIDE, leaves
from jaxser.features.recipes import Recipe
from jaxser.features.sources import FILES, Source, open_arrays
from jaxser.features.video import Clip, open_network
from jaxser.types import Reading, Rejection, UsageError, Utterance

from .readers import CorpusReader

_VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm")


def open_sources(
    recipe: Recipe,
    reader: CorpusReader,
    root: Path,
    utterances: Sequence[Utterance],
    files: Mapping[str, str | Path],
    resnet: str | Path | None = None,
    allow_outside_root: bool = False,
) -> dict[str, Source]:
    """Open the sources of a recipe's precomputed arrays.

    Args:
        recipe: the recipe.
        reader: the module of the corpus.
        root: the folder of the corpus.
        utterances: the utterances that the sources must cover.
        files: folders or HDF5 files by flag (`frames`, `video`, `prosody`).
        resnet: an ONNX network that computes `video` from the corpus's own videos.
        allow_outside_root: whether ids, paths and links may lead out of the folders.

    Returns:
        The sources by the name of their array.

    Raises:
        UsageError: if the recipe does not use an array, or if the corpus has no videos for `resnet`.
    """
    wanted = {**{flag: FILES[flag] for flag in files}, **({"resnet": "video"} if resnet else {})}
    for flag, array in wanted.items():
        if array not in recipe.precomputed:
            raise UsageError(f"--{flag}: recipe {recipe.name} has no precomputed array {array}")
    if resnet and "video" in files:
        raise UsageError("--video and --resnet: give either video features or a network that computes them")
    identities = [utterance.id for utterance in utterances]
    sources: dict[str, Source] = {
        FILES[flag]: open_arrays(path, identities, flag, recipe.precomputed[FILES[flag]], allow_outside_root)
        for flag, path in files.items()
    }
    if resnet:
        clips = _clips(reader, root, utterances)
        if not clips:
            raise UsageError(f"--resnet: {root} has no videos of the utterances")
        sources["video"] = open_network(resnet, root, clips, allow_outside_root)
    return sources


def _clips(reader: CorpusReader, root: Path, utterances: Sequence[Utterance]) -> Mapping[str, Clip]:
    """Return the videos of the utterances: those that the reader lists, or the files that contain the sound."""
    if hasattr(reader, "clips"):
        return reader.clips(root, utterances)
    clips = {}
    for utterance in utterances:
        file, span = split_span(utterance.wav)
        if file.suffix.lower() in _VIDEOS:
            clips[utterance.id] = Clip(file.as_posix(), *(span or ()))
    return clips


def within_root(reading: Reading, root: Path) -> Reading:
    """Reject utterances whose recording is not below the root, by its path or by links."""
    outside = [leaves(root, split_span(one.wav)[0]) for one in reading.utterances]
    pairs = list(zip(reading.utterances, outside, strict=True))
    rejected = (Rejection(one.id, one.wav, OUTSIDE) for one, is_outside in pairs if is_outside)
    return replace(
        reading,
        utterances=tuple(one for one, is_outside in pairs if not is_outside),
        rejected=(*reading.rejected, *rejected),
    )
