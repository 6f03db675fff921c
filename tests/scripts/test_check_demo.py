"""The demo's own check can fail, in each of its ways."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

GOOD: dict[str, Any] = {
    "status": "complete",
    "results": {"tuned": {"value": 0.8}, "constant": {"value": 0.3}, "zero_shot": {"value": 0.6}},
    "ticket": {"share_of_parameters": 0.4},
}


@pytest.fixture
def check() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "check_demo.py"
    spec = importlib.util.spec_from_file_location("check_demo", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_good_run_passes(check: ModuleType) -> None:
    assert check.shortcomings(GOOD) == []


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("results", "tuned", "value"), 0.64, "above constant and zero-shot"),
        (("results", "tuned", "value"), 0.97, "too easy"),
        (("results", "zero_shot", "value"), 0.76, "above constant and zero-shot"),
        (("ticket", "share_of_parameters"), 0.51, "were pruned"),
        (("status",), "failed", "not complete"),
    ],
)
def test_each_promise_can_be_broken(check: ModuleType, place: tuple[str, ...], value: object, said: str) -> None:
    run = copy.deepcopy(GOOD)
    target = run
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    (sentence,) = check.shortcomings(run)
    assert said in sentence
