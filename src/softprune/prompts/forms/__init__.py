"""The forms of a prompt by name, and how a recipe's begins.

A new form is a file here, a function and a line in `_FORMS`, and an entry in `softprune.config.forms`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch

from softprune.config import Recipe
from softprune.data import Task
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.prompts.forms.base import Draws, Form
from softprune.prompts.forms.cpt import ContextAware
from softprune.prompts.forms.demonstrations import demonstrate
from softprune.prompts.forms.low_rank import LowRank
from softprune.prompts.forms.residual import Residual
from softprune.prompts.forms.superpos import Superposition
from softprune.prompts.forms.ulpt import UltraLow
from softprune.prompts.initialization import COMMON, common_words, initial_prompt
from softprune.types import Example


@dataclass(frozen=True, slots=True)
class Setup:
    """What a form is made from."""

    recipe: Recipe
    backbone: Backbone
    task: Task
    examples: Sequence[Example]  # labelled, for demonstrations
    seeds: Sequence[int]  # one for each of the K prompts
    scale: float  # the RMS of the model's embeddings

    def option(self, name: str) -> float:
        """A key of the form's own."""
        return self.recipe.prompt.option(name)


@dataclass(frozen=True, slots=True)
class Started:
    """A form with its first numbers."""

    form: Form
    words: tuple[str, ...]  # what each token of the first prompt starts as; "" where that is nothing readable
    notes: tuple[str, ...] = ()  # what was repeated, cut or filled


def start_form(setup: Setup) -> Started:
    """The form that the recipe names (not plain) with its first numbers, on the backbone's device.

    Raises:
        SoftpruneError: it can't start from what the recipe, the task and the vocabulary give it.
    """
    started = _FORMS[setup.recipe.prompt.form](setup)
    started.form.to(setup.backbone.device, setup.backbone.prompt_dtype)
    return started


def _start_residual(setup: Setup) -> Started:
    recipes = [setup.recipe.model_copy(update={"seed": seed}) for seed in setup.seeds]
    first = [initial_prompt(recipe, setup.backbone, setup.task) for recipe in recipes]
    start_KPH = torch.stack([each.vectors_PH for each in first])
    form = Residual(start_KPH, int(setup.option("bottleneck")), setup.scale, Draws(setup.seeds))
    return Started(form, first[0].words, first[0].notes)


def _start_noise(kind: type[LowRank] | type[UltraLow], setup: Setup) -> Started:
    tokens, rank = setup.recipe.prompt.tokens, int(setup.option("bottleneck"))
    form = kind(tokens, setup.backbone.info.hidden, rank, setup.scale, Draws(setup.seeds))
    return Started(form, ("",) * tokens)


def _start_superpos(setup: Setup) -> Started:
    backbone, size, tokens = setup.backbone, int(setup.option("words")), setup.recipe.prompt.tokens
    ids, words = common_words(backbone.tokenizer, backbone.vocabulary)
    if len(ids) < size:
        expected = f"a vocabulary of at least {size} words to sample from, for prompt.form=superpos"
        do = f"set prompt.words to {len(ids)} at most"
        raise SoftpruneError(expected, f"{len(ids)} in {backbone.info.name}", do)
    pool_N = torch.tensor(ids[: max(COMMON, size)])
    # The order of a plain prompt that starts from sampled words: both start as the same ones.
    orders = [torch.randperm(len(pool_N), generator=torch.Generator().manual_seed(seed)) for seed in setup.seeds]
    words_KM = torch.stack([pool_N[order[:size]] for order in orders])
    vectors_KMH = torch.stack([backbone.embed_ids(words_M.tolist()) for words_M in words_KM])
    started_as = tuple(words[int(orders[0][p % size])] for p in range(tokens))
    return Started(Superposition(tokens, words_KM, vectors_KMH), started_as)


def _start_cpt(setup: Setup) -> Started:
    backbone, tokens = setup.backbone, setup.recipe.prompt.tokens
    first = [demonstrate(backbone.tokenizer, setup.examples, tokens, seed) for seed in setup.seeds]
    for each in first:
        backbone.check_rows(each.ids_P, "the demonstrations that the prompt starts from")
    start_KPH = torch.stack([backbone.embed_ids(each.ids_P) for each in first])
    ids_KP, turns_KP = (torch.tensor([getattr(each, name) for each in first]) for name in ("ids_P", "turns_P"))
    radius = setup.option("radius") * setup.scale * backbone.info.hidden**0.5
    words = tuple(map(str, backbone.tokenizer.convert_ids_to_tokens(list(first[0].ids_P))))
    form = ContextAware(start_KPH, ids_KP, turns_KP, radius, setup.scale)
    return Started(form, words, (first[0].note,))


_FORMS: Final[dict[str, Callable[[Setup], Started]]] = {
    "residual": _start_residual,
    "low-rank": partial(_start_noise, LowRank),
    "ulpt": partial(_start_noise, UltraLow),
    "superpos": _start_superpos,
    "cpt": _start_cpt,
}
