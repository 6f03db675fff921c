"""The prompt that a run starts from, as its recipe says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from softprune.config import Recipe
from softprune.data import Task
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.models.tokenization import continuation_ids
from softprune.prompts.initialization import (
    Initial,
    from_labels,
    from_prompt,
    from_text,
    from_uniform,
    from_vocabulary,
)
from softprune.prompts.prompt_io import load_vectors, read_prompt

# Placeholders that vocabularies hold room for; no words.
PLACEHOLDER = re.compile(r"\[unused\d+\]|<extra_id_\d+>|<0x[0-9A-F]{2}>")


def initial_prompt(recipe: Recipe, backbone: Backbone, task: Task) -> Initial:
    """The first values of the prompt, in the place of `prompt.init`.

    Raises:
        SoftpruneError: when the prompt file can't be read or doesn't fit.
    """
    settings = recipe.prompt
    if settings.init == "uniform":
        return from_uniform(backbone.info.hidden, settings.tokens, settings.uniform_range, recipe.seed)
    ids, words = common_words(backbone.tokenizer, backbone.vocabulary)
    sampled = from_vocabulary(backbone.embed_ids, ids, settings.tokens, recipe.seed, words)
    if settings.init == "text":
        tokens = continuation_ids(backbone.tokenizer, settings.text or task.definition.instruction)
        backbone.check_rows(tokens, "the text that the prompt starts from")
        words = [str(word) for word in backbone.tokenizer.convert_ids_to_tokens(list(tokens))]
        return from_text(backbone.embed_ids, tokens, words, sampled)
    if settings.init == "labels":
        labels = [(a, continuation_ids(backbone.tokenizer, a)) for a in task.definition.answers]
        return from_labels(backbone.embed_ids, labels, sampled)
    if settings.file is not None:
        saved, name = read_prompt(Path(settings.file)), Path(settings.file).name
        first = from_prompt(saved.vectors_PH, sampled, name)
        return replace(first, notes=(*(f"{name}: {note}" for note in saved.notes), *first.notes))
    return sampled


def instruction_prompt(backbone: Backbone, task: Task) -> torch.Tensor | None:
    """The task's English instruction as a hard prompt, the embeddings `[Q, H]` of its words; None where it has none."""
    instruction = task.definition.instruction
    if not instruction:
        return None
    tokens = continuation_ids(backbone.tokenizer, instruction)
    backbone.check_rows(tokens, f"the instruction of {task.id}")
    with torch.no_grad():
        return backbone.lookup(torch.tensor(tokens, device=backbone.device)).to(backbone.prompt_dtype)


def settle_tokens(recipe: Recipe, begun: bool = False) -> Recipe:
    """The recipe with P as the prompt file has it, where no other was asked for.

    A file that can't be read is left for `input_checks.check`, which reports it with the recipe's other mistakes.

    Raises:
        SoftpruneError: when the file of a run that was begun before (`begun`) can't be read any more.
    """
    if not recipe.prompt.tokens_of_file or recipe.prompt.file is None:
        return recipe
    try:
        tokens = load_vectors(Path(recipe.prompt.file)).shape[0]
    except SoftpruneError:
        if begun:
            raise
        return recipe
    return recipe.model_copy(update={"prompt": recipe.prompt.model_copy(update={"tokens": tokens})})


def common_words(tokenizer: Any, size: int) -> tuple[list[int], list[str]]:
    """Vocabulary ids below `size` that are words or pieces of words, in the vocabulary's order, and their texts."""
    special = set(tokenizer.all_special_ids)
    ids, words = [], []
    for i, token in enumerate(tokenizer.convert_ids_to_tokens(range(min(size, len(tokenizer))))):
        if i in special or token is None or PLACEHOLDER.fullmatch(token):
            continue
        bare = token.lstrip("Ġ▁#")  # what marks the beginning of a word, or its middle (WordPiece)
        if len(bare) > 1 and bare.isalpha():
            ids.append(i)
            words.append(token)
    return ids, words
