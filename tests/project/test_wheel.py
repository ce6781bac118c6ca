"""The installed wheel without the source tree: commands, configs, data, and foreign folders of the same names."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("jaxser", "configs", "data_prep", "pyproject.toml", "README.md", "LICENSE")
IN_WHEEL = {"jaxser": "jaxser", "configs": "jaxser/configs", "data_prep": "jaxser/data_prep"}
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
SMALL = (
    "--config.variant=text_only",
    "--config.seeds=1",
    "--config.epochs=2",
    "--config.buckets=1",
    "--config.model.hidden_size=8",
    "--config.model.num_heads=2",
    "--config.model.feed_forward_size=8",
)

pytestmark = pytest.mark.slow


def run(*argv: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(argument) for argument in argv]
    return subprocess.run(
        command,
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the sources, so that no earlier build is included."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    built = run(*PIP, "wheel", "--no-deps", f"--wheel-dir={folder / 'dist'}", folder, cwd=folder)
    if "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("building needs hatchling from a package index, which cannot be reached")
    assert built.returncode == 0, built.stderr
    [path] = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def binaries(wheel, tmp_path_factory) -> Path:
    """The commands of the installed wheel; its dependencies come from the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    installed = run(*PIP, f"--python={python}", "install", "--no-deps", "--no-index", wheel, cwd=wheel.parent)
    assert installed.returncode == 0, installed.stderr
    [packages] = folder.glob("lib/python*/site-packages")
    # A folder in a .pth file is added without its own .pth files, so the editable jaxser there is not importable.
    packages.joinpath("dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


@pytest.fixture(scope="module")
def trained(binaries, tmp_path_factory) -> Path:
    """A folder with a demo corpus and a small run, both made by the commands of the wheel.

    The folder also has foreign packages `configs` and `data_prep`, which must not be imported.
    """
    folder = with_foreign_packages(tmp_path_factory.mktemp("trained"))
    made = run(binaries / "jaxser-prepare", "--corpus=demo", "--utterances=60", "--workers=1", cwd=folder)
    assert made.returncode == 0, made.stderr
    flags = ("--config=configs/mcsan.py", "--workdir=run", "--cache_dir=", *SMALL)
    done = run(binaries / "python", "-m", "jaxser.main", *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def with_foreign_packages(folder: Path) -> Path:
    """Add packages that raise when they are imported, with the names of our folders, to a folder."""
    for name in ("configs", "data_prep"):
        (folder / name).mkdir()
        for module in ("__init__", "common", "prepare"):
            (folder / name / f"{module}.py").write_text("raise RuntimeError('imported a foreign package')\n")
    return folder


def test_every_source_file_is_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in IN_WHEEL.items():
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert {f"{package}/{path.relative_to(ROOT / folder).as_posix()}" for path in files} <= names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"jaxser"}


def test_imports_come_from_the_wheel(binaries, tmp_path):
    code = (
        "import jaxser, jaxser.configs, jaxser.data_prep.prepare\n"
        "print(jaxser.__file__, jaxser.configs.__file__, jaxser.data_prep.__file__)"
    )
    found = run(binaries / "python", "-c", code, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    for path in found.stdout.split():
        assert Path(path).is_relative_to(binaries.parent)


@pytest.mark.parametrize("name", ["configs", "data_prep"])
def test_no_other_package_is_importable(name, binaries, tmp_path):
    done = run(binaries / "python", "-c", f"import {name}", cwd=tmp_path)
    assert done.returncode == 1
    assert f"No module named '{name}'" in done.stderr


def test_version_is_that_of_the_project(binaries, tmp_path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    code = "import importlib.metadata; print(importlib.metadata.version('jaxser'))"
    assert run(binaries / "python", "-c", code, cwd=tmp_path).stdout.strip() == project["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [project["version"]]


COMMANDS = [
    (("jaxser-train", "--help"), "variants (--config.variant=NAME): "),
    (("jaxser-predict", "--help"), "--explain"),
    (("jaxser-prepare", "--help"), "--corpus"),
    (("python", "-m", "jaxser.data_prep.prepare", "--help"), "--corpus"),
    (("python", "-m", "jaxser.main", "--help"), "--config.model.hidden_size=128"),
    (("python", "-m", "jaxser.export", "--help"), "--fold"),
    (("python", "-m", "jaxser.reproduce", "--list"), "lee2020/table4"),
]


@pytest.mark.parametrize(("arguments", "expected"), COMMANDS)
def test_commands_of_the_wheel_answer_beside_foreign_packages(arguments, expected, binaries, tmp_path):
    with_foreign_packages(tmp_path)
    done = run(binaries / arguments[0], *arguments[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"), [case for case in COMMANDS if case[0][0] == "python"], ids=str
)
def test_commands_of_the_source_tree_answer_beside_foreign_packages(arguments, expected, tmp_path):
    with_foreign_packages(tmp_path)
    done = run(sys.executable, *arguments[1:], cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_reproduce_finds_its_configs_beside_foreign_packages(trained, binaries):
    """The row's config is evaluated and the dataset found before the unknown protocol is refused."""
    table = ("-m", "jaxser.reproduce", "--table=sun2021/table1", "--protocol=slow")
    for command, environment in (
        ((binaries / "python", *table), {}),
        ((sys.executable, *table), {"PYTHONPATH": str(ROOT)}),
    ):
        done = run(*command, cwd=trained, **environment)
        assert done.returncode == 2
        assert "--protocol=slow is not one of paper, config, quick" in done.stderr
    code = (
        "from jaxser import papers, reproduce; from pathlib import Path\n"
        "row = papers.tables()['sun2021/table1'][0]\n"
        "print(reproduce.config_of(row, 'demo', 'paper', Path('data')).protocol.name)"
    )
    done = run(binaries / "python", "-c", code, cwd=trained)
    assert done.stdout == "session\n", done.stderr


def test_the_source_tree_trains_beside_foreign_packages(trained):
    flags = ("--config=configs/mcsan.py", "--workdir=source_run", "--cache_dir=", *SMALL)
    done = run(sys.executable, "-m", "jaxser.main", *flags, cwd=trained, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    predictions = [(trained / name / "predictions.csv").read_bytes() for name in ("run", "source_run")]
    assert predictions[0] == predictions[1]


def test_every_config_of_the_repository_is_installed(binaries, tmp_path):
    done = run(binaries / "jaxser-train", "--config=configs/none.py", cwd=tmp_path)
    assert done.returncode == 2
    for path in (ROOT / "configs").glob("[!_]*.py"):
        assert path.name in done.stderr or path.stem in ("common", "baselines")


def test_a_run_is_trained_and_reported(trained):
    page = (trained / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "MCSAN" in page  # the row of printed numbers, from papers/results.yaml
    assert "<style" in page


def test_the_run_predicts(binaries, trained):
    recording = next((trained / "data" / "demo_release").rglob("*.wav"))
    done = run(
        binaries / "jaxser-predict",
        "--run=run",
        recording,
        "--text=thank you",
        "--csv",
        "--cache_dir=",
        cwd=trained,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("path,start,end,label")
