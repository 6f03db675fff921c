"""Reversed prompts: what is retrained, from where, and that it is done as tickets are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from softprune.pruning.masks import complement, without_least
from softprune.studies.experiments import reversed as experiment
from softprune.studies.experiments.reversed import (
    ALIKE,
    EMPTY,
    LENGTH,
    RANDOM,
    REVERSED,
    TUNED,
    WINNER,
    conduct,
    under_mask,
)
from softprune.studies.findings import Cell, Findings, format_entry
from softprune.studies.run_result import FinishedRun
from softprune.studies.study_context import StudyContext
from softprune.types import Mask

pytestmark = pytest.mark.slow


def remade(study: StudyContext, mask: Mask, name: str) -> tuple[FinishedRun, torch.Tensor]:
    ((key, made),) = study.grid().items()
    (again,) = study.make({key: study.spec(*key, under_mask(study, made, name, mask))}).values()
    return made, again.prompt("tuned")


@pytest.fixture(scope="module")
def found(pruned: Callable[[str], StudyContext]) -> Findings:
    return conduct(pruned("reversed"))


def test_the_winners_mask_gives_the_winner(pruned: Callable[[str], StudyContext]) -> None:
    """So what is retrained under other masks is retrained exactly as tickets are."""
    study = pruned("reversed")
    (made,) = study.grid().values()
    _, again = remade(study, made.mask, "winner")
    winner = made.ticket.state.vectors_PH
    torch.testing.assert_close(again, winner, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(made.prompt("tuned") * (winner != 0), winner, rtol=1e-3)  # it was trained at all
    _, other = remade(study, without_least(torch.arange(4), 2, 4), "other")
    assert not torch.allclose(other, winner, rtol=1e-3)


def test_reversed_is_zero_where_the_winner_survives(pruned: Callable[[str], StudyContext]) -> None:
    study = pruned("reversed")
    (made,) = study.grid().values()
    mask = complement(made.mask)
    assert mask is not None
    _, reverse = remade(study, mask, "reversed")
    kept = made.mask.elements_PH(reverse.shape[1])
    assert bool((reverse[kept] == 0).all())
    assert bool((reverse[~kept] != 0).all())
    assert not torch.equal(reverse[~kept], made.prompt("tuned")[~kept])


def test_the_tables_have_all_rivals(found: Findings) -> None:
    scores = {row[0]: row[1] for row in found.tables[0].rows}
    assert {TUNED, WINNER, REVERSED, ALIKE, RANDOM, LENGTH} <= set(scores)
    assert all(isinstance(cell, Cell) and cell.value is not None and cell.low is not None for cell in scores.values())
    assert len(found.sentences) == 11 + 1
    assert found.sentences[-1].startswith("95% intervals cover other examples, for these very prompts")
    assert len(found.figures[0].traces) == len(scores)


def test_sizes_by_hand(found: Findings, pruned: Callable[[str], StudyContext]) -> None:
    (row,) = found.tables[-1].rows
    (made,) = pruned("reversed").grid().values()
    pieces, tokens = int(made.mask.piece_PS.sum()), int(made.mask.token_P.sum())
    whole = int((~made.mask.piece_PS).any(1).sum())
    expected = [tokens, pieces * 8, whole, (16 - pieces) * 8, tokens, tokens * 32, 4, 4 * 32]  # H = 32, S = 4
    assert [cell.value for cell in row if isinstance(cell, Cell)] == expected


def test_an_empty_complement_is_not_measured(
    pruned: Callable[[str], StudyContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "complement", lambda mask: None)
    found = conduct(pruned("reversed"))
    scores = {row[0]: row[1] for row in found.tables[0].rows}
    assert format_entry(scores[REVERSED]) == format_entry(scores[ALIKE]) == "not measured"
    assert format_entry(scores[WINNER]) != "not measured"
    assert "not measured" in found.sentences[2]
    assert "not measured" not in found.sentences[0]
    told = {table.name: EMPTY in table.note for table in found.tables[1:-1]}
    assert told == {"to-tuning": True, "to-reversed": True, "to-control": True, "to-random": False}


def test_one_seed_allows_no_verdict_and_notes_say_so(found: Findings) -> None:
    for table in found.tables[1:-1]:
        assert "for these very prompts; fewer than 3 seeds allow no verdict" in table.note
        assert EMPTY not in table.note
    for sentence in found.sentences[:-1]:
        assert "no verdict (1 seed)" in sentence or "not interpretable" in sentence or "not measured" in sentence


def test_nothing_is_claimed_on_examples_that_chose(
    pruned: Callable[[str], StudyContext], monkeypatch: pytest.MonkeyPatch, found: Findings
) -> None:
    assert not any("no significance claimed" in sentence for sentence in found.sentences)
    monkeypatch.setattr(StudyContext, "chosen_on_report", True)
    assert all("no significance claimed" in sentence for sentence in conduct(pruned("reversed")).sentences)
