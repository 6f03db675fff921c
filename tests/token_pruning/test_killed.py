"""A run of token pruning whose process is killed, not asked to end, goes on and ends with the same bits."""

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
from small_runs import outcome, recipe_of, write_task

DRIVER = Path(__file__).parents[1] / "kill_driver.py"
# Phase, and which of its writes is never made.
KILLS = [("soft", 4), ("rules", 5), ("report", 1)]


def start(phase: str, nth: int, recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    marker = out.with_suffix(f".{phase}")
    command = [sys.executable, str(DRIVER), phase, str(nth), str(marker), str(recipe), str(out)]
    with out.with_suffix(".log").open("w") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)


def finish(process: subprocess.Popen[bytes], out: Path) -> None:
    process.wait(timeout=240)
    assert process.returncode == 0, out.with_suffix(".log").read_text()


def test_killed_in_several_phases_it_ends_with_the_same_bits(
    tmp_path: Path, tiny_models: Callable[[str], Path]
) -> None:
    settings = ("tuning.epochs=3", "pruning.soft_epochs=2", "pruning.hard_epochs=2", "tuning.dropout=0.1")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe_of(write_task(tmp_path / "task"), tiny_models("encoder"), *settings).dump())
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start("none", 0, recipe, whole), whole)
    for phase, nth in KILLS:
        process = start(phase, nth, recipe, broken)
        waited = time.monotonic() + 240
        while not broken.with_suffix(f".{phase}").exists():
            assert process.poll() is None, f"ended before {phase}: {broken.with_suffix('.log').read_text()}"
            assert time.monotonic() < waited, f"never reached {phase}"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert json.loads((broken / "run.json").read_text())["phase"] == phase
        assert not (broken / "COMPLETE").exists()
    finish(start("none", 0, recipe, broken), broken)
    assert outcome(broken) == outcome(whole)
    with pytest.raises(AssertionError):
        assert outcome(broken) == outcome(whole) | {"stages": {}}
