"""The script that repeats the demo: what it runs, what it reads, and when verdicts disagree."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

TICKET, WHOLE, UNDECIDED = "ship the ticket", "ship the whole prompt", "undecided"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "demo_verdicts.py"
    spec = importlib.util.spec_from_file_location("demo_verdicts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_verdicts"] = module  # where dataclass looks for it
    spec.loader.exec_module(module)
    return module


def write_run(folder: Path, decision: str, status: str = "complete") -> None:
    folder.mkdir(parents=True)
    run = {
        "status": status,
        "verdict": {"decision": decision},
        "headline": {"value": 0.0123, "low": -0.004, "high": 0.0286, "seeds": 5},
        "ticket": {"share_of_parameters": 0.35},
        "cost": {"seconds": 81.4},
    }
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")


def test_seeds_meet_every_dtype_and_thread_count_and_several_capabilities(script: ModuleType) -> None:
    found = script.settings_of([0, 1, 2, 3, 4], ["float32", "bfloat16"], [1, 2], ["default", "avx2"])
    assert len({setting.name for setting in found}) == 20
    assert {script.Setting.parse(setting.name) for setting in found} == set(found)
    for seed in range(5):
        assert {s.capability for s in found if s.seed == seed} == {"default", "avx2"}


def test_a_run_gets_its_settings(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(script.subprocess, "run", lambda command, env, check: calls.append((command, env)))
    script.Setting(3, "float32", 2, "avx2").run(tmp_path)
    ((command, env),) = calls
    assert command[1:5] == ["-m", "softprune", "run", "demo"]
    assert {"seed=3", "backbone.dtype=float32", "backbone.threads=2"} < set(command)
    assert (env["ATEN_CPU_CAPABILITY"], env["ONEDNN_MAX_CPU_ISA"]) == ("avx2", "AVX2")


def test_the_table_holds_complete_runs_only(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "seed0-float32-threads1-avx2", TICKET)
    write_run(tmp_path / "seed1-float32-threads1-avx2", WHOLE, status="failed")
    write_run(tmp_path / "another", WHOLE)
    assert script.main([str(tmp_path), "--table"]) == 0
    row = "| 0 | float32 | 1 | avx2 | ship the ticket | +1.2 (-0.4 to +2.9) | 5 | 65% | 81 |"
    text = (tmp_path / "verdicts.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("| ")][1:] == [row]
    assert "1 runs: ship the ticket: 1. The verdict holds." in capsys.readouterr().out


def test_nothing_to_show(script: ModuleType, tmp_path: Path) -> None:
    assert script.main([str(tmp_path), "--table"]) == 1


@pytest.mark.parametrize(
    ("decisions", "holds"),
    [
        ([TICKET] * 18 + [UNDECIDED] * 2, True),
        ([TICKET] * 17 + [UNDECIDED] * 3, False),
        ([TICKET] * 19 + [WHOLE], False),
        ([UNDECIDED] * 20, True),
    ],
)
def test_when_a_verdict_holds(script: ModuleType, decisions: list[str], holds: bool) -> None:
    assert script.agreement(decisions)[0] is holds
