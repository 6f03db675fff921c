"""A method's settings, its training as a piece of work of a run, and what it then says of a set of examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch

from softprune.adapters.base import Adaptation, Tensors, copy_values, set_values
from softprune.adapters.cartridge import FROZEN
from softprune.adapters.registry import METHODS, why_not_defined
from softprune.config import LearningRate, Recipe
from softprune.config.adapter_schema import CARTRIDGE, PREFIXES, WITH_PROMPT
from softprune.config.field_types import absolute_rate
from softprune.data.document import read_document
from softprune.errors import SoftpruneError, gathered
from softprune.models.batching import take_rows
from softprune.models.description import BackboneDescription
from softprune.training.cost import behind_prompt, latency
from softprune.training.jobs import FolderKeeper, best_rate, chosen_work, schedule, sweep_candidate
from softprune.training.loop import Evaluation, train
from softprune.training.optimizers import weights_adamw
from softprune.training.scoring import ScoredSet, Scoring, score_prompts
from softprune.training.session import Workspace
from softprune.training.teaching import Teacher
from softprune.training.trainable import Feed, WeightsTrainable, products_in, seed_dropout
from softprune.types import Batch, Scores

WORK = "adapt"
"""The piece of work, and the phase of its curve in metrics.jsonl, where there is one step size."""
WEIGHT_DECAY = 0.01
"""Of weights that are fine-tuned; what a method adds to a model has none."""


def settle_recipe(recipe: Recipe) -> Recipe:
    """The recipe with the method's own learning rate, AdamW, and all epochs, where it names no others."""
    method = METHODS[recipe.adapter.method]
    own = {
        "optimiser": "adamw",
        "lr": method.lr or LearningRate(relative=method.relative_lr),
        "weight_decay": WEIGHT_DECAY if method.whole else 0.0,
        "patience": None,  # the step size falls to the end, so the end is worth waiting for
    }
    changed = {key: value for key, value in own.items() if key not in recipe.tuning.model_fields_set}
    return recipe.model_copy(update={"tuning": recipe.tuning.model_copy(update=changed)})


def find_mistakes(recipe: Recipe, described: BackboneDescription) -> list[SoftpruneError]:
    """What keeps a recipe's method from this backbone; from its configuration alone."""
    method, found = METHODS[recipe.adapter.method], []
    if method.needs_peft and find_spec("peft") is None:
        found.append(SoftpruneError(f"peft, for {method.name}", "not installed", "pip install 'softprune[methods]'"))
    found += [*_start_mistakes(recipe), *_document_mistakes(recipe)]
    reason = why_not_defined(method.name, described)
    if reason is not None:
        expected = f"a method that is defined for {described.name} ({described.family})"
        found.append(SoftpruneError(expected, f"{method.name}: {reason}", "choose another adapter.method"))
    if recipe.tuning.optimiser != "adamw":
        do = "leave tuning.optimiser out"
        found.append(SoftpruneError("tuning.optimiser=adamw for kind: adapt", recipe.tuning.optimiser, do))
    if isinstance(recipe.tuning.lr, LearningRate) and method.lr is not None:
        do = f"write a number, such as tuning.lr={method.lr:g}"
        found.append(SoftpruneError(f"an absolute tuning.lr for {method.name}", "one relative to the embeddings", do))
    if not method.whole:
        return found
    for key in ("quantization", "device_map"):  # under either, weights can't be trained
        value = getattr(recipe.backbone, key)
        if value != "none":
            expected = f"backbone.{key}=none for {method.name}, which trains the weights"
            found.append(SoftpruneError(expected, value, f"leave backbone.{key} out"))
    if recipe.backbone.dtype == "float16":  # whose gradients would need to be scaled
        do = "set backbone.dtype to bfloat16 or float32"
        found.append(SoftpruneError(f"a dtype that {method.name} can train in", "float16", do))
    return found


