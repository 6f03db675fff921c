"""The comparison table: what the winner is compared with, one row each, from run.json alone."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from softprune.report import formatting
from softprune.report.formatting import NOT_APPLICABLE, NOT_MEASURED
from softprune.report.run_reader import Run
from softprune.runs.record_parts import ResultRow
from softprune.terminal import Table, literal
from softprune.types import Candidate

LABELS = {
    "constant": "best constant answer",
    "zero_shot": "zero-shot, no prompt",
    "instruction": "the instruction in words",
    "document": "the whole document",
    "tuned": "tuned prompt",
    "adapted": "adapted model",
    "control": "control, unpruned, retrained",
    "random": "random mask, retrained",
    "winner": "winning ticket",
}
_UNTRAINED = ("constant", "zero_shot", "instruction", "document")
_PRUNED = ("tuned", "control", "random", "winner")
_TRAINED = {"tune": ("tuned",), "adapt": ("adapted",)}
"""Rows of `results` that a kind of run has which prunes nothing."""
_TRAINING = ("fresh", "seconds", "pieces", "parameters")
_ABSENT = {
    "constant": (*_TRAINING, "tokens", "loss"),
    "zero_shot": (*_TRAINING, "tokens"),
    "instruction": _TRAINING,
    "document": _TRAINING,
    "tuned": ("fresh",),
    "adapted": ("fresh",),
}
"""Columns that don't apply to a row."""
_WRITTEN = {"loss": "loss", "rouge1": "ROUGE-1 (%)", "rouge2": "ROUGE-2 (%)", "words": "words"}
"""Fields of written texts, and their headings."""
_EXACT = {"loss": "loss", "extracted": "with an answer (%)", "words": "words"}
"""The same where an answer in a text is right or wrong."""
_BELOW = ("predicted", *_WRITTEN, *_EXACT)
"""Fields that are written under the table in a terminal, which then fits into 80 columns."""
_SHORT = {"interval": "95% CI", "fresh": "fresh seeds", "parameters": "params"}
"""Headings in a terminal."""
_MARK = " ‡"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row as it is shown."""

    name: str  # its key in run.json
    label: str  # its name for people
    cells: dict[str, str]  # the other columns as text; scores in percent
    measured: bool  # whether there is anything in it
    at_chance: bool  # whether its interval reaches down to the best constant answer


def columns(run: Run) -> tuple[tuple[str, str], ...]:
    """Field and heading of each column; a run that only tunes retrains nothing, so it has no fresh seeds."""
    beside = {"predicted": "answers given"}
    if run.is_generation:
        beside = _EXACT if run.is_exact else _WRITTEN
    return (
        ("label", "prompt"),
        ("value", f"{formatting.metric(run.metric)} (%)"),
        ("interval", "95% interval"),
        *((("fresh", "fresh seeds (%)"),) if run.prunes else ()),
        ("tokens", "tokens"),
        ("pieces", "pieces"),
        ("parameters", "parameters"),
        ("seconds", "seconds"),
        *beside.items(),
    )


def comparison_rows(run: Run) -> list[TableRow]:
    """The rows in their fixed order; a run that only tunes has no control, random mask or winner.

    Instruction and document have a row where they were measured: a task of one's own may have no instruction.
    """
    constant = run.results["constant"]
    floor = None if constant is None else constant.value
    rows = []
    for name in (*_UNTRAINED, *_TRAINED.get(run.record.kind, _PRUNED)):
        if name not in ("instruction", "document") or run.results[name]:
            rows.append(_make_row(name, labels(run)[name], run.results[name], floor, is_copied(run)))
    return rows


def labels(run: Run) -> dict[str, str]:
    """The rows' names for people."""
    adapter = run.record.adapter
    return LABELS | ({} if adapter is None else {"adapted": f"adapted by {adapter.method}"})


def is_copied(run: Run) -> bool:
    """Whether the first sentences of the input take the place of a constant answer."""
    return run.is_generation and not run.is_exact


def mark_meaning(run: Run) -> str:
    """What the mark of a row at chance says."""
    floor = "the text's own first sentences" if is_copied(run) else "the best constant answer"
    return f"‡ not shown to be above {floor}"


