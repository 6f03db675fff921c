"""A comparison whose process is killed, not asked to end, goes on and ends with the same result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from comparisons import outcome

from softprune.config import CompareRecipe

DRIVER = Path(__file__).parents[1] / "kill_driver.py"
# In a run's sweep, in another's retraining, and while the tables are written.
KILLS = [("prompt-0:sweep", 2), ("xprompt-0:retrain", 2), ("file:table.md", 1)]


def start(where: str, nth: int, recipe: Path, out: Path, marker: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(DRIVER), where, str(nth), str(marker), str(recipe), str(out)]
    with out.with_suffix(".log").open("w") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)


def finish(recipe: Path, out: Path) -> None:
    process = start("none", 0, recipe, out, out.with_suffix(".unused"))
    process.wait(timeout=240)
    assert process.returncode == 0, out.with_suffix(".log").read_text()


def test_killed_in_a_run_and_between_runs_it_ends_alike(
    tmp_path: Path, small: Callable[..., CompareRecipe], compared: Path
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "broken"
    recipe.write_text(small("tuning.sweep=0.3,1").dump())
    for number, (where, nth) in enumerate(KILLS):
        marker = tmp_path / f"marker-{number}"
        process = start(where, nth, recipe, out, marker)
        waited = time.monotonic() + 240
        while not marker.exists():
            assert process.poll() is None, f"ended before {where}: {out.with_suffix('.log').read_text()}"
            assert time.monotonic() < waited, f"never reached {where}"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "COMPLETE").exists()
        assert json.loads((out / "compare.json").read_text())["status"] == "running"
    finish(recipe, out)
    assert len(json.loads((out / "compare.json").read_text())["attempts"]) == 1 + len(KILLS)
    assert outcome(out) == outcome(compared)
    with pytest.raises(AssertionError):
        assert outcome(out) == outcome(compared) | {"tickets": {}}
