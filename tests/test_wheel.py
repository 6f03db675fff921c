"""The wheel as a user gets it: built, installed in a fresh environment outside the checkout, its models loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from softprune.models import BUNDLED

ROOT = Path(__file__).parents[1]
LARGEST = 16_000_000  # bytes of a bundled model with its tokenizer

LOAD = """
import json, pathlib, sys
import softprune
from softprune.models.description import find_source
folder = pathlib.Path(find_source(sys.argv[1]))
backbone = softprune.load_backbone(sys.argv[1])
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


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the wheel and what the wheel asks for."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    constraints = ROOT / "constraints.txt"
    run(folder / "env" / "bin" / "python", "-m", "pip", "install", "-q", "-c", constraints, wheel, cwd=folder)
    return folder


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_loads_from_the_installed_wheel(fresh: Path, name: str) -> None:
    said = json.loads(run(fresh / "env" / "bin" / "python", "-W", "error", "-c", LOAD, name, cwd=fresh))
    assert Path(said["module"]).is_relative_to(fresh)
    assert said["name"] == name
    assert said["family"] == {"tiny": "sentence"}.get(name, name.removeprefix("tiny-"))
    assert said["bytes"] <= LARGEST
    assert said["card"] == "---\n"


def test_the_installed_command_answers(fresh: Path) -> None:
    assert run(fresh / "env" / "bin" / "softprune", "--version", cwd=fresh).startswith("softprune ")
    assert "demo" in run(fresh / "env" / "bin" / "softprune", "tasks", "list", cwd=fresh)
