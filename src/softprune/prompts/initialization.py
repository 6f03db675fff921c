"""Where a prompt starts: sampled vocabulary (the paper's way), random numbers, a text, labels, or another prompt.

Whatever doesn't fit the prompt's length is said in `Initial.notes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from softprune.config import Recipe
from softprune.data import Task
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.models.tokenization import continuation_ids
from softprune.prompts.prompt_io import load_vectors, read_prompt

# Lester et al. (2021, section 3.2) sample from the 5,000 most common words; vocabularies list common words first.
COMMON = 5_000
# Placeholders that vocabularies hold room for; no words.
PLACEHOLDER = re.compile(r"\[unused\d+\]|<extra_id_\d+>|<0x[0-9A-F]{2}>")


@dataclass(frozen=True, slots=True)
class Initial:
    """A prompt's first values."""

    vectors_PH: torch.Tensor
    words: tuple[str, ...]  # what each token started as, for the reader; "" where it started as nothing readable
    notes: tuple[str, ...] = ()  # what was repeated, cut or filled to reach P


def initial_prompt(recipe: Recipe, backbone: Backbone, task: Task) -> Initial:
    """The first values of the prompt; a SoftpruneError when the prompt file can't be read or doesn't fit."""
    settings, tokens = recipe.prompt, recipe.prompt.tokens
    if settings.init == "uniform":
        # On the CPU, so that a prompt starts alike on every device.
        drawn_PH = torch.rand(tokens, backbone.info.hidden, generator=torch.Generator().manual_seed(recipe.seed))
        return Initial((drawn_PH * 2 - 1) * settings.uniform_range, ("",) * tokens)
    ids, words = common_words(backbone.tokenizer, backbone.vocabulary)
    sampled = from_vocabulary(backbone.embed_ids, ids, tokens, recipe.seed, words)
    if settings.init == "text":
        text = continuation_ids(backbone.tokenizer, settings.text or task.definition.instruction)
        backbone.check_rows(text, "the text that the prompt starts from")
        words = [str(word) for word in backbone.tokenizer.convert_ids_to_tokens(list(text))]
        source = f"the initial text has {len(text)} tokens"
        return fit_length(backbone.embed_ids(text[:tokens]), len(text), words, sampled, source)
    if settings.init == "labels":  # the mean of the vectors of a label's pieces (Lester et al. 2021, section 3.2)
        answers = task.definition.answers
        pieces = [continuation_ids(backbone.tokenizer, answer) for answer in answers[:tokens]]
        means_QH = torch.stack([backbone.embed_ids(ids).mean(0) for ids in pieces])
        return fit_length(means_QH, len(answers), answers, sampled, f"{len(answers)} class labels")
    if settings.file is not None:
        saved, name = read_prompt(Path(settings.file)), Path(settings.file).name
        check_fits(saved.vectors_PH, backbone.info.hidden, name)
        length = len(saved.vectors_PH)
        words = [f"{name}[{p}]" for p in range(length)]
        notes = tuple(f"{name}: {note}" for note in saved.notes)
        return fit_length(saved.vectors_PH[:tokens], length, words, sampled, f"{name} holds {length} tokens", notes)
    return sampled


def from_vocabulary(
    embed_ids: Callable[[Sequence[int]], torch.Tensor],
    ids: Sequence[int],
    tokens: int,
    seed: int,
    words: Sequence[str] = (),
) -> Initial:
    """Vectors of P (`tokens`) words of a vocabulary, without repetition.

    `embed_ids` gives the input embeddings `[len(ids), H]` of some ids. Of `ids`, common words first, the first 5,000
    count, and at least P must be there; `words` are their readable forms.
    """
    pool = list(ids[:COMMON])
    if len(pool) < tokens:
        expected = f"a vocabulary of at least {tokens} words to start the prompt from"
        raise SoftpruneError(expected, f"{len(pool)}", "ask for fewer prompt tokens, or prompt.init=uniform")
    picked = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:tokens].tolist()
    # A copy: training changes these vectors, and the model's own must stay.
    vectors_PH = embed_ids([pool[i] for i in picked]).clone()
    return Initial(vectors_PH, tuple(words[i] for i in picked) if words else ("",) * tokens)


def fit_length(
    first_QH: torch.Tensor,
    length: int,
    words: Sequence[str],
    filler: Initial,
    source: str,
    notes: tuple[str, ...] = (),
) -> Initial:
    """Vectors of Q = min(length, P) tokens, then those of `filler`, a prompt of P tokens, in its dtype.

    Where `length` isn't P, a note says what was done; `source` opens it with what there was.
    """
    tokens = len(filler.words)
    vectors_PH = filler.vectors_PH.clone()
    vectors_PH[: len(first_QH)] = first_QH.to(vectors_PH)  # a file may hold another dtype than the backbone's prompts
    if length != tokens:
        change = f"the other {tokens - length} start as sampled vocabulary"
        if length > tokens:
            change = f"the last {length - tokens} were left out"
        notes = (*notes, f"{source}, the prompt has {tokens} tokens: {change}")
    return Initial(vectors_PH, (*words[:tokens], *filler.words[len(first_QH) :]), notes)


def check_fits(source_QH: torch.Tensor, hidden: int, name: str) -> None:
    """A SoftpruneError for a prompt that was made for another embedding size, or holds NaN or infinity."""
    if source_QH.dim() != 2 or source_QH.shape[1] != hidden:
        found = f"{list(source_QH.shape)} in {name}"
        do = "choose a prompt that was trained on a backbone of this embedding size"
        raise SoftpruneError(f"a prompt [P, {hidden}] for this backbone", found, do)
    if not torch.isfinite(source_QH).all():
        raise SoftpruneError("finite numbers in a prompt", f"NaN or infinity in {name}", "choose another")


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

    A file that can't be read is left for the checks of all inputs, which report it with the recipe's other mistakes;
    that of a run that was begun before (`begun`) is reported here.
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
