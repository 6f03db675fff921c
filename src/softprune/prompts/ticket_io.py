"""A ticket's files: where they are, and how they are read.

They may come from anybody: nothing in them is believed before it is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError

from softprune.data.definition import Definition
from softprune.data.definition_loading import check_definition
from softprune.errors import SoftpruneError, shorten
from softprune.models.description import FAMILIES
from softprune.prompts.hub import download, is_hub_name
from softprune.runs.record import RunRecord, read_record
from softprune.runs.tensor_files import read_tensors
from softprune.types import Mask, PromptState

SCHEMA: Final = 1
DOCUMENT: Final = "ticket.json"
TENSORS: Final = "ticket.safetensors"
RESULTS: Final = "results.json"
CONTROL: Final = "control"
"""The folder of a run that holds its whole prompt as a ticket."""
WHICH: Final = ("winner", CONTROL, "recommended")
_SHIPPED: Final[dict[str | None, str]] = {"ship the ticket": "winner", "ship the whole prompt": CONTROL}
"""The prompt that each decision of a verdict recommends."""
_CHOICES: Final = {
    "family": FAMILIES.names(),
    "removal": ("drop", "zero"),
    "score": ("sum", "mean"),
    "match": ("score", "generate"),
}
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError)
"""What reading a ticket's or an adapter's files raises where they aren't as softprune wrote them."""
Size = Annotated[int, Field(ge=1)]
Ratio = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class TicketInfo:
    """What a ticket must be used with, and what it is worth."""

    backbone: str  # the frozen model that it was trained on
    revision: str | None
    family: str
    fingerprint: str
    task: str
    task_version: str
    leading: Annotated[int, Field(ge=0)]  # input tokens that stay before it (CLS in BERT-like encoders)
    # What the backbone multiplies the embeddings of ids by, but not embeddings that it is given.
    embedding_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    removal: str  # `drop` or `zero`: how it must be read
    score: str  # `sum` or `mean`: how answers were scored
    match: str  # `score` or `generate`: how answers were found
    max_answer_length: Size  # of generated answers, in tokens
    max_length: Size  # inputs are cut here, in tokens
    token_ratio: Ratio  # what was pruned
    piece_ratio: Ratio
    prompt_tokens: Size  # P, and so S and H of the prompt that it was cut from
    pieces_per_token: Size
    hidden: Size
    tokens: Size  # what survives
    pieces: Size
    parameters: int
    select: float | None  # its metric on `select`


@dataclass(frozen=True, slots=True)
class Reported:
    """One row of a run's comparison: the metric on `report`, its 95% interval, and on how many examples."""

    value: float
    interval: tuple[float, float]
    n: int


def find_ticket(source: str | Path, which: str = "winner") -> Path:
    """The folder of a ticket: itself, within a run folder, or fetched from the hub; see `Ticket.load`.

    Raises:
        SoftpruneError: when there is none, or the run recommends none.
    """
    place = Path(source)
    # Local folders win over hub names: "runs/x" is no repository where there is a folder `runs`.
    if not place.exists() and not place.parent.is_dir() and is_hub_name(str(source)):
        place = download(str(source), (DOCUMENT, TENSORS, RESULTS))
    _check_kind(place)
    if which not in WHICH:
        raise SoftpruneError(f"one of {', '.join(WHICH)}", f'"{which}"', "correct --which")
    if which == "recommended":
        verdict = read_record(place, RunRecord).verdict
        decision = None if verdict is None else verdict.decision
        if decision not in _SHIPPED:
            found = "no verdict in run.json" if verdict is None else str(verdict.sentence).rstrip(".")
            do = "choose one yourself: --which winner or --which control"
            raise SoftpruneError("a run whose verdict says which prompt to ship", found, do)
        which = _SHIPPED[decision]
    if which == CONTROL:
        place /= CONTROL
        if not (place / DOCUMENT).is_file():
            do = "leave out --which, or name a complete run that pruned"
            raise SoftpruneError("a run that kept its whole prompt as a ticket", f"none in {place}", do)
        return place
    for folder in (place / "ticket", place):
        if (folder / DOCUMENT).is_file():
            return folder
    if (place / "run.json").is_file():
        found = f"{source} stopped before it had one"
        raise SoftpruneError("a run that has its ticket", found, "continue it: the same command again")
    expected = "a ticket folder, a complete run folder, or a hub name"
    raise SoftpruneError(expected, f"no {DOCUMENT} in {source}", "check the path")


