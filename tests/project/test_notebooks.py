"""The notebooks in colab/ are valid and have no outputs. Slow: each runs from top to bottom, on tiny networks."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

NOTEBOOKS = sorted(Path(__file__).parents[2].glob("colab/*.ipynb"))

IPYTHON_SUBSTITUTE = """
import sys, types

def display(shown):
    assert shown is not None

class Shown:
    def __init__(self, data=None, filename=None):
        assert data or open(filename, "rb").read(), "nothing is displayed"

# Only this module: matplotlib behaves differently if it finds all of IPython.
sys.modules["IPython.display"] = types.ModuleType("IPython.display")
sys.modules["IPython.display"].__dict__.update(display=display, Audio=Shown, Image=Shown, Markdown=Shown)
"""
"""A replacement for IPython if it is not installed."""


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def code(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def test_no_notebook_is_missing():
    names = [path.stem for path in NOTEBOOKS]
    assert names == ["quickstart", "reproduce_a_table", "sweep_on_tpu", "your_own_corpus"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_has_no_outputs(path):
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    identities = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identities)) == len(identities)
    for cell in notebook["cells"]:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            ast.parse("".join(cell["source"]))
            keys |= {"outputs", "execution_count"}
        assert cell.keys() == keys


def test_all_notebooks_have_the_same_install_cell():
    assert len({code(path)[0] for path in NOTEBOOKS}) == 1


def test_the_install_cell_reports_a_missing_wheel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="upload jaxser"):
        exec(code(NOTEBOOKS[0])[0], {})


@pytest.mark.parametrize(
    ("device", "driver", "extra", "further_packages"),
    [
        ("nvidia0", "", "[cuda]", []),
        ("nvidia0", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Wed Aug 27", "[cuda]", []),
        (
            "nvidia0",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5",
            "",
            ["jax[cuda12]"],
        ),
        ("accel0", "", "[tpu]", []),
        ("vfio/0", "", "[tpu]", []),
        ("", "", "", []),
    ],
)
def test_the_install_cell_installs_the_wheel_with_the_extra_for_the_machine(
    device, driver, extra, further_packages, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jaxser-0.1.0-py3-none-any.whl").touch()
    (tmp_path / "dev" / device).mkdir(parents=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    installed = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: installed.extend(command[5:]))
    if driver:
        (tmp_path / "driver").write_text(f"{driver}\nGCC version:  gcc version 12.2.0\n")
    cell = code(NOTEBOOKS[0])[0].replace('"/dev', f'"{tmp_path}/dev')
    exec(cell.replace("/proc/driver/nvidia/version", f"{tmp_path}/driver"), {})
    assert installed == [
        f"jaxser{extra} @ {(tmp_path / 'jaxser-0.1.0-py3-none-any.whl').as_uri()}",
        *further_packages,
    ]


def test_the_install_cell_ignores_an_unrelated_folder_called_jaxser(tmp_path, monkeypatch):
    (tmp_path / "jaxser").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [PathFinder])
    monkeypatch.delitem(sys.modules, "jaxser", raising=False)
    with pytest.raises(FileNotFoundError, match="upload jaxser"):
        exec(code(NOTEBOOKS[0])[0], {})


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    substitute = [] if importlib.util.find_spec("IPython") else [IPYTHON_SUBSTITUTE]
    (tmp_path / "cells.py").write_text("\n\n".join([*substitute, *code(path)]), encoding="utf-8")
    small = {
        "JAXSER_SMALL": "1",
        "JAX_PLATFORMS": "cpu",
        "MPLBACKEND": "agg",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
    done = subprocess.run(
        [sys.executable, "cells.py"],
        cwd=tmp_path,
        env={**os.environ, **small},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
