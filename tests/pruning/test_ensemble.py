"""Several tickets as one: sums worked out by hand, and one call answers as the tickets do apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log
from typing import Any

import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.evaluation.predict import predict
from softprune.models.base import Backbone
from softprune.prompts.ensemble import combine_scores
from softprune.prompts.ticket import Ticket
from tickets import ticket_of

ROWS: tuple[dict[str, Any], ...] = (
    {"text": "who wrote it ?", "coarse": "HUM"},
    {"text": "where is the red box , and how many windows has the room ?", "coarse": "LOC"},
    {"text": "what is it"},
)
SURE = ((0.7, 0.3),) * 4 + ((1e-9, 1 - 1e-9),)
HALF = ((0.9, 0.1), (0.2, 0.8))
BY_HAND = (
    ("mean", HALF, 0, (0.55, 0.45)),
    ("geometric", HALF, 0, (0.6, 0.4)),  # the roots of 0.18 and 0.08 are as 3 to 2
    ("vote", HALF, 0, (0.5, 0.5)),  # a tie, and 0.55 is more
    ("vote", ((0.9, 0.1), (0.05, 0.95)), 1, (0.5, 0.5)),
    ("mean", SURE, 0, (0.56, 0.44)),
    ("geometric", SURE, 1, None),  # the last one overrules the others
    ("vote", SURE, 0, (0.8, 0.2)),
    ("mean", ((0.5, 0.5),) * 2, 0, (0.5, 0.5)),
)


def scores(shares: Any, shift: float = 0.0) -> torch.Tensor:
    """Scores that these probabilities are of, each ticket's shifted by another constant."""
    return torch.tensor([[log(p) + shift * (k + 1) for p in row] for k, row in enumerate(shares)])


@pytest.mark.parametrize(("how", "shares", "answer", "wanted"), BY_HAND)
def test_answers_are_put_together_as_by_hand(how: str, shares: Any, answer: int, wanted: Any) -> None:
    for shift in (0.0, 2.5):
        best, found = combine_scores(scores(shares, shift), how)
        assert best == answer
        assert sum(found) == pytest.approx(1)
        assert wanted is None or found == pytest.approx(wanted, rel=1e-5)
    best, moved = combine_scores(scores(shares) + torch.tensor([0.0, 5.0]), how)
    assert moved != pytest.approx(found, rel=1e-2) or how == "vote"
    assert best == 1


def three(backbone: Backbone, **changes: Any) -> dict[str, Ticket]:
    """Tickets of one task, two of the same length."""
    return {str(seed): ticket_of(backbone, "trec", kept, seed, **changes) for seed, kept in enumerate((3, 5, 3))}


@pytest.mark.parametrize("name", ["sentence", "t5_v1_1", "gpt2", "bert"])
@pytest.mark.parametrize("rows", [3, 256])
def test_one_call_answers_as_the_tickets_apart(name: str, rows: int, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of(name)
    tickets = three(backbone)
    together = list(predict(tickets, ROWS, backbone=backbone, ensemble=True, batch_rows=rows))
    apart = [list(predict(ticket, ROWS, backbone=backbone)) for ticket in tickets.values()]
    assert [(p.row, p.gold, p.prompt) for p in together] == [
        (row, gold, "0, 1, 2") for row, gold in zip(ROWS, ("human", "location", None), strict=True)
    ]
    for at, found in enumerate(together):
        mean = [sum(one[at].probabilities[a] for one in apart) / 3 for a in range(6)]
        assert distance(found.probabilities, mean) <= 1e-5
        assert found.answer == found.answers[mean.index(max(mean))]
        two = [sum(one[at].probabilities[a] for one in apart[:2]) / 2 for a in range(6)]
        assert distance(found.probabilities, two) > 1e-3, "the third ticket has its say"


def distance(found: Sequence[float], wanted: Sequence[float]) -> float:
    """The largest difference of log-probabilities (random models are sure of themselves), relative to the largest."""
    pairs = [(log(a), log(b)) for a, b in zip(found, wanted, strict=True)]
    return max(abs(a - b) for a, b in pairs) / max(abs(b) for _, b in pairs)


def test_tickets_that_cannot_answer_together_are_refused(backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of("t5_v1_1")
    tickets = three(backbone)
    other = ticket_of(backbone, "demo", 3, 0)
    generating = ticket_of(backbone, "trec", 3, 0, match="generate")
    reworded = replace(other, info=replace(other.info, task="trec"))
    cases: tuple[tuple[Any, str, str], ...] = (
        (tickets["0"], "at least two", "0"),
        ({"0": tickets["0"]}, "at least two", "1"),
        (tickets | {"b": other}, "of one task", '"b" for demo'),
        (tickets | {"b": reworded}, "of one task", '"b" for trec'),
        (tickets | {"b": generating}, "score their answers", '"b"'),
        (tickets | {"b": ticket_of(backbone, "trec", 3, 0, max_length=32)}, "read alike", "32 tokens"),
        (tickets | {"b": ticket_of(backbone, "trec", 3, 0, score="mean")}, "read alike", "the mean"),
    )
    for found, expected, told in cases:
        with pytest.raises(SoftpruneError) as error:
            list(predict(found, ROWS, backbone=backbone, ensemble=True))
        assert expected in error.value.expected
        assert told in error.value.found
    with pytest.raises(SoftpruneError, match="way to combine"):
        list(predict(tickets, ROWS, backbone=backbone, ensemble=True, combine="median"))
