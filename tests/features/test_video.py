"""Video features: which frames are read, the input of the network, and the half of the speaker."""

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers.corpora import IDS, make_demo, write_iemocap
from helpers.small_corpus import write_talks
from jaxser.data import dataset
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep.corpora import iemocap
from jaxser.data_prep.demo import corpus
from jaxser.data_prep.demo import video as demo_video
from jaxser.data_prep.demo.truth import CLASSES
from jaxser.features import video
from jaxser.features.video import Clip, frame_features, open_network, read_frames
from jaxser.types import InputError, UsageError

RATE = 12  # frames per second of the clips
LEFT, RIGHT = 60, 200


def write_clip(path: Path, seconds: float, *, size: tuple[int, int] = (96, 64), flat: bool = False) -> Path:
    """Write a clip whose grey level rises from 20 to 220 or, if flat, is constant in each half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size, stream.bit_rate = 10, 4_000_000
        for number in range(round(seconds * RATE)):
            image = np.full((size[1], size[0], 3), 20 + 200 * number / RATE / seconds, np.uint8)
            if flat:
                image[:, : size[0] // 2], image[:, size[0] // 2 :] = LEFT, RIGHT
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def levels(images: np.ndarray) -> np.ndarray:
    return images.astype(float).mean(axis=(1, 2, 3))


def write_network(path: Path, width: int = 2048, batch: int | str = "n", scale: float = 1.0) -> Path:
    """Write a network whose outputs are the scaled means of the channels: r, g, b, r, g, b, ..."""
    weights = np.zeros((3, width), np.float32)
    weights[np.arange(width) % 3, np.arange(width)] = scale
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["features"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 224, 224])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "grey.mp4", 4.0)
    write_clip(folder / "grey.avi", 4.0)
    write_clip(folder / "halves.avi", 1.0, flat=True)
    write_clip(folder / "long.mp4", 12.0, size=(32, 32))
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    return write_network(tmp_path_factory.mktemp("network") / "small.onnx")


@pytest.mark.parametrize("name", ["grey.mp4", "grey.avi"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 4.0), (0.0, 0.9), (1.3, 2.2), (2.75, 3.95), (1.0, 1.01)])
def test_three_frames_per_second_from_the_start_of_the_clip(clips, name, start, end):
    found = read_frames(clips / name, Clip(name, start, end))
    assert found.shape == (int(np.ceil((end - start) * 3)), 224, 224, 3)
    times = start + np.arange(len(found)) / 3
    nearest = np.rint(times * RATE) / RATE
    np.testing.assert_allclose(levels(found), 20 + 50 * nearest, atol=2)


def test_a_clip_without_an_end_is_the_whole_video(clips):
    assert len(read_frames(clips / "grey.mp4", Clip("grey.mp4"))) == 12


def test_at_most_32_frames(clips):
    found = read_frames(clips / "long.mp4", Clip("long.mp4"))
    assert len(found) == 32
    assert levels(found)[-1] == pytest.approx(20 + 200 / 12 * 31 / 3, abs=1)


@pytest.mark.parametrize(("half", "level"), [("left", LEFT), ("right", RIGHT)])
def test_halves(clips, half, level):
    found = read_frames(clips / "halves.avi", Clip("halves.avi", half=half))
    np.testing.assert_allclose(levels(found), level, atol=3)
    whole = read_frames(clips / "halves.avi", Clip("halves.avi"))
    assert levels(whole)[0] == pytest.approx((LEFT + RIGHT) / 2, abs=3)


@pytest.mark.parametrize("batch", ["n", 1])
def test_network_input_is_standardised(tmp_path, batch):
    path = write_network(tmp_path / "x.onnx", batch=batch)
    images = np.zeros((3, 224, 224, 3), np.uint8)
    images[1, ..., 0], images[2] = 255, 128
    found = frame_features(path, hashlib.sha256(path.read_bytes()).hexdigest(), images)
    assert found.shape == (3, 2048)
    assert found.dtype == np.float32
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for row, colour in zip(found, ([0, 0, 0], [1, 0, 0], [128 / 255] * 3), strict=True):
        np.testing.assert_allclose(row[:3], (np.array(colour) - mean) / deviation, atol=1e-3)
        np.testing.assert_allclose(row[3:6], row[:3], atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"no network", "not an ONNX network"),
        (1000, r"no output has 2048 numbers per frame \(found \[1, 1000\]\)"),
    ],
)
def test_unsuitable_networks_are_rejected_before_preparation(tmp_path, content, message):
    path = tmp_path / "net.onnx"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        write_network(path, width=content)
    with pytest.raises(UsageError, match=message) as caught:
        open_network(path, tmp_path, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("module", "extra"), [("av", "video"), ("onnxruntime", "video")])
def test_missing_libraries_give_one_line_that_names_the_extra(tmp_path, network, monkeypatch, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    video._session.cache_clear()
    with pytest.raises(UsageError, match=rf'pip install "jaxser\[{extra}\]"'):
        open_network(network, tmp_path, {})


def test_unusable_videos_are_rejected_with_a_reason(clips, network, tmp_path):
    (tmp_path / "text.mp4").write_text("words")
    (tmp_path / "cut.mp4").write_bytes((clips / "grey.mp4").read_bytes()[:2_000])
    source = open_network(
        network,
        tmp_path,
        {
            "a": Clip("none.mp4"),
            "b": Clip("text.mp4"),
            "c": Clip("cut.mp4"),
            "d": Clip("late.mp4", 99.0, 100.0),
        },
    )
    write_clip(tmp_path / "late.mp4", 1.0)
    for identity, reason in {
        "a": "none.mp4: cannot be read (No such file",
        "b": "text.mp4: not a readable video",
        "c": "cut.mp4: truncated",
        "d": "late.mp4: no frame at 99.00 s or later",
        "e": "no video",
    }.items():
        with pytest.raises(InputError) as caught:
            source.read(identity)
        assert str(caught.value).startswith(reason)
        assert "\n" not in str(caught.value)


def test_a_network_that_replaces_another_one_is_noticed(tmp_path, clips):
    """Sessions are kept by digest: a file of the same name is another network."""
    path = write_network(tmp_path / "x.onnx")
    source = open_network(path, clips, {"a": Clip("grey.mp4")})
    before = source.read("a")
    write_network(path, scale=2.0)
    again = open_network(path, clips, {"a": Clip("grey.mp4")})
    np.testing.assert_allclose(again.read("a"), 2 * before, rtol=1e-5)
    video._session.cache_clear()
    with pytest.raises(InputError, match=r"x\.onnx has changed since it was opened"):
        source.read("a")


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_features_that_are_not_finite_are_rejected(tmp_path, clips, scale):
    path = write_network(tmp_path / "x.onnx", scale=scale)
    with pytest.raises(UsageError, match="features are NaN or infinite"):
        open_network(path, clips, {})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="features are NaN or infinite"):
        video.VideoNetwork(path, digest, clips, {"a": Clip("grey.mp4")}).read("a")


def test_weights_in_a_second_file_are_refused(tmp_path, network):
    """Such weights are not covered by the digest, and could be anywhere."""
    model = onnx.load(network)
    onnx.save_model(
        model, tmp_path / "x.onnx", save_as_external_data=True, location="weights", size_threshold=0
    )
    with pytest.raises(UsageError, match="not an ONNX network"):
        open_network(tmp_path / "x.onnx", tmp_path, {})


def test_clips_do_not_leave_the_root_and_are_regular_files(tmp_path, clips, network):
    (tmp_path / "root").mkdir()
    write_clip(tmp_path / "grey.mp4", 1.0)
    (tmp_path / "root" / "link.mp4").symlink_to(tmp_path / "grey.mp4")
    os.mkfifo(tmp_path / "root" / "fifo.mp4")
    wanted = {
        name: Clip(name) for name in ("../grey.mp4", "link.mp4", str(tmp_path / "grey.mp4"), "fifo.mp4")
    }
    source = open_network(network, tmp_path / "root", wanted)
    for name in wanted:
        with pytest.raises(InputError, match=r"outside the folder|not a regular file"):
            source.read(name)
    assert len(replace(source, allow_outside_root=True).read("link.mp4")) == 3


def test_names_are_not_addresses(tmp_path, monkeypatch):
    """FFmpeg would connect to `tcp:`, and open the files of a playlist."""
    monkeypatch.chdir(tmp_path)
    name = "tcp:127.0.0.1:9"
    write_clip(tmp_path / "grey.mp4", 1.0).rename(tmp_path / name)
    assert len(read_frames(Path(name), Clip(name))) == 3
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path / name}'\n")
    with pytest.raises(InputError, match=r"list\.mp4: not a readable video"):
        read_frames(tmp_path / "list.mp4", Clip("list.mp4"))


@pytest.mark.parametrize("kind", ["avi", "mkv"])
def test_videos_that_are_cut_are_rejected(tmp_path, kind):
    whole = write_clip(tmp_path / f"a.{kind}", 4.0)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=r"truncated: \d+ of \d+ bytes are present"):
        read_frames(whole, Clip(whole.name, 0.0, 0.5))


def test_frames_have_a_limit_of_pixels_and_of_time(clips, monkeypatch):
    monkeypatch.setattr(video, "_MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(InputError, match=r"frames of 96 x 64 pixels"):
        read_frames(clips / "grey.mp4", Clip("grey.mp4"))
    monkeypatch.undo()
    monkeypatch.setattr(video, "_MAX_DECODING", 0.0)
    with pytest.raises(InputError, match=r"decoding takes more than 0 s"):
        read_frames(clips / "grey.mp4", Clip("grey.mp4"))


def release(root: Path, *, dialogue: str = "Ses01F_impro01") -> Path:
    write_iemocap(root)
    write_clip(root / f"Session1/dialog/avi/DivX/{dialogue}.avi", 12.0, flat=True)
    return root


def test_iemocap_clips_have_the_time_and_half_of_their_utterance(tmp_path):
    root = release(tmp_path)
    reading = iemocap.read(root)
    found = iemocap.clips(root, reading.utterances)
    path = "Session1/dialog/avi/DivX/Ses01F_impro01.avi"
    assert found == {  # the F in Ses01F wears the markers and sits on the left
        IDS[0]: Clip(path, 6.2901, 8.2357, "left"),
        IDS[1]: Clip(path, 8.5, 9.9, "right"),
        IDS[2]: Clip(path, 10.0, 11.5, "right"),
    }
    (root / path).unlink()
    assert iemocap.clips(root, reading.utterances) == {}


def test_iemocap_under_self_cross_with_a_network(tmp_path, network):
    root = release(tmp_path / "release")
    folder = preparation.prepare(
        "iemocap", root, "self_cross", tmp_path, resnet=network, workers=1, quiet=True
    )
    data = dataset.load_prepared(tmp_path / "iemocap", "self_cross")
    assert data.arrays["video"].length.tolist() == [6, 5, 5]
    red = (np.array([LEFT, RIGHT, RIGHT]) / 255 - 0.485) / 0.229
    found = [data.arrays["video"][row][:, 0].mean() for row in range(3)]
    np.testing.assert_allclose(found, red, atol=0.05)
    described = data.manifest["parameters"]["sources"]["video"]
    assert described["pictures_per_second"] == 3.0
    assert len(described["network"]) == 64
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord-*")}
    preparation.prepare("iemocap", root, "self_cross", tmp_path, resnet=network, workers=1, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord-*")} == before


def test_utterances_without_video_are_rejected(tmp_path, network, monkeypatch):
    reading = write_talks(tmp_path / "release", ["ang"] * 4)
    write_clip(tmp_path / "release" / "seen.mp4", 2.0)
    seen = {utterance.id: Clip("seen.mp4") for utterance in reading.utterances[1:]}
    module = SimpleNamespace(read=lambda root: reading, clips=lambda root, utterances: seen)
    monkeypatch.setitem(sys.modules, "corpus_of_this_test", module)
    monkeypatch.setitem(preparation.READERS, "chatter", "corpus_of_this_test")
    folder = preparation.prepare(
        "chatter",
        tmp_path / "release",
        "self_cross",
        tmp_path,
        resnet=network,
        workers=1,
        max_rejected=0.3,
        quiet=True,
    )
    [line] = (folder / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line) == {"id": "talk_0000", "where": "0000.wav", "reason": "no video"}
    assert dataset.load_prepared(tmp_path / "chatter").arrays["video"].length.tolist() == [6, 6, 6]


@pytest.fixture(scope="module")
def demo_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "demo_release"
    return make_demo(root, utterances=40, seed=3)


def test_demo_has_video_features_that_are_marked_as_synthetic(demo_root):
    out = demo_root.parent
    assert corpus.video(demo_root, make=False) is None
    preparation.prepare("demo", recipe="self_cross", out=out, workers=1, quiet=True)
    data = dataset.load_prepared(out / "demo", "self_cross")
    assert list(data.arrays) == ["audio", "words", "video"]
    lengths = np.clip(np.ceil((data.arrays["audio"].length - 1) * 0.03), 1, 32)
    assert np.abs(data.arrays["video"].length - lengths).max() <= 1
    assert data.arrays["video"].values.min() == 0
    assert json.loads((demo_root / "video" / "SYNTHETIC.json").read_text())["synthetic"] is True
    preparation.prepare("demo", demo_root, "self_cross", out, name="again", workers=1, quiet=True)
    assert "video" in dataset.load_prepared(out / "again", "self_cross").arrays


def test_demo_video_shows_the_emotion_of_half_of_the_utterances():
    """The other half shows one of the seven at random, so that 1/2 + 1/14 show their emotion."""
    patterns = np.random.default_rng([3, demo_video._STREAM]).standard_normal((7, 2048))
    drawn = [demo_video._rows("sad", 1.0, 3, index).mean(axis=0) for index in range(400)]
    shown = [int((patterns @ (rows - np.mean(drawn))).argmax()) for rows in drawn]
    assert np.mean(np.array(shown) == CLASSES.index("sad")) == pytest.approx(4 / 7, abs=0.06)
    assert len(set(shown)) == 7


def test_demo_video_is_the_same_for_the_same_seed(demo_root, tmp_path):
    first = corpus.video(demo_root, make=True)
    root = make_demo(tmp_path / "release", utterances=40, seed=3)
    second = corpus.video(root, make=True)
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    for name in names:
        if name.endswith(".npy"):
            one, two = np.load(first / name), np.load(second / name)
            rows = min(len(one), len(two))  # durations are espeak's
            np.testing.assert_array_equal(one[:rows], two[:rows])
