"""Whole runs that learn the ratio: masks from the gates, one ticket a mask, and everything told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toys import distance
from whole_runs import CASES, Models, P, Run, S, execute_one

from softprune.config import resolve
from softprune.evaluation.conclusions import random_sentence
from softprune.prompts.ticket import Ticket
from softprune.pruning.learned_masks import expected_size, harden
from softprune.pruning.xprompt import settle_strategy
from softprune.report.charts import group_trainings
from softprune.report.page import html as page_of
from softprune.report.run_reader import read_run
from softprune.runs.record_parts import DifferenceRecord, Headline
from softprune.runs.run_folder import RunFolder
from softprune.training.session import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
LEARNED = [case for case in CASES if case.startswith("learned")]
PRICES = [0.01, 2.0, 1e5, 1e6]


@pytest.mark.parametrize("case", LEARNED)
def test_masks_are_what_the_gates_stand_for(case: str, run_of: Callable[[str], Run]) -> None:
    run, told = run_of(case), run_of(case).info["gates"]
    gates = load_file(run.out / "gates.safetensors")
    assert gates["prices_K"].tolist() == pytest.approx(PRICES)
    assert (told["kind"], told["prices"]) == (run.recipe.search.gates, PRICES)
    sizes = expected_size(gates["token_KP"], gates["piece_KPS"]).tolist()
    assert told["expected_sizes"] == pytest.approx(sizes, rel=1e-6)
    assert sizes[0] > sizes[1] > sizes[2], "a higher price, a smaller prompt"
    candidates = {c["id"]: c for c in run.lines("candidates.jsonl")}
    masks = [harden(token, piece, "both") for token, piece in zip(gates["token_KP"], gates["piece_KPS"], strict=True)]
    for name, mask in zip(told["tickets"], masks, strict=True):
        assert (candidates[name]["tokens_kept"], candidates[name]["pieces_kept"]) == (mask.tokens, mask.pieces)
        assert candidates[name]["piece_ratio"] == pytest.approx(1 - mask.pieces / (mask.tokens * S))
    assert told["tickets"] == ["g0.01", "g2", "g100000", "g100000"], "prices that came to one mask share a ticket"
    assert list(candidates) == ["g0.01", "g2", "g100000"]
    assert masks[3].pieces == 1
    winner = masks[told["tickets"].index(run.info["selection"]["winner"])]
    assert torch.equal(Ticket.load(run.out).state.mask.piece_PS, winner.piece_PS)
    pieces = load_file(run.out / "importance.safetensors")["winner_piece_PS"]
    assert bool((pieces[~winner.token_P] == 0).all()), "measured on the winner's own tokens"
    assert bool((pieces[winner.token_P] != 0).all())


@pytest.mark.parametrize("case", LEARNED)
def test_gates_are_trained_in_groups_to_the_end(case: str, run_of: Callable[[str], Run]) -> None:
    """Four prices, three at once; the last gates count, so nobody stops early and all of them are counted."""
    run = run_of(case)
    lines = [line for line in run.lines("metrics.jsonl") if line["phase"] == "gates"]
    assert [line["epoch"] for line in lines if line["candidate"] == "gates-2"] == [1, 2, 3]
    assert {line["candidate"] for line in lines} == {"gates-0.01", "gates-2", "gates-100000", "gates-1000000"}
    cost = run.info["cost"]
    size = run.info["task"]["sizes"]["train"]
    assert [cost["training"][name]["examples"] for name in ("gates-0.01-3", "gates-1000000-1")] == [9 * size, 3 * size]
    assert cost["phases"]["gates"] > 0


def test_the_page_is_as_after_any_search(run_of: Callable[[str], Run]) -> None:
    """The tickets are in the table; the gates' own curves are no candidate's."""
    run = run_of("learned, drop")
    text = page_of(read_run(run.out), [])
    assert "gates that were trained with it decided" in text
    assert "gates that were trained" not in page_of(read_run(run_of("grid, drop").out), [])
    assert all(f">{c['id']}" in text for c in run.lines("candidates.jsonl"))
    points = {p.step for role, points in group_trainings(read_run(run.out)) if role == "winner" for p in points}
    lines = [line for line in run.lines("metrics.jsonl") if line["candidate"] == run.info["selection"]["winner"]]
    assert points == {line["step"] for line in lines}
    assert {line["phase"] for line in lines} == {"retrain"}


def test_the_group_changes_nothing_but_the_last_bits(
    run_of: Callable[[str], Run], tmp_path: Path, tiny_models: Models, task_file: Path
) -> None:
    run = run_of("learned, zero")
    alone = execute_one(tiny_models("sentence"), task_file, tmp_path / "one", *CASES["learned, zero"], "search.group=1")
    found, wanted = (load_file(one.out / "gates.safetensors") for one in (alone, run))
    for name in ("token_KP", "piece_KPS"):
        assert distance(found[name], wanted[name]) <= 1e-4
        assert distance(found[name][[1, 0, 2, 3]], wanted[name]) > 1e-2
    for one, other in zip(alone.lines("candidates.jsonl"), run.lines("candidates.jsonl"), strict=True):
        assert one["pieces_kept"] == other["pieces_kept"]
        assert one["select_loss"] == pytest.approx(other["select_loss"], rel=1e-4)


@pytest.mark.parametrize("level", ["token", "piece"])
def test_a_level_that_is_off_is_left_alone(level: str, tmp_path: Path, tiny_models: Models, task_file: Path) -> None:
    changes = (*CASES["learned, drop"], f"pruning.levels={level}", "search.prices=2,1e6", "selection.seeds=0")
    run = execute_one(tiny_models("sentence"), task_file, tmp_path / "run", *changes)
    last = run.lines("candidates.jsonl")[-1]
    sizes = {"token": (1, S), "piece": (P, P)}[level]
    assert (last["tokens_kept"], last["pieces_kept"]) == sizes
    off = load_file(run.out / "gates.safetensors")["piece_KPS" if level == "token" else "token_KP"]
    assert bool((off == 1).all())
    if run.info["headline"]["interpretable"]:
        assert "importance chose" not in run.info["headline"]["random_sentence"]


def test_the_random_mask_is_held_against_the_gates() -> None:
    told = Headline(
        comparison="winner - control",
        value=0.0,
        low=-0.05,
        high=0.05,
        p=1.0,
        random=DifferenceRecord(value=0.1, low=0.05, high=0.15, p=0.01, covers_seeds=True),
        interpretable=True,
        significance_claimed=True,
    )
    assert random_sentence(told, "tokens", chosen_by="the gates").endswith("the mask that the gates chose is better.")


def test_a_run_keeps_the_strategy_that_auto_stood_for(tmp_path: Path) -> None:
    """A resumed run has the same resolved recipe whether ratios were named or are the default ones."""
    named = resolve(["search.token_ratios=0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"])
    assert named.resolved() == resolve().resolved()
    for first, then, kept in ((resolve(), named, "learned"), (named, resolve(), "sequential")):
        options = {"recipe_text": "", "resolved": first.resolved(), "kind": "xprompt", "command": "test"}
        with RunFolder.open(tmp_path / kept, **options) as run:  # type: ignore[arg-type]
            workspace = Workspace(first, run, *[None] * 11)  # type: ignore[arg-type]
            assert settle_strategy(workspace).recipe.search.strategy == kept
            again = settle_strategy(replace(workspace, recipe=then), gates_learn=False).recipe
            assert again.search.strategy == kept
            assert run.record.search.document() == {"strategy": kept}


def test_a_named_importance_chooses_nothing_beside_gates_and_the_run_says_so(
    tmp_path: Path, tiny_models: Models, task_file: Path, run_of: Callable[[str], Run]
) -> None:
    changes = (*CASES["learned, zero"], "pruning.importance=norm", "search.prices=2")
    run = execute_one(tiny_models("sentence"), task_file, tmp_path / "run", *changes)
    assert (run.info["importance"]["method"], run.info["importance"]["examples"]) == ("norm", 0)
    assert run.info["search"]["strategy"] == "learned"
    assert any("pruning.importance=norm chose nothing" in note for note in run.info["notes"])
    assert not any("chose nothing" in note for note in run_of("learned, zero").info["notes"])
    page = page_of(read_run(run.out), [])
    assert "(the length of a part&#39;s vector)." in page
