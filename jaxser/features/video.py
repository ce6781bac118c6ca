"""Pictures of a speaker as numbers: Rajan et al. 2022, §3.

Three pictures a second, at most 32, each through a ResNet-101 up to its global average: 2048 numbers. The paper
speaks of cropped faces; the features that it was given are of the middle 224 x 224 of the speaker's half (README of
Yoon et al. 2020), which is scaled down first here. Face detectors come with models of their own: features of cropped
faces can be given as files.

The network is an ONNX file: input `[N, 3, 224, 224]`, RGB, standardised by ImageNet's mean and deviation; output
2048 numbers a picture. PyAV reads mp4 and avi, onnxruntime runs the network (extra `video`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from jaxser.features.sources import file_stamp
from jaxser.types import InputError, UsageError

RATE = 3.0  # pictures a second
MAX_PICTURES = 32
WIDTH = 2048
SHORT_SIDE, SIDE = 256, 224  # pixels: scaled so, and then the middle

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet's pictures, in [0, 1]
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Clip:
    """Where an utterance is seen."""

    path: str  # relative to the corpus root
    start: float = 0.0  # s
    end: float = float("inf")  # s
    half: str = ""  # of the picture: "left", "right" or "" for all of it


@dataclass(frozen=True)
class VideoNetwork:
    """Video features made from the clips of a corpus by a network."""

    network: Path
    sha256: str
    root: Path
    clips: Mapping[str, Clip]

    @property
    def width(self) -> int:
        return WIDTH

    @property
    def described(self) -> Mapping[str, Any]:
        return {"made": "by a network", "network": self.sha256, "pictures_per_second": RATE, "width": WIDTH}

    def read(self, identity: str) -> Float[np.ndarray, "pictures 2048"]:
        clip = self.clips.get(identity)
        if clip is None:
            raise InputError("no video of it")
        try:
            return features(self.network, pictures(self.root / clip.path, clip))
        except InputError as error:
            raise InputError(str(error).replace(f"{self.root / clip.path}: ", f"{clip.path}: ")) from None

    def stamp(self, identity: str) -> list[Any]:
        clip = self.clips.get(identity)
        if clip is None:
            return []
        return [clip.path, clip.start, min(clip.end, 1e9), clip.half, *file_stamp(self.root / clip.path)]

    def only(self, identities: Iterable[str]) -> VideoNetwork:
        return replace(self, clips={key: self.clips[key] for key in identities if key in self.clips})


def open_network(path: str | Path, root: Path, clips: Mapping[str, Clip]) -> VideoNetwork:
    """A network that was tried on a picture; raises `UsageError` for what is none, or lacks its libraries."""
    path = Path(path)
    _av()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--resnet={path}: cannot be read ({error.strerror})") from None
    features(path, np.zeros((1, SIDE, SIDE, 3), np.uint8))
    return VideoNetwork(path, hashlib.sha256(content).hexdigest(), root, clips)


def pictures(path: Path, clip: Clip) -> UInt8[np.ndarray, "pictures 224 224 3"]:
    """What is seen at the clip's start and every third of a second after it, at most 32 times, in RGB."""
    av = _av()
    count = int(np.clip(np.ceil((clip.end - clip.start) * RATE - 1e-6), 1, MAX_PICTURES))
    wanted = clip.start + np.arange(count) / RATE
    found: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            for moment, frame in _frames(container, clip.start):
                while len(found) < count and moment >= wanted[len(found)]:
                    found.append(_prepared(frame, clip.half))
                if len(found) == count:
                    break
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a video that can be read ({' '.join(str(error).split())})") from None
    if not found:
        raise InputError(f"{path}: no picture at {clip.start:.2f} s or later")
    return np.stack(found)


def features(
    network: Path, images: UInt8[np.ndarray, "pictures 224 224 3"]
) -> Float[np.ndarray, "pictures 2048"]:
    """The network's 2048 numbers of each picture."""
    session, one_by_one = _session(network)
    inputs = ((images.astype(np.float32) / 255 - _MEAN) / _DEVIATION).transpose(
        0, 3, 1, 2
    )  # [N, 3, 224, 224]
    batches = np.split(inputs, len(inputs)) if one_by_one else [inputs]
    name = session.get_inputs()[0].name
    try:
        found = [_of_width(network, session.run(None, {name: batch}), len(batch)) for batch in batches]
    except UsageError:
        raise
    except Exception as error:  # onnxruntime's own share no other base
        raise UsageError(f"--resnet={network}: does not run ({' '.join(str(error).split())[:200]})") from None
    return np.concatenate(found).astype(np.float32)


def _frames(container: Any, start: float) -> Iterator[tuple[float, Any]]:
    """The pictures from the key frame before `start` on, and the time half a picture after each began, in s."""
    if not container.streams.video:
        raise ValueError("it has no pictures")
    stream = container.streams.video[0]
    period = 1 / float(stream.average_rate or 25)
    origin = float((stream.start_time or 0) * stream.time_base)
    if start > 0:
        container.seek(int((start + origin) / stream.time_base), stream=stream)
    moment = start
    for frame in container.decode(stream):
        moment = frame.time - origin if frame.time is not None else moment + period
        yield moment + period / 2, frame


def _prepared(frame: Any, half: str) -> UInt8[np.ndarray, "224 224 3"]:
    """The half, scaled so that its short side is 256 pixels, and of that the middle."""
    image = frame.to_ndarray(format="rgb24")
    middle = image.shape[1] // 2
    image = {"left": image[:, :middle], "right": image[:, middle:], "": image}[half]
    height, width = image.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    scaled = type(frame).from_ndarray(np.ascontiguousarray(image), format="rgb24")
    scaled = scaled.reformat(width=max(SIDE, round(width * scale)), height=max(SIDE, round(height * scale)))
    image = scaled.to_ndarray(format="rgb24")
    top, left = (image.shape[0] - SIDE) // 2, (image.shape[1] - SIDE) // 2
    return image[top : top + SIDE, left : left + SIDE]


def _of_width(network: Path, outputs: list[np.ndarray], count: int) -> np.ndarray:
    """The output that has 2048 numbers a picture, whatever its other dimensions of one."""
    for output in outputs:
        if output.size == count * WIDTH:
            return output.reshape(count, WIDTH)
    shapes = ", ".join(str(list(output.shape)) for output in outputs)
    raise UsageError(f"--resnet={network}: no output has {WIDTH} numbers a picture (found {shapes})")


@lru_cache
def _session(network: Path) -> tuple[Any, bool]:
    """The network, ready to run, and whether it takes one picture at a time only."""
    try:
        import onnxruntime
    except ImportError:
        raise UsageError('--resnet needs onnxruntime: pip install "jaxser[video]"') from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # preparation has a process a core already
    options.log_severity_level = 4
    usable = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in usable if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(str(network), options, providers=providers)
    except Exception as error:  # onnxruntime's own share no other base
        raise UsageError(
            f"--resnet={network}: not an ONNX network ({' '.join(str(error).split())[:200]})"
        ) from None
    return session, session.get_inputs()[0].shape[0] == 1


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise UsageError('video needs PyAV: pip install "jaxser[video]"') from None
    return av
