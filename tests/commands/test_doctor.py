"""`python -m jaxser.doctor`: what a problem report needs."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import jax
import pytest

from jaxser import doctor

ROOT = Path(__file__).parents[2]
DEVELOPERS = {"dev", "docs", "parity"}


def examined(monkeypatch, capsys, *flags):
    """The exit status and what is printed."""
    monkeypatch.setattr(sys, "argv", ["doctor", *map(str, flags)])
    return doctor.run(), capsys.readouterr().out


def test_every_extra_has_a_feature():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(doctor.FEATURES) == set(project["optional-dependencies"]) - DEVELOPERS


def test_a_healthy_installation(monkeypatch, capsys, tmp_path):
    (tmp_path / "program").write_bytes(bytes(3_000_000))
    status, printed = examined(monkeypatch, capsys, f"--cache_dir={tmp_path}")
    assert status == 0
    assert f"jax {jax.__version__}" in printed
    assert f"{tmp_path}: 1 files, 3.0 MB" in printed
    assert len(re.findall("computes as NumPy", printed)) == len(jax.devices())
    assert "none found" in printed


@pytest.mark.parametrize(
    ("requires", "versions", "extra", "expected"),
    [
        (["a>=2", "b"], {"a": "1.5", "b": "1"}, "", ["a>=2 (found 1.5)"]),
        (["a>=2", "b"], {"a": "2.0rc1", "b": "1"}, "", ["a>=2 (found 2.0rc1)"]),
        (["a", 'b; extra == "more"'], {"a": "1"}, "", []),
        (["a", 'b; extra == "more"'], {}, "more", ["b (not installed)"]),
        (['a[fast]>=1; extra == "more"'], {"a": "1"}, "more", ["c (not installed)"]),
        (['a; sys_platform == "other"'], {}, "", []),
    ],
)
def test_missing_requirements(monkeypatch, requires, versions, extra, expected):
    """Those of extras count only with the extra, and extras of requirements are followed."""

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    needs = {"jaxser": requires, "a": ['c; extra == "fast"', 'd; extra == "slow"']}
    monkeypatch.setattr(metadata, "requires", needs.get)
    monkeypatch.setattr(metadata, "version", version)
    assert [str(one) for one in doctor.missing(extra)] == expected


def test_a_missing_requirement_is_a_problem(monkeypatch, capsys):
    lacks = [doctor.Missing("optax>=9", "0.2")]
    monkeypatch.setattr(doctor, "missing", lambda extra="": [] if extra else lacks)
    status, printed = examined(monkeypatch, capsys, "--cache_dir=")
    assert status == 1
    assert "jaxser needs optax>=9 (found 0.2)" in printed
    assert "none: " in printed


def test_a_device_that_computes_wrong(monkeypatch, capsys):
    monkeypatch.setattr(jax, "jit", lambda function: lambda x: function(x) + 1)
    status, printed = examined(monkeypatch, capsys)
    assert status == 1
    assert "differs from NumPy's by 1" in printed
