"""The documentation: commands are accepted by their parsers, links resolve, and the names it mentions exist."""

import argparse
import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

import jaxser
from jaxser import main, papers
from jaxser.config import resolve
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
    """Raised when a command has parsed its arguments, instead of running it."""


def commands() -> list[tuple[str, str]]:
    """Every command in the documentation, with the page it is on."""
    found = []
    for page, text in sorted(PAGES.items()):
        joined = text.replace("\\\n", " ")
        found += [(page, match["block"] or match["inline"]) for match in _LINE.finditer(joined)]
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder of a command, which contains the files of the worked examples."""
    for text in PAGES.values():
        for name, content in _FILE.findall(text):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(arguments: list[str], monkeypatch) -> None:
    """Parse and validate the flags and the config as `jaxser.main` does before it loads a dataset."""
    argv = ["jaxser.main", *(each.replace("FILE.py", "configs/mcsan.py") for each in arguments)]
    monkeypatch.setattr(sys, "argv", argv)  # ml_collections reads overrides from it
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)  # defined by the previous command
    flags.FLAGS.unparse_flags()
    main._parse(argv)
    given = config_flags.get_override_values(flags.FLAGS["config"])
    resolve(flags.FLAGS.config, given)


def parse(module: str, arguments: list[str], monkeypatch) -> argparse.Namespace:
    """The result of the module's own argument parser."""
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
def test_commands_are_accepted_by_their_parsers(page, command, folder, monkeypatch, capsys):
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


def test_a_wrong_command_is_rejected(folder, monkeypatch, capsys):
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


@pytest.mark.parametrize("page", sorted(PAGES))
def test_source_files_mentioned_exist(page):
    examples = {name for text in PAGES.values() for name, _ in _FILE.findall(text)}
    mentioned = re.findall(r"`((?:jaxser|configs|data_prep|tests|benchmarks)/[\w/]+\.py)", PAGES[page])
    assert not [name for name in mentioned if name not in examples and not (ROOT / name).is_file()]


def test_source_files_on_the_architecture_page_exist():
    mentioned = re.findall(r"`([\w/]+\.py)`", PAGES["docs/architecture.md"])
    assert len(mentioned) > 40
    folders = ("jaxser", "configs", "data_prep", "tests", "benchmarks")
    sources = [path.as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for name in mentioned:
        assert any(path.endswith(f"/{name}") for path in sources), name


def test_commands_of_preparation_have_their_installed_names():
    """Without `jaxser.`, they work in the source tree only."""
    assert not [page for page, text in PAGES.items() if "python -m data_prep" in text]


def test_the_readme_has_at_most_110_lines():
    assert len(PAGES["README.md"].splitlines()) <= 110


@pytest.mark.parametrize("page", sorted(PAGES))
def test_imports_in_examples_work(page):
    examples = "".join(content for _, content in _FILE.findall(PAGES[page]))
    for module, names in re.findall(r"^ *from (jaxser[\w.]*) import ([\w, ]+)$", PAGES[page], re.MULTILINE):
        for name in names.split(", "):
            if f"class {name}(" not in examples:
                assert hasattr(importlib.import_module(module), name) or importlib.util.find_spec(
                    f"{module}.{name}"
                )


@pytest.mark.parametrize("name", CONFIGS)
def test_every_variant_is_on_the_models_page(name):
    module = importlib.import_module(f"jaxser.configs.{name}")
    [section] = [part for part in MODELS_PAGE.split("\n## ") if f"`configs/{name}.py`, " in part]
    named = set(re.findall(r"`(\w+)`", section))
    assert set(module.VARIANTS) <= named


def test_names_on_the_models_page_exist():
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


def test_messages_on_the_troubleshooting_page_exist():
    folders = ("jaxser", "data_prep", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    source = re.sub(r'"\s+f?"', "", "\n".join(path.read_text("utf-8") for path in files))
    cells = re.findall(r"^\| (`[^|]+`) \|", TROUBLESHOOTING, re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    assert len(messages) > 50
    for message in messages:
        for part in filter(None, message.split("…")):
            assert part.strip() in source, message


def test_the_site_contains_every_page():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert set(re.findall(r"[\w/-]+\.md", navigation)) == pages


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/reference/api/*.md")), ids=lambda path: path.stem)
def test_names_in_the_api_reference_exist(page):
    for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        name = name if name.startswith("jaxser.") else f"jaxser.{name}"
        last = name.rpartition(".")[2]
        assert last in jaxser.__all__ if page.stem == "index" else importlib.util.find_spec(name), name


@pytest.mark.parametrize(
    "package", ["models", "layers", "data", "training", "evaluation", "inference", "features", "encoders"]
)
def test_the_api_reference_covers_every_module(package):
    text = (ROOT / f"docs/reference/api/{package}.md").read_text(encoding="utf-8")
    folder = ROOT / "jaxser" / package
    files = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py"))
    modules = {".".join(file.parts).removesuffix(".__init__") for file in files} - {"__init__"}
    assert set(re.findall(rf"^::: jaxser\.{package}\.([\w.]+)$", text, re.MULTILINE)) == modules
