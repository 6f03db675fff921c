"""Training as a piece of work of a run: prompt tuning (paper, section 4.1) and the retraining of masked prompts.

A piece of work is done once: its result is stored under its name, its unfinished state at every evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from softprune.config import Recipe
from softprune.errors import out_of_memory
from softprune.prompts.soft_prompts import masked_state
from softprune.ratios import exact
from softprune.runs.record_parts import PromptRecord, TrainingCost
from softprune.runs.run_folder import Saved
from softprune.runs.worker_store import Store
from softprune.training.initial_prompt import initial_mask, initial_prompt
from softprune.training.loop import Evaluation, Point, Schedule, State, Trained, some_of, train
from softprune.training.lr_sweep import best_rate, candidate_of, chosen_work
from softprune.training.memory import release
from softprune.training.oom_splitting import equal_parts, note_parts, parts_of
from softprune.training.optimizers import make_optimiser
from softprune.training.scoring import ScoredSet, score_prompts
from softprune.training.session import Workspace
from softprune.training.step import Feed
from softprune.training.trainable import PromptTrainable
from softprune.types import PromptState

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


@dataclass(frozen=True, slots=True)
class Paused:
    """Training that rests at a rung of a search, and may go on with some of its prompts.

    Attributes:
        fitted: each prompt's best checkpoint so far.
        names: of the prompts.
        state: what the loop goes on from.
    """

    fitted: tuple[Fitted, ...]
    names: tuple[str, ...]
    state: State

    def some(self, names: Container[str]) -> Paused:
        """The same with these prompts alone, in the old order."""
        chosen = [at for at, name in enumerate(self.names) if name in names]
        fitted, kept = tuple(self.fitted[at] for at in chosen), tuple(self.names[at] for at in chosen)
        return Paused(fitted, kept, some_of(self.state, chosen))


class FolderKeeper:
    """Keeps unfinished training in the run folder, and its curve in metrics.jsonl.

    Args:
        run: the folder.
        name: of the piece of work.
        phase: the curve's name in metrics.jsonl.
        candidates: the names on the curve.
        before: where the work starts from, if not at step 0.
    """

    def __init__(
        self, run: Store, name: str, phase: str, candidates: Sequence[str], before: State | None = None
    ) -> None:
        self._run, self._checkpoint, self._before = run, run.checkpoint(name), before
        self._phase, self._candidates = phase, list(candidates)

    def load(self) -> State | None:
        """The last state; curve lines that came after it are dropped, since they will be made again."""
        saved = self._checkpoint.load()
        state = self._before if saved is None else (saved.tensors, saved.meta)
        self._run.trim_metrics(self._phase, self._candidates, 0 if state is None else int(state[1]["step"]))
        return state

    def save(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        """Replace the state."""
        self._checkpoint.save(Saved({k: v.cpu() for k, v in tensors.items()}, progress))

    def curve(self, points: Sequence[Point]) -> None:
        """Append to metrics.jsonl."""
        self._run.append_metrics([{"phase": self._phase, **asdict(point)} for point in points])


def schedule(workspace: Workspace, *, epochs: int | None = None) -> Schedule:
    """The recipe's schedule, with other epochs where asked."""
    return schedule_of(workspace.recipe, len(workspace.train), epochs=epochs)


def schedule_of(recipe: Recipe, examples: int, *, epochs: int | None = None) -> Schedule:
    """The same for so many training examples."""
    settings = recipe.tuning
    steps_an_epoch = math.ceil(examples / settings.batch_size)
    passes = epochs or settings.epochs or max(EPOCHS, math.ceil(STEPS / steps_an_epoch))
    interval = max(steps_an_epoch, math.ceil(steps_an_epoch * passes / EVALUATIONS))
    return Schedule(
        epochs=passes,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        evaluate_every=settings.evaluate_every or interval,
        patience=settings.patience,
        best_by=settings.best_by,
        seed=recipe.seed,
    )


def swept(workspace: Workspace) -> Workspace:
    """With the learning rate that does best on `select` among those of `tuning.sweep`; as it was without one."""
    multiples = workspace.recipe.tuning.sweep
    if multiples is None:
        return workspace
    with workspace.run.phase("sweep"):
        start = _start(workspace)

        def train(lr: float, work: str) -> Evaluation:
            title = f"prompt tuning, learning rate {lr:.3g}"
            trying = replace(workspace, lr=lr)
            (fitted,) = fit(trying, [start], [candidate_of(work)], work=work, phase="sweep", title=title)
            return fitted.evaluation

        return replace(workspace, lr=best_rate(workspace.run, workspace.lr, multiples, train))


