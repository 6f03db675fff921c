"""Reading a ticket's files. They may come from anybody: nothing in them is believed before it is checked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from softprune.data.definition_loading import check_definition
from softprune.errors import SoftpruneError
from softprune.models.loading import FAMILIES
from softprune.prompts.ticket import DOCUMENT, RESULTS, SCHEMA, TENSORS, Reported, Ticket, TicketInfo
from softprune.runs.tensor_files import read_tensors
from softprune.types import Mask, PromptState

_CHOICES = {
    "family": FAMILIES.names(),
    "removal": ("drop", "zero"),
    "score": ("sum", "mean"),
    "match": ("score", "generate"),
}
_AT_LEAST_1 = ("max_answer_length", "max_length", "prompt_tokens", "pieces_per_token", "hidden", "tokens", "pieces")


def read_ticket(folder: Path) -> Ticket:
    """The ticket of a folder's ticket.json and ticket.safetensors.

    Raises:
        SoftpruneError: when they aren't one ticket as softprune writes it.
    """
    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        info = _info(document)
        definition = check_definition(document["definition"], folder / DOCUMENT)
        mask, state = _state(info, read_tensors(folder / TENSORS))
        _hold(document.get("token_mask") == mask.token_P.tolist(), f"the token_mask of {TENSORS}")
        _hold(document.get("piece_mask") == mask.piece_PS.tolist(), f"the piece_mask of {TENSORS}")
        results = _results(folder / RESULTS)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise SoftpruneError(f"a whole ticket in {folder}", _found(error), "copy or train it again") from error
    return Ticket(state, info, definition, results)


def _results(path: Path) -> dict[str, Reported]:
    """What the ticket's run reported, by the name of the prompt; nothing where the run was cut off before it."""
    if not path.exists():
        return {}
    return TypeAdapter(dict[str, Reported]).validate_json(path.read_text(encoding="utf-8"), strict=True)


def _hold(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"not {what}")


def _found(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, ValidationError):
        told = error.errors(include_url=False)
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in told[:3])
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _info(document: Any) -> TicketInfo:
    _hold(isinstance(document, dict), f"a JSON object in {DOCUMENT}")
    _hold(document.get("schema") == SCHEMA, f"schema {SCHEMA}, but {document.get('schema')!r}")
    stated = {name: document[name] for name in TicketInfo.__dataclass_fields__}
    # Read as JSON, for in strict mode pydantic takes a dataclass from nothing else.
    info = TypeAdapter(TicketInfo).validate_json(json.dumps(stated), strict=True)
    for name, choices in _CHOICES.items():
        _hold(getattr(info, name) in choices, f"{name} of {' or '.join(choices)}, but {getattr(info, name)!r}")
    for name in _AT_LEAST_1:
        _hold(getattr(info, name) >= 1, f"{name} of 1 or more, but {getattr(info, name)}")
    for name in ("token_ratio", "piece_ratio"):
        _hold(0 <= getattr(info, name) < 1, f"{name} from 0 to below 1, but {getattr(info, name)}")
    _hold(info.leading >= 0, f"leading of 0 or more, but {info.leading}")
    _hold(0 < info.embedding_scale < math.inf, f"embedding_scale above 0, but {info.embedding_scale}")
    _hold(info.hidden % info.pieces_per_token == 0, f"pieces that divide H = {info.hidden}")
    return info


def _state(info: TicketInfo, tensors: dict[str, torch.Tensor]) -> tuple[Mask, PromptState]:
    """The prompt with its mask; every shape and index held to what ticket.json says."""
    token_P, piece_PS, index_Q = (tensors[name] for name in ("token_P", "piece_PS", "index_Q"))
    vectors_QH, shape_PS = tensors["vectors_QH"], (info.prompt_tokens, info.pieces_per_token)
    _hold(token_P.dtype == piece_PS.dtype == torch.bool, "masks of true and false")
    _hold(tuple(token_P.shape) == shape_PS[:1], f"token_P of shape {list(shape_PS[:1])}, but {list(token_P.shape)}")
    _hold(tuple(piece_PS.shape) == shape_PS, f"piece_PS of shape {list(shape_PS)}, but {list(piece_PS.shape)}")
    _hold(torch.equal(piece_PS.any(1), token_P), "at least one piece of every kept token, and none of the others")
    kept_Q = token_P.nonzero()[:, 0]
    _hold(index_Q.dtype == kept_Q.dtype and torch.equal(index_Q, kept_Q), "the kept tokens' places in index_Q")
    mask = Mask(token_P, piece_PS)
    stated, counted = (
        (info.tokens, info.pieces, info.parameters),
        (mask.tokens, mask.pieces, mask.parameters(info.hidden)),
    )
    _hold(stated == counted, f"{counted} tokens, pieces and parameters, as its mask has, but {stated}")
    shape_QH = [mask.tokens, info.hidden]
    _hold(list(vectors_QH.shape) == shape_QH, f"vectors_QH of shape {shape_QH}, but {list(vectors_QH.shape)}")
    _hold(vectors_QH.is_floating_point() and bool(vectors_QH.isfinite().all()), "finite numbers in vectors_QH")
    vectors = torch.zeros(info.prompt_tokens, info.hidden)
    vectors[index_Q] = vectors_QH.float()
    _hold(bool((vectors[~mask.elements_PH(info.hidden)] == 0).all()), "zeros where pieces are pruned")
    return mask, PromptState(vectors, mask)
