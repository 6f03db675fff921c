"""A small pruned ticket, made by hand."""

from __future__ import annotations

import torch

from softprune.backbone.base import Backbone
from softprune.prompt.bank import masked_state
from softprune.pruning.ticket import Ticket, TicketInfo
from softprune.tasks import load_task
from softprune.types import Mask

P, S = 4, 4


def small_ticket(backbone: Backbone, removal: str = "drop", seed: int = 0, name: str = "org/model") -> Ticket:
    """A ticket with tokens 0 and 2 left, the latter without its first piece."""
    token_P = torch.tensor([True, False, True, False])
    piece_PS = token_P[:, None].repeat(1, S)
    piece_PS[2, 0] = False
    mask, info = Mask(token_P, piece_PS), backbone.info
    vectors = torch.randn(P, info.hidden, generator=torch.Generator().manual_seed(seed))
    stated = TicketInfo(
        backbone=name,
        revision=None,
        family=info.family,
        fingerprint=info.fingerprint,
        task="demo",
        task_version="1",
        removal=removal,
        score="sum",
        match="score",
        max_answer_length=8,
        max_length=64,
        token_ratio=0.5,
        piece_ratio=0.1,
        prompt_tokens=P,
        pieces_per_token=S,
        hidden=info.hidden,
        tokens=2,
        pieces=7,
        parameters=7 * info.hidden // S,
        select=0.75,
    )
    return Ticket(masked_state(vectors, mask), stated, load_task("demo").definition)
