"""What an import costs, and who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import softprune
from softprune.errors import SoftpruneError

PACKAGE = Path(softprune.__file__).parent


def rooms_in_order(page: str) -> list[str]:
    """The rooms of the table under "The house", from those that import nothing to those that nothing imports."""
    table = page.split("## The house")[1].split("\n\n")[2]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


ROOMS = rooms_in_order((Path(__file__).parents[1] / "docs" / "design.md").read_text(encoding="utf-8"))
HEAVY = ("torch", "transformers", "peft")
HELP = "import sys; sys.argv = ['softprune', '--help']; from softprune.cli import main; main()"


def heavy_after(code: str) -> list[str]:
    """Which heavy packages are there when `code` has run, whether or not it exits."""
    program = (
        f"import sys\ntry:\n    exec({code!r})\nexcept SystemExit: pass\n"
        f"print('HEAVY', *[name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("code", ["import softprune; softprune.__version__; dir(softprune)", HELP])
def test_nothing_heavy_is_imported(code: str) -> None:
    assert heavy_after(code) == []


def test_the_probe_sees_what_is_heavy() -> None:
    assert heavy_after("import torch") == ["torch"]


def test_help_takes_less_than_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "softprune", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 1.0


@pytest.mark.parametrize("name", [name for name in softprune.__all__ if name != "__version__"])
def test_public_names_are_there(name: str) -> None:
    assert callable(getattr(softprune, name))
    assert name in dir(softprune)


def test_other_names_are_not() -> None:
    assert softprune.SoftpruneError is SoftpruneError
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        softprune.nonsense  # noqa: B018


def test_version_is_the_packages() -> None:
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == softprune.__version__


def imported_rooms(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and room of every import from softprune, those under TYPE_CHECKING and in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "softprune" and parts[1:] != ["__version__"]:
                yield node.lineno, parts[1] if len(parts) > 1 else "softprune"


def allowed(room: str) -> set[str]:
    if room == "report":  # reads run folders, and writes as they do; two runs' answers it compares as runs do
        return {"types", "printable", "errors", "terminal", "statistics", "runs", "report"}
    return set(ROOMS[: ROOMS.index(room) + 1])


def breaches(source: str, room: str, package: tuple[str, ...]) -> list[str]:
    return [f"line {line}: {found}" for line, found in imported_rooms(source, package) if found not in allowed(room)]


MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix() not in ("__init__.py", "__main__.py")
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_imports_only_from_what_stands_above_it(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    assert parts[0] in ROOMS, f"{parts[0]} has no place in DESIGN.md's order"
    assert breaches(path.read_text(), parts[0], ("softprune", *parts[:-1])) == []


@pytest.mark.parametrize(
    ("source", "room"),
    [
        ("from softprune.pruning.masks import cut", "training"),
        ("from softprune import pruning", "training"),
        ("import softprune.pruning", "training"),
        ("import softprune", "training"),
        ("from ..pruning import masks", "training"),
        ("def f():\n    from softprune.pruning import api", "training"),
        ("if TYPE_CHECKING:\n    from softprune.pruning import api", "training"),
        ("from softprune.training.scoring import Scoring", "report"),
        ("from softprune.errors import SoftpruneError", "types"),
    ],
)
def test_the_walk_finds_breaches(source: str, room: str) -> None:
    assert len(breaches(source, room, ("softprune", room))) == 1


@pytest.mark.parametrize(
    ("source", "room"),
    [
        ("from softprune.types import Mask", "report"),
        ("from softprune import __version__", "cli"),
        ("from .masks import cut", "pruning"),
        ("from softprune.training import loop\nimport torch", "pruning"),
    ],
)
def test_the_walk_lets_the_rest_pass(source: str, room: str) -> None:
    assert breaches(source, room, ("softprune", room)) == []
