"""The benchmark against PyTorch, where PyTorch is not installed."""

import runpy
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), ([], "PyTorch is not installed; install it by: pip install")]
)
def test_without_pytorch_there_is_help(arguments, status, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.torch_models", raising=False)
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("benchmarks.training", run_name="__main__")
    assert str(ended.value.code).startswith(str(status))
    assert ("--rounds" in capsys.readouterr().out) == (status == 0)
