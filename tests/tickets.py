"""Tickets made by hand, for tests that use one and need not train it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from softprune.data import load_task
from softprune.models.base import Backbone
from softprune.prompts.soft_prompts import masked_state
from softprune.prompts.ticket import Ticket, TicketInfo
from softprune.types import Mask

S = 4


def ticket_of(backbone: Backbone, task: str, kept: int, seed: int, **changes: Any) -> Ticket:
    """A random ticket that keeps the first of 6 tokens, its vectors large enough to move every score."""
    spread = float(backbone.embeddings_VH().std())
    token_P = torch.arange(6) < kept
    mask = Mask(token_P, token_P[:, None].repeat(1, S))
    return _ticket(backbone, task, mask, vectors_of(backbone, 6, seed) * spread * 4, **changes)


def small_ticket(backbone: Backbone, removal: str = "drop", seed: int = 0, name: str = "org/model") -> Ticket:
    """A ticket with tokens 0 and 2 of 4 left, the latter without its first piece."""
    token_P = torch.tensor([True, False, True, False])
    piece_PS = token_P[:, None].repeat(1, S)
    piece_PS[2, 0] = False
    vectors_PH = vectors_of(backbone, 4, seed)
    return _ticket(backbone, "demo", Mask(token_P, piece_PS), vectors_PH, removal=removal, backbone=name, select=0.75)


def vectors_of(backbone: Backbone, tokens: int, seed: int) -> torch.Tensor:
    return torch.randn(tokens, backbone.info.hidden, generator=torch.Generator().manual_seed(seed))


def _ticket(model: Backbone, task: str, mask: Mask, vectors_PH: torch.Tensor, **changes: Any) -> Ticket:
    """A ticket as a run would leave it, but for `changes` of its facts."""
    definition, info = load_task(task).definition, model.info
    facts = TicketInfo(
        backbone=info.name,
        revision=None,
        family=info.family,
        fingerprint=info.fingerprint,
        task=task,
        task_version="1",
        leading=model.leading,
        embedding_scale=model.embedding_scale,
        has_layer_embeddings=model.has_layer_embeddings,
        removal="drop",
        score=definition.score,
        match="score",
        max_answer_length=8,
        max_length=64,
        token_ratio=0.5,
        piece_ratio=0.1,
        prompt_tokens=vectors_PH.shape[0],
        pieces_per_token=S,
        hidden=info.hidden,
        tokens=mask.tokens,
        pieces=mask.pieces,
        parameters=mask.parameters(info.hidden),
        select=None,
    )
    return Ticket(masked_state(vectors_PH, mask), replace(facts, **changes), definition)
