"""Training as a piece of work of a run: prompt tuning (paper, section 4.1) and the retraining of masked prompts.

A piece of work is done once: its result is stored under its name, its unfinished state at every evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from softprune.prompt.bank import full_mask
from softprune.runs.store import RunFolder, Saved
from softprune.tuning.loop import Evaluation, Feed, Point, Schedule, Trained, train
from softprune.tuning.optimisers import make_optimiser
from softprune.tuning.scoring import ScoredSet, score_prompts
from softprune.tuning.setup import Workspace
from softprune.tuning.start import initial_prompt
from softprune.tuning.trainable import PromptTrainable
from softprune.types import Batch, PromptState

# Where a recipe names no epochs: enough steps for a small set to be learned, and few enough evaluations of it.
STEPS, EPOCHS, EVALUATIONS = 100, 5, 10


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained prompt.

    Attributes:
        state: its best checkpoint on `select`.
        evaluation: metric and loss there.
        seconds: wall time of its group over the group's size.
    """

    state: PromptState
    evaluation: Evaluation
    seconds: float


class FolderKeeper:
    """Keeps unfinished training in the run folder, and its curve in metrics.jsonl.

    Args:
        run: the folder.
        name: of the piece of work.
        phase: the curve's name in metrics.jsonl.
        candidates: the names on the curve.
    """

    def __init__(self, run: RunFolder, name: str, phase: str, candidates: Sequence[str]) -> None:
        self._run, self._checkpoint = run, run.checkpoint(name)
        self._phase, self._candidates = phase, list(candidates)

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The last state; curve lines that came after it are dropped, since they will be made again."""
        saved = self._checkpoint.load()
        step = 0 if saved is None else int(saved.meta["step"])
        self._run.trim_metrics(self._phase, self._candidates, step)
        return None if saved is None else (saved.tensors, saved.meta)

    def save(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        """Replace the state."""
        self._checkpoint.save(Saved({k: v.cpu() for k, v in tensors.items()}, progress))

    def curve(self, points: Sequence[Point]) -> None:
        """Append to metrics.jsonl."""
        self._run.append_metrics([{"phase": self._phase, **asdict(point)} for point in points])


def schedule(workspace: Workspace, *, epochs: int | None = None, seed: int | None = None) -> Schedule:
    """The recipe's schedule, with other epochs or another seed where asked."""
    settings = workspace.recipe.tuning
    steps_an_epoch = math.ceil(len(workspace.train) / settings.batch_size)
    passes = epochs or settings.epochs or max(EPOCHS, math.ceil(STEPS / steps_an_epoch))
    interval = max(steps_an_epoch, math.ceil(steps_an_epoch * passes / EVALUATIONS))
    return Schedule(
        epochs=passes,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        evaluate_every=settings.evaluate_every or interval,
        patience=settings.patience,
        best_by=settings.best_by,
        seed=workspace.recipe.seed if seed is None else seed,
    )


def tune(workspace: Workspace) -> Fitted:
    """Prompt tuning: one unpruned prompt from its initial values."""
    recipe = workspace.recipe
    first = initial_prompt(recipe, workspace.backbone, workspace.task)
    # Pieces matter to pruning only; a prompt that is only tuned needs no number that divides H.
    pieces = recipe.prompt.pieces if recipe.kind == "xprompt" else 1
    start = PromptState(first.vectors_PH, full_mask(recipe.prompt.tokens, pieces))
    _record_start(workspace, start, first.words, first.notes)
    with workspace.run.phase("tune"):
        (fitted,) = fit(workspace, [start], ["tuned"], work="tune", phase="tune", title="prompt tuning")
    return fitted


