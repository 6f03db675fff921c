"""What a run of token pruning begins with: its task's data, checked and tokenised, and the encoder that it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from softprune.config import TokensRecipe
from softprune.data import Metric, Selection, Splits, Task, load_task, select_sets
from softprune.errors import ManyErrors, SoftpruneError, gathered
from softprune.models.tokenization import check_rows
from softprune.runs.record_parts import ConventionRecord, SelectionRecord, SetSizes, TaskRecord, Truncation
from softprune.runs.run_folder import RunFolder
from softprune.token_pruning.evaluation import Predictions, evaluate
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.loading import (
    DescribedEncoder,
    check_head,
    check_length,
    describe_encoder,
    load_classifier,
    load_tokenizer,
)
from softprune.token_pruning.rules import OFFICIAL_LENGTH, Convention, Rule
from softprune.token_pruning.trainable import set_dropout
from softprune.training.hardware import settle_machine
from softprune.training.input_checks import data_inputs, hold
from softprune.training.loop import Watch
from softprune.training.scoring import SealedSet
from softprune.types import Example


@dataclass(frozen=True, slots=True)
class TextSet:
    """Examples of a classification task with their token ids.

    Attributes:
        texts: as the tokenizer read them, whole.
        ids: token ids with special tokens, cut to the recipe's length.
        golds: the class of each.
        cut: tokens that were cut off each.
    """

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    golds: tuple[int, ...]
    cut: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)


def tokenise_texts(tokenizer: Any, examples: Sequence[Example], max_length: int) -> TextSet:
    """Tokenise examples: their fields, without the template's own words, which are for prompts."""
    texts = tuple(example.content for example in examples)
    whole = tokenizer(list(texts), add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
    cut = tokenizer(list(texts), add_special_tokens=True, truncation=True, max_length=max_length)["input_ids"]
    lost = tuple(len(a) - len(b) for a, b in zip(whole, cut, strict=True))
    return TextSet(texts, tuple(map(tuple, cut)), tuple(example.gold for example in examples), lost)


@dataclass(frozen=True, slots=True)
class TokenWorkspace:
    """What the stages of one run share.

    Attributes:
        recipe: the settings.
        run: the folder.
        watch: is shown how training goes.
        task: with its metric.
        labels: names of the classes.
        tokenizer: of the model.
        train, select: tokenised.
        report: sealed.
        load_model: a fresh model with the released weights and a seeded head.
        compute: dtype of the matrix products.
        convention: how importance is counted.
    """

    recipe: TokensRecipe
    run: RunFolder
    watch: Watch
    task: Task
    labels: tuple[str, ...]
    tokenizer: Any
    train: TextSet
    select: TextSet
    report: SealedSet
    load_model: Callable[[], Any]
    compute: torch.dtype
    convention: Convention

    @property
    def metric(self) -> Metric:
        """The task's."""
        return self.task.metric

    def encoder(self) -> Encoder:
        """A fresh encoder with the recipe's dropout."""
        encoder = Encoder(self.load_model())
        set_dropout(encoder, self.recipe.tuning.dropout, self.recipe.tuning.attention_dropout)
        return encoder

    def evaluate(self, encoder: Encoder, data: TextSet, rule: Rule, *, soft: bool = False) -> Predictions:
        """What the model predicts for a set."""
        rows = self.recipe.tuning.eval_rows
        return evaluate(encoder, data.ids, rule, self.convention, compute=self.compute, rows=rows, soft=soft)


def prepare(recipe: TokensRecipe, run: RunFolder, watch: Watch) -> TokenWorkspace:
    """Load the data, check the recipe against data and model, load the tokenizer, record what results depend on.

    Raises:
        ManyErrors: with every disagreement, before any weights are loaded.
    """
    errors: list[SoftpruneError] = []
    data = described = None
    with gathered(errors):
        data = _read_data(recipe)
        errors += _find_mistakes(data[2])
    with gathered(errors):
        described = describe_encoder(recipe.backbone.name, recipe.backbone.revision)
        check_length(described, recipe.task.max_length)
        if not recipe.tuning.epochs:  # the checkpoint's head is used as it is
            check_head(described)
    if data is None or described is None or errors:
        raise errors[0] if len(errors) == 1 else ManyErrors("recipe for this data and model", errors)
    task, splits, sets = data
    device, compute = settle_machine(run, recipe.backbone.device, recipe.backbone.dtype, recipe.backbone.threads)
    labels, tokenizer, known = sets.train[0].answers, load_tokenizer(described), described
    _check_embeddings(tokenizer, described, sets, recipe.task.max_length)
    divisor = 1.0 if recipe.pruning.divisor == "relative" else float(OFFICIAL_LENGTH)
    workspace = TokenWorkspace(
        recipe=recipe,
        run=run,
        watch=watch,
        task=task,
        labels=labels,
        tokenizer=tokenizer,
        train=tokenise_texts(tokenizer, sets.train, recipe.task.max_length),
        select=tokenise_texts(tokenizer, sets.select, recipe.task.max_length),
        report=SealedSet(sets.report),
        load_model=lambda: load_classifier(known, labels, device, torch.float32, recipe.seed),
        compute=compute,
        convention=Convention(divisor, recipe.pruning.protect),
    )
    hold(run, data_inputs(task, sets))
    _record(workspace, described, splits, sets)
    return workspace


def _read_data(recipe: TokensRecipe) -> tuple[Task, Splits, Selection]:
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
    return task, splits, sets


def _find_mistakes(sets: Selection) -> list[SoftpruneError]:
    """What keeps the examples from being a classification of texts."""
    examples = (*sets.train, *sets.select, *sets.report)
    if len({example.answers for example in examples}) > 1:
        found = "several tasks" if examples[0].task else "answers that depend on the example"
        if examples[0].is_generation:
            found = "texts to be written"
        return [SoftpruneError("a task with the same classes for every text", found, "choose another task")]
    empty = next((example for example in examples if not example.content), None)
    if empty is not None:
        return [SoftpruneError("text in every example", f"none in row {empty.index}", "leave that row out")]
    return []


def _check_embeddings(tokenizer: Any, described: DescribedEncoder, sets: Selection, max_length: int) -> None:
    """Check every text, `report` too, where the tokenizer has words beyond the embedding table."""
    vocabulary = described.config.vocab_size
    if len(tokenizer) > vocabulary:
        for example in (*sets.train, *sets.select, *sets.report):
            ids = tokenizer(example.content)["input_ids"][:max_length]
            check_rows(tokenizer, ids, vocabulary, f"row {example.index}")


def _record(workspace: TokenWorkspace, described: DescribedEncoder, splits: Splits, sets: Selection) -> None:
    task, config = workspace.task, described.config
    parts: dict[str, TextSet] = {"train": workspace.train, "select": workspace.select}
    cut = [tokens for tokens in (*workspace.train.cut, *workspace.select.cut) if tokens]
    task_record = TaskRecord(
        id=task.id,
        version=task.version,
        title=task.definition.title,
        metric=workspace.metric.name,
        answers=list(workspace.labels),
        indices={name: list(indices) for name, indices in sets.indices.items()},
        sizes=SetSizes(train=len(sets.train), select=len(sets.select), report=len(sets.report)),
        tokens={name: sum(map(len, part.ids)) for name, part in parts.items()},
        truncated=Truncation(examples=len(cut), tokens=sum(cut)),
        source=splits.source,
    )
    with workspace.run.editing() as record:
        record.backbone.name, record.backbone.family = described.name, str(config.model_type)
        record.backbone.layers = int(config.num_hidden_layers)
        record.task = task_record
        record.selection = SelectionRecord(protocol="held-out", description=sets.description)
        record.convention = ConventionRecord(**asdict(workspace.convention))
