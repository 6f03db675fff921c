"""Texts to be written: how long they may be, and what keeps a recipe from them."""

from __future__ import annotations

from softprune.config import Recipe
from softprune.data.rouge import check_installed
from softprune.errors import SoftpruneError, gathered
from softprune.models.description import BackboneDescription

# Positions that a prompt must leave to input and answer.
LEAST_ROOM = 16
# Tokens of an answer that is generated, and of a text that is written, where the recipe names no other number.
ANSWER_LENGTH, TEXT_LENGTH = 8, 128


def answer_length(recipe: Recipe, writes: bool) -> int:
    """Tokens that are generated at most, and that a text to be written is cut to (`writes`)."""
    return recipe.task.max_answer_length or (TEXT_LENGTH if writes else ANSWER_LENGTH)


def written_mistakes(recipe: Recipe, task: str, described: BackboneDescription) -> list[SoftpruneError]:
    """What keeps a recipe from a task whose texts are written: the family, the loss, positions, the library."""
    if described.family in ("masked", "sentence"):
        found = f"{described.name}, of the {described.family} family, which doesn't generate"
        expected = f"a backbone that writes text (seq2seq or causal), for {task}"
        return [SoftpruneError(expected, found, "choose another backbone, such as tiny-seq2seq or tiny-causal")]
    errors: list[SoftpruneError] = []
    with gathered(errors):
        check_installed()
    if recipe.tuning.loss == "rank":
        expected = f"tuning.loss of likelihood or auto for {task}, whose texts have no rivals to rank"
        errors.append(SoftpruneError(expected, "rank", "set tuning.loss=likelihood"))
    return errors + _room_mistakes(recipe, described)


def _room_mistakes(recipe: Recipe, described: BackboneDescription) -> list[SoftpruneError]:
    """A causal model's positions hold prompt, input and text, an encoder-decoder's the text alone beside its start."""
    length, prompt, positions = answer_length(recipe, writes=True), recipe.virtual_tokens, described.positions
    if positions is None:
        return []
    room = positions - (prompt + LEAST_ROOM if described.family == "causal" else 2)
    if length <= room:
        return []
    beside = f", beside {prompt} prompt tokens and an input" if described.family == "causal" else ""
    return [
        SoftpruneError(
            f"texts that fit in the {positions} positions of {described.name}",
            f"task.max_answer_length of {length}{beside}",
            f"set task.max_answer_length to {max(1, room)} at most",
        )
    ]
