"""What a finished run left, as studies read it: files alone, no model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.prompts.prompt_io import load_mask, load_vectors
from softprune.prompts.ticket import Ticket
from softprune.statistics.methods_over_seeds import Scored
from softprune.studies.comparison.run_metrics import read_info, read_scored
from softprune.types import Mask


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        path: its folder.
        task: its task's id.
        seed: its seed.
    """

    path: Path
    task: str
    seed: int

    @cached_property
    def info(self) -> dict[str, Any]:
        """Its run.json."""
        return read_info(self.path)

    @property
    def seconds(self) -> float | None:
        """That it took, all attempts together; None where nobody measured them."""
        found = (self.info.get("cost") or {}).get("seconds")
        return None if found is None else float(found)

    def value(self, row: str) -> float:
        """The metric of a result on `report`.

        Raises:
            SoftpruneError: it has no such result.
        """
        found = (self.info.get("results") or {}).get(row) or {}
        if found.get("value") is None:
            raise SoftpruneError(f"a result named {row}", f"none in {self.path}", "remove that folder, and run again")
        return float(found["value"])

    def scored(self, row: str) -> Scored | None:
        """The counts of every example of `report`; None where they weren't kept."""
        return read_scored(self.path / "predictions" / f"{row}.jsonl", load_task(self.task).metric)

    @property
    def interpretable(self) -> bool:
        """Whether its tuned prompt is shown to be above the constant answer: its interval lies above that."""
        interval = self.info["results"]["tuned"]["interval"]
        return bool(interval[0] > self.value("constant"))

    def prompt_file(self, name: str) -> Path:
        """The file of a prompt: initial, tuned, control."""
        return self.path / "prompts" / f"{name}.safetensors"

    def prompt(self, name: str) -> torch.Tensor:
        """Its vectors `[P, H]`."""
        return load_vectors(self.prompt_file(name))

    @property
    def mask_file(self) -> Path:
        """The file that holds the winner's mask."""
        return self.path / "ticket" / "ticket.safetensors"

    @property
    def mask(self) -> Mask:
        """The winner's mask; of a prompt that was only tuned, its own."""
        return load_mask(self.mask_file)

    @cached_property
    def ticket(self) -> Ticket:
        """The winner."""
        return Ticket.load(self.path)
