"""Commands about tasks: `tasks list`, `show`, `stats`, `new`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprune.cli.options import option, option_like, out_option
from softprune.cli.output import print_rich, say, table
from softprune.errors import SoftpruneError, join_errors

if TYPE_CHECKING:
    from softprune.data import Metric, Splits, Task
    from softprune.data.data_statistics import TaskStatistics
    from softprune.data.definition import Split
    from softprune.data.scaffold import Guess
    from softprune.models.base import Backbone
    from softprune.types import Encoded, Example

_WIDTH = 120  # columns of running text, where the output is no terminal
_ABSENT = "–"
_LONGEST_TEXT = 1500
_FEW = 100  # rows to report on: below, even large differences may be chance
_SLOT = "[answer]"
_SETS: tuple[Split, ...] = ("train", "dev", "validation")
_SAMPLE = "sample written for softprune, not the real data"

_Id = Annotated[str, typer.Argument(metavar="TASK", help="A task that ships, or the path of a task YAML.")]
_Ids = Annotated[list[str] | None, typer.Argument(metavar="TASK ...", help="Tasks that ship, or task YAMLs: all.")]
_Data = Annotated[Path | None, option_like("--data", "none")]


def list_tasks() -> None:
    """List the tasks that ship."""
    from softprune.data import load_task, task_names

    loaded = [load_task(name).definition for name in task_names()]
    rows = [(task.id, task.title, task.kind, task.metric) for task in loaded]
    say(table([("task", "title", "kind", "metric"), *rows]))


def show(
    task: _Id,
    examples: Annotated[int, typer.Option("--examples", "-n", min=1, metavar="N", help="How many examples.")] = 2,
    split: Annotated[str, option("--split", "[train|dev|validation]", "Where they come from.")] = "train",
    data: _Data = None,
    backbone: Annotated[str | None, option_like("--backbone", "tiny; tiny-seq2seq where a text is written")] = None,
    max_length: Annotated[int, option_like("--max-length", kind="xprompt", minimum=1)] = 256,
) -> None:
    """Show a task: what it says, and examples as a model reads them."""
    from softprune.config import resolve
    from softprune.config.registry import unknown
    from softprune.data import load_task
    from softprune.data.task import load_sample
    from softprune.models import load_backbone
    from softprune.training.input_checks import TEXT_LENGTH
    from softprune.training.session import room_for_inputs

    loaded = load_task(task)
    sample, splits, no_data = load_sample(loaded), None, ""
    try:
        splits = loaded.load(data, patient=False)
    except SoftpruneError as error:
        if data is not None or not sample:  # a folder that was named must have the data
            raise
        no_data = f"\nno data: {error.found}\n{error.do}\n\n{_SAMPLE}:"
    _print_definition(loaded, splits)
    if no_data:
        say(no_data)
    if split not in _SETS:
        raise unknown("split", split, _SETS)
    held, source = sample, "sample"
    if splits is not None:
        held, source = getattr(splits, split), split
        if held is None:
            raise SoftpruneError(f"a split that {loaded.id} has here", split, f"there is {_sizes(splits)}")
    shown = held[:examples]
    name, target_length, last = "tiny", None, "* marks the right answer"
    if loaded.definition.is_generation:
        name, target_length = "tiny-seq2seq", TEXT_LENGTH
        last = f"targets at {TEXT_LENGTH}, their end included"
    if loaded.definition.chat is not None and backbone is None:
        do = "name one to see examples as it reads them: --backbone MODEL"
        say(f"\na conversation is read by models with a chat template; {do}")
        return
    name = backbone or name
    model = load_backbone(name, device="cpu")  # for its tokenizer and limits; nothing is computed
    # What the model's positions leave beside a prompt of the default size.
    room = room_for_inputs(resolve([f"task.max_length={max_length}"]), model, shown)
    encoded = model.encode(shown, room, target_length)
    for place, (example, read) in enumerate(zip(shown, encoded, strict=True), start=1):
        say(f"\n{source} {place}")
        _print_example(example, read, model, room, loaded.metric)
    rest = f" of {max_length} asked, the rest is the prompt's" if room < max_length else ""
    say(f"\ntokens of {name}; inputs are cut at {room}{rest}; {last}")


def _print_definition(task: Task, splits: Splits | None) -> None:
    definition = task.definition
    rows = [
        ("task", task.id),
        ("title", definition.title),
        ("kind", definition.kind or _ABSENT),
        ("instruction", definition.instruction or _ABSENT),
        ("template", definition.template),
    ]
    if definition.chat is not None:
        where = "in front" if definition.chat.place == "front" else "inside the system's turn"
        rows.append(("chat", f"{definition.chat.system or 'no system text'}; the prompt is {where}"))
    if definition.is_generation:
        rows.append(("target", f"{definition.target} (a text to write)"))
        if definition.extract is not None:
            rows.append(("extract", definition.extract))
    else:
        rows.append(("answers", ", ".join(definition.answers)))
    positive = f" of {definition.positive}" if definition.positive else ""
    rows.append(("metric", f"{definition.metric}{positive}"))
    if splits is not None:
        rows += [("source", f"{splits.source} ({splits.layout})"), ("sizes", _sizes(splits))]
        rows += [("note", note) for note in splits.notes]
    _print_grid(rows)


def _print_example(example: Example, read: Encoded, backbone: Backbone, room: int, metric: Metric) -> None:
    from softprune.data.metrics import ExactMatch

    text = "".join(f" {_SLOT}" if segment.answer_slot else segment.text for segment in example.segments).strip()
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]} ... ({len(text) - _LONGEST_TEXT:,} more characters)"
    tokens = len(read.input_ids) + read.cut
    rows = [("id", example.id), ("input", text)]
    if read.cut:
        rows.append(("cut", f"{read.cut} of {tokens} tokens go, {room} stay:"))
        rows.append(("reads as", backbone.tokenizer.decode(list(read.input_ids))))
    if read.place is not None:
        rows += _seam_rows(read, backbone.tokenizer)
    lengths = [f"{len(ids)} token{'s' * (len(ids) != 1)}" for ids in read.answer_ids]
    if example.is_generation:
        cut = f", {read.target_cut} more cut" if read.target_cut else ""
        rows.append(("target", f"{example.answers[0]}  ({lengths[0]}{cut})"))
        if isinstance(metric, ExactMatch):
            rows.append(("extracted", str(metric.answer(example.answers[0]))))
    else:
        key = "answers"
        for place, (answer, length) in enumerate(zip(example.answers, lengths, strict=True)):
            mark = "*" if place == example.gold else " "
            rows.append((key, f"{mark} {answer}  ({length})"))
            key = ""
        if not read.cut:
            rows.append(("tokens", f"{tokens}, nothing cut"))
    _print_grid(rows)


def _seam_rows(read: Encoded, tokenizer: Any) -> list[tuple[str, str]]:
    """A conversation as the model reads it, and the tokens around its seams with their ids."""
    ids, place, answer = read.input_ids, read.place or 0, read.answer_ids[max(0, read.gold)]
    whole = f"{tokenizer.decode(list(ids[:place]))}[prompt]{tokenizer.decode(list(ids[place:]))}"

    def named(tokens: Sequence[int]) -> str:
        return " ".join(f"{i} {tokenizer.decode([i])!r}" for i in tokens)

    return [
        ("reads as", whole),
        ("prompt", f"{named(ids[max(0, place - 4) : place])} [prompt] {named(ids[place : place + 4])}".strip()),
        ("answer", f"{named(ids[-4:])} [answer] {named(answer[:4])}"),
    ]


def _print_grid(rows: Iterable[tuple[str, str]]) -> None:
    """Keys and values side by side; a long value goes on under itself."""
    from softprune.terminal import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    for key, value in rows:
        grid.add_row(key, value)
    print_rich(grid, width=_WIDTH)


def _sizes(splits: Splits) -> str:
    held = {name: getattr(splits, name) for name in _SETS}
    return ", ".join(f"{name} {len(examples):,}" for name, examples in held.items() if examples is not None)


def stats(ids: _Ids = None, data: _Data = None) -> None:
    """Sizes, kind, metric and answers of the tasks whose data is there."""
    from softprune.data import load_task, task_names
    from softprune.data.data_statistics import Survey, compute_statistics, survey

    if data is not None and not data.is_dir():
        raise SoftpruneError("a folder with the data of tasks", str(data), "correct --data")
    tasks = [load_task(name) for name in ids or task_names()]
    joined = next((task.id for task in tasks if task.definition.parts), None)
    if joined is not None:
        raise SoftpruneError("single tasks", joined, f"name them apart: {joined.replace('+', ' ')}")
    generated = [task for task in tasks if task.definition.sources.generated is not None]
    read = [task for task in tasks if task not in generated]
    if data is not None:
        surveyed = survey(read, data)
    elif ids:
        surveyed = Survey(tuple(compute_statistics(task, task.load(patient=False)) for task in read), (), ())
    else:
        surveyed = Survey((), tuple(task.id for task in read), ())
    if data is not None and not ids:
        generated = []  # what needs no data says nothing about a folder
    statistics = [*(compute_statistics(task, task.load()) for task in generated), *surveyed.found]
    if data is not None and not (statistics or surveyed.errors):
        do = "pass --data with the folder that holds them; docs/tasks.md names the files of each task"
        raise SoftpruneError(f"the data of {', '.join(ids or ('at least one task',))}", f"none in {data}", do)
    if statistics:
        _print_statistics(statistics)
    if surveyed.absent:
        hint = "" if data is not None else " (pass --data FOLDER)"
        say(f"not there: {', '.join(surveyed.absent)}{hint}")
    if surveyed.errors:
        raise join_errors(f"data in {data}", surveyed.errors)


def _print_statistics(tasks: Sequence[TaskStatistics]) -> None:
    from softprune.data.rouge import KINDS

    rows: list[Sequence[str]] = [("task", "kind", *_SETS, "metric", "words", "constant (%)")]
    right = []
    for each in tasks:
        sizes = [f"{each.sizes[name]:,}" if name in each.sizes else _ABSENT for name in _SETS]
        constant = _ABSENT if each.constant is None else f"{100 * each.constant:.1f}"
        rows.append((each.id, each.kind or _ABSENT, *sizes, each.metric, f"{each.words:.0f}", constant))
        if each.target_words is not None:
            right.append((each.id, f"texts of {each.target_words:.0f} words"))
        else:
            shares = ", ".join(f"{answer} {100 * share:.0f}%" for answer, share in each.shares.items())
            if each.reported != "validation":
                shares += f" (of {each.reported})"
            right.append((each.id, shares))
    say(table(rows))
    has_texts = any(each.metric in KINDS for each in tasks)
    lead = ", or the first 3 sentences where a text is written and scored by ROUGE" if has_texts else ""
    say(
        f"\nwords: mean of the filled template; constant: the best constant answer{lead}; of validation, or of dev "
        "where that is absent\n\nright answers"
    )
    _print_grid(right)


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Training examples: CSV, JSON lines or Parquet.")],
    text: Annotated[
        list[str] | None,
        option("--text", "COLUMN", "A column to read; may be given several times. [default: guess]"),
    ] = None,
    label: Annotated[str | None, option("--label", "COLUMN", "The label's column. [default: guess]")] = None,
    target: Annotated[
        str | None, option("--target", "COLUMN", "A column of texts to write, in a label's place.")
    ] = None,
    validation: Annotated[
        Path | None, option("--validation", "FILE", "Examples to report on. [default: a fifth of FILE]")
    ] = None,
    out: Annotated[Path | None, out_option("The YAML.", "TASK.yaml", "beside FILE, with its name")] = None,
) -> None:
    """Write a task YAML for a file of your own; it says what it guessed."""
    from softprune.data.data_statistics import count_repeated, unseen_points
    from softprune.data.row_files import strip_compression
    from softprune.data.scaffold import guess, write_task

    path = out or file.with_name(strip_compression(file.name).with_suffix(".yaml").name)
    guessed = guess(file, validation, text or (), label, target)
    splits = write_task(guessed, path, file, validation)
    _say_guess(guessed, is_label_given=label is not None, is_text_given=bool(text))
    say(f"wrote     {path}: {_sizes(splits)}" + ("" if validation else " (held out of train)"))
    repeated, rows = count_repeated(splits)
    if repeated:
        say(f"note      {repeated:,} of {rows:,} rows repeat{'s' * (repeated == 1)} another's text")
    report = splits.report or ()
    if 0 < len(report) < _FEW and not guessed.is_generation:
        points = unseen_points(len(report))
        say(f"note      differences under {points} points can't be seen on {len(report)} {splits.reported} rows")
    name = shlex.quote(str(path) if "/" in str(path) else f"./{path}")
    say(f"\nnext: softprune tasks show {name}")
    say(f"      softprune xprompt --task {name} --backbone {'tiny-seq2seq' if guessed.is_generation else 'tiny'}")


def _say_guess(guessed: Guess, *, is_label_given: bool, is_text_given: bool) -> None:
    texts = ", ".join(column.name for column in guessed.texts)
    text_hint = "" if is_text_given else " (a guess: --text COLUMN ...)"
    shared = [("texts", f"{texts}{text_hint}"), ("left out", ", ".join(guessed.others) or "nothing")]
    shared.append(("template", guessed.template))
    label = guessed.label
    if guessed.is_generation:
        say(table([("target", f"{label.name} ({label.words / label.rows:.0f} words)"), *shared]))
        return
    label_hint = "" if is_label_given else " (a guess: --label COLUMN changes it)"
    counts = ", ".join(f"{value} ({n:,})" for value, n in label.counts.most_common(8))
    if len(label.counts) > 8:
        counts += f" and {len(label.counts) - 8} more"
    answers = ", ".join(guessed.answers.values()) + (" (edit them)" if guessed.to_be_edited else "")
    say(table([("label", f"{label.name}{label_hint}"), ("labels", counts), *shared, ("answers", answers)]))
