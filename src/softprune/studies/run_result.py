"""What a finished run left, as studies read it: files alone, no model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.evaluation.conclusions import above_constant
from softprune.prompts.prompt_io import load_mask, load_vectors
from softprune.prompts.ticket import Ticket
from softprune.runs.record import RunRecord, read_record
from softprune.statistics.methods_over_seeds import Scored
from softprune.studies.comparison.run_metrics import scored_of
from softprune.types import Mask


@dataclass(frozen=True)
class Made:
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
    def record(self) -> RunRecord:
        """Its run.json."""
        return read_record(self.path, RunRecord)

    @property
    def seconds(self) -> float | None:
        """That it took, all attempts together; None where nobody measured them."""
        return self.record.cost.seconds

    def value(self, row: str) -> float:
        """The metric of a result on `report`.

        Raises:
            SoftpruneError: it has no such result.
        """
        found = self.record.results.get(row)
        if found is None or found.value is None:
            raise SoftpruneError(f"a result named {row}", f"none in {self.path}", "remove that folder, and run again")
        return found.value

    def scored(self, row: str) -> Scored | None:
        """The counts of every example of `report`; None where they weren't kept."""
        return scored_of(self.path / "predictions" / f"{row}.jsonl", load_task(self.task).metric)

    @property
    def interpretable(self) -> bool:
        """Whether its tuned prompt is shown to be above the constant answer: its interval lies above that."""
        return above_constant("tuned", self.record.results)

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
