"""A ticket on disk: the surviving vectors with their original places, and all that it takes to use them again.

A prompt that was only tuned is a ticket too, with nothing pruned. Tickets may come from anybody: nothing in their files
is believed before it is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError

from softprune.data.definition import Definition
from softprune.data.definition_loading import check_definition
from softprune.errors import SoftpruneError, shorten
from softprune.models.description import FAMILIES
from softprune.models.fingerprint import same_backbone
from softprune.prompts.model_card import model_card, ticket_code
from softprune.prompts.soft_prompts import read_one
from softprune.runs.atomic_io import json_text, tensor_bytes, write_bytes
from softprune.runs.record import RunRecord, read_record
from softprune.runs.tensor_files import read_tensors
from softprune.types import Mask, PromptState

if TYPE_CHECKING:
    from softprune.models.base import Backbone

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
_HUB_NAME: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


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
    # Whether the backbone looks up a second embedding of every token, for each layer.
    has_layer_embeddings: bool = False


@dataclass(frozen=True, slots=True)
class Reported:
    """One row of a run's comparison: the metric on `report`, its 95% interval, and on how many examples."""

    value: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True, slots=True, repr=False)
class Ticket:
    """A pruned prompt with its mask."""

    state: PromptState  # vectors `[P, H]`, exactly zero where pruned, and the mask
    info: TicketInfo  # what it belongs to
    definition: Definition  # the task's, so that the ticket reads new rows as it read those of its training
    # What its run reported, its own row first; empty where the run was cut off before it.
    results: dict[str, Reported] = field(default_factory=dict)

    def __repr__(self) -> str:
        info = self.info
        return f"Ticket({info.tokens} of {info.prompt_tokens} tokens for {info.task}, of {info.backbone})"

    def prompt(self) -> torch.Tensor:
        """What the backbone reads, `[Q, H]`."""
        return read_one(self.state, self.info.removal)

    def tensors(self) -> dict[str, torch.Tensor]:
        """As saved: surviving rows `[Q, H]` in float32, their original indices, and both masks."""
        kept_Q = self.state.mask.token_P.nonzero()[:, 0]
        return {
            "vectors_QH": self.state.vectors_PH.detach().cpu()[kept_Q].float().contiguous(),
            "index_Q": kept_Q,
            "token_P": self.state.mask.token_P,
            "piece_PS": self.state.mask.piece_PS,
        }

    def document(self) -> dict[str, Any]:
        """ticket.json."""
        mask = self.state.mask
        return {
            "schema": SCHEMA,
            **asdict(self.info),
            "kept_tokens": mask.token_P.nonzero()[:, 0].tolist(),
            "token_mask": mask.token_P.tolist(),
            "piece_mask": mask.piece_PS.tolist(),
            "definition": self.definition.model_dump(mode="json"),
        }

    def files(self) -> dict[str, bytes]:
        """Its files by name; ticket.json last, since there is no ticket without it."""
        files = {}
        if self.results:
            rows = {name: asdict(row) for name, row in self.results.items()}
            files[RESULTS] = (json_text(rows, indent=2) + "\n").encode()
        files[TENSORS] = tensor_bytes(self.tensors(), {"schema": str(SCHEMA)})
        files[DOCUMENT] = (json_text(self.document(), indent=2) + "\n").encode()
        return files

    def check(self, backbone: Backbone) -> None:
        """Hold the ticket to the backbone that it was trained on, whatever dtype that is loaded in now.

        Raises:
            SoftpruneError: for a backbone of another family, embedding size or weights.
        """
        info, there = self.info, backbone.info
        same_shape = (info.family, info.hidden) == (there.family, there.hidden)
        if not same_shape or not same_backbone(info.fingerprint, there.fingerprint):
            wanted, found = (f"{i.family}, H = {i.hidden}, weights {i.fingerprint}" for i in (info, there))
            expected = f"the backbone that the ticket was trained on, {info.backbone} ({wanted})"
            do = f"load {info.backbone}, or train a ticket on {there.name}"
            raise SoftpruneError(expected, f"{there.name} ({found})", do)
        # Fingerprints are taken of the frozen weights, so they don't show an adapter.
        if backbone.adapter.saved is not None:
            raise SoftpruneError("a backbone without an adapter", "one that reads with one", "load the backbone alone")

    def save(self, folder: str | Path) -> None:
        """Write ticket.json and ticket.safetensors into a folder; a save that is cut off leaves no ticket.

        Raises:
            SoftpruneError: when another ticket is there.
        """
        place, files = Path(folder), self.files()
        if (place / DOCUMENT).exists():  # the same ticket again is no harm
            if all((place / name).is_file() and (place / name).read_bytes() == data for name, data in files.items()):
                return
            do = "choose another folder, or remove that ticket"
            raise SoftpruneError("a folder without another ticket", f"{place / DOCUMENT}", do)
        for name, data in files.items():
            write_bytes(place / name, data)

    @classmethod
    def load(cls, source: str | Path, which: str = "winner") -> Ticket:
        """Read a ticket folder, a run folder that holds one, or a ticket on the Hugging Face hub ("user/name").

        Local folders win over hub names. Of a repository, the ticket's own files are fetched and nothing else. `which`
        of a run's prompts is `winner`, the pruned one (or the tuned one of a run that only tuned); `control`, the whole
        prompt, retrained as the winner was; or `recommended`, the one that the run's verdict says to ship. A ticket
        folder holds one prompt, so only `winner` names it.

        Raises:
            SoftpruneError: when there is none, or it can't be read, or the run recommends none.
        """
        return _read_ticket(_find_ticket(source, which))

    def push_to_hub(self, repo_id: str, private: bool = False, token: str | None = None) -> str:
        """Put the ticket on the Hugging Face hub as "user/name", in one commit with a model card; returns the address.

        The repository is made if needed, and a `private` one is seen by its owner alone. Without a token of the user,
        the one of `hf auth login` is taken.

        Raises:
            SoftpruneError: when the name has another form, or the hub can't be reached, or refuses.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        if not _HUB_NAME.fullmatch(repo_id):
            raise SoftpruneError("a repository as user/name", f'"{repo_id}"', "put your user name before it")
        title, code = f"Soft prompt for {self.definition.title}", ticket_code(self, repo_id)
        card = model_card(self, library="softprune", title=title, code=code)
        files = self.files() | {"README.md": card.encode()}
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()]
        try:
            api = HfApi(token=token)
            address = str(api.create_repo(repo_id, private=private, exist_ok=True))
            api.create_commit(repo_id, operations=operations, commit_message=f"Ticket for {self.info.task}")
        except Exception as error:  # the client lets errors of its HTTP library through, and changes that
            do = "check the name, the network, and your login: hf auth login"
            raise SoftpruneError(f"a repository {repo_id} that you may write to", shorten(error), do) from error
        return address


def _find_ticket(source: str | Path, which: str) -> Path:
    """The folder of a ticket: itself, within a run folder, or fetched from the hub; see `Ticket.load`."""
    place = Path(source)
    # Local folders win over hub names: "runs/x" is no repository where there is a folder `runs`.
    if not place.exists() and not place.parent.is_dir() and _HUB_NAME.fullmatch(str(source)):
        place = _download(str(source))
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


def _download(name: str) -> Path:
    """The folder, in the hub's cache, that holds a repository's ticket."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[DOCUMENT, TENSORS, RESULTS]))
    except Exception as error:  # as in `push_to_hub`
        do = "check the path or name, the network, and (private ones) your login: hf auth login"
        found = f"no folder {name}; from the hub: {shorten(error)}"
        raise SoftpruneError("a local folder, or a repository of the hub", found, do) from error


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


def _read_ticket(folder: Path) -> Ticket:
    """What a folder's ticket.json, ticket.safetensors and results.json hold, where it is a ticket of softprune's."""
    results: dict[str, Reported] = {}  # stays empty where the run was cut off before it reported
    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        _require(isinstance(document, dict), f"a JSON object in {DOCUMENT}")
        _require(document.get("schema") == SCHEMA, f"schema {SCHEMA}, but {document.get('schema')!r}")
        info: TicketInfo = read_fields(TicketInfo, document, later={"has_layer_embeddings"})
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
    return Ticket(state, info, definition, results)


def read_fields(kind: type[Any], document: Mapping[str, Any], later: Collection[str] = ()) -> Any:
    """A dataclass from a document's values, with their types checked; KeyError or ValueError says what is wrong.

    Fields that came `later` have their defaults where a document of an earlier version has none of them.
    """
    names = [name for name in kind.__dataclass_fields__ if name not in later or name in document]
    stated = {name: document[name] for name in names}
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
    """The prompt with its mask; every shape and index checked against ticket.json."""
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
