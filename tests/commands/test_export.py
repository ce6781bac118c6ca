"""An exported network gives the probabilities of the run, in a process without jaxser."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import jax
import jax.export
import jaxtyping
import numpy as np
import pytest

import jaxser
from helpers import small_runs
from jaxser.evaluation.targets import Classes
from jaxser.export import export, input_specs, main, write
from jaxser.features.recipes import RECIPES, ArraySpec
from jaxser.features.text import Vocabulary
from jaxser.inference.batches import padded
from jaxser.inference.ensemble import Ensemble
from jaxser.inference.networks import ReplicaParameters
from jaxser.types import InputError, UsageError
from models import test_contract

WITHOUT_JAXSER = "import sys; sys.modules.update(dict.fromkeys(('jaxser', 'flax')))\n"
CALL = """
import json, zipfile
import numpy as np
from jax import export

for first in range(1, len(sys.argv), 3):
    file, inputs, outputs = sys.argv[first : first + 3]
    with zipfile.ZipFile(file) as parts:
        network = export.deserialize(bytearray(parts.read("network.bin")))
    given = dict(np.load(inputs, allow_pickle=False))
    np.save(outputs, np.asarray(network.call(given)["probabilities"]))
"""


def without_jaxser(code: str, *arguments: object, cwd: Path | None = None) -> str:
    """Run a program in a process that cannot import jaxser; returns its output."""
    argv = [sys.executable, "-c", WITHOUT_JAXSER + code, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def symbolic_lengths():
    """Disable jaxtyping's checks, which reject symbolic sizes because they are not integers."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@cache
def loaded(name: str, seed: int | None = None) -> jaxser.Ensemble:
    return jaxser.load(small_runs.run(name), seed=seed)


@cache
def exported(name: str, seed: int | None = None) -> Path:
    path = small_runs.folder() / f"{name}-{seed}.zip"
    write(loaded(name, seed), export(loaded(name, seed)), path)
    return path


def windows(name: str, number: int):
    reader = loaded(name).reader([])
    utterances = small_runs.dataset(name).utterances[:number]
    return [reader.read(small_runs.wav(u), u.words or u.transcript)[0] for u in utterances]


