"""A comparison whose process is killed, not asked to end, goes on and ends with the same result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from comparisons import outcome

from forks import Forks
from killing import finish, kill_inside
from softprune.config import CompareRecipe

pytestmark = pytest.mark.slow
# In a run's sweep, in another's retraining, and while the tables are written.
KILLS = [("prompt-0:sweep", 2), ("xprompt-0:retrain", 2), ("file:table.md", 1)]


def test_killed_in_a_run_and_between_runs_it_ends_alike(
    forks: Forks, tmp_path: Path, small: Callable[..., CompareRecipe], compared: Path
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "broken"
    recipe.write_text(small("tuning.sweep=0.3,1").dump())
    for where, nth in KILLS:
        kill_inside(forks, recipe, out, where, nth)
        assert json.loads((out / "compare.json").read_text())["status"] == "running"
    finish(forks, recipe, out)
    assert len(json.loads((out / "compare.json").read_text())["attempts"]) == 1 + len(KILLS)
    assert outcome(out) == outcome(compared)
    with pytest.raises(AssertionError):
        assert outcome(out) == outcome(compared) | {"tickets": {}}
