"""Recordings are read as in preparation, and predictions match those of the run."""

import csv
import io
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import jaxser
from helpers import small_runs
from helpers.small_corpus import RATE, noise, sine
from jaxser.evaluation import run_folder
from jaxser.features.audio import read_audio
from jaxser.features.recipes import RECIPES
from jaxser.features.spectra import mfcc
from jaxser.features.text import Vocabulary
from jaxser.inference.recordings import Reader, find_recordings, open_precomputed
from jaxser.models import MODELS
from jaxser.models.mcsan import MCSAN
from jaxser.predict import main
from jaxser.types import InputError, UsageError, Word

CLASSES = ("ang", "hap", "exc", "sad", "neu", "fru", "sur")
WORDS = tuple(
    Word(text, 0.3 * n, 0.3 * n + 0.25) for n, text in enumerate(("Please,", "leave", "me", "-", "now!"))
)


load_once = cache(jaxser.load)


def loaded(name: str) -> jaxser.Ensemble:
    """The networks of a run, compiled once."""
    return load_once(small_runs.run(name), fold=None, seed=None)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A recording of 1.5 s with a transcript beside it."""
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    soundfile.write(path, sine(1.5) + noise(1.5), RATE)
    path.with_suffix(".txt").write_text("\ufeffplease leave me now\n", encoding="utf-8")
    return path


def call(capsys, *arguments: object) -> tuple[int, str, list[str]]:
    """Run the command line; returns its exit status, its output, and the lines on stderr."""
    try:
        with mock.patch("jaxser.inference.saved_model.load", load_once):
            code = main([*map(str, arguments), "--cache_dir="])
    except SystemExit as stop:
        code = int(str(stop.code))
    printed = capsys.readouterr()
    return code, printed.out, printed.err.splitlines()


@pytest.mark.parametrize("name", ["mcsan", "can"])
def test_predictions_for_corpus_recordings_match_those_of_the_run(name):
    run, data = loaded(name), small_runs.dataset(name)
    reader = run.reader([], window=0.0)
    transcripts = [
        u.words if name == "can" and u.words is not None else u.transcript for u in data.utterances
    ]
    windows = [
        reader.read(small_runs.wav(u), t)[0] for u, t in zip(data.utterances, transcripts, strict=True)
    ]
    found = {u.id: p for u, p in zip(data.utterances, run.outputs(windows), strict=True)}
    own = run_folder.read_run(run.folder).predictions
    assert len(own.utterance) == 2 * 2 * len(data.utterances)  # validation and test, of two seeds
    member = {of: n for n, of in enumerate(run.members)}
    predicted = [found[u][member[f, s]] for u, f, s in zip(own.utterance, own.fold, own.seed, strict=True)]
    np.testing.assert_allclose(predicted, own.probabilities, atol=1e-5)


def test_batching_does_not_change_predictions():
    run, data = loaded("mcsan"), small_runs.dataset("mcsan")
    reader = run.reader([])
    windows = [reader.read(small_runs.wav(u), u.transcript)[0] for u in data.utterances[:9]]
    together = run.outputs(windows)
    np.testing.assert_allclose(together[3:4], run.outputs(windows[3:4]), atol=1e-6)
    np.testing.assert_allclose(together.sum(-1), 1, atol=1e-5)
    assert run.predict_windows([]) == []


def test_a_prediction_averages_over_the_replicas(clip):
    run = loaded("mcsan")
    [one] = run.predict(clip)
    assert (one.text, one.start, one.end, one.classes) == ("please leave me now", 0, 1.5, CLASSES)
    assert one.replicas.shape == (6, 7)
    np.testing.assert_allclose(one.probabilities, one.replicas.mean(0))
    np.testing.assert_allclose(one.std, one.replicas.std(0))
    best = one.replicas.mean(0).argmax()
    assert one.label == CLASSES[best]
    assert one.agreement == np.mean(one.replicas.argmax(1) == best)
    assert set(one.unknown) == {"please", "leave", "me", "now"} - set(run.vocabulary.words)
    fold, seed = run.members[4]
    [alone] = jaxser.load(run.folder, fold=fold, seed=seed).predict(clip)
    np.testing.assert_allclose(alone.replicas, one.replicas[4:5], atol=1e-6)


def edited(tmp_path: Path, model=lambda description: None, result=lambda results: None) -> Path:
    """A copy of a run with changes to model.json and results.json."""
    folder = shutil.copytree(small_runs.run("mcsan"), tmp_path / "edited")
    for path, change in ((folder / "model/model.json", model), (folder / "results.json", result)):
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))
    run_folder.write_digests(folder)
    return folder


def test_only_trained_replicas_of_the_reported_setting_are_loaded(tmp_path):
    members = loaded("mcsan").members
    assert members == tuple((fold, seed) for fold in ("1", "2", "3") for seed in (0, 1))
    assert jaxser.load(small_runs.run("mcsan"), fold=2).members == (("2", 0), ("2", 1))
    assert jaxser.load(small_runs.run("mcsan"), seed=1).members == (("1", 1), ("2", 1), ("3", 1))

    def name(replicas):
        for replica in replicas:
            replica["setting"] = f"learning_rate={replica['seed']}"
            replica["fold"] = f"Ses0{replica['fold']}"

    def model(description):
        name(description["replicas"])
        description["setting"] = "learning_rate=1"

    def result(found):
        name(found["replicas"])
        found["summary"]["setting"] = "learning_rate=1"
        next(r for r in found["replicas"] if r["fold"] == "Ses02" and r["seed"] == 1)["best_epoch"] = None

    folder = edited(tmp_path, model, result)
    assert jaxser.load(folder).members == (("Ses01", 1), ("Ses03", 1))
    assert jaxser.load(folder, fold="Ses03").members == jaxser.load(folder, fold=2).members == (("Ses03", 1),)
    with pytest.raises(InputError, match="none of the selected replicas reached a finite loss"):
        jaxser.load(folder, fold="Ses02")
    with pytest.raises(UsageError, match=r"--seed=0: no such seed; .* has 1$"):
        jaxser.load(folder, seed=0)


def test_an_unusable_run_is_reported_in_one_line(tmp_path):
    with pytest.raises(
        InputError, match=r"version 0.9.0 of recipe mcsan, but this jaxser has version 1.0.0: prepare"
    ):
        jaxser.load(edited(tmp_path / "a", lambda description: description["recipe"].update(version="0.9.0")))
    with pytest.raises(InputError, match="the published features of corpus yoon"):
        jaxser.load(
            edited(
                tmp_path / "b", lambda description: description["recipe"]["parameters"].update(made_by="yoon")
            )
        )
    with pytest.raises(
        InputError, match=r"model.json is damaged \(network mcsan has no field .renamed.\); .*train again"
    ):
        jaxser.load(edited(tmp_path / "c", lambda description: description["model"].update(renamed=3)))
    folder = edited(tmp_path / "d", lambda description: description["model"].update(classifier_size=9))
    with pytest.raises(InputError, match="its parameters do not fit the network of this version"):
        jaxser.load(folder).predict(small_runs.wav(small_runs.dataset("mcsan").utterances[0]), text="no")
    with (folder / "model/replicas.npz").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match="damaged"):
        jaxser.load(folder)
    (folder / "results.json").unlink()
    with pytest.raises(InputError, match=r"results.json is missing"):
        jaxser.load(folder)
    (folder / "model/model.json").unlink()
    with pytest.raises(InputError, match=r"is not finished: it has no results\.json; run the command"):
        jaxser.load(folder)


def test_a_programming_error_in_a_network_is_not_reported_as_a_damaged_run(monkeypatch):
    class Broken(MCSAN):
        @property
        def needs(self):
            raise ValueError("a bug")

    monkeypatch.setitem(MODELS, "mcsan", Broken)
    with pytest.raises(ValueError, match=r"^a bug$"):
        jaxser.load(small_runs.run("mcsan"))


def test_prediction_does_not_import_matplotlib():
    code = "import sys, jaxser.predict, jaxser.inference.saved_model; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_repr_is_one_line():
    run = jaxser.load(small_runs.run("mcsan"))
    text = "MCSAN, 6 replicas (folds 1, 2, 3; seeds 0, 1), classes "
    assert repr(run) == f"<{run.folder}: {text}{', '.join(run.classes)}>"


def reader(needs=("audio",), **fields) -> Reader:
    return Reader(RECIPES["mcsan"], needs, Vocabulary(("<pad>", "<unk>", "leave", "now", "!")), **fields)


def test_windows_end_with_the_recording_and_have_the_recipes_features(tmp_path):
    path = tmp_path / "long.wav"
    samples = noise(25.0)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    windows = reader().read(path)
    assert [(w.start, w.end) for w in windows] == [(0, 10), (10, 20), (15, 25)]
    for window in windows:
        part = samples[round(window.start * RATE) : round(window.end * RATE)]
        np.testing.assert_array_equal(window.arrays["audio"], mfcc([part])[0][:1000])
        assert "cut_audio" not in window.flags  # its frame 1,001 is the first frame of the next window
    assert all("cut_audio" in window.flags for window in reader(window=12.0).read(path))
    spans = [(w.start, w.end) for w in reader(window=10.0, hop=7.5).read(path)]
    assert spans == [(0, 10), (7.5, 17.5), (15, 25)]
    [whole] = reader(window=0.0).read(path)
    assert (whole.start, whole.end, "cut_audio" in whole.flags) == (0, 25, True)
    assert not any("words" in flag for flag in whole.flags)
    np.testing.assert_array_equal(whole.arrays["audio"], mfcc([samples])[0][:1000])
    assert [(w.start, w.end) for w in reader(window=30.0).read(path)] == [(0, 25)]


def test_words_belong_to_the_window_that_contains_their_middle(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, noise(3.0), RATE)
    words = (Word("Please,", 0.2, 0.6), Word("leave", 0.9, 1.4), Word("now!", 1.9, 2.6))
    windows = reader(("audio", "words"), window=1.0, hop=1.0).read(path, words)
    assert [w.utterance.transcript for w in windows] == ["Please,", "leave", "now!"]
    assert [w.utterance.words[0].text for w in windows] == ["Please", "leave", "now"]
    times = [(w.utterance.words[0].start, w.utterance.words[0].end) for w in windows]
    np.testing.assert_allclose(times, [(0.2, 0.6), (0.0, 0.4), (0.0, 0.6)])
    assert [w.words for w in windows] == [("Please", ","), ("leave",), ("now", "!")]
    assert [w.unknown for w in windows] == [("Please", ","), (), ()]
    [whole] = reader(("words",)).read(path, "please leave")
    assert whole.utterance.words is None
    with pytest.raises(
        InputError, match=r"its transcript has no word times .*; --window=0 reads it as a whole"
    ):
        reader(("words",), window=1.0).read(path, "please leave")


def test_a_recording_whose_words_have_no_times_is_one_window(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, noise(12.0), RATE)
    [one] = reader(("audio", "words")).read(path, "leave now")
    assert (one.end, len(one.arrays["audio"]), "cut_audio" in one.flags) == (12, 1000, True)


def test_a_part_of_a_file_is_read(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(3.0), RATE)
    [part] = reader().read(f"{path}#t=1,2.5")
    np.testing.assert_array_equal(part.samples, read_audio(path).samples[RATE : round(2.5 * RATE)])


def test_can_reads_the_words_of_a_speech_recogniser(monkeypatch, tmp_path, clip):
    made = []

    class WhisperModel:
        def __init__(self, path, local_files_only):
            made.append((path, local_files_only))

        def transcribe(self, samples, word_timestamps):
            assert word_timestamps
            np.testing.assert_array_equal(samples, read_audio(clip).samples)
            words = [SimpleNamespace(word=f" {w.text}", start=w.start, end=w.end) for w in WORDS]
            yield_ = iter(
                [
                    SimpleNamespace(words=words[:2]),
                    SimpleNamespace(words=None),
                    SimpleNamespace(words=words[2:]),
                ]
            )
            return yield_, SimpleNamespace(language="en")

    module = ModuleType("faster_whisper")
    module.WhisperModel = WhisperModel
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    for name in ("model.bin", "tokenizer.json"):
        (tmp_path / name).touch()
    transcribe = jaxser.faster_whisper(tmp_path)
    assert made == [(str(tmp_path), True)]
    run = loaded("can")
    [window] = run.reader([clip]).read(clip, transcribe)
    assert window.utterance.transcript == "Please, leave me - now!"
    assert window.words == ("Please", "leave", "me", "now")  # punctuation has no audio
    assert len(window.arrays["segment_lengths"]) == 4
    assert "equal_segments" not in window.flags
    [heard], [given] = run.predict(clip, text=transcribe), run.predict(clip, text=WORDS)
    np.testing.assert_array_equal(heard.replicas, given.replicas)
    [equal] = run.predict(clip, text="Please, leave me now!")
    assert "equal_segments" in equal.flags
    assert np.abs(equal.replicas - given.replicas).max() > 1e-6


def test_speech_recognition_models_are_never_downloaded(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"has no model.bin; nothing is downloaded"):
        jaxser.faster_whisper(tmp_path)
    for name in ("model.bin", "tokenizer.json"):
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(UsageError, match=r'pip install "jaxser\[asr\]"'):
        jaxser.faster_whisper(tmp_path)


@pytest.mark.parametrize("name", ["mcsan", "can"])
def test_attention_is_averaged_over_replicas_and_has_no_padding(name, clip):
    run = loaded(name)
    [window] = run.reader([clip]).read(clip, WORDS)
    found = run.attention_in(window)
    assert found.words == window.words
    assert found.axes == run.axes
    arrays = {array: jnp.asarray(window.arrays[array][None]) for array in run.model.needs}
    lengths = {array: jnp.array([len(x[0])]) for array, x in arrays.items()}
    each = jax.jit(jax.vmap(lambda one: run.forward(one, arrays, lengths).attention))(run.replicas)
    assert found.weights.keys() == each.keys()
    for key, weights in found.weights.items():
        np.testing.assert_allclose(weights, each[key].weights[:, 0].mean(0), atol=1e-6)
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_attention_axes():
    assert loaded("mcsan").axes == {
        "cross_audio_0": ("", "audio", "words"),
        "cross_text_0": ("", "words", "audio"),
        "self_audio_0": ("", "audio", "audio"),
        "self_text_0": ("", "words", "words"),
    }
    pairs = [f"{by}_on_{of}" for by in ("audio", "text") for of in ("audio", "text")]
    assert loaded("can").axes == dict.fromkeys(pairs, ("", "words"))


def test_recordings_are_found_in_folders(tmp_path):
    for name in ("b/x.WAV", "a.mp4", ".hidden.wav", "notes.txt", "b/c/y.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    named = tmp_path / "sound.raw"
    assert find_recordings([named, tmp_path]) == [
        named,
        *(tmp_path / name for name in ("a.mp4", "b/c/y.flac", "b/x.WAV")),
    ]
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"no recordings found \(.*\.wav"):
        find_recordings([tmp_path / "none"])


def test_raw_aac_is_read(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.aac"
    samples = np.concatenate([np.zeros(5 * RATE, np.float32), noise(10.0)])
    with av.open(str(path), "w", format="adts") as file:
        stream = file.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.rate = RATE
        for part in [*av.AudioResampler(format="fltp", layout="mono", rate=RATE).resample(frame), None]:
            file.mux(stream.encode(part))
    found = read_audio(path).samples
    assert len(found) == pytest.approx(
        len(samples), abs=3000
    )  # although the decoder first estimates ten minutes


def test_precomputed_features(tmp_path):
    recipe, made = RECIPES["self_cross"], {"video": {"network": "0" * 64}}
    np.save(tmp_path / "clip.npy", np.ones((4, 8), np.float32))

    def opened(widths, files=None, resnet=None):
        return open_precomputed(recipe, widths, made, ["clip"], files or {}, resnet)

    assert opened({"audio": 120, "video": 8}, {"video": tmp_path})["video"].width == 8
    with pytest.raises(UsageError, match=r"reads precomputed video: give --video=FOLDER .* or --resnet=FILE"):
        opened({"audio": 120, "video": 8})
    with pytest.raises(UsageError, match="--video: video has 8 features, but this run was trained on 9"):
        opened({"video": 9}, {"video": tmp_path})
    with pytest.raises(UsageError, match="--prosody: this run does not read it"):
        opened({"video": 8}, {"video": tmp_path, "prosody": tmp_path})
    assert opened({"audio": 120}) == {}


def test_table_csv_and_json_agree(capsys, clip):
    run, folder = small_runs.run("mcsan"), clip.parent
    other = shutil.copy(clip, folder / "other.wav")
    code, table, lines = call(capsys, f"--run={run}", folder / "clip.wav")
    [one] = loaded("mcsan").predict(clip)
    assert code == 0
    assert table.splitlines()[0].split() == ["recording", "emotion", "agree", *CLASSES, "notes"]
    assert table.splitlines()[1].split()[1:3] == [one.label, f"{round(6 * one.agreement)}/6"]
    assert "this is a demo run" in lines[-1]
    code, text, _ = call(capsys, f"--run={run}", "--json", folder / "clip.wav", other, "--text=no")
    assert code == 2
    Path(other).unlink()
    code, text, _ = call(capsys, f"--run={run}", "--json", folder)
    value = json.loads(text)
    assert (code, value["classes"], len(value["replicas"]), value["synthetic"]) == (0, list(CLASSES), 6, True)
    [printed] = value["predictions"]
    np.testing.assert_allclose(list(printed["probabilities"].values()), one.probabilities, atol=1e-6)
    np.testing.assert_allclose(list(printed["std"].values()), one.std, atol=1e-6)
    assert (printed["label"], printed["text"]) == (one.label, "please leave me now")
    code, text, _ = call(capsys, f"--run={run}", "--csv", folder)
    [row] = csv.DictReader(io.StringIO(text))
    np.testing.assert_allclose([float(row[f"p_{name}"]) for name in CLASSES], one.probabilities, rtol=1e-5)
    assert (row["label"], row["text"], float(row["end"])) == (one.label, "please leave me now", 1.5)


def test_unusable_recordings_do_not_stop_the_others(capsys, clip, tmp_path):
    shutil.copy(clip, tmp_path / "good.wav")
    shutil.copy(clip, tmp_path / "silent about it.wav")
    (tmp_path / "good.txt").write_text("leave")
    (tmp_path / "cut.wav").write_bytes(clip.read_bytes()[:2000])
    (tmp_path / "cut.txt").write_text("leave")
    code, text, lines = call(
        capsys, f"--run={small_runs.run('mcsan')}", "--json", tmp_path, tmp_path / "gone.wav"
    )
    value = json.loads(text)
    assert code == 1
    assert [Path(one["path"]).name for one in value["predictions"]] == ["good.wav"]
    assert [Path(one["path"]).name for one in value["failed"]] == [
        "cut.wav",
        "silent about it.wav",
        "gone.wav",
    ]
    assert "cut.wav: truncated" in lines[0]
    assert (
        "this run reads words: give --text=..., put a transcript in silent about it.txt beside it" in lines[1]
    )
    assert "gone.wav: cannot be read (No such file or directory)" in lines[2]
    assert lines[3].startswith("jaxser.predict: 1 recording, 1.5 s of audio, 6 replicas")


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--run={tmp}", "{clip}"], 1, "is not a finished run: it has no model/model.json"),
        (["{clip}"], 2, "the following arguments are required: --run"),
        (["--run={run}"], 2, "the following arguments are required: PATH"),
        (["--run={run}", "{clip}", "--fold=7"], 2, "--fold=7: no such fold; the run has 1, 2, 3"),
        (["--run={run}", "{clip}", "--seed=7"], 2, "--seed=7: no such seed;"),
        (
            ["--run={run}", "{clip}", "{clip}", "--text=a"],
            2,
            "--text is the transcript of one recording, but 2 are given",
        ),
        (["--run={run}", "{clip}", "--asr=whisper"], 2, "--asr=whisper is not one of faster-whisper"),
        (["--run={run}", "{clip}", "--asr=faster-whisper"], 2, "--asr_model=FOLDER must be given together"),
        (["--run={run}", "{clip}", "--asr=faster-whisper", "--asr_model={tmp}"], 2, "has no model.bin"),
        (["--run={run}", "{clip}", "--window=-1"], 2, "--window=-1 must be at least 0 seconds"),
        (["--run={run}", "{clip}", "--window=0.5"], 1, "its transcript has no word times"),
        (["--run={run}", "{clip}", "--video={tmp}"], 2, "--video: this run does not read it"),
        (["--run={run}", "{tmp}"], 2, "no recordings found"),
        (["--run={run}", "{clip}", "--sed=1"], 2, "unrecognized arguments: --sed=1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_errors_are_one_line(capsys, clip, tmp_path, flags, code, message):
    filled = [flag.format(run=small_runs.run("mcsan"), clip=clip, tmp=tmp_path) for flag in flags]
    status, text, lines = call(capsys, *filled)
    assert (status, text) == (code, "")
    assert len(lines) == 1
    assert message in lines[0]


def test_explain_draws_one_png_per_recording(capsys, clip, tmp_path):
    code, _, _ = call(capsys, f"--run={small_runs.run('can')}", clip, clip, f"--explain={tmp_path / 'out'}")
    assert code == 0
    pictures = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in pictures] == ["clip-2.png", "clip.png"]
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in pictures)


@pytest.mark.parametrize("name", ["mcsan", "can"])
def test_a_figure_shows_the_waveform_and_every_attention_layer(name, clip):
    [found] = loaded(name).attention(clip, text=WORDS)
    drawn = found.figure()
    titles = [ax.get_title(loc="left") for ax in drawn.axes]
    assert titles[:5] == ["clip.wav", *(key.replace("_", " ") for key in found.weights)]
    if name == "can":
        bars = [bar.get_height() for bar in drawn.axes[1].patches]
        np.testing.assert_allclose(bars, found.weights["audio_on_audio"].mean(0), rtol=1e-6)
        labels = [label.get_text() for label in drawn.axes[1].get_xticklabels()]
        assert labels == ["Please", "leave", "me", "now"]
    else:
        image = drawn.axes[1].images[0].get_array()
        np.testing.assert_allclose(image, found.weights["cross_audio_0"].mean(0), rtol=1e-6)


def test_importing_jaxser_imports_nothing_heavy():
    code = (
        "import sys, jaxser; print(*dir(jaxser)); sys.exit(bool({'jax', 'numpy', 'flax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == jaxser.__all__
    assert all(callable(getattr(jaxser, name)) for name in jaxser.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'train_everything'"):
        jaxser.train_everything  # noqa: B018
