"""The wheel as a user gets it: built, installed outside the checkout with what it asks for, its models loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from softprune.models import BUNDLED

ROOT = Path(__file__).parents[1]
LARGEST = 16_000_000  # bytes of a bundled model with its tokenizer
pytestmark = pytest.mark.slow

LOAD = """
import json, pathlib, sys
import softprune
from softprune.models.description import find_source
for name in sys.argv[1:]:
    folder = pathlib.Path(find_source(name))
    backbone = softprune.load_backbone(name)
    print(json.dumps({
        "module": softprune.__file__,
        "name": backbone.info.name,
        "family": backbone.info.family,
        "hidden": backbone.info.hidden,
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "card": (folder / "README.md").read_text()[:4],
    }))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; it must succeed and see nothing of the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def requirements(name: str, extras: tuple[str, ...] = ()) -> Iterator[Requirement]:
    """What an installed distribution asks for here."""
    for text in distribution(name).requires or []:
        required = Requirement(text)
        if required.marker is None or any(required.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield required


def closure(name: str) -> dict[str, Distribution]:
    """All distributions that one asks for, directly or through another, each in a version that it allows."""
    found: dict[tuple[str, tuple[str, ...]], Distribution] = {}
    waiting = list(requirements(name))
    while waiting:
        required = waiting.pop()
        key = (required.name, tuple(sorted(required.extras)))
        if key not in found:
            found[key] = distribution(required.name)
            assert required.specifier.contains(found[key].version, prereleases=True), str(required)
            waiting += requirements(*key)
    return {name: one for (name, _), one in found.items()}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the wheel and, as links to this environment, what the wheel asks for."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env")
    python = folder / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    (site,) = folder.glob("env/lib/python*/site-packages")
    for one in closure("softprune").values():
        for name in {file.parts[0] for file in one.files or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(Path(str(one.locate_file(name))).resolve())
    return folder


def test_bundled_models_load_from_the_installed_wheel(fresh: Path) -> None:
    lines = run(fresh / "env" / "bin" / "python", "-W", "error", "-c", LOAD, *BUNDLED, cwd=fresh).splitlines()
    assert len(lines) == len(BUNDLED)
    for name, line in zip(BUNDLED, lines, strict=True):
        said = json.loads(line)
        assert Path(said["module"]).is_relative_to(fresh)
        assert said["name"] == name
        assert said["family"] == {"tiny": "sentence"}.get(name, name.removeprefix("tiny-"))
        assert said["bytes"] <= LARGEST
        assert said["card"] == "---\n"


def test_what_the_wheel_does_not_ask_for_is_not_there(fresh: Path) -> None:
    """The control: the environment of the tests holds more."""
    look = "from importlib.util import find_spec; print([n for n in ('pytest', 'peft', 'torch') if find_spec(n)])"
    assert run(fresh / "env" / "bin" / "python", "-c", look, cwd=fresh) == "['torch']\n"


def test_the_installed_command_answers(fresh: Path) -> None:
    assert run(fresh / "env" / "bin" / "softprune", "--version", cwd=fresh).startswith("softprune ")
    assert "demo" in run(fresh / "env" / "bin" / "softprune", "tasks", "list", cwd=fresh)
