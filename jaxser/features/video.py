"""Video features: frames of a speaker, embedded by a network (Rajan et al. 2022, §3).

Three frames per second, at most 32, pass through a ResNet-101 up to its global average pooling, which gives 2048
numbers per frame. The paper mentions cropped faces, but its features were computed from the central 224 x 224 pixels of
the speaker's half of the frame (README of Yoon et al. 2020). Here the half is scaled down before it is cropped.
Features of cropped faces can be supplied as files.

The network is an ONNX file. Its input is `[N, 3, 224, 224]`, RGB, standardised with the mean and standard deviation of
ImageNet; its output has 2048 numbers per frame. PyAV decodes the videos, and onnxruntime runs the network (extra
`video`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from jaxser.features.containers import FFMPEG_OPTIONS, check_container
from jaxser.features.paths import OUTSIDE, leaves, open_regular
from jaxser.features.sources import file_stamp
from jaxser.types import InputError, UsageError

RATE = 3.0  # frames per second
MAX_FRAMES = 32
WIDTH = 2048
SHORT_SIDE, SIDE = 256, 224  # pixels: of the scaled frame, and of the central crop

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, with pixels in [0, 1]
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Clip:
    """The part of a video that shows an utterance.

    Attributes:
        path: the video, relative to the corpus root.
        start: in seconds.
        end: in seconds.
        half: the half of the frame that shows the speaker: "left", "right", or "" for the whole frame.
    """

    path: str
    start: float = 0.0
    end: float = float("inf")
    half: str = ""


@dataclass(frozen=True)
class VideoNetwork:
    """A source of video features that a network computes from clips.

    See `jaxser.features.sources.Source`.

    Attributes:
        network: the ONNX file.
        sha256: its digest.
        root: the folder that the clips are relative to.
        clips: the clip of each utterance.
        allow_outside_root: whether the clips may be outside the folder.
    """

    network: Path
    sha256: str
    root: Path
    clips: Mapping[str, Clip]
    allow_outside_root: bool = False

    @property
    def width(self) -> int:
        """The number of columns."""
        return WIDTH

    @property
    def described(self) -> Mapping[str, Any]:
        """The entry in the manifest."""
        return {"made": "by a network", "network": self.sha256, "pictures_per_second": RATE, "width": WIDTH}

    def read(self, identity: str) -> Float[np.ndarray, "frames 2048"]:
        """Compute the features of an utterance.

        Raises:
            InputError: if the utterance has no clip, or its video is unusable.
        """
        clip = self.clips.get(identity)
        if clip is None:
            raise InputError("no video")
        if not self.allow_outside_root and leaves(self.root, clip.path):
            raise InputError(f"{clip.path}: {OUTSIDE}")
        try:
            return frame_features(self.network, self.sha256, read_frames(self.root / clip.path, clip))
        except InputError as error:
            raise InputError(str(error).replace(f"{self.root / clip.path}: ", f"{clip.path}: ")) from None

    def stamp(self, identity: str) -> list[Any]:
        """Return JSON values that change whenever the clip of an utterance changes."""
        clip = self.clips.get(identity)
        if clip is None:
            return []
        return [clip.path, clip.start, min(clip.end, 1e9), clip.half, *file_stamp(self.root / clip.path)]

    def only(self, identities: Iterable[str]) -> VideoNetwork:
        """Return the source restricted to some utterances."""
        return replace(self, clips={key: self.clips[key] for key in identities if key in self.clips})


def open_network(
    path: str | Path, root: Path, clips: Mapping[str, Clip], allow_outside_root: bool = False
) -> VideoNetwork:
    """Open a network and run it once.

    Args:
        path: the ONNX file, with its weights.
        root: the corpus root.
        clips: the clip of each utterance, by id.
        allow_outside_root: whether the clips may be outside the root.

    Raises:
        UsageError: if the file is not a suitable network, or if PyAV or onnxruntime is not installed.
    """
    path = Path(path)
    _av()
    try:
        with open_regular(path) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        frame_features(path, sha256, np.zeros((1, SIDE, SIDE, 3), np.uint8))
    except InputError as error:
        raise UsageError(f"--resnet={path}: {error}") from None
    return VideoNetwork(path, sha256, root, clips, allow_outside_root)


def read_frames(path: Path, clip: Clip) -> UInt8[np.ndarray, "frames 224 224 3"]:
    """Decode the first frame of a clip and one every third of a second after it.

    The frames are RGB, and 32 at most.

    Raises:
        InputError: if the file is not a regular one, is incomplete, cannot be decoded in time, or has no frame in the
            clip.
    """
    av = _av()
    count = int(np.clip(np.ceil((clip.end - clip.start) * RATE - 1e-6), 1, MAX_FRAMES))
    wanted = clip.start + np.arange(count) / RATE
    frames: list[np.ndarray] = []
    try:
        with open_regular(path) as file:
            check_container(file)
            file.seek(0)
            with av.open(file, options=FFMPEG_OPTIONS) as container:
                for moment, frame in _decoded(container, clip.start):
                    while len(frames) < count and moment >= wanted[len(frames)]:
                        frames.append(_crop(frame, clip.half))
                    if len(frames) == count:
                        break
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable video ({' '.join(str(error).split())})") from None
    if not frames:
        raise InputError(f"{path}: no frame at {clip.start:.2f} s or later")
    return np.stack(frames)


def frame_features(
    network: Path, sha256: str, images: UInt8[np.ndarray, "frames 224 224 3"]
) -> Float[np.ndarray, "frames 2048"]:
    """Run the network on prepared frames.

    Raises:
        UsageError: if the network is not suitable.
        InputError: if it has another digest, or its features are not finite.
    """
    session, takes_one = _session(network, sha256)
    standardised = (images.astype(np.float32) / 255 - _MEAN) / _DEVIATION
    inputs = standardised.transpose(0, 3, 1, 2)  # [N, 3, 224, 224]
    batches = np.split(inputs, len(inputs)) if takes_one else [inputs]
    name = session.get_inputs()[0].name
    try:
        outputs = [_select_output(network, session.run(None, {name: batch}), len(batch)) for batch in batches]
    except UsageError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no other common base class
        raise UsageError(
            f"--resnet={network}: cannot be run ({' '.join(str(error).split())[:200]})"
        ) from None
    with np.errstate(over="ignore"):
        features = np.concatenate(outputs).astype(np.float32)
    if not np.isfinite(features).all():
        raise InputError("the network's features are NaN or infinite")
    return features


_MAX_PIXELS = 2**26  # of a frame
_MAX_DECODING = 600.0  # s


def _decoded(container: Any, start: float) -> Iterator[tuple[float, Any]]:
    """Yield the frames from the key frame before `start` on, each with the time of its middle in seconds."""
    if not container.streams.video:
        raise ValueError("no video track")
    stream = container.streams.video[0]
    period = 1 / float(stream.average_rate or 25)
    origin = float((stream.start_time or 0) * stream.time_base)
    if start > 0:
        container.seek(int((start + origin) / stream.time_base), stream=stream)
    moment, started = start, time.monotonic()
    for frame in container.decode(stream):
        if frame.width * frame.height > _MAX_PIXELS:
            raise InputError(f"frames of {frame.width} x {frame.height} pixels, more than {_MAX_PIXELS:,}")
        if time.monotonic() - started > _MAX_DECODING:
            raise InputError(f"decoding takes more than {_MAX_DECODING:g} s")
        moment = frame.time - origin if frame.time is not None else moment + period
        yield moment + period / 2, frame


def _crop(frame: Any, half: str) -> UInt8[np.ndarray, "224 224 3"]:
    """Return the central crop of the speaker's half, after scaling its shorter side to 256 pixels."""
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


def _select_output(network: Path, outputs: list[np.ndarray], count: int) -> np.ndarray:
    """Return the output with 2048 numbers per frame, without its dimensions of size one."""
    for output in outputs:
        if output.size == count * WIDTH:
            return output.reshape(count, WIDTH)
    shapes = ", ".join(str(list(output.shape)) for output in outputs)
    raise UsageError(f"--resnet={network}: no output has {WIDTH} numbers per frame (found {shapes})")


@lru_cache(maxsize=2)
def _session(network: Path, sha256: str) -> tuple[Any, bool]:
    """Return the network of this digest, and whether it accepts only one frame at a time."""
    try:
        import onnxruntime
    except ImportError:
        raise UsageError('--resnet needs onnxruntime: pip install "jaxser[video]"') from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # preparation already uses one process per core
    options.log_severity_level = 4
    usable = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in usable if name in onnxruntime.get_available_providers()]
    with open_regular(network) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{network} has changed since it was opened")
    try:  # from memory, since weights in another file are not covered by the digest
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no other common base class
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
