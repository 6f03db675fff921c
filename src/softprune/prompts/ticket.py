"""A ticket on disk: the surviving vectors with their original places, and all that it takes to use them again.

A prompt that was only tuned is a ticket too, with nothing pruned.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from softprune.data.definition import Definition
from softprune.errors import SoftpruneError
from softprune.models.fingerprint import same_backbone
from softprune.prompts.soft_prompts import read_one
from softprune.runs.atomic_io import json_text, tensor_bytes, write_bytes
from softprune.types import PromptState

if TYPE_CHECKING:
    from softprune.models.base import Backbone

SCHEMA: Final = 1
DOCUMENT: Final = "ticket.json"
TENSORS: Final = "ticket.safetensors"
RESULTS: Final = "results.json"
CONTROL: Final = "control"
"""The folder of a run that holds its whole prompt as a ticket."""
WHICH: Final = ("winner", "control", "recommended")
RECOMMENDED: Final[dict[str | None, str]] = {"ship the ticket": "winner", "ship the whole prompt": "control"}


@dataclass(frozen=True, slots=True)
class TicketInfo:
    """What a ticket must be used with, and what it is worth.

    Attributes:
        backbone, revision, family, fingerprint: of the frozen model that it was trained on.
        task, task_version: what it was trained for.
        leading: input tokens that stay before it (CLS in BERT-like encoders).
        embedding_scale: what the backbone multiplies the embeddings of ids by, and embeddings it is given by nothing.
        removal: `drop` or `zero`; how it must be read.
        score: `sum` or `mean`, how answers were scored.
        match: `score` or `generate`, how answers were found; `max_answer_length`: of generated ones, in tokens.
        max_length: inputs are cut here, in tokens.
        token_ratio, piece_ratio: what was pruned.
        prompt_tokens, pieces_per_token, hidden: P, S and H of the prompt it was cut from.
        tokens, pieces, parameters: what survives.
        select: its metric on `select`.
    """

    backbone: str
    revision: str | None
    family: str
    fingerprint: str
    task: str
    task_version: str
    leading: int
    embedding_scale: float
    removal: str
    score: str
    match: str
    max_answer_length: int
    max_length: int
    token_ratio: float
    piece_ratio: float
    prompt_tokens: int
    pieces_per_token: int
    hidden: int
    tokens: int
    pieces: int
    parameters: int
    select: float | None


@dataclass(frozen=True, slots=True)
class Reported:
    """One row of a run's comparison: the metric on `report`, its 95% interval, and on how many examples."""

    value: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True, slots=True, repr=False)
