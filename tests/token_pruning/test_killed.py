"""A run of token pruning whose process is killed, not asked to end, goes on and ends with the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import outcome, recipe_of, write_task

from forks import Forks
from killing import finish, kill_inside
from softprune.pipelines.token_pruning import execute

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
# Phase, and which of its writes is never made.
KILLS = [("soft", 4), ("rules", 5), ("report", 1)]


def test_killed_in_several_phases_it_ends_with_the_same_bits(
    forks: Forks, tmp_path: Path, tiny_models: Callable[[str], Path]
) -> None:
    settings = ("pruning.soft_epochs=2", "tuning.dropout=0.1")
    recipe = recipe_of(write_task(tmp_path / "task"), tiny_models("encoder"), *settings)
    file, whole, broken = tmp_path / "recipe.yaml", tmp_path / "whole", tmp_path / "broken"
    file.write_text(recipe.dump())
    for phase, nth in KILLS:
        kill_inside(forks, file, broken, phase, nth)
        assert json.loads((broken / "run.json").read_text())["phase"] == phase
    finish(forks, file, broken)
    execute(recipe, whole, "kill test", recipe.dump(), finish=lambda folder: None)
    assert outcome(broken) == outcome(whole)
    with pytest.raises(AssertionError):
        assert outcome(broken) == outcome(whole) | {"stages": {}}