def _check_kind(place: Path) -> None:
    """Refuse folders that hold something other than a ticket: a study, a comparison, an adapter or its run."""
    if (place / "study.json").is_file():
        do = f"name one of its runs; softprune runs {place.parent} lists them"
        raise SoftpruneError("a run or a ticket", f"a study in {place}", do)
    if (place / "compare.json").is_file():
        cells = sorted(path.parent for path in place.glob("cells/*/run.json"))
        do = f"name one of its runs, such as {cells[0] if cells else place / 'cells' / 'prompt-0'}"
        raise SoftpruneError("a run or a ticket", f"a comparison in {place}", do)
    if (place / "adapter" / "adapter.json").is_file() or (place / "adapter.json").is_file():
        do = "name it alone: softprune predict FOLDER, softprune export FOLDER, softprune.read_adapter(FOLDER)"
        raise SoftpruneError("a ticket", f"an adapter in {place}", do)


def read_ticket(folder: Path) -> tuple[PromptState, TicketInfo, Definition, dict[str, Reported]]:
    """What a folder's ticket.json, ticket.safetensors and results.json hold: the fields of a `Ticket`.

    Raises:
        SoftpruneError: when they aren't one ticket as softprune writes it.
    """
    results: dict[str, Reported] = {}  # stays empty where the run was cut off before it reported
    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        _require(isinstance(document, dict), f"a JSON object in {DOCUMENT}")
        _require(document.get("schema") == SCHEMA, f"schema {SCHEMA}, but {document.get('schema')!r}")
        info: TicketInfo = read_fields(TicketInfo, document)
        for name, choices in _CHOICES.items():
            _require(getattr(info, name) in choices, f"{name} of {' or '.join(choices)}, but {getattr(info, name)!r}")
        _require(info.hidden % info.pieces_per_token == 0, f"pieces that divide H = {info.hidden}")
        definition = check_definition(document["definition"], folder / DOCUMENT)
        state = _check_tensors(info, read_tensors(folder / TENSORS))
        _require(document.get("token_mask") == state.mask.token_P.tolist(), f"the token_mask of {TENSORS}")
        _require(document.get("piece_mask") == state.mask.piece_PS.tolist(), f"the piece_mask of {TENSORS}")
        if (folder / RESULTS).exists():
            results = read_strictly(dict[str, Reported], (folder / RESULTS).read_text(encoding="utf-8"))
    except UNREADABLE as error:
        raise SoftpruneError(f"a whole ticket in {folder}", describe(error), "copy or train it again") from error
    return state, info, definition, results


def read_fields(kind: type[Any], document: Mapping[str, Any]) -> Any:
    """A dataclass from a document's values, with their types checked; KeyError or ValueError says what is wrong."""
    stated = {name: document[name] for name in kind.__dataclass_fields__}
    return read_strictly(kind, json.dumps(stated))


def read_strictly(kind: Any, text: str) -> Any:
    """JSON as a type, checked; ValueError says what is wrong."""
    try:
        # As JSON, for in strict mode pydantic takes a dataclass from nothing else.
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)[:3]]
        raise ValueError("; ".join(wrong)) from error


def describe(error: Exception) -> str:
    """What is wrong with a file, on one line."""
    return f"no {error.args[0]}" if isinstance(error, KeyError) else shorten(error)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"not {what}")


def _check_tensors(info: TicketInfo, tensors: dict[str, torch.Tensor]) -> PromptState:
    """The prompt with its mask; every shape and index held to what ticket.json says."""
    token_P, piece_PS, index_Q = (tensors[name] for name in ("token_P", "piece_PS", "index_Q"))
    vectors_QH, shape_PS = tensors["vectors_QH"], (info.prompt_tokens, info.pieces_per_token)
    _require(token_P.dtype == piece_PS.dtype == torch.bool, "masks of true and false")
    _require(tuple(token_P.shape) == shape_PS[:1], f"token_P of shape {list(shape_PS[:1])}, but {list(token_P.shape)}")
    _require(tuple(piece_PS.shape) == shape_PS, f"piece_PS of shape {list(shape_PS)}, but {list(piece_PS.shape)}")
    _require(torch.equal(piece_PS.any(1), token_P), "at least one piece of every kept token, and none of the others")
    kept_Q = token_P.nonzero()[:, 0]
    _require(index_Q.dtype == kept_Q.dtype and torch.equal(index_Q, kept_Q), "the kept tokens' places in index_Q")
    mask = Mask(token_P, piece_PS)
    stated = (info.tokens, info.pieces, info.parameters)
    counted = (mask.tokens, mask.pieces, mask.parameters(info.hidden))
    _require(stated == counted, f"{counted} tokens, pieces and parameters, as its mask has, but {stated}")
    shape_QH = [mask.tokens, info.hidden]
    _require(list(vectors_QH.shape) == shape_QH, f"vectors_QH of shape {shape_QH}, but {list(vectors_QH.shape)}")
    _require(vectors_QH.is_floating_point() and bool(vectors_QH.isfinite().all()), "finite numbers in vectors_QH")
    vectors_PH = torch.zeros(info.prompt_tokens, info.hidden)
    vectors_PH[index_Q] = vectors_QH.float()
    _require(bool((vectors_PH[~mask.elements_PH(info.hidden)] == 0).all()), "zeros where pieces are pruned")
    return PromptState(vectors_PH, mask)
