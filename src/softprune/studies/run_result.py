"""What a finished run left, as studies read it: files alone, no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from softprune.data import Metric, answered, load_task
from softprune.data.metrics import ExactMatch
from softprune.errors import SoftpruneError
from softprune.prompts.prompt_io import load_mask, load_vectors
from softprune.prompts.ticket import Ticket
from softprune.runs.record import RunRecord, read_record
from softprune.runs.record_parts import ResultRow
from softprune.statistics.methods_over_seeds import Outcome, Scored
from softprune.types import Mask, Scores

Line: TypeAlias = "Mapping[str, Any]"  # of a predictions file: id, group, gold, predicted, scores
_AGAIN = "remove that folder, and run again"


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its folder, its task's id and its seed."""

    path: Path
    task: str
    seed: int

    @cached_property
    def record(self) -> RunRecord:
        """Its run.json."""
        return read_record(self.path, RunRecord)

    @property
    def label(self) -> str:
        """Its task and seed, as tables name it."""
        return f"{self.task}, seed {self.seed}"

    def result(self, name: str) -> ResultRow | None:
        """A result by its name, such as `tuned`; None where it wasn't measured."""
        row = self.record.results.get(name)
        return None if row is None or row.value is None else row

    def value(self, name: str) -> float:
        """The metric of a result on `report`."""
        row = self.result(name)
        if row is None or row.value is None:
            raise SoftpruneError(f"a result named {name}", f"none in {self.path}", _AGAIN)
        return row.value

    def is_above_constant(self, name: str = "tuned") -> bool:
        """Whether a result is shown to be above the constant answer: its interval lies above that."""
        row = self.result(name)
        return row is not None and row.interval is not None and row.interval[0] > self.value("constant")

    def scored(self, name: str) -> Scored | None:
        """The counts of every example of `report`; None where they weren't stored."""
        path = self._answers_file(name)
        return score_lines(_read_lines(path), load_task(self.task).metric) if path.is_file() else None

    def answers(self, name: str, task: str = "") -> list[Line]:
        """What one of its prompts answered to each example of `report`.

        Of a run on several tasks, `task` is the one whose examples are meant, their ids as in a run of that task alone.
        """
        path = self._answers_file(name)
        if not path.is_file():
            raise SoftpruneError(f"what {name} answered", f"no file {path}", _AGAIN)
        prefix = f"{task}:" if task else ""
        lines: list[Line] = []
        for line in _read_lines(path):
            if line["id"].startswith(prefix):
                group = {"group": line["group"].removeprefix(prefix)} if line.get("group") else {}
                lines.append({**line, **group, "id": line["id"].removeprefix(prefix)})
        return lines

    def _answers_file(self, name: str) -> Path:
        return self.path / "predictions" / f"{name}.jsonl"

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

    @property
    def share_kept(self) -> float:
        """The numbers that the winner keeps, as a fraction of the whole prompt's."""
        info = self.ticket.info
        return info.parameters / (info.prompt_tokens * info.hidden)


def collect_outcome(runs: Sequence[FinishedRun], name: str) -> Outcome:
    """One result of the runs of a task, over their seeds."""
    return Outcome(tuple(run.value(name) for run in runs), tuple(run.scored(name) for run in runs))


def score_lines(lines: Sequence[Line], metric: Metric) -> Scored | None:
    """The counts of each example: of answers by the metric, of texts their own scores; None where neither is there."""
    if not lines:
        return None
    name = "right" if metric.name == ExactMatch.name else metric.name
    if all(isinstance(line.get("predicted"), int) and isinstance(line.get("gold"), int) for line in lines):
        counts_NC = metric.counts(answered([line["predicted"] for line in lines], [line["gold"] for line in lines]))
    elif all(isinstance(line.get(name), int | float) for line in lines):
        counts_NC = np.array([[line[name], 1.0] for line in lines])
    elif all(isinstance(line.get("written"), str) and isinstance(line.get("reference"), str) for line in lines):
        texts, references = zip(*((line["written"], line["reference"]) for line in lines), strict=True)
        counts_NC = metric.counts(Scores(texts=texts, references=references))
    else:
        return None
    return Scored(counts_NC, tuple(str(line["id"]) for line in lines), tuple(line.get("group") for line in lines))


def score_answers(parts: Sequence[Sequence[Line]], metric: Metric) -> Outcome:
    """What the answers of each seed come to."""
    scored = tuple(score_lines(lines, metric) for lines in parts)
    values = tuple(float(metric.score(each.counts_NC.sum(axis=0))) for each in scored if each is not None)
    return Outcome(values, scored)


def _read_lines(path: Path) -> list[Line]:
    # Not splitlines: a text may hold a line separator of Unicode, which JSON leaves as it is.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
