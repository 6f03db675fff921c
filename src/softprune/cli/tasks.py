"""Commands about tasks: `tasks list`, `show`, `stats`, `new`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from softprune.cli.options import option_like, out_option
from softprune.cli.output import print_rich, say, table
from softprune.errors import ManyErrors, SoftpruneError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from softprune.data import Splits, Task
    from softprune.data.data_statistics import TaskStatistics
    from softprune.data.definition import Split
    from softprune.data.scaffold import Guess
    from softprune.models.base import Backbone
    from softprune.types import Encoded, Example

_WIDTH = 120
"""Columns of a page that is read, where the output is no terminal."""
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
    split: Annotated[
        str, typer.Option("--split", metavar="[train|dev|validation]", help="Where they come from.")
    ] = "train",
    data: _Data = None,
    backbone: Annotated[
        str | None,
        option_like("--backbone", "tiny; tiny-seq2seq where a text is written"),
    ] = None,
    max_length: Annotated[int, option_like("--max-length", kind="xprompt", minimum=1)] = 256,
) -> None:
    """Show a task: what it says, and examples as a model reads them."""
    from softprune.data import load_task
    from softprune.training.recipe_checks import TEXT_LENGTH

    loaded = load_task(task)
    splits, why = _data_or_none(loaded, data)
    print_rich(_about(loaded, splits), width=_WIDTH)
    if why is not None:
        say(f"\nno data: {why.found}\n{why.do}\n\n{_SAMPLE}:")
    shown, origin = _some(loaded, splits, split, examples)
    name = backbone or ("tiny-seq2seq" if loaded.definition.is_generation else "tiny")
    model, room = _reader(name, max_length, shown)
    longest = TEXT_LENGTH if loaded.definition.is_generation else None
    for place, (example, read) in enumerate(zip(shown, model.encode(shown, room, longest), strict=True), start=1):
        say(f"\n{origin} {place}")
        print_rich(_example(example, read, model, room), width=_WIDTH)
    rest = f" of {max_length} asked, the rest is the prompt's" if room < max_length else ""
    last = f"targets at {longest}, their end included" if longest else "* marks the right answer"
    say(f"\ntokens of {name}; inputs are cut at {room}{rest}; {last}")


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
    made = [task for task in tasks if task.definition.sources.generated is not None]
    read = [task for task in tasks if task not in made]
    if data is not None:
        surveyed = survey(read, data)
    elif ids:
        surveyed = Survey(tuple(compute_statistics(task, task.load(patient=False)) for task in read), (), ())
    else:
        surveyed = Survey((), tuple(task.id for task in read), ())
    # What needs no data says nothing about a folder.
    generated = [compute_statistics(task, task.load()) for task in made if ids or data is None]
    if data is not None and not (generated or surveyed.found or surveyed.errors):
        do = "pass --data with the folder that holds them; docs/tasks.md names the files of each task"
        raise SoftpruneError(f"the data of {', '.join(ids or ('at least one task',))}", f"none in {data}", do)
    _print_statistics([*generated, *surveyed.found])
    if surveyed.absent:
        hint = "" if data is not None else " (pass --data FOLDER)"
        say(f"not there: {', '.join(surveyed.absent)}{hint}")
    if surveyed.errors:
        raise surveyed.errors[0] if len(surveyed.errors) == 1 else ManyErrors(f"data in {data}", surveyed.errors)


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Training examples: CSV, JSON lines or Parquet.")],
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="COLUMN", help="A column to read; may be given several times. [default: guess]"),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="The label's column. [default: guess]")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="A column of texts to write, in a label's place.")
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option("--validation", metavar="FILE", help="Examples to report on. [default: a fifth of FILE]"),
    ] = None,
    out: Annotated[Path | None, out_option("The YAML.", "TASK.yaml", "beside FILE, with its name")] = None,
) -> None:
    """Write a task YAML for a file of your own; it says what it guessed."""
    from softprune.data.row_files import strip_compression
    from softprune.data.scaffold import guess, write_task

    path = out or file.with_name(strip_compression(file.name).with_suffix(".yaml").name)
    found = guess(file, validation, text or (), label, target)
    splits = write_task(found, path, file, validation)
    say(_guessed(found, label is not None, bool(text)))
    sizes = _sizes(splits) + ("" if validation else " (held out of train)")
    name = shlex.quote(str(path) if "/" in str(path) else f"./{path}")
    say("\n".join([f"wrote     {path}: {sizes}", *_worth_knowing(splits), ""]))
    say(f"next: softprune tasks show {name}")
    say(f"      softprune xprompt --task {name} --backbone {'tiny-seq2seq' if found.is_generation else 'tiny'}")


def _worth_knowing(splits: Splits) -> list[str]:
    """What a reader of the scores should know of the data: rows that repeat others, and a small set to report on."""
    from softprune.data.data_statistics import count_repeated, unseen_points

    twice, rows = count_repeated(splits)
    held = len(splits.report or ())
    lines = [f"note      {twice:,} of {rows:,} rows repeat{'s' * (twice == 1)} another's text"] if twice else []
    if 0 < held < _FEW and not (splits.report or ())[0].is_generation:
        points = unseen_points(held)
        lines.append(f"note      differences under {points} points can't be seen on {held} {splits.reported} rows")
    return lines


def _grid(rows: Iterable[tuple[str, str]]) -> RenderableType:
    """Keys and values side by side; a long value goes on under itself."""
    from softprune.terminal import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    for key, value in rows:
        grid.add_row(key, value)
    return grid


def _data_or_none(task: Task, data: Path | None) -> tuple[Splits | None, SoftpruneError | None]:
    """The task's data; or why there is none, where a sample can stand for it."""
    from softprune.data.samples import load_sample

    try:
        return task.load(data, patient=False), None
    except SoftpruneError as error:
        if data is not None or not load_sample(task):
            raise
        return None, error


