"""Plots of an utterance: their contents, and errors of usage."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from helpers.small_corpus import EXTRACTED_RECIPES, RATE, noise, write_talks
from jaxser.data_prep import prepare as preparation
from jaxser.data_prep import show
from jaxser.features.audio import num_frames

RECIPES = (*EXTRACTED_RECIPES, "frames")


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """`<out>/talks` prepared with every recipe; utterance 1 lasts 8.2 s."""
    out = tmp_path_factory.mktemp("data")
    reading = write_talks(out / "release", ["ang", "neu"])
    soundfile.write(out / "release" / "0001.wav", noise(8.2), RATE)
    files = {name: out / name for name in ("frames", "video", "prosody")}
    for name, shape in {"frames": (9, 16), "video": (5, 2048), "prosody": (35,)}.items():
        files[name].mkdir()
        for utterance in reading.utterances:
            np.save(files[name] / f"{utterance.id}.npy", np.random.default_rng(0).standard_normal(shape))
    precomputed = {"frames": ("frames",), "self_cross": ("video", "prosody")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "corpus_of_this_test", SimpleNamespace(read=lambda root: reading))
        patch.setitem(preparation.READERS, "chatter", "corpus_of_this_test")
        for recipe in RECIPES:
            own = {name: files[name] for name in precomputed.get(recipe, ())}
            preparation.prepare(
                "chatter", out / "release", recipe, out, name="talks", files=own, workers=1, quiet=True
            )
    return out


def shown(out: Path, recipe: str, identity: str = "talk_0000") -> show.Shown:
    return show._read(out / "talks" / recipe / "1.0.0", out / "release", identity)


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_dimensional_arrays_are_images_below_the_waveform(out, recipe):
    one = shown(out, recipe)
    sound, *panels = [axes for axes in show.draw(one).axes if axes.get_label() != "<colorbar>"]
    arrays = {name: rows for name, rows in one.arrays.items() if rows.ndim == 2}
    assert arrays
    assert len(panels) == len(arrays)
    for panel, rows in zip(panels, arrays.values(), strict=True):
        assert panel.images[0].get_array().shape == rows.T.shape
    assert {text.get_text() for text in sound.texts} == {"don't", "talk", "please"}
    assert sound.get_xlim() == pytest.approx((0, 0.3))
    np.testing.assert_array_equal(sound.lines[0].get_ydata(), one.samples)


def test_time_axes(out):
    figure = show.draw(shown(out, "mcsan"))
    left, right, *_ = figure.axes[1].images[0].get_extent()
    assert (right - left) / num_frames(4_800) == pytest.approx(0.01)
    assert left == pytest.approx(-0.005)  # the first frame is centred at the first sample
    sound, _, cut = (axes for axes in show.draw(shown(out, "cat", "talk_0001")).axes[:3])
    assert sound.get_xlim() == cut.get_xlim() == pytest.approx((0, 8.2))
    assert cut.images[0].get_extent()[1] == pytest.approx(7.495)


def test_title_and_word_borders(out):
    figure = show.draw(shown(out, "can"))
    title = figure.get_suptitle()
    assert "talk_0000   ang   recipe can 1.0.0   flags: no_alignment" in title
    assert "Don't talk, please!" in title
    sound, segments = figure.axes[:2]
    begins = [line.get_xdata()[0] for line in sound.lines[1::2]]
    assert begins == sorted(begins)
    assert len(begins) == 3
    assert [text.get_text() for text in segments.texts] == ["don't", "talk", "please"]
    lengths = shown(out, "can").arrays["segment_lengths"]
    assert [line.get_xdata()[0] for line in segments.lines] == np.cumsum(lengths)[:-1].tolist()


def run(*arguments: object) -> int:
    try:
        return show.main([str(argument) for argument in arguments])
    except SystemExit as wrong_flag:
        return wrong_flag.code


def test_command_writes_a_figure(out, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    data, root = out / "talks" / "can" / "1.0.0", out / "release"
    assert run(f"--data={data}", f"--root={root}", f"--out={picture}", "--id=talk_0001") == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() == str(picture)


def test_wrong_usage_is_one_line(out, tmp_path, capsys):
    data, root = f"--data={out / 'talks' / 'can' / '1.0.0'}", f"--root={out / 'release'}"
    picture = f"--out={tmp_path / 'x.png'}"
    for arguments, status, message in [
        ([data, root, picture, "--id=nobody"], 2, "has no such utterance"),
        ([f"--data={tmp_path}", root, picture], 2, "found no prepared dataset"),
        ([f"--data={out / 'talks'}", root, picture], 2, "contains several datasets"),
        ([data, f"--root={tmp_path}", picture], 1, "cannot be read"),
        ([data, root, "--out=/dev/null/x.png"], 1, "the figure cannot be written"),
        ([data, root, f"--out={tmp_path / 'x.docx'}"], 1, "the figure cannot be written"),
        ([data, root], 2, "the following arguments are required: --out"),
    ]:
        assert run(*arguments) == status
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_audio_that_the_dataset_was_not_prepared_from_is_refused(out, tmp_path, capsys):
    (tmp_path / "0000.wav").write_bytes((out / "release" / "0001.wav").read_bytes())
    data = out / "talks" / "can" / "1.0.0"
    assert run(f"--data={data}", f"--root={tmp_path}", f"--out={tmp_path / 'x.png'}", "--id=talk_0000") == 1
    assert "not the audio that the dataset was prepared from" in capsys.readouterr().err
