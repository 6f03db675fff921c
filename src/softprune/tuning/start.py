"""The prompt that a run starts from, as its recipe says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from softprune.backbone.base import Backbone
from softprune.backbone.encode import continuation_ids
from softprune.errors import SoftpruneError
from softprune.prompt.exchange import load_vectors
from softprune.prompt.initialise import (
    Initial,
    from_labels,
    from_prompt,
    from_text,
    from_uniform,
    from_vocabulary,
)
from softprune.recipe import Recipe
from softprune.tasks import Task

# Placeholders that vocabularies hold room for; no words.
_PLACEHOLDER = re.compile(r"\[unused\d+\]|<extra_id_\d+>|<0x[0-9A-F]{2}>")


def initial_prompt(recipe: Recipe, backbone: Backbone, task: Task) -> Initial:
    """The first values of the prompt, in the place of `prompt.init`.

    Raises:
        SoftpruneError: when a text or file is needed and missing, or a prompt doesn't fit.
    """
    settings = recipe.prompt
    table = backbone.embeddings_VH().cpu()
    if settings.init == "uniform":
        return from_uniform(table.shape[1], settings.tokens, settings.uniform_range, recipe.seed)
    ids, words = common_words(backbone.tokenizer, table.shape[0])
    sampled = from_vocabulary(table, ids, settings.tokens, recipe.seed, words)
    if settings.init == "text":
        text = settings.text or task.definition.instruction
        if not text:
            raise SoftpruneError("a text to start from", "none", "set prompt.text")
        tokens = continuation_ids(backbone.tokenizer, text)
        return from_text(table, tokens, readable(backbone.tokenizer, tokens), sampled)
    if settings.init == "labels":
        answers = task.definition.answers
        if any("{" in answer for answer in answers):
            raise SoftpruneError(
                "a task whose answers are the same for every example, to start from its class labels",
                f"answers {', '.join(answers)} of {task.id}",
                "choose another prompt.init",
            )
        return from_labels(table, [(a, continuation_ids(backbone.tokenizer, a)) for a in answers], sampled)
    if settings.init == "file":
        if settings.file is None:
            raise SoftpruneError("a prompt file to start from", "none", "set prompt.file")
        path = Path(settings.file)
        return from_prompt(load_vectors(path), sampled, path.name)
    return sampled


def common_words(tokenizer: Any, size: int) -> tuple[list[int], list[str]]:
    """Vocabulary ids below `size` that are words or pieces of words, in the vocabulary's order, and their texts."""
    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(range(min(size, len(tokenizer))))
    ids = [
        i
        for i, token in enumerate(tokens)
        if i not in special and token is not None and not _PLACEHOLDER.fullmatch(token) and _is_word(token)
    ]
    return ids, [tokens[i] for i in ids]


def readable(tokenizer: Any, ids: tuple[int, ...]) -> list[str]:
    """Tokens as the vocabulary writes them."""
    return [str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))]


def _is_word(token: str) -> bool:
    bare = token.lstrip("Ġ▁#")
    return len(bare) > 1 and bare.isalpha()