def _about(task: Task, splits: Splits | None) -> RenderableType:
    definition = task.definition
    rows = [
        ("task", task.id),
        ("title", definition.title),
        ("kind", definition.kind or _ABSENT),
        ("instruction", definition.instruction or _ABSENT),
        ("template", definition.template),
        ("target", f"{definition.target} (a text to write)")
        if definition.is_generation
        else ("answers", ", ".join(definition.answers)),
        ("metric", definition.metric + (f" of {definition.positive}" if definition.positive else "")),
    ]
    if splits is not None:
        rows += [("source", f"{splits.source} ({splits.layout})"), ("sizes", _sizes(splits))]
        rows += [("note", note) for note in splits.notes]
    return _grid(rows)


def _sizes(splits: Splits) -> str:
    held = {name: getattr(splits, name) for name in _SETS}
    return ", ".join(f"{name} {len(examples):,}" for name, examples in held.items() if examples is not None)


def _some(task: Task, splits: Splits | None, split: str, n: int) -> tuple[Sequence[Example], str]:
    """The first n examples of a split, or of the sample; and what to call them."""
    from softprune.config.registry import unknown
    from softprune.data.samples import load_sample

    if split not in _SETS:
        raise unknown("split", split, _SETS)
    if splits is None:
        return load_sample(task)[:n], "sample"
    held = cast("tuple[Example, ...] | None", getattr(splits, split))
    if held is None:
        raise SoftpruneError(f"a split that {task.id} has here", split, f"there is {_sizes(splits)}")
    return held[:n], split


def _reader(name: str, max_length: int, examples: Sequence[Example]) -> tuple[Backbone, int]:
    """The backbone, and the input tokens that its positions leave beside a prompt of the default size."""
    from softprune.config import resolve
    from softprune.models import load_backbone
    from softprune.training.session import room_for_inputs

    backbone = load_backbone(name, device="cpu")
    return backbone, room_for_inputs(resolve([f"task.max_length={max_length}"]), backbone, examples)


