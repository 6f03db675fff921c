"""Whole runs whose tickets learn from a teacher, begin at a second training, or are pruned while they train."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from toys import distance
from whole_runs import TAUGHT, Models, P, Run, S, execute_one, recipe_of

from mood import write_mood
from softprune.errors import SoftpruneError
from softprune.evaluation.baselines import retrain_fresh, rival_groups
from softprune.prompts.soft_prompts import masked_state
from softprune.pruning import gradual
from softprune.pruning.gradual import piece_ratio_of, ratios_of
from softprune.pruning.xprompt import Pruned, xprompt
from softprune.report.page import html as page_of
from softprune.report.run_reader import read_run
from softprune.runs.executors import Executor
from softprune.runs.run_folder import RunFolder
from softprune.training.jobs import Group, fit
from softprune.training.loop import Watch
from softprune.training.session import Workspace, prepare
from softprune.types import Mask, PromptState

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
Search = Callable[..., tuple[Workspace, Pruned]]


@pytest.fixture
def search(tiny_models: Models, task_file: Path, tmp_path: Path) -> Search:
    def made(case: str, *changes: str) -> tuple[Workspace, Pruned]:
        recipe = recipe_of(tiny_models("sentence"), task_file, *TAUGHT[case], *changes)
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        run = RunFolder.open(folder, recipe_text="", resolved=recipe.resolved(), kind="xprompt", command="")
        workspace = prepare(recipe, run, Watch(), Executor())
        return workspace, xprompt(workspace)

    return made


# --- rewinding and teaching ---


def test_survivors_begin_at_the_second_training_and_learn_its_answers(search: Search) -> None:
    workspace, pruned = search("taught, drop")
    assert pruned.teacher is not None
    whole, tuned = pruned.whole.state.vectors_PH, pruned.tuned.state.vectors_PH
    assert torch.equal(pruned.teacher.vectors_PH, whole)
    assert distance(tuned, whole) > 1e-3
    (again,) = fit(workspace, Group("once more", ("x",), (pruned.tuned.state,), "again", "", epochs=2))
    assert torch.equal(again.state.vectors_PH, whole), "by labels alone"
    mask = pruned.winner.mask
    start = masked_state(whole, mask)
    taught = Group("taught", ("y",), (start,), "retrain", "", epochs=2, teacher=pruned.teacher)
    assert distance(fit(workspace, taught)[0].state.vectors_PH, pruned.winner.fitted.state.vectors_PH) <= 1e-5
    alone = Group("alone", ("z",), (start,), "retrain", "", epochs=2)
    assert distance(fit(workspace, alone)[0].state.vectors_PH, pruned.winner.fitted.state.vectors_PH) > 1e-3
    for group in rival_groups(workspace, pruned, [("control", None), ("winner", 0)]):
        assert group.teacher is pruned.teacher
        for name, begun in zip(group.names, group.starts, strict=True):
            assert torch.equal(begun.vectors_PH, whole if name.startswith("control") else start.vectors_PH)


def test_the_rest_of_the_training_set_is_read_without_labels(search: Search) -> None:
    workspace, _ = search("taught, drop")
    taught = workspace.lessons.examples[len(workspace.train) :]
    assert workspace.lessons.examples[: len(workspace.train)] == workspace.train.examples
    assert [example.gold for example in taught] == [-1] * 5
    others = {e.text for e in (*workspace.train.examples, *workspace.select.examples)}
    assert not others & {example.text for example in taught}
    sizes = workspace.run.record.task.sizes
    assert sizes is not None
    assert sizes.unlabelled == 5


def test_rows_of_a_file_are_read_without_their_labels(search: Search, tmp_path: Path, task_file: Path) -> None:
    path = tmp_path / "more.csv"
    reported = (task_file.parent / "validation.csv").read_text().splitlines()[1]
    path.write_text("\n".join(["text,label", "a fine day,sad", "a grey day,", reported, "a long day,good"]) + "\n")
    workspace, _ = search("taught, zero", f"task.unlabelled={path}")
    taught = workspace.lessons.examples[len(workspace.train) :]
    assert [example.gold for example in taught] == [-1] * 3, "the text that is reported on isn't among them"
    assert ["fine" in e.text for e in taught] == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("task.unlabelled=rest",), "a teacher that answers rows without labels"),
        (("kind=tune", "pruning.teacher=tuned", "task.unlabelled=rest"), "which has none"),
        (("pruning.teacher=tuned", "task.unlabelled=rest"), "none in task.unlabelled=rest"),
        (("pruning.teacher=tuned", "task.unlabelled=nowhere.jsonl"), r"nowhere\.jsonl[\s\S]*correct task\.unlabelled"),
        (("pruning.teacher=tuned", "pruning.teach_weight=0"), "teach_weight"),
        (("pruning.teach_weight=0.3",), r"pruning\.teach_weight beside a pruning\.teacher"),
        (("kind=tune", "pruning.teacher=tuned"), r"pruning\.teacher beside kind: xprompt"),
        (("pruning.teacher=tuned", "task.limit_unlabelled=5"), r"task\.limit_unlabelled beside task\.unlabelled"),
        (("search.strategy=grid", "search.keep=0.3"), r"search\.keep beside search\.strategy=gradual"),
    ],
)
def test_what_can_not_be_taught_is_refused(
    changes: tuple[str, ...], message: str, tiny_models: Models, task_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(SoftpruneError, match=message):
        execute_one(tiny_models("sentence"), task_file, tmp_path / "run", *changes)


# --- gradually ---


def test_both_levels_keep_the_root_of_the_share() -> None:
    assert ratios_of("both", 0.25) == (0.5, 0.5)
    assert ratios_of("token", 0.25) == (0.75, 0.0)
    assert ratios_of("piece", 0.25) == (0.0, 0.75)


def test_parts_leave_stage_by_stage(search: Search) -> None:
    """Of four passes three stages: 1 - (1 - i / 3)^3 of what shall leave is gone, and nothing comes back."""
    workspace, pruned = search("gradual, drop", "prompt.tokens=16")
    steps = {name: piece.steps for name, piece in workspace.run.record.cost.training.items()}
    epoch = -(-len(workspace.train) // 8)
    stages = [count for name, count in steps.items() if name.startswith("gradual-k")]
    assert sum(stages) in (4 * epoch, 8 * epoch), "as long as one retraining: of both together, or of each"
    for trial, keep in zip(pruned.trials, (0.5, 0.25), strict=True):
        assert trial.mask.tokens == round(16 * keep**0.5 + 1e-9)
        assert 0 <= round(16 * S * keep) - trial.mask.pieces <= 1, "one had left before, and stays out"
        assert bool((trial.fitted.state.vectors_PH[~trial.mask.token_P] == 0).all())
        assert trial.candidate.select == trial.fitted.evaluation.score
    smaller, larger = pruned.trials[1].mask, pruned.trials[0].mask
    assert smaller.pieces < larger.pieces


@pytest.mark.parametrize(("tokens", "share"), [(1, 0.5), (2, 0.25), (3, 0.1), (5, 0.5), (20, 0.25)])
def test_pieces_make_up_the_share(tokens: int, share: float) -> None:
    kept_P = torch.arange(tokens) < max(1, round(tokens * share**0.5))
    ratio = piece_ratio_of("both", share, kept_P)
    assert int(kept_P.sum()) * (1 - ratio) == pytest.approx(tokens * share)
    assert piece_ratio_of("both", 0.9, torch.arange(4) < 2) == 0, "fewer tokens than the share has numbers"
    assert piece_ratio_of("token", share, kept_P) == 0


def test_what_has_left_does_not_come_back(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """At this setting a token that leaves takes more pieces along than are to leave."""
    seen: list[Mask] = []

    def note(vectors_PH: torch.Tensor, mask: Mask) -> PromptState:
        seen.append(mask)
        return masked_state(vectors_PH, mask)

    monkeypatch.setattr(gradual, "masked_state", note)
    changes = ("search.keep=0.9", "prompt.tokens=10", "prompt.pieces=16", "search.epochs=5")
    search("gradual, drop", *changes)
    assert len(seen) == 3
    for before, after in pairwise(seen):
        assert not bool((after.piece_PS & ~before.piece_PS).any())
    assert seen[1].piece_PS.sum() > seen[2].piece_PS.sum()


def test_random_gradual_masks_differ_from_seed_to_seed(search: Search) -> None:
    workspace, pruned = search("gradual, drop", "search.keep=0.3", "prompt.tokens=8", "pruning.importance=random")
    fresh = retrain_fresh(workspace, pruned, range(3))
    masks = [fresh[f"winner@{i}"].state.mask.piece_PS for i in range(3)]
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])


def test_the_criterion_that_chose_is_on_record(search: Search) -> None:
    _, pruned = search("gradual, drop", "search.keep=0.3", "prompt.tokens=8")
    assert pruned.importance.method == "norm"
    _, pruned = search("gradual, drop", "search.keep=0.3", "prompt.tokens=8", "pruning.importance=taylor")
    assert pruned.importance.method == "taylor"


def test_shares_that_are_nearly_equal_have_names_of_their_own(search: Search) -> None:
    _, pruned = search("gradual, drop", "search.keep=0.2500001,0.2500002", "prompt.tokens=8")
    assert [trial.candidate.id for trial in pruned.trials] == ["k0.2500001", "k0.2500002"]
    assert [trial.candidate.status for trial in pruned.trials].count("winner") == 1


def test_the_teachers_training_is_part_of_the_time(search: Search) -> None:
    _, pruned = search("taught, zero", "pruning.teacher=control")
    assert pruned.whole.state is not None
    assert pruned.whole.seconds > pruned.tuned.seconds
    _, pruned = search("taught, zero", "pruning.teacher=tuned")
    assert pruned.whole.seconds == pruned.tuned.seconds


def test_every_seed_prunes_for_itself(search: Search) -> None:
    workspace, pruned = search("gradual, drop", "search.keep=0.3", "prompt.tokens=8")
    assert pruned.keep == 0.3
    fresh = retrain_fresh(workspace, pruned, range(3))
    assert {name for name in fresh if name.startswith("winner")} == {f"winner@{i}" for i in range(3)}
    masks = [fresh[f"winner@{i}"].state.mask for i in range(3)]
    assert {mask.tokens for mask in masks} == {pruned.winner.mask.tokens}
    values = [fresh[f"winner@{i}"].state.vectors_PH for i in range(3)]
    assert distance(values[0], values[1]) > 1e-3


@pytest.mark.parametrize("case", TAUGHT)
def test_the_run_is_whole_and_its_page_says_how(case: str, run_of: Callable[[str], Run]) -> None:
    run = run_of(case)
    page = " ".join(page_of(read_run(run.out), {}).split())
    assert ("left it while it was trained again" in page) == case.startswith("gradual")
    assert ("Parts left the tickets while they were trained" in page) == case.startswith("gradual")
    assert "Gates learned" not in page
    assert ("the whole prompt was trained a second time" in page) == (case == "taught, drop")
    assert ("also to 5 rows without labels" in page) == (case == "taught, drop")
    assert ("(70% of the loss)" in page) == (case == "gradual, zero")
    assert run.info["results"]["winner"]["pieces"] < P * S
    assert len(run.info["results"]["winner"]["seeds"]) == 2


def test_other_rows_without_labels_are_another_run(tiny_models: Models, tmp_path: Path) -> None:
    task = write_mood(tmp_path, ("cast", "scene", "window", "children", "cheese"))
    path = tmp_path / "more.jsonl"
    path.write_text(json.dumps({"text": "one"}) + "\n")
    changes = (*TAUGHT["taught, zero"], f"task.unlabelled={path}", "selection.seeds=0")
    execute_one(tiny_models("sentence"), task, tmp_path / "run", *changes)
    (tmp_path / "run" / "COMPLETE").unlink()
    path.write_text(json.dumps({"text": "another"}) + "\n")
    with pytest.raises(SoftpruneError, match="the data changed since"):
        execute_one(tiny_models("sentence"), task, tmp_path / "run", *changes)
