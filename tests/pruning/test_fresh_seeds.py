"""Fresh seeds: their numbers and names, and that more of them may follow without a change to those that are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toys import distance, drawn, mask_of
from whole_runs import HIDDEN, Models, P, S, recipe_of

from softprune.config import resolve
from softprune.evaluation.baselines import fresh_pairs, fresh_seed, retrain_fresh, spans
from softprune.prompts.soft_prompts import full_mask
from softprune.runs.executors import Executor
from softprune.runs.run_folder import RunFolder
from softprune.training.loop import Watch
from softprune.training.session import Workspace, prepare
from softprune.types import PromptState

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pruned() -> Any:
    """What a search found, as far as retraining reads it."""
    tuned = SimpleNamespace(state=PromptState(drawn(P, HIDDEN), full_mask(P, S)))
    winner = SimpleNamespace(mask=mask_of("1011", S))
    return SimpleNamespace(tuned=tuned, whole=tuned, teacher=None, keep=None, winner=winner)


@pytest.fixture
def workspace_of(tiny_models: Models, task_file: Path, tmp_path: Path) -> Callable[..., Workspace]:
    def make(name: str, group: int, removal: str) -> Workspace:
        changes = (f"pruning.removal={removal}", f"search.group={group}", "selection.seeds=3")
        recipe = recipe_of(tiny_models("sentence"), task_file, *changes)
        run = RunFolder.open(tmp_path / name, recipe_text="", resolved=recipe.resolved(), kind="xprompt", command="")
        return prepare(recipe, run, Watch(), Executor())

    return make


def test_runs_with_neighbouring_seeds_share_no_fresh_seed() -> None:
    found = [fresh_seed(run, number) for run in range(4) for number in range(10)]
    assert len(set(found)) == 40
    assert found[:2] == [1000, 1001]
    assert fresh_seed(3, None) == 3
    assert set(found).isdisjoint(range(4))


def test_auto_gives_the_random_mask_three_seeds() -> None:
    pairs = fresh_pairs(resolve([]), range(10))
    assert [number for name, number in pairs if name == "random"] == [0, 1, 2]
    assert [number for name, number in pairs if name == "winner"] == list(range(10))
    assert len(fresh_pairs(resolve(["selection.seeds=7"]), range(7))) == 21


def test_numbers_in_short() -> None:
    assert spans([0, 1, 2, 5, 7, 8]) == "0 to 2, 5, 7 to 8"
    assert (spans([4]), spans([]), spans([0, 1], "to", "+")) == ("4", "", "0to1")


@pytest.mark.parametrize("removal", ["zero", "drop"])
def test_more_seeds_later_are_those_of_one_go(
    removal: str, workspace_of: Callable[..., Workspace], pruned: Any
) -> None:
    later, at_once = workspace_of("later", 4, removal), workspace_of("at once", 9, removal)
    first = retrain_fresh(later, pruned, [0, 1])
    known = dict(later.run.record.cost.training)
    second = retrain_fresh(later, pruned, [2])
    training = later.run.record.cost.training
    assert {name: training[name] for name in known} == known
    assert len(training) > len(known)
    wanted = retrain_fresh(at_once, pruned, range(3))
    assert len(at_once.run.record.cost.training) == (1 if removal == "zero" else 2)
    found = first | second
    assert found.keys() == wanted.keys()
    for name, fitted in wanted.items():
        assert distance(found[name].state.vectors_PH, fitted.state.vectors_PH) <= 1e-4
    own = wanted["control@0"].state.vectors_PH
    moved = [distance(wanted[f"control@{number}"].state.vectors_PH, own) for number in (1, 2)]
    assert min(moved) > 1e-2, "another seed is another data order"
    masks = {tuple(wanted[f"random@{i}"].state.mask.piece_PS.flatten().tolist()) for i in range(3)}
    assert len(masks) == 3, "a random mask is drawn again for each seed"
    kept = dict(at_once.run.record.cost.training)
    again = retrain_fresh(at_once, pruned, range(3))
    assert torch.equal(again["winner@2"].state.vectors_PH, wanted["winner@2"].state.vectors_PH)
    assert at_once.run.record.cost.training == kept
