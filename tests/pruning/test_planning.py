"""A plan writes nothing, reads no reported example, and expects what a run then does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from whole_runs import CASES, Models, Run, recipe_of

from softprune.models.base import Backbone
from softprune.pipelines.plan import Pace, Plan, plan
from softprune.training.scoring import SealedSet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return []


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, tiny_models: Models, task_file: Path, texts: list[str]) -> Plan:
    """The plan of the grid, and every text that was tokenised for it."""
    encode = Backbone.encode

    def noted(backbone: Backbone, examples: list, *rest: int) -> list:  # type: ignore[type-arg]
        texts.extend(example.text for example in examples)
        return encode(backbone, examples, *rest)

    def opened(_: SealedSet) -> None:
        raise AssertionError("`report` was opened")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nowhere"))
        patch.setattr(Backbone, "encode", noted)
        patch.setattr(SealedSet, "open", opened)
        found = plan(recipe_of(tiny_models("sentence"), task_file, *CASES["grid, zero"]))
        assert not list(Path.cwd().iterdir())
    return found


def test_it_expects_what_the_run_does(planned: Plan, run_of: Callable[[str], Run]) -> None:
    found, info = planned.document(), run_of("grid, zero").info
    assert json.loads(json.dumps(found)) == found
    assert (found["K"], found["steps"], found["examples"]) == (info["K"], info["cost"]["steps"], info["task"]["sizes"])
    assert found["trainable_parameters"] == info["cost"]["trainable_parameters"]
    assert found["exact"]
    assert found["early_stopping"]
    assert found["memory"]["peak"] > found["memory"]["held"] > 10**7


def test_reported_examples_are_counted_and_not_read(planned: Plan, texts: list[str]) -> None:
    assert planned.sizes() == {"train": 19, "select": 5, "report": 15}
    assert len(texts) == 24
    assert not any(word in text for text in texts for word in ("scene", "children"))


def test_time_is_counts_times_pace(planned: Plan) -> None:
    pace = Pace(alone=1.0, together=2.0, scored=0.01, reported=0.02, loading=7.0)
    found = Plan(planned.workspace, planned.counts, planned.step, planned.held, planned.free, pace).seconds()
    assert planned.counts.largest == (3, 4)
    assert found["loading"] == 7
    # 3 epochs of 3 steps alone; 4 candidates of 2 epochs in groups of 3 and 1. 5 examples an evaluation.
    assert found["tune"] == pytest.approx(9 * 1 + 3 * 5 * 0.01)
    assert found["retrain"] == pytest.approx(6 * 2 + 6 * 1 + 4 * 2 * 5 * 0.01)
    assert found["rank"] == pytest.approx(4 * 5 * 0.01)
    # Control and random mask side by side lie halfway between one and three.
    assert found["control"] == pytest.approx(6 * 1.5 + 2 * 2 * 5 * 0.01)
    reported = 6 + 3 * 2 + 2
    assert found["report"] == pytest.approx(reported * 15 * 0.02)
    assert set(found) == {"loading", "tune", "retrain", "control", "fresh", "importance", "rank", "report"}


def test_what_is_measured_is_above_nothing(planned: Plan) -> None:
    assert all(seconds > 0 for seconds in planned.seconds().values())
    assert planned.step is not None
    assert planned.step.each > 0
