"""A study whose process is killed, not asked to end, goes on: same bits, and nothing that is done is done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_studies import EXPERIMENTS, outcome

from forks import Forks
from killing import kill_inside
from softprune.config import Study
from softprune.studies.runner import execute

pytestmark = pytest.mark.slow
# In the second run's training, in a piece of work of the study's own, and while its tables are written.
KILLS = [("file:tune.partial.safetensors", 3), ("file:norms.json", 1), ("file:table-norms.md", 1)]


@pytest.mark.usefixtures("one_thread")
def test_killed_in_a_run_and_in_its_own_work_it_ends_alike(
    forks: Forks, tmp_path: Path, small: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small("experiment=measured", "variants=[]")
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "broken" / "study"
    recipe.write_text(study.dump())
    out.parent.mkdir()
    first: dict[Path, int] = {}
    for number, (where, nth) in enumerate(KILLS):
        kill_inside(forks, recipe, out, where, nth)
        assert json.loads((out / "study.json").read_text())["status"] == "running"
        done = sorted(out.parent.glob("runs/*/COMPLETE"))
        assert len(done) == min(number + 1, 2)
        first = {path: path.stat().st_mtime_ns for path in done} | first
    assert (out / "work" / "norms.json").exists()
    monkeypatch.setattr("softprune.studies.runner.EXPERIMENTS", EXPERIMENTS)
    execute(study, out.name, out.parent, "kill test")
    assert len(json.loads((out / "study.json").read_text())["attempts"]) == 1 + len(KILLS)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    whole = outcome(execute(study, "study", tmp_path / "whole", "whole"))
    assert outcome(out) == whole
    assert outcome(execute(small("experiment=measured", "variants=[]", "seed=1"), "s", tmp_path / "other", "")) != whole
