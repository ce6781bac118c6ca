"""Apache Beam writes the same shards as the process pool; skipped if it is not installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.small_corpus import write_ravdess
from jaxser.data_prep import prepare as preparation
from jaxser.types import UsageError

PROJECT = Path(__file__).parents[2]
HAS_BEAM = importlib.util.find_spec("apache_beam") is not None


def command(root: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--corpus=ravdess", f"--root={root}", f"--out={out}", "--runner=beam", *options]
    return subprocess.run(
        [sys.executable, "-m", "data_prep.prepare", *arguments], cwd=PROJECT, capture_output=True, text=True
    )


@pytest.mark.skipif(not HAS_BEAM, reason="apache_beam is not installed")
def test_beam_writes_the_same_bytes_as_the_process_pool(tmp_path):
    write_ravdess(tmp_path / "release", 300)
    (tmp_path / "release/Actor_01/broken.wav").write_bytes(b"")
    local = preparation.prepare(
        "ravdess", tmp_path / "release", "mcsan", tmp_path / "local", workers=1, quiet=True
    )
    done = command(tmp_path / "release", tmp_path / "beam")
    assert done.returncode == 0, done.stderr
    beam = tmp_path / "beam/ravdess/mcsan/1.0.0"
    names = {path.relative_to(local) for path in local.rglob("*") if path.is_file()}
    assert names == {path.relative_to(beam) for path in beam.rglob("*") if path.is_file()}
    assert len([name for name in names if "tfrecord" in name.name]) == 3
    for name in names:
        assert (local / name).read_bytes() == (beam / name).read_bytes(), name
    assert "is up to date" in command(tmp_path / "release", tmp_path / "beam").stdout


@pytest.mark.skipif(not HAS_BEAM, reason="apache_beam is not installed")
def test_failing_pipeline_is_a_one_line_error(tmp_path):
    write_ravdess(tmp_path / "release", 3)
    failed = command(tmp_path / "release", tmp_path / "beam", "--beam_options=--runner=NoSuchRunner")
    assert failed.returncode == 1
    [line] = [line for line in failed.stderr.splitlines() if line.startswith("prepare: ")]
    assert "the Beam pipeline failed" in line


@pytest.mark.skipif(HAS_BEAM, reason="apache_beam is installed")
def test_missing_library_is_named(tmp_path):
    write_ravdess(tmp_path / "release", 3)
    failed = command(tmp_path / "release", tmp_path / "beam")
    assert failed.returncode == 2
    assert (
        failed.stderr.splitlines()[-1]
        == "prepare: --runner=beam needs Apache Beam: pip install 'jaxser[beam]'"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runner": "spark"}, "--runner=spark: must be one of local, beam"),
        ({"beam_options": "--x"}, "--beam_options: only for --runner=beam"),
    ],
)
def test_wrong_usage(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        preparation.prepare("ravdess", tmp_path, out=tmp_path, quiet=True, **options)
