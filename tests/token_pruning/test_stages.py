"""Stages as pieces of work: trained once, taken up bit by bit, and independent of what shares their batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import info_of, outcome, recipe_of, workspace_of, write_task

from softprune.config import TokensRecipe
from softprune.errors import SoftpruneError
from softprune.pipelines.token_pruning import execute
from softprune.runs.run_folder import RunFolder
from softprune.token_pruning import experiment as page
from softprune.token_pruning.experiment import soft_hard_gap, train_baseline, train_thresholds
from softprune.token_pruning.loading import describe_encoder, load_tokenizer
from softprune.token_pruning.rules import Ranked, Thresholds
from softprune.token_pruning.session import TokenWorkspace, tokenise_texts
from softprune.types import Example, Segment

Models = Callable[[str], Path]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
FEW = ("pruning.baselines=",)  # half of a run's time


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: Models) -> Iterator[TokenWorkspace]:
    recipe = recipe_of(write_task(tmp_path / "task"), tiny_models("encoder"))
    made = workspace_of(recipe, tmp_path / "run")
    yield made
    made.run.close()


def texts(*words: str) -> list[Example]:
    return [Example(str(n), n, (Segment(text, from_row=True),), ("a", "b"), 0) for n, text in enumerate(words)]


def test_what_is_cut_off_is_counted(tiny_models: Models) -> None:
    tokenizer = load_tokenizer(describe_encoder(str(tiny_models("encoder"))))
    found = tokenise_texts(tokenizer, texts("film was slow", "film " * 10, "film " * 50), 12)
    assert found.cut == (0, 0, 40)
    assert list(map(len, found.ids)) == [5, 12, 12]
    assert {ids[0] for ids in found.ids} == {2}
    assert {ids[-1] for ids in found.ids} == {3}


def test_only_the_fields_of_a_row_are_read(workspace: TokenWorkspace) -> None:
    """The template's own words (`it was`, the mask) are for prompts."""
    texts = [workspace.tokenizer.decode(ids) for ids in workspace.train.ids]
    assert any("wonderful" in text for text in texts)
    assert not any("it was" in text or "mask" in text.lower() for text in texts)


def test_the_soft_stage_moves_thresholds_and_the_hard_stage_leaves_them(workspace: TokenWorkspace) -> None:
    encoder = workspace.encoder()
    baseline = train_baseline(workspace, encoder)
    after_baseline = {name: value.clone() for name, value in baseline.weights.items()}
    learned = train_thresholds(workspace, encoder, baseline, 0.1)
    run = workspace.run.record.stages
    theta = run["soft-0.1"].theta
    assert theta is not None
    assert theta == run["lambda-0.1"].theta  # to the last bit
    begun = [layer / 5 for layer in range(5)]
    assert theta[0] == 0.0
    assert all(abs(a - b) > 1e-3 for a, b in zip(theta[1:], begun[1:], strict=True))
    assert run["soft-0.1"].gap is not None
    assert isinstance(learned.rule, Thresholds)
    assert not learned.rule.delta_L.requires_grad
    assert any(not torch.equal(value, after_baseline[name]) for name, value in learned.weights.items())
    assert "thresholds.delta_L" not in learned.weights


def test_the_gap_is_that_of_soft_and_hard_masks(workspace: TokenWorkspace) -> None:
    encoder = workspace.encoder()
    rule = Thresholds(5, 1.0, 0.064, workspace.convention)
    golds = workspace.select.golds
    soft = workspace.evaluate(encoder, workspace.select, rule, soft=True)
    hard = workspace.evaluate(encoder, workspace.select, rule)
    gap = soft_hard_gap(workspace, encoder, rule, hard)
    assert gap.loss == pytest.approx(soft.loss(golds) - hard.loss(golds))
    assert abs(gap.loss) > 1e-4
    # Soft masks so sharp and thresholds so low that nothing is lost: no gap.
    open_rule = Thresholds(5, 0.0, 1e-6, workspace.convention)
    hard = workspace.evaluate(encoder, workspace.select, open_rule)
    assert soft_hard_gap(workspace, encoder, open_rule, hard).loss == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("order", ["thresholds", "importance", "random", "first"])
def test_answers_hang_on_no_batch_mate(workspace: TokenWorkspace, order: Any) -> None:
    encoder = workspace.encoder()
    rule = Thresholds(5, 1.0, 0.064, workspace.convention) if order == "thresholds" else Ranked(5, 0.3, order, 1)
    data = workspace.train
    whole = workspace.evaluate(encoder, data, rule)
    for rows in (1, 3):
        changed = workspace.recipe.model_copy(
            update={"tuning": workspace.recipe.tuning.model_copy(update={"eval_rows": rows})}
        )
        found = replace(workspace, recipe=changed).evaluate(encoder, data, rule)
        assert abs(found.logits_NC - whole.logits_NC).max() <= 1e-5 * abs(whole.logits_NC).max()
        assert (found.kept_NL == whole.kept_NL).all()
    turned = replace(data, ids=data.ids[::-1])
    found = workspace.evaluate(encoder, turned, rule)
    assert abs(found.logits_NC[::-1] - whole.logits_NC).max() <= 1e-5 * abs(whole.logits_NC).max()
    assert abs(found.logits_NC - whole.logits_NC).max() > 1e-3 * abs(whole.logits_NC).max()


