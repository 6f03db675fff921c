"""Several tickets of one task as one: what each of them answers is put together into one answer.

By default as the mean of their probabilities, as deep ensembles are (Lakshminarayanan et al. 2017, section 2.4): one
ticket that is surely wrong can't overrule the others, which it can in the mean of log-probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import torch

from softprune.config.registry import unknown
from softprune.errors import SoftpruneError

if TYPE_CHECKING:
    from softprune.prompts.ticket import Ticket

MEAN, GEOMETRIC, VOTE = "mean", "geometric", "vote"
COMBINE: Final = (MEAN, GEOMETRIC, VOTE)
"""Mean of probabilities; their geometric mean, which is that of log-probabilities; one vote a ticket."""


def combine_scores(scores_KA: torch.Tensor, how: str) -> tuple[int, tuple[float, ...]]:
    """One answer of K tickets' scores of A answers: its position, and the share of each answer, 1 in all.

    With p_k the softmax of ticket k's scores: `mean` is sum_k p_k / K, `geometric` is prod_k p_k^(1/K), normalised;
    of votes, a share is how many of the tickets chose the answer. Ties go to the lower position, ties of votes to the
    higher mean probability. Scores are in log-probability units, each ticket's up to a constant.
    """
    check_combine(how)
    logs_KA = torch.log_softmax(scores_KA.double(), dim=1)
    mean_A = logs_KA.exp().mean(dim=0)
    shares_A, ties_A = mean_A, torch.zeros_like(mean_A)
    if how == GEOMETRIC:
        shares_A = torch.softmax(logs_KA.mean(dim=0), dim=0)
    elif how == VOTE:
        # The first of equal maxima, as everywhere: torch's argmax may return any of them.
        votes = [max(range(len(row)), key=lambda a: (row[a], -a)) for row in logs_KA.tolist()]
        shares_A = torch.bincount(torch.tensor(votes), minlength=logs_KA.shape[1]).double() / len(votes)
        ties_A = mean_A
    shares, ties = shares_A.tolist(), ties_A.tolist()
    best = max(range(len(shares)), key=lambda a: (shares[a], ties[a], -a))
    return best, tuple(shares)


def check_combine(how: str) -> None:
    """A SoftpruneError for a way that is none of `COMBINE`."""
    if how not in COMBINE:
        raise unknown("way to combine", how, COMBINE)


def check_ensemble(tickets: Mapping[str, Ticket]) -> None:
    """A SoftpruneError where tickets aren't of one task, or don't read and score alike. Backbones are checked later."""
    if len(tickets) < 2:
        raise SoftpruneError("at least two tickets for an ensemble", str(len(tickets)), "name more, or leave it alone")
    (first, reference), *others = tickets.items()
    for name, ticket in tickets.items():
        if ticket.info.match != "score":
            found = f'"{name}", which generates its answers'
            raise SoftpruneError("tickets that score their answers, for an ensemble", found, "predict with it alone")
    for name, ticket in others:
        if ticket.info.task != reference.info.task or _template_rules(ticket) != _template_rules(reference):
            found = f'"{first}" is for {_name_task(reference)}, "{name}" for {_name_task(ticket)}'
            raise SoftpruneError("tickets of one task for an ensemble", found, "take them out of runs of one task")
        ways = [f"{t.info.max_length} tokens and the {t.info.score} of an answer's scores" for t in (reference, ticket)]
        if ways[0] != ways[1]:
            found = f'"{first}" reads {ways[0]}, "{name}" {ways[1]}'
            raise SoftpruneError("tickets that read alike, for an ensemble", found, "train them with one recipe")


def _template_rules(ticket: Ticket) -> dict[str, Any]:
    # Whatever the task is called and wherever its rows come from: these say what becomes of a row.
    return ticket.definition.model_dump(exclude={"title", "instruction", "kind", "sources"})


def _name_task(ticket: Ticket) -> str:
    return f"{ticket.info.task} (version {ticket.info.task_version}, template {ticket.definition.template!r:.60})"
