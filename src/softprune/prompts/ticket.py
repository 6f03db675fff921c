"""A ticket on disk: the surviving vectors with their original places, and all that it takes to use them again.

A prompt that was only tuned is a ticket too, with nothing pruned.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from softprune.data.definition import Definition
from softprune.errors import SoftpruneError
from softprune.models.fingerprint import same_backbone
from softprune.prompts.hub import upload
from softprune.prompts.model_card import model_card, ticket_code
from softprune.prompts.soft_prompts import read_one
from softprune.prompts.ticket_io import (
    DOCUMENT,
    RESULTS,
    SCHEMA,
    TENSORS,
    Reported,
    TicketInfo,
    find_ticket,
    read_ticket,
)
from softprune.runs.atomic_io import json_text, tensor_bytes, write_bytes
from softprune.types import PromptState

if TYPE_CHECKING:
    from softprune.models.base import Backbone


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
            raise SoftpruneError(
                f"the backbone that the ticket was trained on, {info.backbone} ({wanted})",
                f"{there.name} ({found})",
                f"load {info.backbone}, or train a ticket on {there.name}",
            )
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
        return cls(*read_ticket(find_ticket(source, which)))

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
        title = f"Soft prompt for {self.definition.title}"
        code = ticket_code(self.info, self.definition, repo_id)
        card = model_card(self.info, self.definition, self.results, library="softprune", title=title, code=code)
        files = self.files() | {"README.md": card.encode()}
        return upload(repo_id, files, private=private, token=token, message=f"Ticket for {self.info.task}")