def inputs(name: str, read, spare: int = 0, filling: float = 0.0) -> dict[str, np.ndarray]:
    """Inputs padded to the longest window and by `spare` more steps, which are filled with `filling`."""
    widths = {
        array: max(len(one.arrays[array]) for one in read) + spare for array in loaded(name).model.needs
    }
    if "audio" in widths:
        widths["audio"] = -(-widths["audio"] // 9) * 9
    arrays, lengths = padded(read, widths, len(read))
    for array, x in arrays.items():
        for row, length in enumerate(lengths[array]):
            x[row, length:] = filling
    return arrays | {f"{array}_length": length for array, length in lengths.items()}


@pytest.mark.slow
def test_the_exported_network_gives_the_probabilities_of_the_run(tmp_path):
    """Two networks: one replica, and the mean of several; one of them with various batch sizes and lengths."""
    cases = [
        ("mcsan", 0, 3, {}),
        ("mcsan", 0, 1, {"spare": 20, "filling": 9.0}),
        ("can", None, 2, {"spare": 7}),
    ]
    arguments = []
    for n, (name, seed, number, padding) in enumerate(cases):
        np.savez(tmp_path / f"{n}.npz", **inputs(name, windows(name, number), **padding))
        arguments += [exported(name, seed), tmp_path / f"{n}.npz", tmp_path / f"{n}.npy"]
    without_jaxser(CALL, *arguments)
    for n, (name, seed, number, _) in enumerate(cases):
        wanted = loaded(name, seed).outputs(windows(name, number)).mean(1)
        np.testing.assert_allclose(np.load(tmp_path / f"{n}.npy"), wanted, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", test_contract.FIRST_VARIANTS, ids=str)
def test_every_network_exports_with_symbolic_batch_and_lengths(case):
    net, batch = test_contract.network(case), test_contract.make_batch(test_contract.network(case))
    scalars = test_contract.hyper(net)
    variables = jax.eval_shape(
        lambda key: net.init({"params": key, "dropout": key}, batch, scalars, train=False), jax.random.key(0)
    )
    ids = ("words", "segment_lengths")
    run = Ensemble(
        folder=Path(),
        run_results=None,
        classes=("ang", "neu", "sad"),
        target=Classes(("ang", "neu", "sad")),
        members=(("1", 0),),
        model=net,
        recipe=RECIPES["mcsan"],
        arrays={
            name: ArraySpec("int32", (None,)) if name in ids else ArraySpec("float32", (None, 6))
            for name in net.needs
        },
        normalise="none",
        vocabulary=Vocabulary(("<pad>", "<unk>")),
        embeddings=batch.embeddings,
        replicas=ReplicaParameters({}, {}, {}, {}),
    )
    replica = ReplicaParameters(variables["params"], variables.get("batch_stats", {}), {}, scalars)

    def log_probs(replica, inputs):
        arrays = {name: inputs[name] for name in net.needs}
        return run.forward(replica, arrays, {name: inputs[f"{name}_length"] for name in arrays}).log_probs

    specs = input_specs(run, {})
    found = jax.eval_shape(log_probs, replica, specs)
    assert found.shape == (specs[net.needs[0]].shape[0], 3)
    assert [name for name in net.needs if isinstance(specs[name].shape[1], int)] == [
        name for name in net.needs if name in net.lengths or name == "prosody"
    ]


def test_the_description_of_the_file():
    with zipfile.ZipFile(exported("can")) as file:
        assert file.namelist() == ["network.bin", "description.json", "vocabulary.json"]
        description = json.loads(file.read("description.json"))
        assert tuple(json.loads(file.read("vocabulary.json"))) == loaded("can").vocabulary.words
        network = jax.export.deserialize(bytearray(file.read("network.bin")))
    assert network.platforms == ("cpu", "cuda", "tpu")
    assert description["classes"] == list(loaded("can").classes)
    assert description["inputs"]["segments"]["shape"] == ["batch", "segments", 40]
    assert (
        description["inputs"]["segment_lengths"]["shape"]
        == description["inputs"]["words"]["shape"]
        == ["batch", "words"]
    )
    assert description["inputs"]["words_length"] == {
        "dtype": "int32",
        "shape": ["batch"],
        "meaning": "the number of valid steps of words in each recording",
    }
    assert description["features"]["parameters"]["n_mels"] == 40
    assert [one["fold"] for one in description["replicas"]] == ["1", "1", "2", "2", "3", "3"]


def test_the_same_run_gives_the_same_bytes_without_source_paths(tmp_path):
    write(loaded("mcsan", 0), export(loaded("mcsan", 0)), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == exported("mcsan", 0).read_bytes()
    with zipfile.ZipFile(tmp_path / "again.zip") as file:
        assert b".py" not in file.read("network.bin")


def test_a_killed_export_leaves_the_good_file(monkeypatch, tmp_path):
    path = tmp_path / "mcsan.zip"
    path.write_bytes(exported("mcsan", 0).read_bytes())
    before, parts = path.read_bytes(), []

    def killed(archive, info, *_):
        parts.append(info.filename)
        if len(parts) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "writestr", killed)
    with pytest.raises(KeyboardInterrupt):
        write(loaded("mcsan", 0), export(loaded("mcsan", 0)), path)
    assert parts == ["network.bin", "description.json"]
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mcsan.zip"]


def test_a_link_in_the_folder_of_a_run_is_not_followed(tmp_path):
    run, outside = shutil.copytree(small_runs.run("mcsan"), tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    (run / "export").symlink_to(outside)
    with pytest.raises(InputError, match=r"'export' is a link, and nothing is written or removed through"):
        write(loaded("mcsan", 0), export(loaded("mcsan", 0)), run / "export/all.zip", run)
    assert not list(outside.iterdir())


def test_sizes_can_be_fixed(capsys, tmp_path):
    flags = [
        f"--run={small_runs.run('mcsan')}",
        "--fold=2",
        "--seed=1",
        "--batch=1",
        "--audio=500",
        "--words=20",
    ]
    assert main([*flags, f"--out={tmp_path / 'fixed.zip'}"]) == 0
    printed = capsys.readouterr().out
    assert "inputs: audio [1, 500, 40], audio_length [1], words [1, 20], words_length [1]" in printed
    assert "1 replica, for cpu, cuda, tpu" in printed


def test_a_network_that_needs_fixed_sizes_suggests_flags():
    run = loaded("can")

    def refuse(*_):
        raise TypeError("Shapes must be 1D sequences of concrete values")

    object.__setattr__(fixed := jaxser.load(run.folder), "forward", refuse)
    with pytest.raises(
        UsageError, match=r"needs fixed sizes: give --batch=1 --words=128 --segments=3000 \(without"
    ):
        export(fixed)
    with pytest.raises(TypeError):
        export(fixed, {"batch": 1, "words": 20, "segments": 500})


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--run={tmp}"], 1, "is not a finished run"),
        (["--run={run}", "--fold=9"], 2, "--fold=9: no such fold; the run has 1, 2, 3"),
        (["--run={run}", "--video=32"], 2, "--video: this network does not read it; it reads audio, words"),
        (["--run={run}", "--audio=0"], 2, "--audio=0 must be at least 1"),
        (["--run={run}", "--fold=1", "--out={tmp}/file/x.zip"], 1, "file"),
        ([], 2, "the following arguments are required: --run"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_errors_are_one_line(capsys, tmp_path, flags, code, message):
    (tmp_path / "file").touch()
    try:
        status = main([flag.format(run=small_runs.run("mcsan"), tmp=tmp_path) for flag in flags])
    except SystemExit as stop:
        status = int(str(stop.code))
    printed = capsys.readouterr()
    assert (status, printed.out, printed.err.count("\n")) == (code, "", 1)
    assert message in printed.err


def test_the_documented_example_matches_jaxser(tmp_path):
    """The example extracts features with librosa, which match those of jaxser within 1e-3."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "predict.md").read_text(encoding="utf-8")
    [code] = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "deserialize" in block
    ]
    (tmp_path / "mcsan.zip").write_bytes(exported("mcsan", 0).read_bytes())
    clip = small_runs.wav(small_runs.dataset("mcsan").utterances[3])
    (tmp_path / "clip.wav").write_bytes(clip.read_bytes())
    printed = json.loads(without_jaxser(code, cwd=tmp_path).replace("'", '"'))
    [wanted] = loaded("mcsan", 0).predict(clip, text="thank you for being with me")
    assert list(printed) == list(wanted.classes)
    np.testing.assert_allclose(list(printed.values()), wanted.probabilities, atol=2e-3)
