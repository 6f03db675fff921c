"""What keeps a recipe from a task or a backbone, found before any weights load."""

from __future__ import annotations

from pathlib import Path

from softprune.config import Recipe
from softprune.data import Task
from softprune.data.rouge import check_installed
from softprune.errors import SoftpruneError, gathered, join_errors
from softprune.models.description import BackboneDescription
from softprune.prompts.initialization import check_fits
from softprune.prompts.prompt_io import load_mask, load_vectors

# Positions that a prompt must leave to input and answer.
LEAST_ROOM = 16
# Tokens of an answer that is generated, and of a text that is written, where the recipe names no other number.
ANSWER_LENGTH, TEXT_LENGTH = 8, 128


def answer_length(recipe: Recipe, writes: bool) -> int:
    """Tokens that are generated at most, and that a text to be written is cut to (`writes`)."""
    return recipe.task.max_answer_length or (TEXT_LENGTH if writes else ANSWER_LENGTH)


def task_mistakes(recipe: Recipe, task: Task) -> list[SoftpruneError]:
    """What keeps a task from the prompt's first values."""
    init, answers = recipe.prompt.init, task.definition.answers
    if init == "text" and not recipe.prompt.text and not task.definition.instruction:
        found = f"neither prompt.text nor an instruction of {task.id}"
        return [SoftpruneError("a text to start from, for prompt.init=text", found, "set prompt.text")]
    if init == "labels" and task.definition.is_generation:
        found = f"prompt.init=labels with {task.id}, whose texts are written"
        return [SoftpruneError("a task with answers to choose from, to start from them", found, "set prompt.init=text")]
    if init == "labels" and any("{" in answer for answer in answers):  # filled in from the row
        return [
            SoftpruneError(
                "a task whose answers are the same for every example, to start from its class labels",
                f"prompt.init=labels with the answers {', '.join(answers)} of {task.id}",
                "choose another prompt.init, such as vocabulary",
            )
        ]
    return []


def check(recipe: Recipe, described: BackboneDescription) -> None:
    """Hold a recipe against a backbone's configuration.

    Raises:
        ManyErrors: with all disagreements.
    """
    errors: list[SoftpruneError] = []
    prompt, hidden = recipe.prompt, described.hidden
    if recipe.kind == "xprompt" and hidden % prompt.pieces:
        near = [str(s) for s in range(1, min(hidden, 64) + 1) if hidden % s == 0]
        errors.append(
            SoftpruneError(
                f"prompt.pieces that divide H = {hidden} of {described.name}",
                str(prompt.pieces),
                f"set prompt.pieces to one of {', '.join(near)}",
            )
        )
    if recipe.tuning.loss == "likelihood" and described.family == "sentence":
        errors.append(
            SoftpruneError("tuning.loss of rank or auto for a sentence backbone", "likelihood", "set tuning.loss=rank")
        )
    if recipe.task.match == "generate" and described.family in ("masked", "sentence"):
        errors.append(
            SoftpruneError(
                "task.match of score for a backbone that doesn't generate",
                f"generate with the {described.family} family",
                "set task.match=score",
            )
        )
    if described.positions is not None and described.positions - recipe.virtual_tokens < LEAST_ROOM:
        errors.append(
            SoftpruneError(
                f"a prompt that leaves room in the {described.positions} positions of {described.name}",
                f"{prompt.tokens} prompt tokens",
                f"set prompt.tokens to {max(1, described.positions - LEAST_ROOM)} at most",
            )
        )
    with gathered(errors):
        if prompt.file is not None:
            check_fits(load_vectors(Path(prompt.file)), hidden, Path(prompt.file).name)
    with gathered(errors):
        if prompt.mask is not None:
            _check_mask(recipe, prompt.mask, hidden)
    if errors:
        raise join_errors("recipe for this backbone", errors)


def _check_mask(recipe: Recipe, file: str, hidden: int) -> None:
    """Hold the mask of `prompt.mask` to the prompt of P tokens of `hidden` dimensions."""
    if recipe.kind != "tune":
        found = f"prompt.mask with kind: {recipe.kind}"
        raise SoftpruneError("kind: tune for a prompt that is masked from the start", found, "leave prompt.mask out")
    tokens, pieces = load_mask(Path(file)).piece_PS.shape
    if tokens != recipe.prompt.tokens or hidden % pieces:
        raise SoftpruneError(
            f"a mask of {recipe.prompt.tokens} tokens, in pieces whose number divides H = {hidden}",
            f"{tokens} tokens of {pieces} pieces in {file}",
            f"set prompt.tokens={tokens}, or choose another mask",
        )


def text_mistakes(recipe: Recipe, task: str, described: BackboneDescription) -> list[SoftpruneError]:
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
    if described.positions is None:
        return errors
    # A causal model's positions hold prompt, input and text; an encoder-decoder's the text alone, beside its start.
    beside, room = "", described.positions - 2
    if described.family == "causal":
        beside = f", beside {recipe.virtual_tokens} prompt tokens and an input"
        room = described.positions - recipe.virtual_tokens - LEAST_ROOM
    length = answer_length(recipe, writes=True)
    if length > room:
        errors.append(
            SoftpruneError(
                f"texts that fit in the {described.positions} positions of {described.name}",
                f"task.max_answer_length of {length}{beside}",
                f"set task.max_answer_length to {max(1, room)} at most",
            )
        )
    return errors
