"""What a run is made from: read and checked together, and compared with what it began with when it is resumed.

Stored pieces of work must not be mixed with new ones that come of other data, weights or files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from softprune.config import Recipe
from softprune.config.forms import PLAIN
from softprune.config.schema import TaskConfig
from softprune.data import Selection, Splits, Task, load_task, select_sets
from softprune.data.document import read_document
from softprune.data.metrics import ExactMatch
from softprune.data.rouge import KINDS, load_scorer
from softprune.data.sources import read_unlabelled
from softprune.errors import SoftpruneError, gathered, join_errors
from softprune.models import describe
from softprune.models.base import Backbone
from softprune.models.description import BackboneDescription
from softprune.models.loading import check_placement, check_quantizer, resolve_device
from softprune.prompts.initialization import check_fits
from softprune.prompts.prompt_io import load_mask, load_vectors
from softprune.runs.run_folder import RunFolder
from softprune.training.scoring import ScoredSet, Scoring
from softprune.types import Example

# Positions that a prompt must leave to input and answer.
LEAST_ROOM = 16
REST = "rest"  # task.unlabelled: what the shots leave of the training set
_SHOWN = 60  # characters of a text's end that a message shows
# Tokens of an answer that is generated, and of a text that is written, where the recipe names no other number.
ANSWER_LENGTH, TEXT_LENGTH = 8, 128

Inputs = dict[str, str]
"""By the name that a user knows, something that changes when it does."""

# What changes along with an input that was edited: only the cause is reported.
_FOLLOWS = {"task": ("data", "tokens", "metric"), "data": ("tokens",)}
_NAMES = {
    "task": "the task's YAML",
    "data": "the data",
    "tokens": "the tokenizer",
    "metric": "the metric",
    "backbone": "the backbone's weights",
    "prompt": "the prompt file",
    "mask": "the mask file",
    "document": "the document",
}


def read_inputs(
    recipe: Recipe, mistakes: Callable[[BackboneDescription], Sequence[SoftpruneError]]
) -> tuple[Task, Splits, Selection, BackboneDescription]:
    """The task's data and the backbone's configuration, or one error with all mistakes, what `mistakes` finds too."""
    errors: list[SoftpruneError] = []
    data = described = None
    with gathered(errors):
        task = load_task(recipe.task.id)
        errors += task_mistakes(recipe, task)
        data = (task, *read_data(recipe, task))
    errors += unread_mistakes(recipe)
    settings = recipe.backbone
    with gathered(errors):
        check_placement(settings.device, settings.device_map, settings.quantization)
        check_quantizer(settings.quantization, resolve_device(settings.device))
    with gathered(errors):
        described = describe(settings.name, settings.family, settings.revision, settings.trust_remote_code)
        errors += mistakes(described)
        check(recipe, described)
    if data is not None and described is not None and data[0].definition.is_generation:
        errors += text_mistakes(recipe, data[0], described)
    if data is None or described is None or errors:
        raise join_errors("recipe for this data and backbone", errors)
    return (*data, described)


def read_data(recipe: Recipe, task: Task, *, patient: bool = True) -> tuple[Splits, Selection]:
    """The task's data, and the three sets that the recipe makes of it; `patient` as in `Task.load`."""
    splits = task.load(Path(recipe.task.data) if recipe.task.data else None, patient=patient)
    sets = select_sets(
        splits,
        recipe.selection.protocol,
        recipe.task.shots,
        recipe.selection.fraction,
        seed=recipe.seed,
        limit_report=recipe.task.limit_report,
        report_seed=recipe.task.report_seed,
        rest=recipe.task.unlabelled == REST,
    )
    return splits, replace(sets, unlabelled=_unlabelled(recipe.task, task, sets))


