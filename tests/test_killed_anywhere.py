"""A run killed in each of its phases, the whole process group, and started again ends with the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from forks import Forks
from killing import finish, kill_inside
from softprune.config import Recipe, load_config, resolve
from softprune.pipelines.xprompt import execute

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

# Phase, and which of its writes is never made. The second of a training phase: it has got further than its start.
KILLS = [
    ("tune", 2),
    ("importance", 2),
    ("rank", 1),
    ("retrain", 3),
    ("control", 2),
    ("fresh", 2),
    ("ticket", 4),
    ("report", 2),
    ("write", 1),
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_models: Callable[[str], Path]) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    settings = resolve(
        [
            f"backbone.name={tiny_models('sentence')}",
            "task.id=demo",
            "task.shots=24",
            "task.limit_report=12",
            "prompt.tokens=4",
            "prompt.pieces=4",
            "tuning.epochs=3",
            "search.strategy=grid",
            "search.token_ratios=0.25,0.5",
            "search.piece_ratios=0.5",
            "search.group=4",
            "selection.seeds=2",
            "selection.resamples=200",
        ]
    ).resolved()
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def in_this_process(recipe: Path, out: Path) -> Path:
    """A run that nothing interrupts; sets and dictionaries here have another order than in those that are killed."""
    loaded = load_config(Recipe, recipe)
    execute(loaded, out, "kill test", loaded.dump(), finish=lambda folder: None)
    return out


def outcome(out: Path) -> dict[str, object]:
    """Everything of a finished run that must not depend on interruptions."""
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "complete"
    for row in info["results"].values():
        row.pop("seconds")
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    curves = sorted(json.dumps({k: v for k, v in line.items() if k != "seconds"}, sort_keys=True) for line in metrics)
    names = ("candidates.jsonl", "ticket/ticket.json", *(f"predictions/{p}.jsonl" for p in ("winner", "control")))
    tensors = {
        str(path.relative_to(out)): {name: value.tobytes() for name, value in load_file(path).items()}
        for path in sorted(out.rglob("*.safetensors"))
    }
    return {
        "results": info["results"],
        "headline": info["headline"],
        "curves": curves,
        "files": {name: (out / name).read_bytes() for name in names},
        "tensors": tensors,
    }


def test_killed_in_every_phase_it_ends_with_the_same_bits(forks: Forks, recipe: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    for phase, nth in KILLS:
        kill_inside(forks, recipe, broken, phase, nth)
        # Proof that it was inside: run.json still names the phase, and what was to be written is not there.
        assert json.loads((broken / "run.json").read_text())["phase"] == phase
        assert not list(broken.rglob("COMPLETE"))
    finish(forks, recipe, broken)
    expected, found = outcome(in_this_process(recipe, tmp_path / "whole")), outcome(broken)
    assert len(expected["tensors"]) >= 5  # type: ignore[arg-type]
    assert found == expected
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"seed": 1}))
    other = outcome(in_this_process(changed, tmp_path / "other"))
    assert other["tensors"] != expected["tensors"], "the control: another seed ends with other bits"
