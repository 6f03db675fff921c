"""A ticket on disk: the surviving vectors with their original places, and all that it takes to use them again.

A prompt that was only tuned is a ticket too, with nothing pruned.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from softprune.errors import SoftpruneError
from softprune.prompt.bank import read_one
from softprune.tasks.schema import Definition
from softprune.types import Mask, PromptState


@dataclass(frozen=True, slots=True)
class TicketInfo:
    """What a ticket must be used with, and what it is worth.

    Attributes:
        backbone, revision, family, fingerprint: of the frozen model that it was trained on.
        task, task_version: what it was trained for.
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
class Ticket:
    """A pruned prompt with its mask.

    Attributes:
        state: vectors `[P, H]`, exactly zero where pruned, and the mask.
        info: what it belongs to.
        definition: the task's, so that the ticket reads new rows as it read those of its training.
    """

    state: PromptState
    info: TicketInfo
    definition: Definition

    def prompt(self) -> torch.Tensor:
        """What the backbone reads, `[Q, H]`."""
        return read_one(self.state, self.info.removal)

    def tensors(self) -> dict[str, torch.Tensor]:
        """As saved: surviving rows `[Q, H]`, their original indices, and both masks."""
        kept = self.state.mask.token_P.nonzero()[:, 0]
        return {
            "vectors_QH": self.state.vectors_PH.detach().cpu()[kept].contiguous(),
            "index_Q": kept,
            "token_P": self.state.mask.token_P,
            "piece_PS": self.state.mask.piece_PS,
        }

    def document(self) -> dict[str, Any]:
        """ticket.json."""
        return {
            "schema": 1,
            **asdict(self.info),
            "kept_tokens": self.state.mask.token_P.nonzero()[:, 0].tolist(),
            "token_mask": self.state.mask.token_P.tolist(),
            "piece_mask": self.state.mask.piece_PS.tolist(),
            "definition": self.definition.model_dump(mode="json"),
        }

    def save(self, folder: Path) -> None:
        """Write ticket.json and ticket.safetensors into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors(), folder / "ticket.safetensors")
        (folder / "ticket.json").write_text(json.dumps(self.document(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Ticket:
        """Read a ticket folder, or a run folder that holds one.

        Raises:
            SoftpruneError: when there is none, or it can't be read.
        """
        place = Path(folder)
        place = place / "ticket" if (place / "ticket" / "ticket.json").is_file() else place
        if not (place / "ticket.json").is_file():
            raise SoftpruneError(
                "a ticket folder or a complete run folder", f"no ticket.json in {folder}", "check the path"
            )
        try:
            document = json.loads((place / "ticket.json").read_text(encoding="utf-8"))
            tensors = load_file(place / "ticket.safetensors")
            info = TicketInfo(**{name: document[name] for name in TicketInfo.__dataclass_fields__})
            mask = Mask(tensors["token_P"], tensors["piece_PS"])
            vectors = torch.zeros(info.prompt_tokens, info.hidden)
            vectors[tensors["index_Q"]] = tensors["vectors_QH"].float()
            definition = Definition.model_validate(document["definition"])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise SoftpruneError(f"a readable ticket in {place}", str(error), "train it anew") from error
        return cls(PromptState(vectors, mask), info, definition)
