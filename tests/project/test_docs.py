"""The pages of the documentation: every command is parsed by its own parser, links lead somewhere, names exist."""

import argparse
import importlib
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from jaxser import experiment, main, papers
from jaxser.features.recipes import RECIPES
from jaxser.models import MODELS

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"))
}
MODELS_PAGE = PAGES["docs/reference/models.md"]
TROUBLESHOOTING = PAGES["docs/how-to/troubleshooting.md"]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
CONFIGS = sorted(path.stem for path in ROOT.glob("configs/*.py") if "get_config" in path.read_text("utf-8"))

pytestmark = pytest.mark.filterwarnings(
    "ignore:the load_module:DeprecationWarning"
)  # ml_collections calls it

_COMMAND = r"(?:python -m (?:jaxser|data_prep|benchmarks)[\w.]*|jaxser-\w+)\b"
_LINE = re.compile(rf"^(?:    )?(?P<block>{_COMMAND} .+)$|`(?P<inline>{_COMMAND} [^`\n]+)`", re.MULTILINE)
_FILE = re.compile(r"`((?:configs|data_prep|jaxser)/[\w/]+\.py)`[^`]*```python\n(.*?)```", re.DOTALL)


class Parsed(BaseException):
    """Raised where a command would begin to work."""


def commands() -> list[tuple[str, str]]:
    found = []
    for page, text in sorted(PAGES.items()):
        joined = text.replace("\\\n", " ")
        found += [(page, match["block"] or match["inline"]) for match in _LINE.finditer(joined)]
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where commands are run: the files that the worked examples write are there."""
    for text in PAGES.values():
        for name, content in _FILE.findall(text):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(arguments: list[str], monkeypatch) -> None:
    """Flags and the config's fields, as `jaxser.main` has them before it loads a dataset."""
    argv = ["jaxser.main", *(each.replace("FILE.py", "configs/mcsan.py") for each in arguments)]
    monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for overrides
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)  # of the command before
    flags.FLAGS.unparse_flags()
    main._parse(argv)
    given = config_flags.get_override_values(flags.FLAGS["config"])
    experiment.resolve(flags.FLAGS.config, given)


def parse(module: str, arguments: list[str], monkeypatch) -> argparse.Namespace:
    """What the module's own parser makes of the arguments."""
    original = argparse.ArgumentParser.parse_args

    def stop(parser, args=None, namespace=None):
        raise Parsed(original(parser, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    entry = importlib.import_module(f"{module}.__main__" if module == "jaxser.report" else module)
    with pytest.raises(Parsed) as caught:
        (getattr(entry, "run", None) or entry.main)()
    return caught.value.args[0]


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda text: text[:60])
def test_commands_are_parsed(page, command, folder, monkeypatch, capsys):
    first, *rest = shlex.split(command.partition(" > ")[0], comments=True)
    module = SCRIPTS[first].partition(":")[0] if first in SCRIPTS else rest.pop(1)
    arguments = rest if first in SCRIPTS else rest[1:]
    try:
        if "--help" in arguments:
            importlib.import_module(module)
        elif module == "jaxser.main":
            train(arguments, monkeypatch)
        else:
            given = vars(parse(module, arguments, monkeypatch))
            assert given.get("recipe", "mcsan") in (*RECIPES, "RECIPE", "NAME")
            assert given.get("table") in (None, *papers.tables())
    except SystemExit:
        pytest.fail(f"{page}: {command}\n{capsys.readouterr().err}")


def test_a_wrong_command_is_found(folder, monkeypatch, capsys):
    with pytest.raises(ValueError, match="no_such_variant"):
        train(["--config=configs/mcsan.py", "--config.variant=no_such_variant"], monkeypatch)
    with pytest.raises(SystemExit):
        train(["--config=configs/mcsan.py", "--config.no_such_field=1"], monkeypatch)
    assert "no_such_field" in capsys.readouterr().err


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs build them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_relative_links_resolve(page):
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("http"):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), link


def test_the_readme_has_at_most_110_lines():
    assert len(PAGES["README.md"].splitlines()) <= 110


@pytest.mark.parametrize("name", CONFIGS)
def test_every_variant_is_in_the_page_of_models(name):
    module = importlib.import_module(f"jaxser.configs.{name}")
    [section] = [part for part in MODELS_PAGE.split("\n## ") if f"`configs/{name}.py`, " in part]
    named = set(re.findall(r"`(\w+)`", section))
    assert set(module.VARIANTS) <= named


def test_names_in_the_page_of_models_exist():
    text = MODELS_PAGE
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "jaxser").rglob("*.py"))
    for line in text.splitlines():
        if re.match(r"\| (eqs?\.|section|statistical)", line):
            for name in re.findall(r"`([\w.]+)", line.split("|")[2]):
                is_file = any((ROOT / "jaxser" / inside / name).is_file() for inside in ("models", ""))
                assert is_file or re.search(rf"\b(?:class|def) {name.split('.')[-1]}\b|\b{name}\b", source), (
                    name
                )
    for model in MODELS.values():
        assert f"`{model.__name__}`" in text or f"`{model.__name__}." in text, model


def test_messages_in_the_page_of_troubleshooting_are_said():
    files = [path for folder in ("jaxser", "data_prep") for path in (ROOT / folder).rglob("*.py")]
    source = re.sub(r'"\s+f?"', "", "\n".join(path.read_text("utf-8") for path in files))
    for message in re.findall(r"^\| `([^`]+)` \|", TROUBLESHOOTING, re.MULTILINE):
        for part in filter(None, message.split("…")):
            assert part.strip() in source, message
