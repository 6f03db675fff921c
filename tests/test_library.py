"""For those who call softprune from Python: what is logged, and whether the page names what exists."""

from __future__ import annotations

import importlib
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

import softprune
from softprune.runs.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.open(tmp_path / "run", recipe_text="", resolved={"seed": 0}, kind="tune", command="python")


def test_each_note_of_a_run_is_logged_once(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    with run:
        with run.editing() as record:
            record.add_notes("a layout that was not checked")
        with run.editing() as record:
            record.add_notes("a layout that was not checked", "two texts were cut")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"{run.path}: a layout that was not checked", f"{run.path}: two texts were cut"]


def test_phases_are_logged_for_those_who_ask(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "softprune")
    with run, run.phase("tuning"):
        pass
    assert f"{run.path}: tuning" in caplog.messages


def test_nothing_is_printed_unless_logging_is_configured() -> None:
    code = "import logging, softprune; logging.getLogger('softprune.runs').warning('a note')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(softprune\.[a-z_.]+\.\w+)[(`]", PAGE))))
def test_names_on_the_page_exist(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_the_page_has_every_public_name() -> None:
    assert [name for name in softprune.__all__ if name not in PAGE and not name.startswith("__")] == []