def rich_table(run: Run) -> Table:
    """The table for a terminal; below it the meaning of the mark, and what was answered or written."""
    rows = comparison_rows(run)
    table = Table(
        title=literal(run.title),
        caption=_describe_answers(run, rows),
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold underline",
    )
    fields = [(field, heading) for field, heading in columns(run) if field not in _BELOW]
    longest_word = max(len(word) for row in rows for word in row.label.split())
    for field, heading in fields:
        is_label = field == "label"
        table.add_column(
            _SHORT.get(field, heading).replace(" (", "\n("),
            justify="left" if is_label else "right",
            overflow="fold",
            min_width=min(longest_word, 16) if is_label else None,
        )
    for row in rows:
        cells = [shown(row, field) for field, _ in fields]
        table.add_row(*cells, style="bold" if row.name == "winner" else None)
    return table


def _describe_answers(run: Run, rows: list[TableRow]) -> Text:
    """How often each prompt gave each answer, or what its texts were like."""
    lines = []
    for row in rows:
        if not row.measured:
            continue
        if run.is_generation:
            loss = "" if row.cells["loss"] == NOT_APPLICABLE else f"loss {row.cells['loss']}, "
            found = "{extracted}% with an answer" if run.is_exact else "ROUGE-1 {rouge1}, ROUGE-2 {rouge2}"
            answers = (loss + found + ", {words} words").format(**row.cells)
            label = row.label
        else:
            answers, label = row.cells["predicted"], labels(run)[row.name]
        lines.append(f"{label.partition(',')[0]}: {answers}")
    if lines:
        lines.insert(0, "what was written" if run.is_generation else "answers given")
    if any(row.at_chance for row in rows):
        lines.insert(0, mark_meaning(run))
    return literal("\n".join(lines))


def shown(row: TableRow, field: str) -> str:
    """A cell; the value carries the mark of a row at chance."""
    text = row.label if field == "label" else row.cells[field]
    return text + _MARK if field == "value" and row.at_chance else text


def candidate_cells(run: Run, candidate: Candidate) -> dict[str, str]:
    """What was measured of a candidate, as the page writes it in its table, its charts and its controls."""
    select = formatting.number(candidate.select_loss) if run.is_generation else formatting.percent(candidate.select)
    return {
        "id": formatting.printable(candidate.id),
        "tokens": formatting.number(candidate.tokens_kept),
        "pieces": formatting.number(candidate.pieces_kept),
        "parameters": formatting.number(candidate.parameters),
        "rankLoss": formatting.number(candidate.rank_loss),
        "select": select,
        "report": formatting.percent(candidate.report),
        "interval": formatting.interval(candidate.interval),
    }


def _make_row(name: str, label: str, result: ResultRow | None, floor: float | None, copied: bool) -> TableRow:
    row = result or ResultRow(metric="", value=None)
    if row.answer is not None:
        answer = formatting.printable(row.answer)
        label = f"the text's own {answer}" if copied else f"{label} ({answer})"
    cells = {
        "value": formatting.percent(row.value),
        "interval": formatting.interval(row.interval),
        "fresh": formatting.spread([value for value in row.seeds or () if value is not None]),
        "tokens": formatting.number(row.tokens),
        "pieces": formatting.number(row.pieces),
        "parameters": formatting.number(row.parameters),
        "seconds": formatting.seconds(row.seconds),
        "predicted": formatting.counts(row.predicted),
        "loss": formatting.number(row.loss),
        "rouge1": formatting.percent(row.rouge1),
        "rouge2": formatting.percent(row.rouge2),
        "extracted": formatting.percent(row.extracted),
        "words": NOT_MEASURED if row.words is None else f"{row.words:.1f}",
    }
    cells |= dict.fromkeys(_ABSENT.get(name, ()), NOT_APPLICABLE)
    for field in ("tokens", "pieces", "parameters"):
        if name == "adapted" and getattr(row, field) is None:  # each method has some of these sizes
            cells[field] = NOT_APPLICABLE
    at_chance = name != "constant" and row.interval is not None and floor is not None and row.interval[0] <= floor
    return TableRow(name, label, cells, result is not None, at_chance)
