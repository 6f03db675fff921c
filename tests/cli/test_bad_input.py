"""Bad input of every kind through the real command. To add one, add an entry in bad_tables.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_files import FILES
from bad_input import Case, Models, contents, hold, write
from bad_tables import CASES

Softprune = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("one_thread")

AS_PROCESSES = (
    "mistakes of every kind at once",
    "a flag misspelt",
    "pickled weights alone",
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_models: Models) -> Path:
    """A complete run of quick.yaml."""
    from softprune.config import Recipe, load_config
    from softprune.pipelines.xprompt import execute

    folder = tmp_path_factory.mktemp("done")
    write(folder, FILES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        quick = [f"backbone.name={tiny_models('sentence')}", "prompt.tokens=2", "tuning.epochs=1"]
        execute(load_config(Recipe, "quick.yaml", quick), Path("done"), "softprune", "")
    return folder / "done"


@pytest.fixture
def workplace(tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data, a recipe, a complete run and a file that is nobody's business."""
    write(tmp_path, FILES)
    shutil.copytree(done, tmp_path / "done")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def set_up(folder: Path, bad: Case, models: Models) -> dict[str, bytes | None]:
    write(folder, bad.files)
    if bad.prepare is not None:
        bad.prepare(folder, models)
    return contents(folder)


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_bad_input_ends_in_one_message(softprune: Softprune, workplace: Path, tiny_models: Models, bad: Case) -> None:
    before = set_up(workplace, bad, tiny_models)
    answer = softprune(*bad.arguments(tiny_models))
    hold(answer.err, bad.told, bad.header)
    assert (answer.code, answer.out) == (2, "")
    assert contents(workplace) == before


@pytest.mark.parametrize("name", AS_PROCESSES)
def test_and_so_it_does_as_a_process(workplace: Path, tiny_models: Models, name: str) -> None:
    bad = next(bad for bad in CASES if bad.name == name)
    before = set_up(workplace, bad, tiny_models)
    command = [sys.executable, "-m", "softprune", *bad.arguments(tiny_models)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    hold(answer.stderr, bad.told, bad.header)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert contents(workplace) == before


def test_the_contract_can_be_broken(workplace: Path, tiny_models: Models) -> None:
    """Were a message without its next step, or a file left behind, the tests above would see it."""
    told = CASES[0].told
    whole = 'expected: a known key of tuning\nfound:    "epoch"\ndo:       did you mean "epochs"?\n'
    hold(whole, told)
    for broken in (
        whole.replace("do: ", "or: "),
        whole + whole,
        "Traceback\n" + whole,
        "note\n" + whole,
        whole + "x\n",
    ):
        with pytest.raises(AssertionError):
            hold(broken, told)
    before = contents(workplace)
    (workplace / "run").mkdir()
    assert contents(workplace) != before