def _start_mistakes(recipe: Recipe) -> list[SoftpruneError]:
    """What is named as the start of a method, and wouldn't be read."""
    method, starts = recipe.adapter.method, recipe.adapter.start == "prompt"
    if starts and method not in PREFIXES:
        do = "leave adapter.start (--start) out"
        return [SoftpruneError(f"adapter.start=prompt for {' or '.join(PREFIXES)} alone", method, do)]
    named = [f"prompt.{key}" for key in ("init", "text", "file") if key in recipe.prompt.model_fields_set]
    if named and not starts and method not in WITH_PROMPT and recipe.prompt.init != "vocabulary":
        expected = f"a start that {method} reads"
        do = "add adapter.start=prompt (--start prompt)" if method in PREFIXES else f"leave {named[0]} out"
        return [SoftpruneError(expected, f"{', '.join(named)} beside adapter.start=random", do)]
    return []


def _document_mistakes(recipe: Recipe) -> list[SoftpruneError]:
    """What keeps a cartridge from its document, and other methods from one that they wouldn't read."""
    method, document, tokens = recipe.adapter.method, recipe.adapter.document, recipe.prompt.tokens
    if method != CARTRIDGE:
        do = "leave adapter.document (--document) out"
        wrong = [SoftpruneError(f"adapter.document for {CARTRIDGE} alone", method, do)] if document else []
        if recipe.adapter.self_study:
            do = "leave adapter.self_study out"
            wrong.append(SoftpruneError(f"adapter.self_study for {CARTRIDGE} alone", method, do))
        return wrong
    found: list[SoftpruneError] = []
    if document is None:
        do = "name a text file in adapter.document (--document)"
        found.append(SoftpruneError("a document for the cartridge", "no adapter.document", do))
    else:
        with gathered(found):
            read_document(document)
    if tokens <= FROZEN:
        expected = f"prompt.tokens above {FROZEN} for {CARTRIDGE}, whose first token stays as it is"
        found.append(SoftpruneError(expected, f"{tokens}", f"set prompt.tokens (--tokens) to {FROZEN + 1} at least"))
    return found


@dataclass(frozen=True, slots=True)
class FittedAdapter:
    """A trained adapter."""

    values: Tensors  # its best checkpoint on `select`, by name
    evaluation: Evaluation  # metric and loss there
    lr: float  # the step size that it was trained with
    seconds: float  # wall time of that training


class AdapterTrainable(WeightsTrainable):
    """One adapter and the loss of the backbone that reads with it, by the labels or by a teacher."""

    def __init__(self, workspace: Workspace, adaptation: Adaptation, teacher: Teacher | None = None) -> None:
        super().__init__(adaptation.named())
        self.workspace, self.adaptation, self.teacher = workspace, adaptation, teacher

    def loss(self, batch: Batch) -> torch.Tensor:
        """`[1, B]`."""
        self.adaptation.train(True)
        backbone, scoring = self.workspace.backbone, self.workspace.scoring
        with _products(self.workspace):
            prompts = self.adaptation.prompts()
            if self.teacher is None:
                return backbone.losses(prompts, batch, scoring.loss, scoring.score)
            return self._taught(self.teacher, prompts, batch)[None]

    def _taught(self, teacher: Teacher, prompts: torch.Tensor, batch: Batch) -> torch.Tensor:
        """`[B]`; over next tokens where a row has one answer, as those of self-study have, and else over answers."""
        backbone, scoring = self.workspace.backbone, self.workspace.scoring
        writes_B = batch.answer_mask.any(-1).sum(-1) == 1
        parts = [at for at in (writes_B.nonzero()[:, 0], (~writes_B).nonzero()[:, 0]) if len(at)]
        losses = []
        for at in parts:
            rows = take_rows(batch, at)
            losses.append(teacher.losses(backbone, prompts, rows, scoring.loss, scoring.score, [len(rows)]))
        return torch.cat(losses)[torch.cat(parts).argsort()]