def _unlabelled(settings: TaskConfig, task: Task, sets: Selection) -> tuple[Example, ...]:
    """Rows that a teacher answers: none of a text that chooses or is reported on, though their labels stay hidden."""
    if settings.unlabelled is None:
        return ()
    found = sets.unlabelled
    if settings.unlabelled != REST:
        found = read_unlabelled(task.definition, Path(settings.unlabelled))
        if not found:
            raise SoftpruneError(
                "a file with rows", f"none in task.unlabelled={settings.unlabelled}", "name another file"
            )
    taken = {example.text for example in (*sets.select, *sets.report)}
    found = tuple(example for example in found if example.text not in taken)[: settings.limit_unlabelled]
    if not found:
        do = "set task.shots, or name a file" if settings.unlabelled == REST else "name another file"
        expected = "rows without labels whose texts are in no other set"
        raise SoftpruneError(expected, f"none in task.unlabelled={settings.unlabelled}", do)
    return found


def check_unchanged(recipe: Recipe, run: RunFolder) -> None:
    """Refuse a complete run whose task or data changed since, where they can be read: its results are of no others."""
    if not run.record.inputs:
        return
    try:
        task = load_task(recipe.task.id)
        _, sets = read_data(recipe, task, patient=False)
    except SoftpruneError:  # gone, or out of reach: nothing contradicts the record
        return
    check_inputs(run, data_inputs(task, sets))


def data_inputs(task: Task, sets: Selection) -> Inputs:
    """What is known before any weights load: the task's definition, and the examples of the three sets."""
    all_sets = (*sets.train, *sets.select, *sets.report, *sets.unlabelled)
    examples = ((e.id, e.text, e.answers, e.gold) for e in all_sets)
    irrelevant = {"title", "instruction", "kind", "sources"}
    if not task.definition.is_generation:
        irrelevant.add("target")
    definition = task.definition.model_dump(mode="json", exclude=irrelevant)
    return {"task": _digest([json.dumps(definition, sort_keys=True)]), "data": _digest(map(repr, examples))}


def model_inputs(
    recipe: Recipe, task: Task, backbone: Backbone, scoring: Scoring, encoded: Iterable[ScoredSet]
) -> Inputs:
    """The rest: weights, token ids of training and select sets, metric, and the files that a prompt begins with."""
    tokens = ((e.input_ids, e.answer_ids) for part in encoded for e in part.encoded)
    prompt = recipe.prompt
    inputs = {
        "backbone": backbone.info.fingerprint,
        "tokens": _digest(map(repr, tokens)),
        "metric": f"{task.metric.name} of {scoring.score} scores",
    }
    if prompt.file is not None:
        inputs["prompt"] = _digest(map(repr, load_vectors(Path(prompt.file)).tolist()))
    if recipe.adapter.document is not None:
        inputs["document"] = _digest([read_document(recipe.adapter.document)])
    if prompt.mask is not None:
        inputs["mask"] = _digest([repr(load_mask(Path(prompt.mask)).piece_PS.tolist())])
    return inputs


def check_inputs(run: RunFolder, now: Inputs) -> None:
    """Note what a run is begun with; later on, a SoftpruneError where something has changed since."""
    begun = run.pin("inputs", lambda: now)
    changed = [name for name, value in now.items() if begun.get(name) != value]
    effects = {effect for cause in changed for effect in _FOLLOWS.get(cause, ())}
    causes = [_NAMES[name] for name in changed if name not in effects]
    if causes:
        names = " and ".join(causes)
        do = f"bring {'it' if len(causes) == 1 else 'them'} back, or start again with another --out"
        raise SoftpruneError(f"{names} as {run.path} was begun with", f"{names} changed since", do)


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
    return digest.hexdigest()[:16]


# --- the recipe against task and backbone ---


def answer_length(recipe: Recipe, writes: bool) -> int:
    """Tokens that are generated at most, and that a text to be written is cut to (`writes`)."""
    return recipe.task.max_answer_length or (TEXT_LENGTH if writes else ANSWER_LENGTH)


