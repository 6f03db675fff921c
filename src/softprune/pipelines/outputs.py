"""What a run of prompts leaves for use elsewhere: prompts, importance, tickets and what was reported of them."""

from __future__ import annotations

from collections.abc import Mapping

from softprune.prompts.ticket import Ticket
from softprune.prompts.ticket_io import DOCUMENT, RESULTS, TENSORS, Reported, TicketInfo
from softprune.pruning.xprompt import Pruned
from softprune.runs.record_parts import ImportanceRecord, ResultRow, TicketRecord
from softprune.training.jobs import Fitted
from softprune.training.session import Workspace
from softprune.types import Mask


def write_prompts(workspace: Workspace, prompts: dict[str, Fitted]) -> None:
    """Write prompts to `prompts/NAME.safetensors`."""
    info = workspace.backbone.info
    metadata = {"backbone": info.name, "fingerprint": info.fingerprint}
    for name, fitted in prompts.items():
        workspace.run.write_tensors(f"prompts/{name}.safetensors", {"vectors_PH": fitted.state.vectors_PH}, metadata)


def write_ticket(
    workspace: Workspace,
    fitted: Fitted,
    token_ratio: float = 0.0,
    piece_ratio: float = 0.0,
    folder: str = "ticket",
) -> None:
    """Write a ticket: of winner and control, or the tuned prompt of a run that only tuned."""
    recipe, info, mask = workspace.recipe, workspace.backbone.info, fitted.state.mask
    ticket = Ticket(
        fitted.state,
        TicketInfo(
            backbone=info.name,
            revision=recipe.backbone.revision,
            family=info.family,
            fingerprint=info.fingerprint,
            task=workspace.task.id,
            task_version=str(workspace.task.version),
            leading=workspace.backbone.leading,
            embedding_scale=workspace.backbone.embedding_scale,
            removal=recipe.pruning.removal,
            score=workspace.scoring.score,
            match=workspace.reporting.match,
            max_answer_length=workspace.scoring.max_answer_length,
            max_length=recipe.task.max_length,
            token_ratio=token_ratio,
            piece_ratio=piece_ratio,
            prompt_tokens=mask.piece_PS.shape[0],
            pieces_per_token=mask.piece_PS.shape[1],
            hidden=info.hidden,
            tokens=mask.tokens,
            pieces=mask.pieces,
            parameters=mask.parameters(info.hidden),
            select=fitted.evaluation.score,
        ),
        workspace.task.definition,
    )
    workspace.run.write_tensors(f"{folder}/{TENSORS}", ticket.tensors(), {"schema": "1"})
    workspace.run.write_json(f"{folder}/{DOCUMENT}", ticket.document())


def write_ticket_results(
    workspace: Workspace, results: Mapping[str, ResultRow], name: str, folder: str = "ticket"
) -> None:
    """Write what was reported beside its ticket: its own row first, then what it must be compared with."""
    rows = {}
    for row in dict.fromkeys((name, "control", "tuned", "zero_shot", "constant")):
        if row in results:
            rows[row] = {field: getattr(results[row], field) for field in Reported.__dataclass_fields__}
    workspace.run.write_json(f"{folder}/{RESULTS}", rows)


def record_ticket_size(workspace: Workspace, mask: Mask) -> None:
    """Record how much of the prompt is left."""
    hidden = workspace.backbone.info.hidden
    parameters = mask.parameters(hidden)
    with workspace.run.editing() as record:
        record.ticket = TicketRecord(
            tokens=mask.tokens,
            pieces=mask.pieces,
            parameters=parameters,
            share_of_parameters=parameters / (mask.token_P.shape[0] * hidden),
        )


def write_importance(workspace: Workspace, pruned: Pruned) -> None:
    """Write importance.safetensors, and how it was measured."""
    importance = pruned.importance
    with workspace.run.editing() as record:
        record.importance = ImportanceRecord(
            method=importance.method,
            examples=importance.examples,
            token_over_piece=importance.token_over_piece,
        )
    tensors = {
        "token_P": importance.token_P,
        "piece_PS": importance.piece_PS,
        "winner_piece_PS": pruned.winner_importance_PS,
    }
    workspace.run.write_tensors(
        "importance.safetensors",
        tensors,
        {"method": importance.method, "examples": str(importance.examples)},
    )
