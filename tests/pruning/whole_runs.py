"""Whole runs on a tiny model, watched: the recipes, the witness, and the finished run as its folder tells it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from softprune.config import Recipe, resolve
from softprune.evaluation import baselines
from softprune.models.base import Backbone
from softprune.pipelines.xprompt import execute
from softprune.training import jobs
from softprune.training.scoring import SealedSet
from softprune.types import Encoded, Example, PromptState

Models = Callable[[str], Path]
P, S, HIDDEN = 4, 4, 32

TINY = (
    "backbone.dtype=float32",
    "backbone.device=cpu",
    f"prompt.tokens={P}",
    f"prompt.pieces={S}",
    "tuning.epochs=3",
    "tuning.batch_size=8",
    "tuning.lr=0.3",
    "search.epochs=2",
    "search.group=3",
    "search.token_ratios=0.25,0.5",
    "search.piece_ratios=0.25,0.5",
    "selection.seeds=2",
    "selection.resamples=200",
)
# A step of the gates' logits is as large as the models are tiny; the two highest prices leave one piece.
GATES = ("search.strategy=learned", "search.prices=0.01,2,1e5,1e6", "search.gate_lr=0.5", "search.gate_epochs=3")
CASES = {
    "tune": ("kind=tune",),
    "grid, zero": ("search.strategy=grid", "pruning.removal=zero"),
    "grid, drop": ("search.strategy=grid", "pruning.removal=drop", "pruning.scope=per_token"),
    "sequential, zero": ("search.strategy=sequential", "pruning.removal=zero", "tuning.optimiser=adamw"),
    "sequential, drop": ("search.strategy=sequential", "pruning.removal=drop", "tuning.patience=1"),
    "random, drop": ("search.strategy=random", "search.samples=3", "pruning.removal=drop", "tuning.patience=1"),
    "learned, zero": (*GATES, "search.gates=hard-concrete", "pruning.removal=zero"),
    "learned, drop": (*GATES, "search.gates=straight-through", "pruning.removal=drop", "tuning.optimiser=adamw"),
    "paper": (
        "search.strategy=grid",
        "pruning.removal=zero",
        "pruning.importance=paper",
        "tuning.clip_scope=all",
        "selection.protocol=paper",
        "selection.objective=best",
        "selection.seeds=0",
    ),
}
# How a ticket is trained: by a teacher's answers too, from a second training on, or while it is pruned.
TAUGHT = {
    "taught, drop": (
        *("search.strategy=sequential", "pruning.removal=drop", "pruning.teacher=control", "pruning.rewind=control"),
        *("task.shots=16", "task.unlabelled=rest", "task.limit_unlabelled=5"),
    ),
    "taught, zero": ("search.strategy=grid", "pruning.removal=zero", "pruning.teacher=tuned", "pruning.teach_weight=1"),
    "gradual, drop": ("search.strategy=gradual", "search.keep=0.5,0.25", "pruning.removal=drop", "search.epochs=4"),
    "gradual, zero": (
        *("search.strategy=gradual", "search.keep=0.5,0.25", "pruning.removal=zero", "pruning.levels=piece"),
        *("pruning.importance=paper", "pruning.teacher=tuned", "pruning.teach_weight=0.7"),
    ),
}


def recipe_of(model: Path, task: Path, *changes: str) -> Recipe:
    return resolve([f"backbone.name={model}", f"task.id={task}", *TINY, *changes])


@dataclass
class Witness:
    """What a run did with `report`, and what it trained, in order.

    Attributes:
        encoded: phase and texts of every tokenised set.
        opened: the phase at each opening of `report`, and what the folder held by then.
        fits: starts, names, epochs and seeds of every training.
    """

    out: Path
    encoded: list[tuple[str | None, set[str]]] = field(default_factory=list)
    opened: list[tuple[str | None, dict[str, bytes]]] = field(default_factory=list)
    fits: list[tuple[dict[str, PromptState], int | None, Sequence[int] | None]] = field(default_factory=list)

    def phase(self) -> str | None:
        found: str | None = json.loads((self.out / "run.json").read_text())["phase"]
        return found

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        encode, open_, fit = Backbone.encode, SealedSet.open, jobs.fit

        def noted_encode(backbone: Backbone, examples: Sequence[Example], *rest: int) -> list[Encoded]:
            self.encoded.append((self.phase(), {example.text for example in examples}))
            return encode(backbone, examples, *rest)

        def noted_open(sealed: SealedSet) -> tuple[Example, ...]:
            held = {name: (self.out / name).read_bytes() for name in BEFORE_REPORT if (self.out / name).exists()}
            self.opened.append((self.phase(), held))
            return open_(sealed)

        @wraps(fit)  # so that it pickles by its name
        def noted_fit(workspace: Any, group: jobs.Group) -> list[jobs.Fitted]:
            self.fits.append((dict(zip(group.names, group.starts, strict=True)), group.epochs, group.seeds))
            return fit(workspace, group)

        patch.setattr(Backbone, "encode", noted_encode)
        patch.setattr(SealedSet, "open", noted_open)
        for module in (jobs, baselines):
            patch.setattr(module, "fit", noted_fit)


BEFORE_REPORT = (
    "metrics.jsonl",
    "importance.safetensors",
    "prompts/initial.safetensors",
    "prompts/tuned.safetensors",
    "prompts/control.safetensors",
    "ticket/ticket.json",
    "ticket/ticket.safetensors",
)


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "seconds"}


@dataclass(frozen=True)
class Run:
    """A finished run as its folder tells it."""

    out: Path
    recipe: Recipe
    witness: Witness

    @property
    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "run.json").read_text())
        return found

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / name).read_text().splitlines()]

    def bits(self) -> dict[str, object]:
        """Everything that must repeat."""
        info = self.info
        results = {name: row and timeless(row) for name, row in info["results"].items()}
        curves = [timeless(line) for line in self.lines("metrics.jsonl")]
        names = [path for path in sorted(self.out.rglob("*")) if path.suffix in (".jsonl", ".safetensors")]
        files = {str(path.relative_to(self.out)): path.read_bytes() for path in names if path.name != "metrics.jsonl"}
        return {"results": results, "curves": curves, "headline": info.get("headline"), **files}


def execute_one(model: Path, task: Path, out: Path, *changes: str) -> Run:
    recipe, witness = recipe_of(model, task, *changes), Witness(out)

    def finish(folder: Path) -> None:
        assert not (folder / "COMPLETE").exists()
        (folder / "report").mkdir()

    with pytest.MonkeyPatch.context() as patch:
        witness.watch(patch)
        execute(recipe, out, "softprune run mine.yaml", "# mine\n" + recipe.dump(), finish=finish)
    return Run(out, recipe, witness)
