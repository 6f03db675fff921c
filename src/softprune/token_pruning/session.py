"""What work on token pruning begins with: a task's data, checked and tokenised, and the encoder that is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from softprune.config import TokensRecipe
from softprune.config.yaml_io import parse_yaml
from softprune.data import Metric, Selection, Splits, Task, load_task, select_sets
from softprune.errors import SoftpruneError, gathered, join_errors
from softprune.models.description import BackboneDescription
from softprune.models.tokenization import check_rows
from softprune.runs.record_parts import ConventionRecord, SelectionRecord, SetSizes, TaskRecord, Truncation
from softprune.runs.run_folder import RunFolder
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.forward import Predictions, evaluate
from softprune.token_pruning.loading import (
    check_head,
    check_length,
    describe_encoder,
    load_classifier,
    load_tokenizer,
)
from softprune.token_pruning.rules import OFFICIAL_LENGTH, Convention, Rule
from softprune.training.hardware import settle_machine
from softprune.training.input_checks import check_inputs, data_inputs
from softprune.training.loop import Watch
from softprune.training.scoring import SealedSet
from softprune.types import Example


@dataclass(frozen=True, slots=True)
class TextSet:
    """Examples of a classification task with their token ids."""

    ids: tuple[tuple[int, ...], ...]  # with special tokens, cut to the recipe's length
    golds: tuple[int, ...]  # the class of each
    cut: tuple[int, ...]  # tokens that were cut off each

    def __len__(self) -> int:
        return len(self.ids)


def tokenise_texts(tokenizer: Any, examples: Sequence[Example], max_length: int) -> TextSet:
    """Tokenise examples: their fields, without the template's own words, which are for prompts."""
    texts = [example.content for example in examples]
    whole = tokenizer(texts, add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
    ids = tokenizer(texts, add_special_tokens=True, truncation=True, max_length=max_length)["input_ids"]
    cut = tuple(len(a) - len(b) for a, b in zip(whole, ids, strict=True))
    return TextSet(tuple(map(tuple, ids)), tuple(example.gold for example in examples), cut)


@dataclass(frozen=True, slots=True)
class TokenWorkspace:
    """What the stages of one run share."""

    recipe: TokensRecipe
    run: RunFolder
    watch: Watch  # is shown how training goes
    task: Task
    labels: tuple[str, ...]  # names of the classes
    tokenizer: Any
    train: TextSet
    select: TextSet
    report: SealedSet
    encoder: Callable[[], Encoder]  # a fresh one: the released weights, a seeded head, the recipe's dropout
    compute: torch.dtype  # of the matrix products
    convention: Convention

    @property
    def metric(self) -> Metric:
        """The task's."""
        return self.task.metric

    def evaluate(self, encoder: Encoder, data: TextSet, rule: Rule, *, soft: bool = False) -> Predictions:
        """What the model predicts for a set."""
        rows = self.recipe.tuning.eval_rows
        return evaluate(encoder, data.ids, rule, self.convention, compute=self.compute, rows=rows, soft=soft)


def prepare(recipe: TokensRecipe, run: RunFolder, watch: Watch) -> TokenWorkspace:
    """Load the data, check the recipe against data and model, load the tokenizer, record what results depend on.

    Every mistake is reported at once, before any weights are loaded.
    """
    settings, max_length = recipe.backbone, recipe.task.max_length
    task, splits, sets, described = _read_inputs(recipe)
    device, compute = settle_machine(run, settings.device, settings.dtype, settings.threads)
    labels, tokenizer = sets.train[0].answers, load_tokenizer(described)
    vocabulary = described.config.vocab_size
    if len(tokenizer) > vocabulary:  # words beyond the embedding table: better found now than when `report` is read
        for example in (*sets.train, *sets.select, *sets.report):
            ids = tokenizer(example.content)["input_ids"][:max_length]
            check_rows(tokenizer, ids, vocabulary, f"row {example.index}")

    def new_encoder() -> Encoder:
        # Weights that are trained are float32, whatever the products are in.
        encoder = Encoder(load_classifier(described, labels, device, torch.float32, recipe.seed))
        encoder.set_dropout(recipe.tuning.dropout, recipe.tuning.attention_dropout)
        return encoder

    divisor = 1.0 if recipe.pruning.divisor == "relative" else float(OFFICIAL_LENGTH)
    workspace = TokenWorkspace(
        recipe=recipe,
        run=run,
        watch=watch,
        task=task,
        labels=labels,
        tokenizer=tokenizer,
        train=tokenise_texts(tokenizer, sets.train, max_length),
        select=tokenise_texts(tokenizer, sets.select, max_length),
        report=SealedSet(sets.report),
        encoder=new_encoder,
        compute=compute,
        convention=Convention(divisor, recipe.pruning.protect),
    )
    check_inputs(run, data_inputs(task, sets))
    _record(workspace, described, sets, splits.source)
    return workspace


def _read_inputs(recipe: TokensRecipe) -> tuple[Task, Splits, Selection, BackboneDescription]:
    """The task's data and the encoder's configuration; what is wrong with either is reported together."""
    errors: list[SoftpruneError] = []
    data = described = None
    with gathered(errors):
        task = load_task(recipe.task.id)
        splits = task.load(Path(recipe.task.data) if recipe.task.data else None)
        sets = select_sets(
            splits,
            "held-out",
            recipe.task.shots,
            recipe.selection.fraction,
            seed=recipe.seed,
            limit_report=recipe.task.limit_report,
        )
        data = (task, splits, sets)
        examples = (*sets.train, *sets.select, *sets.report)
        if len({example.answers for example in examples}) > 1:
            found = "answers that depend on the example"
            if examples[0].is_generation:
                found = "texts to be written"
            elif examples[0].task:
                found = "several tasks"
            raise SoftpruneError("a task with the same classes for every text", found, "choose another task")
        for example in examples:
            if not example.content:
                raise SoftpruneError("text in every example", f"none in row {example.index}", "leave that row out")
    with gathered(errors):
        described = describe_encoder(recipe.backbone.name, recipe.backbone.revision)
        check_length(described, recipe.task.max_length)
        if not recipe.tuning.epochs:  # the checkpoint's head is used as it is
            check_head(described)
    if data is None or described is None or errors:
        raise join_errors("recipe for this data and model", errors)
    return (*data, described)


def _record(workspace: TokenWorkspace, described: BackboneDescription, sets: Selection, source: str) -> None:
    task = workspace.task
    cut = [tokens for tokens in (*workspace.train.cut, *workspace.select.cut) if tokens]
    with workspace.run.editing() as record:
        record.backbone.name, record.backbone.family = described.name, described.family
        record.backbone.layers = int(described.config.num_hidden_layers)
        record.task = TaskRecord(
            id=task.id,
            version=task.version,
            title=task.definition.title,
            metric=workspace.metric.name,
            answers=list(workspace.labels),
            indices=sets.indices,
            sizes=SetSizes(train=len(sets.train), select=len(sets.select), report=len(sets.report)),
            tokens={"train": sum(map(len, workspace.train.ids)), "select": sum(map(len, workspace.select.ids))},
            truncated=Truncation(examples=len(cut), tokens=sum(cut)),
            source=source,
        )
        record.selection = SelectionRecord(protocol="held-out", description=sets.description)
        record.convention = ConventionRecord(**asdict(workspace.convention))


def sample_report(
    model: Path, labels: Sequence[str], task: str | None, data: Path | None, limit: int, seed: int
) -> tuple[str, list[Example]]:
    """A task's title, and a sample of its report set for a saved model with these classes.

    The task is the one that was named, else that of the run whose folder the model is in.
    """
    recipe: dict[str, Any] = {}
    for folder in (model, *model.resolve().parents):
        if (folder / "run.json").exists():
            recipe = parse_yaml((folder / "resolved.yaml").read_text(encoding="utf-8"))["task"]
            break
    name = task or recipe.get("id")
    if name is None:
        raise SoftpruneError("a task with texts to read", "none: this model isn't in a run's folder", "add --task")
    if data is None and task is None and recipe.get("data"):
        data = Path(recipe["data"])
    chosen_task = load_task(name)
    examples = chosen_task.load(data).report
    if not examples:
        raise SoftpruneError(f"a report set of {name}", "none", "add the file")
    if examples[0].answers != labels:
        classes, known = ", ".join(examples[0].answers), ", ".join(labels)
        raise SoftpruneError(f"a task with the model's classes ({known})", classes, "choose the task it was trained on")
    order = np.random.default_rng(seed).permutation(len(examples))[:limit]
    return chosen_task.definition.title, [examples[i] for i in sorted(order.tolist())]