def _example(example: Example, read: Encoded, backbone: Backbone, room: int) -> RenderableType:
    text = "".join(f" {_SLOT}" if segment.answer_slot else segment.text for segment in example.segments).strip()
    more = len(text) - _LONGEST_TEXT
    shortened = f"{text[:_LONGEST_TEXT]} ... ({more:,} more characters)" if more > 0 else text
    tokens = len(read.input_ids) + read.cut
    rows = [("id", example.id), ("input", shortened)]
    rows += [("cut", f"{read.cut} of {tokens} tokens go, {room} stay:")] if read.cut else []
    rows += [("reads as", backbone.tokenizer.decode(list(read.input_ids)))] if read.cut else []
    if example.is_generation:
        cut = f", {read.target_cut} more cut" if read.target_cut else ""
        return _grid([*rows, ("target", f"{example.answers[0]}  ({_tokens(len(read.answer_ids[0]))}{cut})")])
    for place, (answer, ids) in enumerate(zip(example.answers, read.answer_ids, strict=True)):
        mark = "*" if place == example.gold else " "
        rows.append(("" if place else "answers", f"{mark} {answer}  ({_tokens(len(ids))})"))
    rows += [] if read.cut else [("tokens", f"{tokens}, nothing cut")]
    return _grid(rows)


def _tokens(n: int) -> str:
    return "1 token" if n == 1 else f"{n} tokens"


def _print_statistics(found: Sequence[TaskStatistics]) -> None:
    if not found:
        return
    say(table([("task", "kind", *_SETS, "metric", "words", "constant (%)"), *map(_statistics_row, found)]))
    texts = any(each.target_words is not None for each in found)
    told = ", or the first 3 sentences where a text is written" if texts else ""
    say(
        f"\nwords: mean of the filled template; constant: the best constant answer{told}; of validation, or of dev "
        "where that is absent\n\nright answers"
    )
    print_rich(_grid((each.id, _shares(each)) for each in found), width=_WIDTH)


def _statistics_row(each: TaskStatistics) -> tuple[str, ...]:
    sizes = [f"{each.sizes[name]:,}" if name in each.sizes else _ABSENT for name in _SETS]
    constant = _ABSENT if each.constant is None else f"{100 * each.constant:.1f}"
    return (each.id, each.kind or _ABSENT, *sizes, each.metric, f"{each.words:.0f}", constant)


def _shares(each: TaskStatistics) -> str:
    if each.target_words is not None:
        return f"texts of {each.target_words:.0f} words"
    shares = ", ".join(f"{answer} {100 * share:.0f}%" for answer, share in each.shares.items())
    return shares + ("" if each.reported == "validation" else f" (of {each.reported})")


def _guessed(found: Guess, label_given: bool, text_given: bool) -> str:
    """What `tasks new` made of the columns."""
    guessed = "" if text_given else " (a guess: --text COLUMN ...)"
    texts = ("texts", ", ".join(c.name for c in found.texts) + guessed)
    if found.is_generation:
        written = f"{found.label.name} ({found.label.words / found.label.rows:.0f} words)"
        left = ("left out", ", ".join(found.others) or "nothing")
        return table([("target", written), texts, left, ("template", found.template)])
    counts = ", ".join(f"{value} ({n:,})" for value, n in found.label.counts.most_common(8))
    more = len(found.label.counts) - 8
    rows = [
        ("label", f"{found.label.name}{'' if label_given else ' (a guess: --label COLUMN changes it)'}"),
        ("labels", counts + (f" and {more} more" if more > 0 else "")),
        texts,
        ("left out", ", ".join(found.others) or "nothing"),
        ("template", found.template),
        ("answers", ", ".join(found.answers.values()) + (" (edit them)" if found.to_be_edited else "")),
    ]
    return table(rows)
