"""The documents tell the truth: their commands and flags exist, their recipes load, their files are there."""

from __future__ import annotations

import ast
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml

from forks import Forks
from softprune.adapters.registry import METHODS
from softprune.cli.app import app
from softprune.cli.options import OLD_FLAGS
from softprune.config import CompareRecipe, Recipe, flat_fields, load_config, load_study

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and text of every code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line for path in DOCUMENTS for _, text in blocks(path) for line in text.splitlines()]
    return sorted({line.split("#")[0].strip() for line in lines if line.startswith("softprune ")})


def known_options(words: list[str]) -> set[str]:
    """Options of the command that the words name; fails where there is none."""
    command, path = typer.main.get_command(app), ""
    while hasattr(command, "commands") and words and words[0] in command.commands:
        path = f"{path} {words[0]}".strip()
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"no command in {words}"
    return {option for parameter in command.params for option in parameter.opts} | set(OLD_FLAGS.get(path, {}))


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) >= 6


@pytest.mark.parametrize("line", commands())
def test_documented_commands_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    options = known_options(words)
    assert {word for word in words if word.startswith("--")} <= options
    keys = {field.key for field in flat_fields()}
    free = [word for before, word in pairwise(["", *words]) if not before.startswith("--")]  # no option's value
    assert {word.split("=")[0] for word in free if re.match(r"[a-z.]+=", word)} <= keys


def test_a_command_that_does_not_exist_is_found() -> None:
    with pytest.raises(AssertionError):
        known_options(["prune", "everything"])
    assert "--everything" not in known_options(["xprompt"])


@pytest.mark.parametrize(
    "text", [text for path in DOCUMENTS if path.name != "tasks.md" for kind, text in blocks(path) if kind == "yaml"]
)
def test_documented_recipes_load(text: str, tmp_path: Path) -> None:
    keys = yaml.safe_load(text)
    if keys.get("kind") == "study":
        (tmp_path / "study.yaml").write_text(text)
        assert load_study(tmp_path / "study.yaml").schema_ == 1
        return
    assert load_config(CompareRecipe if keys.get("kind") == "compare" else Recipe, keys).schema_ == 1


def test_the_table_of_methods_is_the_one_that_counts() -> None:
    lines = (ROOT / "docs" / "methods.md").read_text().splitlines()
    for method in METHODS.values():
        rate = f"{method.relative_lr} × RMS of embeddings" if method.lr is None else f"{method.lr:g}"
        assert f"| {method.name} | {method.trains} | {method.source} | {rate} |" in lines


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_files_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_python_page_shows_the_script_that_runs() -> None:
    (shown,) = [text for kind, text in blocks(ROOT / "docs" / "python.md") if kind == "python"]
    assert shown == (ROOT / "scripts" / "quickstart.py").read_text()


@pytest.mark.slow
def test_the_script_runs(forks: Forks, tmp_path: Path) -> None:
    text = (ROOT / "scripts" / "quickstart.py").read_text()
    for long, short in (('"shots": 80', '"shots": 16'), ('"limit_report": 100', '"limit_report": 8'), (": 4}", ": 1}")):
        assert text.count(long) == 1
        text = text.replace(long, short)
    (tmp_path / "quickstart.py").write_text(text)
    script = forks.start([tmp_path / "quickstart.py", tmp_path], tmp_path / "log")
    assert script.wait() == 0, script.log.read_text()
    said = script.log.read_text()
    assert "10 of 20 tokens, prompt of shape [10, 256]" in said
    assert "winning ticket" in said
    assert re.search(r"^whole: (finance|logistics|security|maintenance)$", said, re.MULTILINE)
    assert (tmp_path / "quickstart" / "report" / "index.html").is_file()


NAMED = re.compile(r"`([a-z_/]+\.py):(\w+)(?:\.(\w+))?`")


def defined_names(file: Path) -> set[str]:
    """What a file defines: functions, classes, and `Class.method`."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_the_walks_name_what_there_is() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = NAMED.findall(page)
    assert len(named) >= 30
    for file, name, method in named:
        wanted = f"{name}.{method}" if method else name
        assert wanted in defined_names(ROOT / "src" / "softprune" / file), f"{file}:{wanted}"


def test_a_name_that_is_not_there_is_missed() -> None:
    names = defined_names(ROOT / "src" / "softprune" / "training" / "loop.py")
    assert "train" in names
    assert "trains" not in names