def tune(workspace: Workspace) -> Fitted:
    """Prompt tuning: one unpruned prompt from its initial values. What the sweep chose is trained already."""
    work = chosen_work(workspace.run) or "tune"
    with workspace.run.phase("tune"):
        (fitted,) = fit(workspace, [_start(workspace)], ["tuned"], work=work, phase="tune", title="prompt tuning")
    return fitted


def _start(workspace: Workspace) -> PromptState:
    """The prompt's first values, which the run notes."""
    recipe = workspace.recipe
    first = initial_prompt(recipe, workspace.backbone, workspace.task)
    start = masked_state(first.vectors_PH, initial_mask(recipe))
    _record_start(workspace, start, first.words, first.notes)
    return start


def fit(
    workspace: Workspace,
    starts: Sequence[PromptState],
    names: Sequence[str],
    *,
    work: str,
    phase: str,
    title: str,
    epochs: int | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Fitted]:
    """Train K prompts side by side from their starting values; the best checkpoint of each.

    Args:
        workspace: what the run shares.
        starts: values and masks; under `drop` with equally many surviving tokens.
        names: of the K prompts.
        work: name of this piece of work, unique in the run.
        phase: its name in metrics.jsonl.
        title: what displays show.
        epochs: in place of the recipe's.
        seeds: of each prompt's data order, in place of the recipe's.
    """
    plan = schedule(workspace, epochs=epochs)
    own = tuple(seeds or [plan.seed] * len(names))
    training = Training(workspace, tuple(starts), tuple(names), own, plan, work, phase, title)
    return [fitted for part in training.pieces() for fitted in part.fitted()]


def fit_to(
    workspace: Workspace,
    starts: Sequence[PromptState],
    names: Sequence[str],
    share: float,
    before: Paused | None,
    *,
    work: str,
    phase: str,
    title: str,
    epochs: int | None = None,
) -> list[Paused]:
    """Train K prompts for a share of their steps, from the start or from where they paused: bit by bit one training.

    Several pauses come back where memory ran out and the prompts went on in smaller groups.

    Args:
        share: of all steps, counted from the first; 1 for the end.
        before: an earlier pause of the same prompts.
        workspace, starts, names, work, phase, title, epochs: as for `fit`.
    """
    plan = schedule(workspace, epochs=epochs)
    _, _, total, _ = plan.steps(len(workspace.train))
    plan = replace(plan, pause_at=math.ceil(exact(share) * total))
    begun = None if before is None else before.state
    seeds = (plan.seed,) * len(names)
    training = Training(workspace, tuple(starts), tuple(names), seeds, plan, work, phase, title, begun, resting=True)
    return [part.paused() for part in training.pieces()]