def test_threads_are_chosen_by_a_step_that_changes_nothing(
    tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(run: RunFolder, device: torch.device, step: Callable[[], object]) -> str:
        assert run.record.threads is None  # left to this choice
        step()
        run.pin("threads", lambda: 1)
        return f"timed on {device}"

    monkeypatch.setattr(page, "choose_threads", choose)
    task = write_task(tmp_path / "task")
    for threads in ("auto", "1"):
        recipe = recipe_of(task, tiny_models("encoder"), *FEW, f"backbone.threads={threads}", "tuning.dropout=0.2")
        execute(recipe, tmp_path / threads, "test", "")
    assert outcome(tmp_path / "auto") == outcome(tmp_path / "1")
    assert [info_of(tmp_path / threads).get("notes") for threads in ("auto", "1")] == [["timed on cpu"], None]


class Killed(BaseException):
    """As a kill is: nobody's except clause takes it."""


def killed_at(recipe: TokensRecipe, out: Path, nth: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the run was ended at its nth evaluation of any kind."""
    answers, seen = TokenWorkspace.evaluate, 0

    def counting(self: TokenWorkspace, *args: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == nth:
            raise Killed
        return answers(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(TokenWorkspace, "evaluate", counting)
        try:
            execute(recipe, out, "test", "")
        except Killed:
            return True
    return False


def test_ended_at_every_evaluation_it_ends_with_the_same_bits(
    tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("tuning.dropout=0.2", "tuning.attention_dropout=0.2", "tuning.epochs=2")
    recipe = recipe_of(write_task(tmp_path / "task"), tiny_models("encoder"), *both)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    execute(recipe, whole, "test", "")
    # Each start gets a little further before it is ended: what is stored is not evaluated again.
    kills = 0
    while killed_at(recipe, broken, 2 + kills % 2, monkeypatch):
        kills += 1
        assert not (broken / "COMPLETE").exists()
        if kills == 6:  # every later start evaluates the finished stages first, and would never get further
            break
    for nth in range(5, 30, 3):
        if not killed_at(recipe, broken, nth, monkeypatch):
            break
        kills += 1
    else:
        execute(recipe, broken, "test", "")
    assert kills >= 9
    assert outcome(broken) == outcome(whole)
    assert len(info_of(broken)["attempts"]) == kills + 1


def test_the_comparison_can_fail(tmp_path: Path, tiny_models: Models) -> None:
    """Negative control: another seed ends with other bits."""
    task = write_task(tmp_path / "task")
    for seed in (0, 1):
        execute(recipe_of(task, tiny_models("encoder"), *FEW, f"seed={seed}"), tmp_path / str(seed), "test", "")
    one, other = outcome(tmp_path / "0"), outcome(tmp_path / "1")
    assert one["curves"] != other["curves"]
    assert one["files"]["models/lambda-0.1/model.safetensors"] != other["files"]["models/lambda-0.1/model.safetensors"]


def test_a_complete_run_is_left_as_it_is(tmp_path: Path, tiny_models: Models) -> None:
    recipe = recipe_of(write_task(tmp_path / "task"), tiny_models("encoder"), *FEW)
    out = tmp_path / "run"
    assert execute(recipe, out, "test", "")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "run.json"}
    results = info_of(out)["results"]
    assert not execute(recipe, out, "test", "")
    assert {path: path.read_bytes() for path in before} == before
    assert info_of(out)["results"] == results
    assert not (out / "state").exists()
    with pytest.raises(SoftpruneError, match="was begun with\nfound:    seed: 0 there, 7 now"):
        execute(recipe_of(tmp_path / "task/mood.yaml", tiny_models("encoder"), *FEW, "seed=7"), out, "t", "")
    assert {path: path.read_bytes() for path in before} == before


def test_data_that_changed_since_is_refused(
    tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = recipe_of(write_task(tmp_path / "task"), tiny_models("encoder"), *FEW), tmp_path / "run"
    assert killed_at(recipe, out, 2, monkeypatch)
    write_task(tmp_path / "task", train=32)
    with pytest.raises(SoftpruneError, match=r"the data as .* was begun with"):
        execute(recipe, out, "test", "")
    write_task(tmp_path / "task")
    assert execute(recipe, out, "test", "")


def test_memory_settings_may_change(tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    task, out = write_task(tmp_path / "task"), tmp_path / "run"
    assert killed_at(recipe_of(task, tiny_models("encoder"), *FEW), out, 2, monkeypatch)
    more = (*FEW, "tuning.eval_rows=4", "tuning.accumulate=2")
    assert execute(recipe_of(task, tiny_models("encoder"), *more), out, "t", "")


def test_another_kinds_folder_is_refused_in_one_line(tmp_path: Path, tiny_models: Models) -> None:
    begun = RunFolder.open(tmp_path / "run", recipe_text="", resolved={"kind": "tune", "a": 1}, kind="tune", command="")
    begun.close()
    recipe = recipe_of(write_task(tmp_path / "task"), tiny_models("encoder"))
    with pytest.raises(SoftpruneError) as caught:
        execute(recipe, tmp_path / "run", "test", "")
    assert caught.value.found == "kind: tune there, tokens now"
