"""What is recorded of a run's environment, and what is not."""

import json
import os

import numpy as np

from jaxser.evaluation.environment import command_line, environment


def test_the_environment_names_no_machine_and_no_user():
    class Device:
        device_kind = "cpu"

    text = json.dumps(environment([Device(), Device()]))
    assert json.loads(text)["devices"] == [{"kind": "cpu", "number": 2}]
    assert json.loads(text)["numpy"] == np.__version__
    for private in (os.uname().nodename, os.path.expanduser("~")):
        assert private not in text


def test_a_printed_command_has_no_absolute_path():
    command = [
        "python",
        "-m",
        "jaxser.main",
        "--config=/home/me/configs/mcsan.py:demo",
        "--workdir",
        "/home/me/my run",
    ]
    assert command_line(command) == "python -m jaxser.main --config=mcsan.py:demo --workdir 'my run'"