@dataclass(frozen=True, slots=True)
class Training:
    """K prompts side by side as a piece of work; as several where memory asks for smaller groups.

    Attributes:
        workspace: what the run shares.
        starts, names: of the K prompts.
        seeds: of their data orders.
        plan: how long.
        work, phase, title: as for `fit`.
        before: where it goes on from, if not from the start; steps, examples and seconds are counted from there.
        resting: whether it leaves its state, to be gone on with.
        spent: seconds that each prompt spent in the larger group that this one is a part of.
    """

    workspace: Workspace
    starts: tuple[PromptState, ...]
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    plan: Schedule
    work: str
    phase: str
    title: str
    before: State | None = None
    resting: bool = False
    spent: float = 0.0

    def pieces(self) -> list[Piece]:
        """Train, each piece of work once. Out of memory, halves go on from the last kept state, down to one prompt."""
        run, count = self.workspace.run, len(self.starts)
        if not run.keeps:
            return [self._whole()]
        sizes = None if run.has(self.work) else parts_of(run, self.work, count)
        if sizes is not None:
            return self._in_parts(sizes, out_of_memory=False)
        try:
            return [self._whole()]
        except Exception as error:
            # Of several processes one alone may be out of memory: all end, since the others wait for it in this step.
            if count == 1 or run.processes.size > 1 or not out_of_memory(error):
                raise
        release()  # out here: the error held what the step had taken
        return self._in_parts(equal_parts(count, 2), out_of_memory=True)

    def _whole(self) -> Piece:
        past = _counts(self.before)

        def compute() -> Saved:
            keeper = FolderKeeper(self.workspace.run, self.work, self.phase, self.names, self.before)
            trained = self._train(keeper)
            tensors, progress = trained.state
            meta = {
                "best": [asdict(evaluation) for evaluation in trained.best],
                **{key: getattr(trained, key) - past[key] for key in past},
                **({"progress": progress} if self.resting else {}),
            }
            state = {f"state.{name}": value.cpu() for name, value in tensors.items()} if self.resting else {}
            return Saved({k: v.cpu() for k, v in trained.tensors.items()} | state, meta)

        saved = self.workspace.run.once(self.work, compute)
        record_cost(self.workspace, self.work, saved.meta)
        return Piece(self, saved)

    def _train(self, keeper: FolderKeeper) -> Trained:
        recipe, backbone, data = self.workspace.recipe, self.workspace.backbone, self.workspace.train
        trainable = PromptTrainable(
            backbone,
            torch.stack([start.vectors_PH for start in self.starts]),
            [start.mask for start in self.starts],
            removal=recipe.pruning.removal,
            loss=self.workspace.scoring.loss,
            score=self.workspace.scoring.score,
        )
        optimiser = make_optimiser(
            recipe.tuning.optimiser,
            trainable.vectors_KPH,
            trainable.survivors(),
            lr=self.workspace.lr,
            weight_decay=recipe.tuning.weight_decay,
            clip_threshold=recipe.tuning.clip_threshold,
            clip_scope=recipe.tuning.clip_scope,
        )
        read = int(trainable.prompts().shape[1])
        return train(
            trainable,
            optimiser,
            Feed([read + length for length in data.lengths], lambda indices: data.batch(backbone, indices)),
            lambda: evaluate(self.workspace, trainable.prompts().detach(), self.workspace.select),
            self.plan,
            names=self.names,
            title=self.title,
            keeper=keeper,
            watch=self.workspace.watch,
            processes=self.workspace.run.processes,
            seeds=self.seeds,
        )

    def _in_parts(self, sizes: list[int], *, out_of_memory: bool) -> list[Piece]:
        """The state that was kept last stays where it is for as long as the run goes on: all parts begin there."""
        run, past = self.workspace.run, _counts(self.before)
        kept = run.checkpoint(self.work).load()
        state = self.before if kept is None else (kept.tensors, kept.meta)
        note_parts(run, self.work, sizes, int(_counts(state)["steps"]), out_of_memory=out_of_memory)
        shared = {key: value - past[key] for key, value in _counts(state).items()}
        if shared["steps"]:
            record_cost(self.workspace, self.work, shared)
        done: list[Piece] = []
        for number, size in enumerate(sizes, start=1):
            first = sum(sizes[: number - 1])
            part = replace(
                self,
                starts=self.starts[first : first + size],
                names=self.names[first : first + size],
                seeds=self.seeds[first : first + size],
                work=f"{self.work}.part{number}",
                before=None if state is None else some_of(state, range(first, first + size)),
                spent=self.spent + shared["seconds"] / len(self.starts),
            )
            done += part.pieces()
        return done


@dataclass(frozen=True, slots=True)
class Piece:
    """A finished piece of a training."""

    training: Training
    saved: Saved

    def fitted(self) -> list[Fitted]:
        """Each prompt's best checkpoint."""
        starts, meta = self.training.starts, self.saved.meta
        seconds = self.training.spent + meta["seconds"] / len(starts)
        return [
            Fitted(PromptState(vectors, start.mask), Evaluation(**best), seconds)
            for vectors, start, best in zip(self.saved.tensors["vectors_KPH"], starts, meta["best"], strict=True)
        ]

    def paused(self) -> Paused:
        """What the loop goes on from."""
        tensors = {n.removeprefix("state."): t for n, t in self.saved.tensors.items() if n.startswith("state.")}
        return Paused(tuple(self.fitted()), self.training.names, (tensors, self.saved.meta["progress"]))


def _counts(state: State | None) -> dict[str, float]:
    """Steps, examples and seconds of a training so far."""
    done = {"step": 0, "examples": 0, "seconds": 0.0} if state is None else state[1]
    return {"steps": done["step"], "examples": done["examples"], "seconds": done["seconds"]}


def evaluate(workspace: Workspace, prompts_KQH: torch.Tensor, data: ScoredSet) -> list[Evaluation]:
    """What choices go by, and mean loss, of K prompts on a set."""
    found = score_prompts(workspace.backbone, prompts_KQH, data, workspace.scoring)
    return [Evaluation(workspace.choice.value(s), s.loss) for s in found]


def _record_start(workspace: Workspace, start: PromptState, words: Sequence[str], notes: Sequence[str]) -> None:
    recipe = workspace.recipe.prompt
    size = int(start.vectors_PH.shape[1])
    prompt = PromptRecord(P=recipe.tokens, H=size, S=recipe.pieces, init=recipe.init, words=list(words))
    with workspace.run.editing() as record:
        record.prompt = prompt
        record.add_notes(*notes)
    workspace.run.write_tensors("prompts/initial.safetensors", {"vectors_PH": start.vectors_PH}, {})


def record_cost(workspace: Workspace, work: str, meta: dict[str, Any]) -> None:
    """Add a piece of work's steps and examples to the run's cost, once."""
    with workspace.run.editing() as record:
        record.cost.training[work] = TrainingCost(
            steps=meta["steps"], examples=meta["examples"], seconds=meta["seconds"]
        )