def unread_mistakes(recipe: Recipe) -> list[SoftpruneError]:
    """Keys with another value than their default that this recipe never reads."""
    task, pruning, search = recipe.task, recipe.pruning, recipe.search
    teaches = recipe.kind == "xprompt" and pruning.teacher != "none"
    wanted = {  # by key: whether it is read, where, its section, its name
        "search.keep": (search.strategy == "gradual", "search.strategy=gradual", search, "keep"),
        "pruning.teacher": (recipe.kind == "xprompt", "kind: xprompt", pruning, "teacher"),
        "pruning.teach_weight": (teaches, "a pruning.teacher", pruning, "teach_weight"),
        "task.limit_unlabelled": (task.unlabelled is not None, "task.unlabelled", task, "limit_unlabelled"),
    }
    found = []
    for key, (is_read, where, section, name) in wanted.items():
        value = getattr(section, name)
        if not is_read and value != type(section).model_fields[name].default:
            expected, do = f"{key} beside {where}, which alone reads it", f"leave {key} out"
            found.append(SoftpruneError(expected, f"{key}={value} without it", do))
    return found


def task_mistakes(recipe: Recipe, task: Task) -> list[SoftpruneError]:
    """What keeps a task from the prompt's first values."""
    init, answers = recipe.prompt.init, task.definition.answers
    if recipe.task.unlabelled is not None and not recipe.has_teacher:
        found = f"task.unlabelled={recipe.task.unlabelled} without a teacher"
        do = "set pruning.teacher to tuned or control, or leave task.unlabelled out"
        if recipe.kind != "xprompt":
            found = f"task.unlabelled={recipe.task.unlabelled} with kind: {recipe.kind}, which has none"
            do = "leave task.unlabelled out, run xprompt, or train a cartridge"
        return [SoftpruneError("a teacher that answers rows without labels", found, do)]
    if recipe.task.unlabelled is not None and task.definition.is_generation:
        found, do = f"task.unlabelled with {task.id}, whose texts are written", "leave task.unlabelled out"
        return [SoftpruneError("a task with answers to choose from, for rows without labels", found, do)]
    if init == "text" and not recipe.prompt.text and not task.definition.instruction:
        found = f"neither prompt.text nor an instruction of {task.id}"
        return [SoftpruneError("a text to start from, for prompt.init=text", found, "set prompt.text")]
    if init == "labels" and task.definition.is_generation:
        found = f"prompt.init=labels with {task.id}, whose texts are written"
        return [SoftpruneError("a task with answers to choose from, to start from them", found, "set prompt.init=text")]
    if init == "labels" and any("{" in answer for answer in answers):  # filled in from the row
        expected = "a task whose answers are the same for every example, to start from its class labels"
        found = f"prompt.init=labels with the answers {', '.join(answers)} of {task.id}"
        return [SoftpruneError(expected, found, "choose another prompt.init, such as vocabulary")]
    return []


def check(recipe: Recipe, described: BackboneDescription) -> None:
    """Hold a recipe against a backbone's configuration; one error with all disagreements."""
    errors: list[SoftpruneError] = []
    prompt, hidden, family, positions = recipe.prompt, described.hidden, described.family, described.positions
    if recipe.kind == "xprompt" and hidden % prompt.pieces:
        near = ", ".join(str(s) for s in range(1, min(hidden, 64) + 1) if hidden % s == 0)
        expected = f"prompt.pieces that divide H = {hidden} of {described.name}"
        errors.append(SoftpruneError(expected, str(prompt.pieces), f"set prompt.pieces to one of {near}"))
    if recipe.tuning.loss == "likelihood" and family == "sentence":
        expected = "tuning.loss of rank or auto for a sentence backbone"
        errors.append(SoftpruneError(expected, "likelihood", "set tuning.loss=rank"))
    if recipe.task.match == "generate" and family in ("masked", "sentence"):
        expected = "task.match of score for a backbone that doesn't generate"
        errors.append(SoftpruneError(expected, f"generate with the {family} family", "set task.match=score"))
    if positions is not None and positions - recipe.virtual_tokens < LEAST_ROOM:
        expected = f"a prompt that leaves room in the {positions} positions of {described.name}"
        do = f"set prompt.tokens to {max(1, positions - LEAST_ROOM)} at most"
        errors.append(SoftpruneError(expected, f"{prompt.tokens} prompt tokens", do))
    if prompt.file is not None:
        with gathered(errors):
            check_fits(load_vectors(Path(prompt.file)), hidden, Path(prompt.file).name)
    if prompt.form != PLAIN:
        errors += form_mistakes(recipe, family)
    if prompt.mask is not None and recipe.kind != "tune":
        expected = "kind: tune for a prompt that is masked from the start"
        errors.append(SoftpruneError(expected, f"prompt.mask with kind: {recipe.kind}", "leave prompt.mask out"))
    elif prompt.mask is not None:
        with gathered(errors):
            tokens, pieces = load_mask(Path(prompt.mask)).piece_PS.shape
            if tokens != prompt.tokens or hidden % pieces:
                expected = f"a mask of {prompt.tokens} tokens, in pieces whose number divides H = {hidden}"
                found, do = f"{tokens} tokens of {pieces} pieces in {prompt.mask}", f"set prompt.tokens={tokens}"
                raise SoftpruneError(expected, found, f"{do}, or choose another mask")
    if errors:
        raise join_errors("recipe for this backbone", errors)


