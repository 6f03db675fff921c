"""Masking without retraining: counts and masks by hand, scores that are the run's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from softprune.statistics.methods_over_seeds import Scored
from softprune.studies.experiments.masking import (
    TUNED,
    WINNER,
    Arm,
    build_arms,
    conduct,
    loss_change,
    pruned_counts,
    without_one,
)
from softprune.studies.findings import Cell, Findings
from softprune.studies.prompt_scoring import PromptScore, score_run
from softprune.studies.study_context import StudyContext


@pytest.fixture(scope="module")
def found(pruned: Callable[[str], StudyContext]) -> Findings:
    return conduct(pruned("masking"))


def masked(losses: list[float]) -> PromptScore:
    ids = tuple(map(str, range(len(losses))))
    return PromptScore(0.0, Scored(np.ones((len(losses), 2)), ids, (None,) * len(losses)), np.array(losses))


def test_one_token_left_out() -> None:
    mask = without_one(3, 1)
    assert mask.token_P.tolist() == [True, False, True]
    assert mask.piece_PS.tolist() == [[True], [False], [True]]


def test_arms_by_hand(pruned: Callable[[str], StudyContext]) -> None:
    study = pruned("masking")
    (made,) = study.grid().values()
    recipe = study.spec(made.task, made.seed).recipe
    assert pruned_counts(recipe, 4) == [1, 2]  # 0.25 and 0.5 of 4 tokens
    arms = build_arms(study, made)
    kinds = {"1 of 4 tokens": 3, "2 of 4 tokens": 3, WINNER: 2}
    assert {what: sum(arm.what == what for arm in arms) for what in kinds} == {w: 2 * n for w, n in kinds.items()}
    (winner,) = arms[Arm("zero", WINNER, "negative")]
    assert torch.equal(winner.piece_PS, made.mask.piece_PS)
    assert len(arms[Arm("drop", "2 of 4 tokens", "random")]) == 2
    (negative,), (positive,) = (arms[Arm("drop", "2 of 4 tokens", kind)] for kind in ("negative", "positive"))
    assert torch.equal(negative.token_P, ~positive.token_P)  # half of the tokens: the one is the other's complement
    sizes = {(mask.tokens, mask.pieces) for mask in arms[Arm("zero", WINNER, "random")]}
    assert sizes == {(made.mask.tokens, made.mask.pieces)}


def test_the_whole_prompt_scores_as_its_run_reported(found: Findings, pruned: Callable[[str], StudyContext]) -> None:
    (made,) = pruned("masking").grid().values()
    row = found.tables[0].rows[0]
    assert row[0] == TUNED
    assert isinstance(row[1], Cell)
    assert row[1].value == made.value("tuned")
    assert len({row[1].value for row in found.tables[0].rows if isinstance(row[1], Cell)}) > 1


def test_scores_are_kept_and_differ_by_prompt(pruned: Callable[[str], StudyContext]) -> None:
    study = pruned("masking")
    (made,) = study.grid().values()
    tuned = made.prompt("tuned")
    first = score_run(study, made, "test", {"a": [tuned], "b": [torch.zeros_like(tuned)]}, "select")
    again = score_run(study, made, "test", {}, "select")  # read back
    assert again["a"][0].losses.tolist() == first["a"][0].losses.tolist()
    assert first["a"][0].losses.tolist() != first["b"][0].losses.tolist()
    assert first["a"][0].loss == pytest.approx(np.mean(first["a"][0].losses), rel=1e-12)


def test_loss_changes_by_hand() -> None:
    lower = loss_change(masked([1.0, 2.0, 3.0]), masked([2.0, 3.0, 4.0]), 0, 200)
    assert (lower.value, lower.low, lower.high) == pytest.approx((-1.0, -1.0, -1.0))
    assert lower.p == pytest.approx(2 / 201)  # no resample on the other side
    assert loss_change(masked([1.0, 3.0]), masked([2.0, 2.0]), 0, 200).p > 0.5


def test_single_tokens_and_sentences(found: Findings) -> None:
    (row,) = found.tables[-1].rows
    assert row[3] in ("T0", "T1", "T2", "T3")
    assert isinstance(row[4], Cell)
    lower, shown, on_select = row[1], row[2], row[4].value
    assert isinstance(lower, Cell)
    assert isinstance(shown, Cell)
    assert lower.value is not None
    assert shown.value is not None
    assert on_select is not None
    assert 0 <= shown.value <= lower.value <= 4
    assert (on_select < 0) == (lower.value > 0)  # the chosen one lowers the loss most
    # Two sizes and the winner's mask, two removals, one task; at chance, so that none of them is tested.
    assert found.sentences[0].endswith("0 above, 0 below, 0 undecided, 6 not interpretable.")
    assert "of these very prompts" in found.sentences[-2]
    assert len(found.figures[0].traces) == 3