def fit(workspace: Workspace, adaptation: Adaptation, teacher: Teacher | None = None) -> FittedAdapter:
    """Train an adapter by the labels, or by a teacher, on rows without labels too; with a sweep, at each step size.

    The backbone then reads with the best on `select`.
    """
    multiples = workspace.recipe.tuning.sweep
    if multiples is None:
        with workspace.run.phase("tune"):
            best = _fit(workspace, adaptation, teacher, workspace.lr, WORK)
    else:
        start = copy_values(adaptation.named())

        def train_with(lr: float, work: str) -> Evaluation:
            set_values(adaptation.named(), start)
            return _fit(workspace, adaptation, teacher, lr, work).evaluation

        with workspace.run.phase("sweep"):
            lr = best_rate(workspace.run, workspace.lr, multiples, train_with)
            # Its finished work is read back from the run's folder.
            best = _fit(workspace, adaptation, teacher, lr, chosen_work(workspace.run) or WORK)
    set_values(adaptation.named(), best.values)
    return best


def _fit(workspace: Workspace, adaptation: Adaptation, teacher: Teacher | None, lr: float, work: str) -> FittedAdapter:
    """Train at one step size, as a piece of work."""
    recipe, data = workspace.recipe, workspace.train if teacher is None else workspace.lessons
    phase, name = WORK, "adapted"
    if work != WORK:
        phase, name = "sweep", sweep_candidate(work)

    def batch(indices: Sequence[int]) -> Batch:
        seed_dropout(recipe.seed, work, indices)
        return data.batch(workspace.backbone, indices)

    def evaluate() -> list[Evaluation]:
        scores = score_adapted(workspace, adaptation, workspace.select, workspace.scoring)
        return [Evaluation(workspace.task.choice.value(scores), scores.loss)]

    trained = train(
        AdapterTrainable(workspace, adaptation, teacher),
        weights_adamw(
            adaptation.named(),
            lr=lr,
            weight_decay=recipe.tuning.weight_decay,
            own_rates=_own_rates(workspace, adaptation, lr),
        ),
        Feed(data.lengths, batch),
        evaluate,
        replace(
            schedule(recipe, len(data)),
            clip_norm=recipe.adapter.clip_norm,
            warmup=recipe.adapter.warmup,
            linear_decay=recipe.adapter.decay == "linear",
        ),
        names=[name],
        title=f"{recipe.adapter.method}, learning rate {lr:.3g}",
        keeper=FolderKeeper(workspace.run, work, phase, [name]),
        watch=workspace.watch,
        processes=workspace.run.processes,
    )
    # Candidates are stacked along the first axis; here there is one.
    values = {name: value[0] for name, value in trained.tensors.items()}
    return FittedAdapter(values, trained.best[0], lr, trained.seconds)


def _own_rates(workspace: Workspace, adaptation: Adaptation, lr: float) -> dict[str, float]:
    """Learning rates of those that have one beside `lr`; what a sweep multiplies the one by, it does the other."""
    if not adaptation.offset_names:
        return {}
    rate = absolute_rate(workspace.recipe.adapter.offset_lr, workspace.backbone.embeddings_rms())
    return dict.fromkeys(adaptation.offset_names, rate * (lr / workspace.lr))


def score_adapted(workspace: Workspace, adaptation: Adaptation, data: ScoredSet, scoring: Scoring) -> Scores:
    """What the adapted backbone says of a set."""
    adaptation.train(False)
    with _products(workspace):
        with torch.no_grad():
            prompts = adaptation.prompts().detach()
        return score_prompts(workspace.backbone, prompts, data, scoring)[0]


def measure_latency(workspace: Workspace, adaptation: Adaptation) -> None:
    """Where the recipe asks for it, the latency of the adapted backbone and of the backbone alone: `cost.latency`."""
    if not workspace.recipe.tuning.latency:
        return
    backbone = workspace.backbone
    adaptation.train(False)
    with torch.no_grad():
        adapted = behind_prompt(backbone, adaptation.prompts()[0].detach())
    ways = {"with": adapted, "without": behind_prompt(backbone, adaptation.nothing()[0], adaptation.bare)}
    with workspace.run.phase("latency"), _products(workspace):
        workspace.run.pin("cost.latency", lambda: latency(backbone, workspace.select, ways))


def _products(workspace: Workspace) -> torch.autocast:
    """Matrix products in the dtype that the run has pinned, where weights that are trained have another one."""
    dtype, backbone = getattr(torch, str(workspace.run.record.backbone.dtype)), workspace.backbone
    return products_in(dtype, backbone.dtype, backbone.device)
