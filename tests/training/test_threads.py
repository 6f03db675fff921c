"""CPU threads by the clock: chosen once a run, and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from softprune.config import resolve
from softprune.training import hardware
from softprune.training.hardware import choose_threads, settle_machine

CPU = torch.device("cpu")


class Pinned:
    """Keeps what is pinned, as a run does."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def pin(self, key: str, compute: Callable[[], Any]) -> Any:
        if key not in self.values:
            self.values[key] = compute()
        return self.values[key]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """A machine of four cores; what threads were set to, and timed with."""
    noted: dict[str, list[int]] = {"set": [], "timed": []}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", noted["set"].append)
    return noted


@pytest.mark.parametrize(("on_four", "chosen"), [(0.142, 1), (0.053, 1), (0.03, 4)])
def test_all_threads_must_be_clearly_faster_than_one(
    on_four: float, chosen: int, machine: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Pinned()

    def fastest(step: Callable[[], object], threads: int) -> float:
        machine["timed"].append(threads)
        return {1: 0.057, 4: on_four}[threads]

    monkeypatch.setattr(hardware, "_fastest_step", fastest)
    note = choose_threads(run, CPU, lambda: None)
    assert note is not None
    assert f"CPU threads: {chosen}, since a step took 57 ms on one and" in note
    assert run.values == {"threads": chosen}
    assert machine == {"set": [chosen], "timed": [1, 4]}
    assert choose_threads(run, CPU, lambda: None) is None, "a run that goes on keeps its threads"
    assert machine == {"set": [chosen, chosen], "timed": [1, 4]}


def test_nothing_is_timed_on_a_gpu(machine: dict[str, list[int]]) -> None:
    run = Pinned()
    assert choose_threads(run, torch.device("cuda"), lambda: pytest.fail("timed")) is None
    assert (run.values, machine["set"]) == ({"threads": 4}, [4])


def test_a_step_is_made_on_each_number_of_threads(machine: dict[str, list[int]]) -> None:
    steps = []
    choose_threads(Pinned(), CPU, lambda: steps.append(machine["set"][-1]))
    assert steps == [1] * 6 + [4] * 6


def test_a_number_that_was_asked_for_is_obeyed(machine: dict[str, list[int]]) -> None:
    run = Pinned()
    settle_machine(run, "cpu", "float32", 3)
    assert (run.values["threads"], machine["set"]) == (3, [3])
    other = Pinned()
    settle_machine(other, "cpu", "float32", "auto")
    assert ("threads" in other.values, machine["set"]) == (False, [3]), "left to choose_threads"


def test_none_means_auto_as_in_older_recipes() -> None:
    assert resolve(base={"backbone": {"threads": None}}).backbone.threads == resolve().backbone.threads == "auto"
    assert resolve(["backbone.threads=2"]).backbone.threads == 2
