"""The counts of a plan are those of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
from whole_runs import CASES, Run

from softprune.config import resolve
from softprune.config.schema import SearchConfig
from softprune.pipelines.plan import count_steps

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

# Nobody stops early in these, and no gates decide what is trained.
WHOLE = [case for case in CASES if "tuning.patience=1" not in CASES[case] and "learned" not in case]


@pytest.mark.parametrize("case", WHOLE)
def test_steps_are_those_of_the_run(case: str, run_of: Callable[[str], Run]) -> None:
    run = run_of(case)
    info = run.info
    found = count_steps(run.recipe, info["task"]["sizes"]["train"], info["K"])
    spent = info["cost"]["training"]
    assert found.exact
    assert sum(stage.steps * len(stage.groups) for stage in found.stages) == info["cost"]["steps"]
    assert sum(len(stage.groups) for stage in found.stages) == len(spent), "groups"
    seen = sum(stage.trainings * stage.steps for stage in found.stages) * info["task"]["sizes"]["train"]
    assert seen == sum(part["examples"] for part in spent.values()) * -(-info["task"]["sizes"]["train"] // 8)
    assert sum(stage.trainings * stage.evaluations for stage in found.stages) == len(run.lines("metrics.jsonl"))
    if case != "tune":
        lines = run.lines("candidates.jsonl")
        assert found.candidates == len(lines)
        assert sum(stage.trainings for stage in found.stages if stage.name == "retrain") == len(lines)
    more = count_steps(run.recipe, info["task"]["sizes"]["train"] + 8, info["K"])
    assert more.stages[0].steps > found.stages[0].steps, "negative control"


def counted(*changes: str, examples: int = 160, group: int = 16) -> dict[str, object]:
    found = count_steps(resolve(["tuning.epochs=4", "search.epochs=9", *changes]), examples, group)
    stages = {stage.name: (len(stage.groups), stage.trainings, stage.steps) for stage in found.stages}
    return {"exact": found.exact, "candidates": found.candidates, **stages}


def test_the_papers_searches() -> None:
    common = {"tune": (1, 1, 40), "control": (1, 2, 90), "fresh": (1, 13, 90), "exact": True}
    zero = "pruning.removal=zero"
    assert counted("search.strategy=grid", zero) == {**common, "candidates": 81, "retrain": (6, 81, 90)}
    assert counted("search.strategy=sequential", zero) == {**common, "candidates": 18, "retrain": (2, 18, 90)}
    assert counted("search.strategy=sequential", zero, group=5)["retrain"] == (4, 18, 90)
    # Under drop every token ratio has its own length; then the pieces of one.
    dropped = {**common, "candidates": 18, "retrain": (10, 18, 90), "control": (2, 2, 90), "fresh": (2, 13, 90)}
    assert counted("search.strategy=sequential") == dropped
    assert counted("search.strategy=grid")["retrain"] == (9, 81, 90)


def test_random_trains_as_many_as_it_samples() -> None:
    common = ("search.strategy=random", "pruning.removal=zero")
    assert counted(*common)["retrain"] == (1, 12, 90)
    assert counted(*common, "search.samples=20")["retrain"] == (2, 20, 90)
    assert counted(*common, "search.samples=100")["candidates"] == 81


def test_where_the_winners_length_is_open_the_plan_says_so() -> None:
    """With 4 tokens, a tenth of them rounds to none: that winner is as long as the control, another isn't."""
    ratios = "search.token_ratios=0.1,0.5"
    assert counted("prompt.tokens=4", ratios)["exact"] is False
    assert counted("prompt.tokens=4", ratios, "pruning.removal=zero")["exact"] is True
    assert counted("prompt.tokens=20", ratios)["exact"] is True


def test_every_strategy_can_be_counted() -> None:
    strategies = get_args(SearchConfig.model_fields["strategy"].annotation)
    assert "random" in strategies
    for strategy in strategies:
        assert count_steps(resolve([f"search.strategy={strategy}"]), 100, 4).stages


def test_learned_gates_are_trained_beside_each_other_and_their_tickets_counted() -> None:
    counted = count_steps(
        resolve(["search.strategy=learned", "search.prices=0.1,0.2,0.3", "search.gate_epochs=2", "tuning.epochs=4"]),
        80,
        2,
    )
    tune, gates, retrain, *_ = counted.stages
    assert [gates.name, retrain.name] == ["gates", "retrain"]
    assert gates.groups == ((2, 20), (1, 20))
    assert (gates.steps, retrain.steps, tune.steps) == (10, 20, 20)
    assert retrain.trainings == 3
    assert not counted.exact