def fit(
    workspace: Workspace,
    starts: Sequence[PromptState],
    names: Sequence[str],
    *,
    work: str,
    phase: str,
    title: str,
    epochs: int | None = None,
    seed: int | None = None,
) -> list[Fitted]:
    """Train K prompts side by side from their starting values; the best checkpoint of each.

    Args:
        workspace: what the run shares.
        starts: values and masks; under `drop` with equally many surviving tokens.
        names: of the K prompts.
        work: name of this piece of work, unique in the run.
        phase: its name in metrics.jsonl.
        title: what displays show.
        epochs, seed: in place of the recipe's.
    """
    plan = schedule(workspace, epochs=epochs, seed=seed)

    def compute() -> Saved:
        keeper = FolderKeeper(workspace.run, work, phase, names)
        trained = _train(workspace, starts, names, plan, title, keeper)
        meta = {
            "best": [asdict(evaluation) for evaluation in trained.best],
            "steps": trained.steps,
            "examples": trained.examples,
            "seconds": trained.seconds,
        }
        return Saved({k: v.cpu() for k, v in trained.tensors.items()}, meta)

    saved = workspace.run.once(work, compute)
    _record_cost(workspace, work, saved.meta)
    vectors_KPH = saved.tensors["vectors_KPH"]
    return [
        Fitted(PromptState(vectors, start.mask), Evaluation(**best), saved.meta["seconds"] / len(starts))
        for vectors, start, best in zip(vectors_KPH, starts, saved.meta["best"], strict=True)
    ]


def evaluate(workspace: Workspace, prompts_KQH: torch.Tensor, data: ScoredSet) -> list[Evaluation]:
    """Metric and mean loss of K prompts on a set."""
    found = score_prompts(workspace.backbone, prompts_KQH, data, workspace.scoring)
    return [Evaluation(workspace.metric.value(s.predicted, s.gold), s.loss) for s in found]


def _train(
    workspace: Workspace,
    starts: Sequence[PromptState],
    names: Sequence[str],
    plan: Schedule,
    title: str,
    keeper: FolderKeeper,
) -> Trained:
    recipe, backbone = workspace.recipe, workspace.backbone
    trainable = PromptTrainable(
        backbone,
        torch.stack([start.vectors_PH for start in starts]),
        [start.mask for start in starts],
        removal=recipe.pruning.removal,
        loss=workspace.scoring.loss,
        score=workspace.scoring.score,
    )
    optimiser = make_optimiser(
        recipe.tuning.optimiser,
        trainable.vectors_KPH,
        trainable.survivors(),
        lr=workspace.lr,
        weight_decay=recipe.tuning.weight_decay,
        clip_threshold=recipe.tuning.clip_threshold,
        clip_scope=recipe.tuning.clip_scope,
    )

    def batch(indices: Sequence[int]) -> Batch:
        return workspace.train.batch(backbone, indices)

    return train(
        trainable,
        optimiser,
        Feed(workspace.train.lengths, batch),
        lambda: evaluate(workspace, trainable.prompts().detach(), workspace.select),
        plan,
        names=names,
        title=title,
        keeper=keeper,
        watch=workspace.watch,
    )


def _record_start(workspace: Workspace, start: PromptState, words: Sequence[str], notes: Sequence[str]) -> None:
    recipe = workspace.recipe.prompt
    known = workspace.run.info.get("notes") or []
    workspace.run.record(
        prompt={
            "P": recipe.tokens,
            "H": int(start.vectors_PH.shape[1]),
            "S": recipe.pieces,
            "init": recipe.init,
            "words": list(words),
        },
        notes=[*known, *(note for note in notes if note not in known)],
    )
    workspace.run.write_tensors("prompts/initial.safetensors", {"vectors_PH": start.vectors_PH}, {})


def _record_cost(workspace: Workspace, work: str, meta: dict[str, Any]) -> None:
    """Add a piece of work's steps and examples to the run's cost, once."""
    pieces = dict(workspace.run.info["cost"].get("training") or {})
    pieces[work] = {key: meta[key] for key in ("steps", "examples", "seconds")}
    workspace.run.record(cost={"training": pieces})
