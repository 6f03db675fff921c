"""Random tickets, for tests that use one and need not train it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from softprune.backbone.base import Backbone
from softprune.prompt.bank import masked_state
from softprune.pruning.ticket import Ticket, TicketInfo
from softprune.tasks import load_task
from softprune.types import Mask

P, S = 6, 4


def ticket_of(backbone: Backbone, task: str, kept: int, seed: int, **changes: Any) -> Ticket:
    """A random ticket that keeps the first tokens, its vectors large enough to move every score."""
    hidden, definition = backbone.info.hidden, load_task(task).definition
    spread = float(backbone.embeddings_VH().std())
    vectors = torch.randn(P, hidden, generator=torch.Generator().manual_seed(seed)) * spread * 4
    token_P = torch.arange(P) < kept
    mask = Mask(token_P, token_P[:, None].repeat(1, S))
    info = TicketInfo(
        backbone=backbone.info.name,
        revision=None,
        family=backbone.info.family,
        fingerprint=backbone.info.fingerprint,
        task=task,
        task_version="1",
        removal="drop",
        score=definition.score,
        match="score",
        max_answer_length=8,
        max_length=64,
        token_ratio=0.5,
        piece_ratio=0.0,
        prompt_tokens=P,
        pieces_per_token=S,
        hidden=hidden,
        tokens=mask.tokens,
        pieces=mask.pieces,
        parameters=mask.parameters(hidden),
        select=None,
    )
    return Ticket(masked_state(vectors, mask), replace(info, **changes), definition)
