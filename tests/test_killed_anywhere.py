"""A run killed in each of its phases, the whole process group, and started again ends with the same bits."""

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
import yaml
from safetensors.numpy import load_file

from softprune.config import resolve

DRIVER = Path(__file__).parent / "kill_driver.py"

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
            "task.shots=40",
            "task.limit_report=24",
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


def start(phase: str, nth: int, marker: Path, recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(DRIVER), phase, str(nth), str(marker), str(recipe), str(out)]
    with out.with_suffix(".log").open("w") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)


def finish(process: subprocess.Popen[bytes], out: Path) -> None:
    process.wait(timeout=240)
    assert process.returncode == 0, out.with_suffix(".log").read_text()


def kill_inside(phase: str, nth: int, recipe: Path, out: Path, marker: Path) -> None:
    """Start the run, wait until it stands in the phase, and kill its whole process group."""
    process = start(phase, nth, marker, recipe, out)
    waited = time.monotonic() + 240
    while not marker.exists():
        assert process.poll() is None, f"ended before {phase}: {out.with_suffix('.log').read_text()}"
        assert time.monotonic() < waited, f"never reached {phase}"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Proof that it was inside: run.json still names the phase, and what was to be written is not there.
    assert json.loads((out / "run.json").read_text())["phase"] == phase
    assert not list(out.rglob("COMPLETE"))


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


def test_killed_in_every_phase_it_ends_with_the_same_bits(recipe: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start("none", 0, tmp_path / "unused", recipe, whole), whole)
    for phase, nth in KILLS:
        kill_inside(phase, nth, recipe, broken, tmp_path / f"marker-{phase}")
    finish(start("none", 0, tmp_path / "unused", recipe, broken), broken)
    expected, found = outcome(whole), outcome(broken)
    assert len(expected["tensors"]) >= 5  # type: ignore[arg-type]
    assert found == expected


def test_the_comparison_can_fail(recipe: Path, tmp_path: Path) -> None:
    """Negative control: another seed ends with other bits."""
    one, other = tmp_path / "one", tmp_path / "other"
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"seed": 1}))
    finish(start("none", 0, tmp_path / "unused", recipe, one), one)
    finish(start("none", 0, tmp_path / "unused", changed, other), other)
    assert outcome(one)["tensors"] != outcome(other)["tensors"]
