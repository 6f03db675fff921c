"""The comparison table: what the winner is held against, one row each, from run.json alone."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from softprune.report import formatting as words
from softprune.report.formatting import NOT_APPLICABLE, NOT_MEASURED
from softprune.report.run_reader import Run
from softprune.runs.record_parts import ResultRow
from softprune.terminal import Table, literal

LABELS = {
    "constant": "best constant answer",
    "zero_shot": "zero-shot, no prompt",
    "instruction": "the instruction in words",
    "tuned": "tuned prompt",
    "adapted": "adapted model",
    "control": "control, unpruned, retrained",
    "random": "random mask, retrained",
    "winner": "winning ticket",
}
_BESIDE = ("constant", "zero_shot", "instruction")
ROWS = {"tune": (*_BESIDE, "tuned"), "adapt": (*_BESIDE, "adapted")}
"""Which rows of `results` a kind of run has that prunes nothing."""
XPROMPT_ROWS = (*_BESIDE, "tuned", "control", "random", "winner")
COPIED = "the text's own"
"""What stands in the place of the best constant answer where texts are written, before how many sentences."""
WRITTEN = {"loss": "loss", "rouge1": "ROUGE-1 (%)", "rouge2": "ROUGE-2 (%)", "words": "words"}
"""Fields of written texts, and their headings."""
BELOW = ("predicted", *WRITTEN)
"""Fields that stand under the table in a terminal."""
PROMPTLESS = ("constant", "zero_shot")
UNTRAINED = (*PROMPTLESS, "instruction")
RESEEDED = ("control", "random", "winner")
SHORT = {"interval": "95% CI", "fresh": "fresh seeds", "parameters": "params"}
"""Headings in a terminal, where room is short."""
MARK = " ‡"
MARK_MEANING = "‡ not shown to be above the best constant answer"
MARK_OF_WRITTEN = "‡ not shown to be above the text's own first sentences"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row as it is shown.

    Attributes:
        name: its key in run.json.
        label: its name for people.
        value, interval, fresh: percent.
        tokens, pieces, parameters, seconds, predicted, loss, rouge1, rouge2, words: as text.
        measured: whether there is anything in it.
        at_chance: whether its interval reaches down to the best constant answer.
    """

    name: str
    label: str
    value: str
    interval: str
    fresh: str
    tokens: str
    pieces: str
    parameters: str
    seconds: str
    predicted: str
    measured: bool
    at_chance: bool
    loss: str = NOT_APPLICABLE
    rouge1: str = NOT_APPLICABLE
    rouge2: str = NOT_APPLICABLE
    words: str = NOT_APPLICABLE


def columns(run: Run) -> tuple[tuple[str, str], ...]:
    """Field and heading of each column; a run that only tunes retrains nothing, so it has no fresh seeds."""
    found = (
        ("label", "prompt"),
        ("value", f"{words.metric(run.metric)} (%)"),
        ("interval", "95% interval"),
        ("fresh", "fresh seeds (%)"),
        ("tokens", "tokens"),
        ("pieces", "pieces"),
        ("parameters", "parameters"),
        ("seconds", "seconds"),
        *(WRITTEN.items() if run.is_generation else (("predicted", "answers given"),)),
    )
    return tuple(column for column in found if run.prunes or column[0] != "fresh")


def comparison_rows(run: Run) -> list[TableRow]:
    """The rows in their fixed order; a run that only tunes has no control, random mask or winner.

    The instruction has a row where it was measured: a task of one's own may have none.
    """
    names = [name for name in ROWS.get(run.record.kind, XPROMPT_ROWS) if name != "instruction" or run.results[name]]
    constant = run.results["constant"]
    floor = None if constant is None else constant.value
    return [_row(name, labels(run)[name], run.results[name], floor, run.is_generation) for name in names]


def labels(run: Run) -> dict[str, str]:
    """The rows' names for people."""
    adapter = run.record.adapter
    return LABELS | ({} if adapter is None else {"adapted": f"adapted by {adapter.method}"})


def mark_meaning(run: Run) -> str:
    """What the mark of a row at chance says."""
    return MARK_OF_WRITTEN if run.is_generation else MARK_MEANING


def rich_table(run: Run) -> Table:
    """The table for a terminal; what was answered stands under it, so that it fits into 80 columns."""
    rows = comparison_rows(run)
    table = Table(
        title=literal(run.title),
        caption=_below(run, rows),
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold underline",
    )
    fields = [(field, heading) for field, heading in columns(run) if field not in BELOW]
    longest_word = max(len(word) for row in rows for word in row.label.split())
    for field, long in fields:
        label = field == "label"
        table.add_column(
            SHORT.get(field, long).replace(" (", "\n("),
            justify="left" if label else "right",
            overflow="fold",
            min_width=min(longest_word, 16) if label else None,
        )
    for row in rows:
        cells = [shown(row, field) for field, _ in fields]
        table.add_row(*cells, style="bold" if row.name == "winner" else None)
    return table


def _below(run: Run, rows: list[TableRow]) -> Text:
    """The meaning of the mark, and how often each prompt gave each answer, or what its texts were like."""
    marked = [mark_meaning(run)] if any(row.at_chance for row in rows) else []
    told = _written if run.is_generation else _given
    names = [row.label if run.is_generation else labels(run)[row.name] for row in rows]
    answers = [f"{name.partition(',')[0]}: {told(row)}" for name, row in zip(names, rows, strict=True) if row.measured]
    head = "what was written" if run.is_generation else "answers given"
    return literal("\n".join([*marked, *([head] if answers else []), *answers]))


def _given(row: TableRow) -> str:
    return row.predicted


def _written(row: TableRow) -> str:
    loss = "" if row.loss == NOT_APPLICABLE else f"loss {row.loss}, "
    return f"{loss}ROUGE-1 {row.rouge1}, ROUGE-2 {row.rouge2}, {row.words} words"


def shown(row: TableRow, field: str) -> str:
    """A cell; the value carries the mark of a row at chance."""
    text = str(getattr(row, field))
    return text + MARK if field == "value" and row.at_chance else text


def _row(name: str, label: str, result: ResultRow | None, floor: float | None, writes: bool) -> TableRow:
    measured, found = result is not None, result or ResultRow(metric="", value=None)
    if found.answer is not None:
        answer = words.printable(found.answer)
        label = f"{COPIED} {answer}" if writes else f"{label} ({answer})"
    sizes = {field: _size(name, field, getattr(found, field)) for field in ("tokens", "pieces", "parameters")}
    seeds = None if found.seeds is None else [value for value in found.seeds if value is not None]
    low = found.interval[0] if found.interval else None
    return TableRow(
        name=name,
        label=label,
        value=words.percent(found.value),
        interval=words.interval(found.interval),
        fresh=words.spread(seeds) if name in RESEEDED else NOT_APPLICABLE,
        **sizes,
        seconds=NOT_APPLICABLE if name in UNTRAINED else words.seconds(found.seconds),
        predicted=words.counts(found.predicted),
        measured=measured,
        at_chance=name != "constant" and low is not None and floor is not None and low <= floor,
        loss=NOT_APPLICABLE if name == "constant" else words.number(found.loss),
        rouge1=words.percent(found.rouge1),
        rouge2=words.percent(found.rouge2),
        words=NOT_MEASURED if found.words is None else f"{found.words:.1f}",
    )


def _size(name: str, field: str, value: int | None) -> str:
    if name in PROMPTLESS or (name in UNTRAINED and field != "tokens") or (name == "adapted" and value is None):
        return NOT_APPLICABLE
    return NOT_MEASURED if value is None else words.number(value)