class Ticket:
    """A pruned prompt with its mask.

    Attributes:
        state: vectors `[P, H]`, exactly zero where pruned, and the mask.
        info: what it belongs to.
        definition: the task's, so that the ticket reads new rows as it read those of its training.
        results: what its run reported, its own row first; empty where the run was cut off before it.
    """

    state: PromptState
    info: TicketInfo
    definition: Definition
    results: dict[str, Reported] = field(default_factory=dict)

    def __repr__(self) -> str:
        info = self.info
        return f"Ticket({info.tokens} of {info.prompt_tokens} tokens for {info.task}, of {info.backbone})"

    def prompt(self) -> torch.Tensor:
        """What the backbone reads, `[Q, H]`."""
        return read_one(self.state, self.info.removal)

    def tensors(self) -> dict[str, torch.Tensor]:
        """As saved: surviving rows `[Q, H]` in float32, their original indices, and both masks."""
        kept = self.state.mask.token_P.nonzero()[:, 0]
        return {
            "vectors_QH": self.state.vectors_PH.detach().cpu()[kept].float().contiguous(),
            "index_Q": kept,
            "token_P": self.state.mask.token_P,
            "piece_PS": self.state.mask.piece_PS,
        }

    def document(self) -> dict[str, Any]:
        """ticket.json."""
        return {
            "schema": SCHEMA,
            **asdict(self.info),
            "kept_tokens": self.state.mask.token_P.nonzero()[:, 0].tolist(),
            "token_mask": self.state.mask.token_P.tolist(),
            "piece_mask": self.state.mask.piece_PS.tolist(),
            "definition": self.definition.model_dump(mode="json"),
        }

    def files(self) -> dict[str, bytes]:
        """Its files by name; ticket.json last, since there is no ticket without it."""
        rows = {name: asdict(row) for name, row in self.results.items()}
        told = {RESULTS: (json_text(rows, indent=2) + "\n").encode()} if rows else {}
        return told | {
            TENSORS: tensor_bytes(self.tensors(), {"schema": str(SCHEMA)}),
            DOCUMENT: (json_text(self.document(), indent=2) + "\n").encode(),
        }

    def check(self, backbone: Backbone) -> None:
        """Hold the ticket to the backbone that it was trained on, whatever dtype that is loaded in now.

        Raises:
            SoftpruneError: for a backbone of another family, embedding size or weights.
        """
        info, there = self.info, backbone.info
        wanted, found = (f"{i.family}, H = {i.hidden}, weights {i.fingerprint}" for i in (info, there))
        same = (info.family, info.hidden) == (there.family, there.hidden)
        if not same or not same_backbone(info.fingerprint, there.fingerprint):
            raise SoftpruneError(
                f"the backbone that the ticket was trained on, {info.backbone} ({wanted})",
                f"{there.name} ({found})",
                f"load {info.backbone}, or train a ticket on {there.name}",
            )
        if backbone.reads_with is not None:
            raise SoftpruneError("a backbone without an adapter", "one that reads with one", "load the backbone alone")

    def save(self, folder: str | Path) -> None:
        """Write ticket.json and ticket.safetensors into a folder; a save that is cut off leaves no ticket.

        Raises:
            SoftpruneError: when another ticket is there.
        """
        place, files = Path(folder), self.files()
        if (place / DOCUMENT).exists():
            if all((place / name).is_file() and (place / name).read_bytes() == data for name, data in files.items()):
                return
            raise SoftpruneError(
                "a folder without another ticket", f"{place / DOCUMENT}", "choose another folder, or remove that ticket"
            )
        for name, data in files.items():
            write_bytes(place / name, data)

    @classmethod
    def load(cls, source: str | Path, which: str = "winner") -> Ticket:
        """Read a ticket folder, a run folder that holds one, or a ticket on the Hugging Face hub ("user/name").

        Local folders win over hub names: "runs/x" is no repository where there is a folder `runs`. Of a repository, the
        ticket's own files are fetched and nothing else.

        Args:
            source: where it is.
            which: of a run's prompts: `winner`, the pruned one (or the tuned one of a run that only tuned); `control`,
                the whole prompt, retrained as the winner was; `recommended`, the one that the run's verdict says to
                ship. A ticket folder holds one prompt, so only `winner` names it.

        Raises:
            SoftpruneError: when there is none, or it can't be read, or the run recommends none.
        """
        from softprune.prompts.hub import download, is_hub_name
        from softprune.prompts.ticket_io import read_ticket

        place = Path(source)
        if not place.exists() and not place.parent.is_dir() and is_hub_name(str(source)):
            place = download(str(source), (DOCUMENT, TENSORS, RESULTS))
        _check_kind(place)
        place = _prompt_of_run(place, which)
        if not (place / DOCUMENT).is_file() and (place / "run.json").is_file():
            raise SoftpruneError(
                "a run that has its ticket",
                f"{source} stopped before it had one",
                "continue it: the same command again",
            )
        if not (place / DOCUMENT).is_file():
            raise SoftpruneError(
                "a ticket folder, a complete run folder, or a hub name", f"no {DOCUMENT} in {source}", "check the path"
            )
        return read_ticket(place)

    def push_to_hub(self, repo_id: str, private: bool = False, token: str | None = None) -> str:
        """Put the ticket on the Hugging Face hub, in one commit with a model card; the repository is made if needed.

        Args:
            repo_id: "user/name".
            private: whether a new repository is seen by its owner alone.
            token: of the user; None takes the one of `hf auth login`.

        Returns:
            The repository's address.

        Raises:
            SoftpruneError: when the hub can't be reached, or refuses.
        """
        from softprune.prompts.hub import upload
        from softprune.prompts.model_card import ticket_card

        files = self.files() | {"README.md": ticket_card(self, repo_id).encode()}
        return upload(repo_id, files, private=private, token=token, message=f"Ticket for {self.info.task}")


def _prompt_of_run(place: Path, which: str) -> Path:
    """The ticket folder within a run folder; another folder as it is.

    Raises:
        SoftpruneError: when there is no such prompt, or the verdict recommends none.
    """
    if which not in WHICH:
        raise SoftpruneError(f"one of {', '.join(WHICH)}", f'"{which}"', "correct --which")
    if which == "recommended":
        which = _recommended(place)
    if which == "control":
        if not (place / CONTROL / DOCUMENT).is_file():
            do = "leave out --which, or name a complete run that pruned"
            raise SoftpruneError("a run that kept its whole prompt as a ticket", f"none in {place / CONTROL}", do)
        return place / CONTROL
    return place / "ticket" if (place / "ticket" / DOCUMENT).is_file() else place


def _recommended(place: Path) -> str:
    """The prompt that a run's verdict says to ship: `winner` or `control`."""
    from softprune.runs.record import RunRecord, read_record  # pydantic takes a while to import

    verdict = read_record(place, RunRecord).verdict
    chosen = None if verdict is None else RECOMMENDED.get(verdict.decision)
    if chosen is None:
        found = "no verdict in run.json" if verdict is None else verdict.sentence
        do = "choose one yourself: --which winner or --which control"
        raise SoftpruneError("a run whose verdict says which prompt to ship", str(found).rstrip("."), do)
    return chosen


def _check_kind(place: Path) -> None:
    """Tell folders that hold something else than a ticket.

    Raises:
        SoftpruneError: for a study, a comparison, and for an adapter and the run that left one.
    """
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