def form_mistakes(recipe: Recipe, family: str) -> list[SoftpruneError]:
    """What doesn't go with a prompt that is trained as something else."""
    form, do, found = f"prompt.form={recipe.prompt.form}", "leave prompt.form out", []
    if recipe.kind == "adapt":
        found.append(SoftpruneError(f"kind: tune or xprompt for {form}", "kind: adapt", do))
    if recipe.prompt.mask is not None:
        found.append(SoftpruneError("prompt.form=plain for a prompt that is masked from the start", form, do))
    tuning = recipe.tuning
    if recipe.kind == "tune" and "optimiser" in tuning.model_fields_set and tuning.optimiser != "adamw":
        do = "leave tuning.optimiser out"
        found.append(SoftpruneError(f"tuning.optimiser=adamw for {form}", tuning.optimiser, do))
    if recipe.prompt.form == "cpt" and family == "causal" and tuning.loss == "rank":
        # Its loss weighs the tokens of labels, in front and behind; a comparison of answers has none.
        found.append(SoftpruneError(f"tuning.loss of likelihood or auto for {form}", "rank", "leave tuning.loss out"))
    return found


def text_mistakes(recipe: Recipe, task: Task, described: BackboneDescription) -> list[SoftpruneError]:
    """What keeps a recipe from a task whose texts are written: the family, the loss, positions, the library."""
    if described.family in ("masked", "sentence"):
        found = f"{described.name}, of the {described.family} family, which doesn't generate"
        expected = f"a backbone that writes text (seq2seq or causal), for {task.id}"
        return [SoftpruneError(expected, found, "choose another backbone, such as tiny-seq2seq or tiny-causal")]
    errors: list[SoftpruneError] = []
    if task.metric.name in KINDS:
        with gathered(errors):
            load_scorer()
    if recipe.tuning.loss == "rank":
        expected = f"tuning.loss of likelihood or auto for {task.id}, whose texts have no rivals to rank"
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
        expected = f"texts that fit in the {described.positions} positions of {described.name}"
        do = f"set task.max_answer_length to {max(1, room)} at most"
        errors.append(SoftpruneError(expected, f"task.max_answer_length of {length}{beside}", do))
    return errors


def check_extracted(task: Task, backbone: Backbone, train: ScoredSet) -> None:
    """Refuse texts that all lose their answer when they become tokens: none of those that are written could be right.

    A text is cut at `task.max_answer_length`, and some tokenizers change blanks ("# # # # 42" comes of "#### 42").
    """
    metric, read = task.metric, ""
    if not isinstance(metric, ExactMatch):
        return
    for example, encoded in zip(train.examples, train.encoded, strict=True):
        read = backbone.tokenizer.decode(list(encoded.answer_ids[0]), skip_special_tokens=True)
        if metric.is_right(read, example.answers[0]):
            return
    length = len(train.encoded[-1].answer_ids[0])
    raise SoftpruneError(
        f"texts that keep their answer as tokens of {backbone.info.name}",
        f'"...{read[-_SHOWN:]}" of {length} tokens, for "...{train.examples[-1].answers[0][-_SHOWN:]}"',
        "let `extract` in the task YAML allow for other blanks, or raise task.max_answer_length",
    )
