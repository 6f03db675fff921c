"""What an import costs, and who may import whom."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping
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
    assert heavy_after("sys.modules['torch'] = sys; import torch") == ["torch"]


def test_help_takes_less_than_a_second() -> None:
    """Of the processor: the clock on the wall also measures who else is at work."""

    def seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "softprune", "--help"], check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert any(seconds() < 1.0 for _ in range(3))


def test_public_names_are_there() -> None:
    for name in set(softprune.__all__) - {"__version__"}:
        assert callable(getattr(softprune, name)), name
        assert name in dir(softprune)


def test_other_names_are_not() -> None:
    assert softprune.SoftpruneError is SoftpruneError
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        softprune.nonsense  # noqa: B018


def test_version_is_the_packages() -> None:
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == softprune.__version__


def imported_names(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    """Full names of what a statement imports from softprune; `from . import x` is resolved against the package."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
        module = ".".join(filter(None, (base, node.module)))
        names = [f"{module}.{alias.name}" for alias in node.names]
    else:
        return []
    return [name for name in names if name.split(".")[0] == "softprune"]


def imported_rooms(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and room of every import from softprune, those under TYPE_CHECKING and in functions too."""
    for node in ast.walk(ast.parse(source)):
        for name in imported_names(node, package):
            parts = name.split(".")
            if parts[1:] != ["__version__"]:
                yield node.lineno, parts[1] if len(parts) > 1 else "softprune"


def allowed(room: str) -> set[str]:
    if room == "report":  # reads run folders, and writes as they do; of data, it needs the metrics' labels
        return {"types", "printable", "errors", "terminal", "config", "statistics", "runs", "data", "report"}
    return set(ROOMS[: ROOMS.index(room) + 1])


def breaches(source: str, room: str, package: tuple[str, ...]) -> list[str]:
    return [f"line {line}: {found}" for line, found in imported_rooms(source, package) if found not in allowed(room)]


MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix() not in ("__init__.py", "__main__.py")
)


def test_files_import_only_from_lower_rooms() -> None:
    reports = []
    for path in MODULES:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        assert parts[0] in ROOMS, f"{parts[0]} has no place in ROOMS"
        for breach in breaches(path.read_text(), parts[0], ("softprune", *parts[:-1])):
            reports.append(f"{'/'.join(parts)}.py, {breach}")
    assert reports == []


def imported_files(source: str, package: tuple[str, ...], files: Collection[str]) -> set[str]:
    """Files (`data.task`) that a source imports, in functions too, but not under TYPE_CHECKING."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        for name in imported_names(node, package):
            # What follows the package is a file (`data.task`), or a file and a name in it (`data.task.load_task`).
            inside = name.partition(".")[2]
            file = inside if inside in files else inside.rpartition(".")[0]
            if file in files:
                found.add(file)
    return found


def circles(imports: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Groups of files each of which can be reached from each other one of its group, by what each of them imports."""
    reached = {name: reachable(name, imports) for name in imports}
    groups = {tuple(sorted(other for other in names if name in reached[other])) for name, names in reached.items()}
    return sorted(list(group) for group in groups if group)


def reachable(start: str, imports: Mapping[str, Collection[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(imports[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += imports[name]
    return seen


def test_no_circle_of_files() -> None:
    names = {
        path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in MODULES
    }
    imports = {
        name: imported_files(path.read_text(), ("softprune", *path.relative_to(PACKAGE).parts[:-1]), names.values())
        for path, name in names.items()
    }
    assert circles(imports) == []


def test_circles_are_found() -> None:
    source = (
        "if TYPE_CHECKING:\n    from softprune.b import B\nelse:\n    import softprune.c\ndef f():\n    from . import d"
    )
    assert imported_files(source, ("softprune",), "abcd") == {"c", "d"}
    assert circles({"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": [], "e": ["e"]}) == [["b", "c"], ["e"]]


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
