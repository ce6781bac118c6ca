"""The lock file: names, versions and hashes, of everything that pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINNED = re.compile(
    r"(?P<name>[a-z0-9-]+)==[0-9a-z.+]+( ; [^\\\n:/]+)?(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)


def normalised(requirement: str) -> str:
    """The name of a requirement, as package indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


def test_the_lock_file_has_names_versions_and_hashes_alone():
    assert not PINNED.sub("", (ROOT / "requirements.lock").read_text())


def test_every_dependency_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = project["dependencies"] + [one for name in ("dev", "lld") for one in extras[name]]
    locked = {found["name"] for found in PINNED.finditer((ROOT / "requirements.lock").read_text())}
    assert {normalised(one) for one in asked} - {"jaxser"} <= locked
